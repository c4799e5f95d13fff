"""Pushing to a Hub of our own by the Hub's real client: what is there afterwards, what a failure leaves."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from pip_core.checkpoints import publish
from pip_core.checkpoints.export import export_checkpoint
from pip_core.checkpoints.load import Source, load_folder
from pip_core.checkpoints.publish import Pushed, push
from pip_core.checkpoints.verify import verify
from pip_core.cli.main import main
from pip_core.core.errors import UserError
from pip_core.core.progress import BACKGROUND, drain, map_progress
from pip_core.core.recipe import Recipe
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape

from .. import tiny
from ..hub_writing import CUT, WritableHub

CARD = "---\nlicense: mit\ntags:\n- pip-studio\n---\n# A card\n"
REPO = "me/small"


@pytest.fixture(scope="module")
def model(tmp_path_factory, llama_folder) -> Path:
    """An exported model."""
    folder = tmp_path_factory.mktemp("pushed") / "model"
    loaded = load_folder(Source(llama_folder, "test/llama", "made for the tests", "mit"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pip_core.checkpoints.export.verify", tiny.unverified)
        shape, facts = Shape.dense(anatomy_of(loaded.config)), {"recipe": Recipe().to_dict()}
        drain(export_checkpoint(loaded, shape, folder, CARD, facts, publish.PROBE))
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    # The other way of uploading has a protocol of its own, and retries wait for seconds.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr(publish, "verify", tiny.unverified)
    with WritableHub(tmp_path / "hub").open() as opened:
        yield opened
        # What a test abandoned goes on in its thread, and would close the connections of the next one when it
        # finds nobody there any more.
        opened.faults.clear()
        for thread in threading.enumerate():
            if thread.name == BACKGROUND:
                thread.join(120)


def pushed(hub: WritableHub, model: Path, repo: str = REPO, token: str = "hf_writes", **options) -> Pushed:
    return drain(push(model, repo, api=HfApi(hub.url, token=token), **options))


def refused(hub: WritableHub, model: Path, repo: str = REPO, token: str = "hf_writes", **options) -> str:
    with pytest.raises(UserError) as caught:
        pushed(hub, model, repo, token, **options)
    return str(caught.value)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_push_is_private_complete_and_verified_in_a_fresh_process(hub, model, monkeypatch):
    monkeypatch.setattr(publish, "verify", verify)
    told = []
    steps = push(model, REPO, api=HfApi(hub.url, token="hf_writes"))
    result = drain(map_progress(steps, lambda step: told.append(step)))
    assert hub.private(REPO)
    assert result.private
    assert hub.written[REPO].branches["main"] == result.commit
    assert len(hub.written[REPO].commits) == 2  # what the Hub makes, and ours
    assert names(hub.head(REPO)) == {*names(model), ".gitattributes"}
    assert all((hub.head(REPO) / p.name).read_bytes() == p.read_bytes() for p in model.iterdir())
    assert result.largest_difference < 1e-5
    assert [step.done for step in told if step.what.startswith("uploading")][-1] == result.bytes
    assert names(model.parent) == {"model"}
    for path in model.iterdir():
        assert b"hf_writes" not in path.read_bytes()


def test_pushed_again_it_changes_nothing_and_another_model_is_not_overwritten(hub, model, tmp_path):
    first = pushed(hub, model)
    assert pushed(hub, model).commit == first.commit
    assert sum(request.startswith("PUT /lfs/") for request in hub.requests) == 1
    other = hub.head(REPO)
    hub.make("me/other", private=False, files={"config.json": "{}", "model.bin": "x"})
    message = refused(hub, model, "me/other")
    assert "config.json" in message
    assert "--overwrite" in message
    assert names(hub.head("me/other")) == {".gitattributes", "config.json", "model.bin"}
    assert pushed(hub, model, "me/other", overwrite=True).private is False
    assert names(hub.head("me/other")) == names(other)


def test_another_branch_leaves_the_main_one(hub, model):
    hub.make(REPO, private=True, files={"config.json": "{}"})
    assert pushed(hub, model, revision="smaller").commit == hub.written[REPO].branches["smaller"]
    assert names(hub.head(REPO)) == {".gitattributes", "config.json"}
    assert names(hub.head(REPO, "smaller")) == {*names(model), ".gitattributes"}


def test_it_is_made_public_only_once_it_is_verified(hub, model, monkeypatch):
    def differs(*_):
        raise UserError("The exported model answers differently.")
        yield

    monkeypatch.setattr(publish, "verify", differs)
    message = refused(hub, model, public=True)
    assert "not verified" in message
    assert hub.private(REPO)
    monkeypatch.setattr(publish, "verify", tiny.unverified)
    assert not pushed(hub, model, public=True).private
    assert not hub.private(REPO)


def test_what_the_hub_gives_back_is_compared(hub, model):
    commit = hub.commit

    def damaging(repo, branch, lines):
        sha = commit(repo, branch, lines)
        path = hub.written[repo].commits[sha] / "config.json"
        path.write_bytes(path.read_bytes() + b" ")
        return sha

    hub.commit = damaging
    assert "another 'config.json'" in refused(hub, model)


@pytest.mark.parametrize(
    ("part", "status", "words"),
    [
        ("GET /api/whoami", 401, "401"),
        ("GET /api/whoami", 429, "429"),
        ("GET /api/whoami", CUT, "connection"),
        ("POST /api/repos/create", 403, "may write at"),
        ("POST /api/repos/create", 409, "somebody else"),
        ("preupload", 503, "503"),
        ("PUT /lfs/", CUT, "connection"),
        ("PUT /lfs/", 500, "500"),
        ("/commit/", 429, "429"),
        ("/commit/", CUT, "connection"),
        ("/commit/", 403, "may write at"),
        ("POST /api/validate-yaml", 400, "card's fields"),
    ],
)
def test_a_push_that_fails_says_why_and_leaves_nothing(hub, model, part, status, words):
    hub.faults[part] = status
    message = refused(hub, model)
    assert words in message
    assert "hf_writes" not in message
    assert hub.written == {}
    hub.faults.clear()
    assert pushed(hub, model).private


def test_a_failed_push_takes_back_its_branch_alone(hub, model):
    hub.make(REPO, private=True)
    hub.faults["/commit/smaller"] = 500
    refused(hub, model, revision="smaller")
    assert set(hub.written[REPO].branches) == {"main"}


def test_a_stopped_push_leaves_nothing(hub, model):
    steps = push(model, REPO, api=HfApi(hub.url, token="hf_writes"))
    next(steps)
    assert REPO in hub.written
    steps.close()
    assert hub.written == {}
    steps = push(model, REPO, api=HfApi(hub.url, token="hf_writes"))
    next(steps)
    with pytest.raises(UserError, match=r"stopped. Nothing of it is left"):
        steps.throw(KeyboardInterrupt())
    assert hub.written == {}


def test_what_cannot_be_taken_back_is_said_and_continued(hub, model):
    hub.faults |= {"/commit/": 500, "DELETE": 500}
    assert "left there" in refused(hub, model)
    assert names(hub.head(REPO)) == {".gitattributes"}
    hub.faults.clear()
    assert pushed(hub, model).private


def test_who_may_push_where(hub, model, monkeypatch):
    assert "only read" in refused(hub, model, token="hf_reads")
    assert "401" in refused(hub, model, token="hf_unknown")
    assert "'them'" in refused(hub, model, "them/small")
    for name in ("small", "me/../small", "me/sm all", "a/b/c", ""):
        assert "OWNER/NAME" in refused(hub, model, name)
    monkeypatch.setattr(publish, "get_token", lambda: None)
    with pytest.raises(UserError, match="hf auth login"):
        drain(push(model, REPO))
    monkeypatch.setattr(publish, "get_token", lambda: "hf_of_the_space")
    monkeypatch.setenv("SPACE_ID", "me/space")
    with pytest.raises(UserError, match="Space"):
        drain(push(model, REPO))
    assert hub.written == {}
    assert pushed(hub, model).private  # with a visitor's
    assert hub.tokens == {"hf_reads", "hf_unknown", "hf_writes"}


def test_pasted_text_is_not_made_public(hub, model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "pip_recipe.json").write_text(json.dumps({"recipe": {"calibration": "text:a secret"}}))
    assert "calibration" in refused(hub, folder, public=True)
    hub.make("me/public", private=False)
    assert "calibration" in refused(hub, folder, "me/public")
    assert pushed(hub, folder).private


def test_the_command(hub, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish, "HfApi", partial(HfApi, hub.url))
    monkeypatch.setattr(publish, "get_token", lambda: "hf_writes")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["push", str(tmp_path), REPO]) == 2
    assert "no exported model" in capsys.readouterr().err
    assert main(["push", str(model), REPO]) == 0
    told = capsys.readouterr().out
    commit = hub.written[REPO].branches["main"]
    assert f"{hub.url}/{REPO}/tree/{commit}" in told
    assert "private" in told
    assert "hf_writes" not in told
