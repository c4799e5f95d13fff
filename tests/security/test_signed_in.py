"""Who signs in on a Space reads with a token of their own, kept nowhere; nobody reads with another's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from pip_core.checkpoints.gguf_export import teller_here
from pip_core.checkpoints.load import config_of, load, resolve
from pip_core.core import network
from pip_core.core.errors import UserError
from pip_core.core.events import Failed, Finished
from pip_core.core.network import asked_with, working_for
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.data import hub_datasets
from pip_core.data.corpora import calibration_texts
from pip_core.data.hub_datasets import HubSet
from pip_core.data.preview import preview
from pip_core.engine.run import run
from pip_core.planning.admission import admitted
from pip_core.planning.estimate import anatomy_for
from pip_core.runs import run_directory, worker

from .. import tiny
from ..hub_writing import WritableHub

MINE, OTHERS, SPACES = "hf_writes", "hf_others", "hf_of_the_space"
PRIVATE, GATED = "me/private", "org/gated"


@pytest.fixture
def hub(tmp_path, monkeypatch, llama_folder):
    """The Hub as a Space reaches it, with a private and a gated model."""
    found = huggingface_hub.constants
    with WritableHub(tmp_path / "hub").open() as opened:
        monkeypatch.setattr(found, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(found, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(found, "ENDPOINT", opened.url)
        monkeypatch.setattr(
            found,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            f"{opened.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        monkeypatch.setattr(found, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(network, "gettempdir", lambda: str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setenv("SPACE_ID", "somebody/space")
        monkeypatch.setenv("OAUTH_CLIENT_ID", "of the space")
        monkeypatch.setenv("HF_TOKEN", SPACES)
        for repo in (PRIVATE, GATED):
            opened.make(repo, private=repo == PRIVATE)
            files = {path.name: path.read_bytes() for path in llama_folder.iterdir()}
            opened.add(repo, "main", files, ())
        opened.admitting[GATED] = {"me"}
        yield opened
        assert SPACES not in opened.tokens


def refused(model: str) -> str:
    """Why a model is not read: neither its weights nor its config."""
    found = []
    for read in (lambda: drain(load(model)), lambda: config_of(model), lambda: anatomy_for(model)):
        with pytest.raises(UserError) as caught:
            read()
        found.append(str(caught.value))
    assert len(set(found)) == 1
    return found[0]


@pytest.mark.parametrize("model", [PRIVATE, GATED])
def test_what_one_visitor_reads_no_other_does(hub, model, tmp_path):
    assert "sign in on PIP Studio's page" in refused(model)
    with working_for(MINE):
        assert drain(load(model)).source.name == model
        assert anatomy_for(model).blocks
    assert hub.tokens == {MINE}
    assert "sign in on PIP Studio's page" in refused(model)
    with working_for(OTHERS):
        assert "does not show it to you" in refused(model)
    # Nor from a copy that is here, when the Hub cannot be asked.
    hub.faults["GET /api/models"] = 503
    assert "does not answer" in refused(model)
    assert not list(tmp_path.glob("cache/**/*.safetensors"))
    assert not list(tmp_path.glob(f"{network.PRIVATE}*"))


def test_what_the_machines_own_token_opens_is_not_for_visitors(hub, monkeypatch, tmp_path):
    """Neither a private model nor private rows, be they fetched by their owner before or not."""
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_TOKEN", MINE)
    hub.make("me/rows", private=True)
    hub.add("me/rows", "main", {"rows.jsonl": b'{"text": "x"}'}, ())
    rows = HubSet.parse("hub:me/rows")
    with monkeypatch.context() as own:
        own.delenv("SPACE_ID")
        sha = hub_datasets.hub_revision("me/rows")
        head = {"complete": True, "dataset": "me/rows", "revision": sha}
        kept = "".join(json.dumps(row) + "\n" for row in (head, {"text": "THE SECRET " * 100}))
        hub_datasets._keep(hub_datasets._store(rows, sha), kept)
        assert "SECRET" in str(calibration_texts(str(rows)))
        assert "SECRET" in preview(Recipe(calibration=str(rows))).text
    assert hub.tokens == {MINE}
    hub.tokens.clear()
    before = {path for path in tmp_path.rglob("*") if "hub" not in path.parts}
    for asked in ({"model": PRIVATE}, {"calibration": str(rows)}, {"heldout": f"{rows}@{sha}"}):
        recipe = tiny.recipe_for("demo").replace(**asked)
        *_, last = run(recipe, tmp_path / "out")
        assert isinstance(last, Failed)
        assert "SECRET" not in str(preview(recipe))
    with pytest.raises(UserError, match="sign in"):
        admitted(Recipe(model=PRIVATE))
    assert not hub.tokens
    made = {path for path in tmp_path.rglob("*") if "hub" not in path.parts and path.is_file()} - before
    assert not [path for path in made if "SECRET" in path.read_text(errors="replace")]
    assert not [path for path in made if path.name in ("config.json", "model.safetensors")]


def test_the_page_downloads_no_model_to_make_a_gguf_file(hub, llama_folder, tmp_path):
    """It looks for the dense model, to learn whether tokens were removed."""
    hub.make("org/open", private=False)
    hub.add("org/open", "main", {path.name: path.read_bytes() for path in llama_folder.iterdir()}, ())
    fewer = tmp_path / "model"
    fewer.mkdir()
    config = json.loads((llama_folder / "config.json").read_text())
    (fewer / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] - 8}))
    with pytest.raises(UserError, match="not on this machine any more"):
        teller_here(fewer, "org/open")
    assert not list(tmp_path.glob("cache/**/*.safetensors"))
    dense = drain(resolve("org/open")).folder
    assert teller_here(fewer, "org/open") == dense
    assert teller_here(llama_folder, "org/open") is None


def test_a_token_that_the_hub_does_not_know_any_more(hub):
    with working_for("hf_expired"):
        assert "Sign out, sign in again" in refused(PRIVATE)


def test_a_run_with_a_token_holds_it_nowhere(hub, tmp_path):
    folder = tmp_path / "run"
    run_directory.create(folder, tiny.recipe_for(PRIVATE))
    with working_for(MINE):
        last = list(run_directory.work(folder))[-1]
    assert isinstance(last, Finished)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"recipe.json", "events.jsonl", "README.md"} <= {path.name for path in files}
    assert not [path for path in files if MINE.encode() in path.read_bytes()]


def test_a_worker_gets_the_token_through_a_pipe_alone(queue, monkeypatch):
    """It waits for the worker in the memory of the page, and goes to that worker only."""
    told, given = [], []

    def start(module, arguments, environment, stdin, stdout, stderr):
        told.append(" ".join([module, *arguments, *environment.values()]))
        given.append(os.read(stdin, 100).decode() if stdin >= 0 else "")
        return SimpleNamespace(pid=2**22 + 1, poll=lambda: None)

    monkeypatch.setattr(worker, "start_afresh", start)
    queue.workers = 0
    with asked_with(MINE):
        mine = queue.start(tiny.recipe_for("a/b"))
    other = queue.start(tiny.recipe_for("a/b"))
    stopped = queue.start(tiny.recipe_for("a/b"))
    with asked_with(MINE):
        queue.resume(stopped)
    queue.stop(stopped)
    queue.resume(stopped)
    queue.workers = 4
    assert queue.schedule_workers() == [mine, other, stopped]
    assert given == [MINE, "", ""]
    assert ["--lent" in words for words in told] == [True, False, False]
    kept = [p.read_bytes() for p in Path(queue.root).rglob("*") if p.is_file()]
    assert not [
        text for text in [*kept, *map(str.encode, told), repr(queue).encode()] if MINE.encode() in text
    ]


def test_a_run_keeps_the_hours_of_whoever_signed_in(queue, monkeypatch):
    """Also when they sign out, and when it goes on after a restart, where nobody asks."""
    monkeypatch.setenv("PIP_STUDIO_RUN_HOURS", "3")
    monkeypatch.setenv("PIP_STUDIO_SIGNED_IN_TIMES", "2")
    queue.workers, ids = 0, []
    for begun, resumed in ((MINE, ""), (MINE, None), ("", MINE), ("", ""), ("", None), (None, None)):
        with asked_with(begun):
            ids.append(queue.start(tiny.recipe_for("a/b")))
        queue.stop(ids[-1])
        queue.rename(ids[-1], "renamed")
        with asked_with(resumed):
            queue.resume(ids[-1])
    assert [run_directory.hours_of(queue.folder(run)) for run in ids] == [6, 6, 6, 3, 3, 3]
