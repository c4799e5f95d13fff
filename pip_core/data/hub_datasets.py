"""Rows of datasets on the Hugging Face Hub.

Datasets are streamed by the `datasets` library: only as many rows as are needed are fetched, and
those are kept in the cache, so that the same rows can be read again without a network. The commit of
a dataset's revision is looked up once per machine and then kept, so that a recipe draws the same text
at any later time. No code from a repository is ever run, and no file outside the repository is read.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..core.errors import UserError, shortened, some
from ..core.network import HUB_TIMEOUT, check_download, hub_token, is_unreachable, own_login
from ..core.paths import cache_folder
from .files import plain
from .files import rows as rows  # so that callers find both kinds of rows here

MOST_ROWS = 200_000
# What `datasets` reads as plain data; others of its readers unpickle, or decode media.
PLAIN_READERS = ("parquet", "json", "csv", "text", "arrow")
FORM = "hub:OWNER/NAME[/CONFIG][:SPLIT][@REVISION][#FIELD]"
_HUB = re.compile(
    r"hub:(?P<dataset>[\w.-]+/[\w.-]+)(?:/(?P<config>[^/:@#]+))?(?::(?P<split>[^/@#]+))?"
    r"(?:@(?P<revision>[^#]+))?(?:#(?P<field>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubSet:
    """One split of a dataset on the Hub.

    Attributes:
        config: one of its configurations; None where it has only one.
        revision: commit, branch or tag; None is the main branch.
        field: the column that holds its texts; None lets `column_of` find it.
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    field: str | None = None

    @staticmethod
    def parse(reference: str) -> HubSet:
        """Read `hub:OWNER/NAME[/CONFIG][:SPLIT][@REVISION][#FIELD]`.

        Raises:
            UserError: written otherwise.
        """
        found = _HUB.fullmatch(reference)
        if not found:
            raise UserError(
                f"'{reference}' is not a dataset on the Hub: write {FORM}, for example "
                "hub:Salesforce/wikitext/wikitext-2-raw-v1:test."
            )
        return HubSet(**{k: v for k, v in found.groupdict().items() if v is not None})

    def __str__(self) -> str:
        parts = (("/", self.config), (":", self.split), ("@", self.revision), ("#", self.field))
        return f"hub:{self.dataset}" + "".join(mark + value for mark, value in parts if value)


def hub_rows(
    dataset: str, config: str | None, split: str, revision: str | None = None, limit: int = 0
) -> list[dict]:
    """Rows of a dataset on the Hub, the first ones first, as plain values (texts, numbers, lists, dicts).

    Args:
        dataset: `OWNER/NAME`.
        revision: commit, branch or tag; None is the main branch at the time it was first asked for (see
            `hub_revision`).
        limit: read only the first so many rows; 0 reads all.

    Raises:
        UserError: no such dataset, configuration, split or revision, no access, no plain data, more
            than 200,000 rows without a limit, or rows that are not in the cache while the Hub does
            not answer.
    """
    return read_hub(HubSet(dataset, config, split, revision), limit)


def read_hub(
    chosen: HubSet, need: int = 0, weight: Callable[[dict], int] = lambda row: 1, online: bool = True
) -> list[dict]:
    """The first rows whose weights add up to `need`; all rows where there are not enough, or for 0.

    Args:
        online: False reads the cache alone, even where it holds less than `need`.

    Raises:
        UserError: as `hub_rows`; without `online`, nothing in the cache.
    """
    sha = hub_revision(chosen.dataset, chosen.revision) if online or is_cached(chosen) else ""
    store = _store(chosen, sha)
    if store.is_file():
        with store.open(encoding="utf-8") as lines:
            complete = json.loads(next(lines))["complete"]
            found, enough = _first(map(json.loads, lines), need, weight, chosen)
        if enough or complete or not online:
            return found
    if not online:
        raise UserError(f"The {_name(chosen)} has not been fetched yet.")
    check_download(f"The {_name(chosen)}")
    found, enough = _first(_with_clear_errors(chosen, _stream(chosen, sha)), need, weight, chosen)
    if not found:
        raise UserError(f"The {_name(chosen)} holds no rows in its split '{chosen.split}'.")
    head = {"complete": not enough, "dataset": chosen.dataset, "revision": sha}
    _keep(store, "".join(json.dumps(row) + "\n" for row in (head, *found)))
    return found


def is_cached(chosen: HubSet) -> bool:
    """Whether rows of this dataset can be read without a network."""
    sha = _known_revision(chosen.dataset, chosen.revision)
    return sha is not None and _store(chosen, sha).is_file()


def hub_revision(dataset: str, revision: str | None = None) -> str:
    """The commit that `revision` of a dataset stands for, 40 hexadecimal digits.

    The Hub is asked once; from then on the answer is the same commit on this machine, so that the same
    recipe reads the same rows.

    Raises:
        UserError: no such dataset or revision, or the Hub does not answer.
    """
    if known := _known_revision(dataset, revision):
        return known
    chosen = HubSet(dataset, revision=revision)
    check_download(f"The {_name(chosen)}")
    with _clear_errors(chosen):
        info = _ask_hub(dataset, revision)
    if info.sha is None:
        raise UserError(f"The Hub names no commit of the dataset '{dataset}'.")
    _keep(_pin(dataset, revision), info.sha)
    return info.sha


def _ask_hub(dataset: str, revision: str | None) -> huggingface_hub.DatasetInfo:
    """A dataset's description on the Hub. It is asked for before any file, since `datasets` repeats failed
    requests for half a minute, and this fails at once."""
    return huggingface_hub.HfApi(token=hub_token()).dataset_info(
        dataset, revision=revision, timeout=HUB_TIMEOUT
    )


def _known_revision(dataset: str, revision: str | None) -> str | None:
    """The commit, where it is known without a network."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise UserError(f"'{dataset}' is not the name of a dataset on the Hub: that is OWNER/NAME.")
    if revision and _COMMIT.fullmatch(revision):
        return revision
    pin = _pin(dataset, revision)
    return pin.read_text(encoding="utf-8").strip() if pin.is_file() else None


def _folder(dataset: str) -> Path:
    # What somebody's token gave is not for visitors of a Space, which may share a cache with them.
    kind = "datasets-without-token" if hub_token() is False else "datasets"
    return cache_folder() / kind / dataset.replace("/", "--")


def _pin(dataset: str, revision: str | None) -> Path:
    return _folder(dataset) / f"{quote(revision or 'default branch', safe='')}.commit"


def _store(chosen: HubSet, sha: str) -> Path:
    name = f"{quote(chosen.config or '', safe='')}--{quote(chosen.split, safe='')}.jsonl"
    return _folder(chosen.dataset) / sha / name


def _keep(path: Path, text: str) -> None:
    """Write a file in one step, so that no other process reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=".writing-", delete=False
    ) as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def _first(
    stream: Iterable[dict], need: int, weight: Callable[[dict], int], chosen: HubSet
) -> tuple[list[dict], bool]:
    """Rows until their weights reach `need`, and whether they did."""
    found, sum_ = [], 0
    for row in stream:
        found.append(row)
        sum_ += weight(row)
        if need and sum_ >= need:
            return found, True
        if not need and len(found) > MOST_ROWS:
            raise UserError(
                f"The {_name(chosen)} has more than {MOST_ROWS:,} rows in its split '{chosen.split}': name "
                "how many are to be read."
            )
    return found, False


def _stream(chosen: HubSet, sha: str) -> Iterator[dict]:
    """Rows as `datasets` streams them, in types that JSON has."""
    import datasets  # half a second, and most runs never need it

    _ask_hub(chosen.dataset, sha)
    # Its own settings are 20 attempts with 5 seconds between them.
    datasets.config.STREAMING_OPEN_MAX_RETRIES = datasets.config.STREAMING_READ_MAX_RETRIES = 2
    datasets.config.STREAMING_READ_RETRY_INTERVAL = 1
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # errors are reported below, once
    try:
        builder = datasets.load_dataset_builder(
            chosen.dataset, chosen.config, revision=sha, token=hub_token()
        )
    except ValueError as error:
        names = datasets.get_dataset_config_names(chosen.dataset, revision=sha, token=hub_token())
        if chosen.config in names or (chosen.config is None and len(names) < 2):
            raise
        wrong = f"no configuration '{chosen.config}'" if chosen.config else "several configurations"
        raise UserError(
            f"The {_name(chosen)} has {wrong}; name one of {some(names)}: {FORM.split('[:')[0]}]."
        ) from error
    files = [str(f) for split in (builder.config.data_files or {}).values() for f in split]
    # A repository's card may name any file as its data: a local one, or another machine's.
    inside = f"hf://datasets/{chosen.dataset}@{sha}/"
    if builder.name not in PLAIN_READERS or not files or not all(f.startswith(inside) for f in files):
        raise UserError(
            f"The {_name(chosen)} is not plain data: only Parquet, JSON, CSV, text and Arrow files that lie "
            "in the repository itself are read."
        )
    if chosen.split not in builder.config.data_files:
        splits = some(builder.config.data_files)
        raise UserError(f"The {_name(chosen)} has no split '{chosen.split}'; it has {splits}.")
    for row in builder.as_streaming_dataset(split=chosen.split).decode(False):
        yield {name: plain(value) for name, value in row.items()}


def _with_clear_errors(chosen: HubSet, stream: Iterator[dict]) -> Iterator[dict]:
    with _clear_errors(chosen):
        yield from stream


@contextmanager
def _clear_errors(chosen: HubSet) -> Iterator[None]:
    """Turn errors of the Hub's libraries into UserErrors of one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries have a class for each way to fail, and publish no list of them
        raise UserError(_sentence(chosen, error)) from error


def _sentence(chosen: HubSet, error: Exception) -> str:
    name, text = _name(chosen), " ".join(str(error).split())
    if isinstance(error, GatedRepoError) or "gated dataset" in text:
        return f"The {name} is gated: accept its terms on the Hub, then {own_login()}."
    if isinstance(error, RevisionNotFoundError):
        return f"The {name} has no revision '{chosen.revision}'. Leave it out for the main branch."
    if isinstance(error, RepositoryNotFoundError) or "doesn't exist on the Hub" in text:
        return (
            f"The Hub has no dataset '{chosen.dataset}', or it is private. Check the spelling; for a "
            f"private dataset {own_login()}."
        )
    if "scripts are no longer supported" in text:
        return (
            f"The {name} is a loading script, and no code from a repository is run here. Its plain data "
            "may be in the revision @refs/convert/parquet."
        )
    if isinstance(error.__cause__, StopIteration):  # how `datasets` fails on a file without a row
        return f"The {name} holds no rows in its split '{chosen.split}'."
    if "doesn't contain any data files" in text or "No (supported) data files" in text:
        return f"The {name} holds no data files that could be read."
    if is_unreachable(error):
        return (
            f"The Hub does not answer, and the {name} is not in the local cache "
            f"({type(error).__name__}). Check the network, or choose a shipped text or task, or a file."
        )
    return f"The {name} could not be read: {shortened(text) or type(error).__name__}."


def _name(chosen: HubSet) -> str:
    return f"dataset '{chosen.dataset}{'/' + chosen.config if chosen.config else ''}'"
