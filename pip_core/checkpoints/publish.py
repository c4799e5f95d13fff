"""Pushing an exported model to the Hub. It counts as done when it was loaded back from there and verified.

Large files are uploaded one after the other, and a single commit makes all of them visible: whoever loads the
repository sees the old model or the new one, never half of each. (`upload_folder` makes a commit for every
batch of files since release 2 of the Hub's client.) What was uploaded before a push broke off is known to
the Hub by its content, so the next push does not send it again.

The token is that of whoever pushes; it is held by the Hub's client alone.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_token
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..core.disk_use import bytes_of
from ..core.errors import UserError
from ..core.events import Loading
from ..core.limits import local_files
from ..core.network import HUB_TIMEOUT
from ..core.progress import in_background, map_progress, once_a_second
from ..data.corpora import pasted_settings
from .checksum import file_sha256
from .export import CARD, RECIPE
from .folder import Source, licence_of
from .load import load_folder
from .push_failures import new_token, push_failure
from .verify import verify

MAIN = "main"
# What the Hub itself puts into every new repository.
HUBS_OWN = ".gitattributes"
# Read by both models when they are compared.
PROBE = (
    "The river had risen in the night, and by morning the lower fields were under water. Nobody in the "
    "village could remember a spring like it, though the oldest of them tried: there had been floods before."
)
NAMED_FILES = 4
# Such a file is uploaded by itself, so that progress can be reported after it.
LARGE_BYTES = 2**24


@dataclass(frozen=True)
class Pushed:
    """A model that is on the Hub and was verified.

    Attributes:
        repo, commit: OWNER/NAME, and the commit that was loaded back.
        url: page of that commit.
        private: whether only its owner sees it.
        bytes: size of its files.
        largest_difference: of the logits, between the model on the Hub and the one on this machine.
    """

    repo: str
    commit: str
    url: str
    private: bool
    bytes: int
    largest_difference: float


@dataclass
class _Place:
    """Where a model is pushed to.

    Attributes:
        private: whether the repository is private.
        head: last commit of the branch; empty for a branch that is not there.
        files: checksums of what the branch holds, by path.
        undo: takes back what this push made so far.
    """

    private: bool = True
    head: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    undo: Callable[[], None] | None = None


def push(
    folder: Path,
    repo: str,
    *,
    public: bool = False,
    revision: str = MAIN,
    overwrite: bool = False,
    token: str = "",
    api: HfApi | None = None,
) -> Generator[Loading, None, Pushed]:
    """Push the exported model in `folder` to the repository `repo`, and verify what the Hub gives back.

    A repository that is not there is made, private. Where the branch holds something else than this model,
    nothing is changed unless `overwrite`; then it holds exactly this model, and its history what was there.
    A push that fails before its commit takes back what it made.

    Args:
        folder: as `export.put_in_place` left it.
        repo: OWNER/NAME.
        public: make the repository public, after the verification.
        revision: branch; made from the main branch where it is not there.
        token: of whoever pushes; by default that of the environment, or of `hf auth login`.
        api: client of the Hub; by default one with the token.

    Raises:
        UserError: whatever went wrong, in a sentence for each kind.
    """
    files = exported_files(folder)
    owner = _owner(repo)
    api = api or HfApi(token=token or _own_token(), library_name="pip-studio")
    place = _Place()
    try:
        _check_owner(api, owner)
        existing = _look(api, repo, revision)
        place = existing or _Place()
        if public or not place.private:
            _refuse_private_texts(folder)
        if existing and not overwrite:
            _refuse_taken(repo, revision, place.files, files)
        _make(api, repo, revision, place, existing is not None)
        commit = yield from _upload(api, repo, revision, place, files)
    except BaseException as error:
        left = _take_back(place, repo)
        failure = push_failure(error, repo)
        if failure is None:
            raise
        raise UserError(f"{failure} {left}".strip()) from error
    try:
        difference = yield from _verify(api, repo, commit, folder, files)
        if public and place.private:
            api.update_repo_settings(repo, private=False)
    except (Exception, KeyboardInterrupt) as error:
        failure = push_failure(error, repo)
        if failure is None:
            raise
        raise UserError(
            f"'{repo}' holds the model as commit {commit[:12]}, but it was not verified: {failure} "
            "The same push once more goes on from there."
        ) from error
    url = f"{api.endpoint}/{repo}/tree/{commit}"
    return Pushed(repo, commit, url, place.private and not public, bytes_of(folder), difference)


def exported_files(folder: Path) -> dict[str, Path]:
    """The files of an exported model, by their path in a repository.

    Raises:
        UserError: the folder holds none.
    """
    if not (folder / RECIPE).is_file() or not (folder / CARD).is_file():
        raise UserError(f"'{folder}' holds no exported model. Finish the run first, or export it.")
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _own_token() -> str:
    """The token of the person whose machine this is. It is not for strangers."""
    found = get_token() if local_files() else None
    if not found:
        raise UserError(f"A push needs your token. {new_token()}")
    return found


def _owner(repo: str) -> str:
    """The first half of OWNER/NAME."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = ""
    owner, slash, _ = repo.partition("/")
    if not slash:
        raise UserError(
            "A repository is named OWNER/NAME, of letters, digits, '-', '_' and '.', such as "
            "'me/smollm2-135m-pruned'."
        )
    return owner


def _check_owner(api: HfApi, owner: str) -> None:
    """Check that the token may write and that `owner` is its owner, or an organisation of theirs."""
    who = api.whoami()
    role = who.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(f"Your token may only read. {new_token()}")
    names = [who["name"], *(organisation["name"] for organisation in who.get("orgs", []))]
    if owner.lower() not in (name.lower() for name in names):
        raise UserError(f"You cannot push to '{owner}'. Your token is for {', '.join(names)}.")


def _look(api: HfApi, repo: str, revision: str) -> _Place | None:
    """What the branch holds; None where there is no such repository."""
    try:
        info = api.model_info(repo, files_metadata=True, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError:
        return None
    if revision != MAIN:
        try:
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT)
        except RevisionNotFoundError:
            return _Place(private=bool(info.private))
    return _Place(private=bool(info.private), head=info.sha or "", files=_checksums(info))


def _checksums(info: ModelInfo) -> dict[str, str]:
    """SHA-256 of files that are stored outside of git, git's own checksum of the others, by path."""
    return {f.rfilename: f.lfs.sha256 if f.lfs else (f.blob_id or "") for f in info.siblings or []}


def _refuse_taken(repo: str, revision: str, there: Mapping[str, str], files: Mapping[str, Path]) -> None:
    """Check that a branch holds nothing but what is pushed. A push that broke off, or that is made once more,
    overwrites nothing."""
    other = [
        name
        for name, checksum in there.items()
        if name != HUBS_OWN
        and not (name in files and checksum in (_git_oid(files[name]), file_sha256(files[name])))
    ]
    if other:
        named = ", ".join(other[:NAMED_FILES]) + (", ..." if len(other) > NAMED_FILES else "")
        where = f"'{repo}'" if revision == MAIN else f"'{repo}' (revision '{revision}')"
        raise UserError(
            f"{where} already holds {len(other)} other file{'s' if len(other) > 1 else ''} ({named}). Choose "
            "another name or branch, or let the push overwrite them (--overwrite); its history keeps them."
        )


def _git_oid(path: Path) -> str:
    """The name that git gives to the content of a file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _refuse_private_texts(folder: Path) -> None:
    """Check that the recipe beside the model holds no text that somebody pasted."""
    facts = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    if pasted := pasted_settings(facts.get("recipe", {})):
        raise UserError(
            f"The recipe beside the model holds text of your own ({', '.join(pasted)}), which everybody "
            "could read in a public repository. Push it to a private one; its settings can make that public."
        )


def _make(api: HfApi, repo: str, revision: str, place: _Place, existed: bool) -> None:
    """Make the repository and the branch where they are not there."""
    if not existed:
        api.create_repo(repo, private=True)
        place.undo = lambda: api.delete_repo(repo)
    if not place.head and revision != MAIN:
        api.create_branch(repo, branch=revision)
        place.undo = place.undo or (lambda: api.delete_branch(repo, branch=revision))
    if not place.head:
        made = api.model_info(repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT)
        place.head, place.files = made.sha or "", _checksums(made)


def _upload(
    api: HfApi, repo: str, revision: str, place: _Place, files: Mapping[str, Path]
) -> Generator[Loading, None, str]:
    """Upload `files` and make the commit that holds them and nothing else; returns it."""
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total, done, what = sum(sizes.values()), 0, f"uploading to {repo}"
    additions = {name: CommitOperationAdd(name, path) for name, path in files.items()}
    large = [name for name, size in sizes.items() if size >= LARGE_BYTES]

    def send(batch: Sequence[str]) -> None:
        parts = [additions[name] for name in batch]
        api.preupload_lfs_files(repo, parts, revision=revision, free_memory=False)

    for batch in ([name for name in files if name not in large], *([name] for name in large)):
        yield from in_background(partial(send, batch), partial(Loading, what, done, total))
        done += sum(sizes[name] for name in batch)
    gone = [CommitOperationDelete(name) for name in place.files if name not in (*files, HUBS_OWN)]

    def commit() -> str:
        made = api.create_commit(
            repo,
            [*additions.values(), *gone],
            commit_message="A model pruned by PIP Studio",
            revision=revision,
            parent_commit=place.head or None,
        )
        return made.oid

    return (yield from in_background(commit, lambda: Loading(what, done, total)))


def _verify(
    api: HfApi, repo: str, commit: str, folder: Path, files: Mapping[str, Path]
) -> Generator[Loading, None, float]:
    """Load the model back from the Hub by its commit, and compare it with the one in `folder`.

    Returns:
        The largest difference of logits.
    """
    total = sum(path.stat().st_size for path in files.values())
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pushed-") as place:
        back = Path(place, "model")

        def arrived() -> Loading:
            return Loading(f"loading {repo} back", min(bytes_of(back), total), total)

        yield from in_background(
            lambda: api.snapshot_download(repo, revision=commit, local_dir=back), arrived
        )
        for name, path in files.items():
            if not (back / name).is_file() or file_sha256(back / name) != file_sha256(path):
                raise UserError(f"The Hub gives back another '{name}' than was sent.")
        here = load_folder(Source(folder, folder.name, "an exported model", licence_of(folder)))
        steps = verify(here, back, PROBE)
        verdict = yield from map_progress(
            once_a_second(steps), lambda _: Loading(f"verifying {repo} in a fresh process", 0, 0)
        )
    return verdict.largest_difference


def _take_back(place: _Place, repo: str) -> str:
    """Take back what a failed push made; a sentence on what could not be."""
    if place.undo is None:
        return ""
    try:
        place.undo()
    except Exception:
        return f"What it made is left there: the next push to '{repo}' continues with it, or delete it."
    return "Nothing of it is left on the Hub."
