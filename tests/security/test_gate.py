"""What stands before the server: who comes in before it is ready, and which files go out."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import gradio
import pytest
from gradio.state_holder import SessionState, StateHolder

from app import StudioPage
from pip_core.checkpoints.gguf_export import CONVERTER, FORMATS, VARIABLE
from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.runs import files
from pip_core.ui import refresh, serving, shown
from pip_core.ui.gate import OWN, RUNS, Gate, hide_folder
from pip_core.ui.parts import download
from pip_core.ui.sessions import lean
from pip_core.ui.shown import Shown

from ..reporting.test_messages import measured
from ..run_queues import BLOCK, FINISHED, STARTED, ended

RUN = "0" * 24
# Of the folder of the runs; the second group only where this machine's files may be named.
GOES_OUT = (f"{RUN}/model/README.md", f"{RUN}/pruned-000000.zip", f"{RUN}/public/events.jsonl")
GOES_OUT += (f"{RUN}/scores.csv", f"tables/{RUN}/compared.csv")
HERE_ALONE = (f"{RUN}/events.jsonl", f"{RUN}/recipe.json")
STAYS = (f"{RUN}/worker.log", f"{RUN}/about.json", f"{RUN}/queued", f"{RUN}/model/config.json", "studio.lock")
STAYS += (f".making-{RUN}/recipe.json", f".leaving-{RUN}/events.jsonl", f"uploads/{RUN}/own.txt", "", ".")
STAYS += (
    f"{RUN}/../{RUN}/worker.log",
    f"{RUN}/./about.json",
    f"{RUN}/scores.csv/../worker.log",
    f"{RUN}//queued",
)
STAYS += (f"tables/{RUN}/../../studio.lock", f"{RUN}/pruned-x/../worker.log.zip")


def asked(gate: Gate, path: str, method: str = "GET") -> int:
    """The status that a request is answered with; 0 where it is passed on."""
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(gate({"type": "http", "method": method, "path": path}, None, send))
    return sent[0]["status"] if sent else 0


async def passed_on(scope, receive, send):
    pass


@pytest.mark.parametrize("local", ["yes", "no"])
def test_no_file_of_a_run_goes_out_but_those_that_are_offered(tmp_path, monkeypatch, local):
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", local)
    ready = threading.Event()
    gate = Gate(passed_on, tmp_path, ready)
    (tmp_path / RUN).mkdir()
    (tmp_path / RUN / "pruned-link.zip").symlink_to(tmp_path / RUN / "worker.log")
    assert asked(gate, "/", "HEAD") == 200
    assert asked(gate, "/") == asked(gate, "/gradio_api/call/start", "POST") == 503
    assert asked(gate, OWN) == 0
    ready.set()
    goes = GOES_OUT + (HERE_ALONE if local == "yes" else ())
    stays = (*STAYS, f"{RUN}/pruned-link.zip", *(HERE_ALONE if local == "no" else ()))
    for address in ("/gradio_api/file=", "/file=", "/gradio_api/file/"):
        assert [name for name in goes if asked(gate, f"{address}{tmp_path}/{name}")] == []
        assert [name for name in stays if asked(gate, f"{address}{tmp_path}/{name}") != 404] == []
    assert [name for name in stays if asked(gate, f"/gradio_api/file={RUNS}/{name}") != 404] == []
    assert asked(gate, f"/gradio_api/file={os.path.relpath(tmp_path, '/')}/{RUN}/worker.log") == 404
    assert asked(gate, "/") == asked(gate, "/gradio_api/file=/usr/plotly.min.js") == 0
    assert asked(gate, "/gradio_api/deep_link") == 404


@pytest.mark.parametrize("local", ["yes", "no"])
def test_every_file_that_the_page_offers_goes_out(queue, workers, looks, tmp_path, monkeypatch, local):
    """What each button for a download of the page's parts is given, of a finished run and its comparison."""
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", local)
    (tmp_path / CONVERTER).parent.mkdir()
    (tmp_path / CONVERTER).touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    scored, exported = ev.Scored(1, "blocks", (0.5,) * 5, 1.0), ev.Exported("x", 1000, 1, 0.0, 20, 1.0)
    run_id = ended(
        queue,
        workers,
        STARTED,
        measured("1111"),
        scored,
        BLOCK,
        measured("1110", iteration=1),
        exported,
        FINISHED,
    )
    folder = queue.folder(run_id)
    (folder / files.MODEL).mkdir()
    (folder / files.MODEL / "README.md").touch()
    for form in FORMATS:
        (folder / files.gguf_file(form)).touch()
    queue.packed(run_id)
    page = StudioPage(queue)
    page.handlers.looks = looks
    page.build()
    buttons = {name for name, made in page.ui.items() if isinstance(made, gradio.DownloadButton)}
    ready = threading.Event()
    ready.set()
    passed = []

    async def served(scope, receive, send):
        passed.append(scope["path"])

    gate = Gate(served, queue.root, ready)
    changes = refresh.refresh(queue, {"owner": "me"}, run_id, [], [run_id])
    given = {name: changes[name].get("value") for name in buttons}
    assert [name for name, path in given.items() if not path or not Path(path).is_file()] == []
    sent = [{"path": path, "url": f"/gradio_api/file={path}"} for path in given.values()]
    hide_folder([sent[0], *({"__type__": "update", "value": file} for file in sent[1:])], queue.root)
    assert not [file for file in sent if str(queue.root) in str(file)]
    assert [file for file in sent if asked(gate, file["url"]) != 0] == []
    assert passed == [f"/gradio_api/file={path}" for path in given.values()]


def test_what_is_downloaded_from_an_open_page_names_no_folder_of_it(queue, workers, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "no")
    run_id = ended(queue, workers, STARTED, BLOCK, ev.Failed(f"'{queue.root}/x' is gone."))
    offered = download.offer(Shown(queue, run_id, "", *queue.summary(run_id)))
    for name in ("events", "recipe"):
        text = Path(offered[name]["value"]).read_text()
        assert str(queue.root) not in text
    # In a folder that cannot be written nothing is offered, and the page goes on.
    (queue.folder(run_id) / "public" / "events.jsonl").unlink()

    def refuse(path, text):
        raise UserError("read-only")

    monkeypatch.setattr(shown, "write", refuse)
    assert download.offer(Shown(queue, run_id, "", *queue.summary(run_id)))["events"] == {"visible": False}


def test_a_session_holds_no_copy_of_the_page(queue, workers, looks):
    page = StudioPage(queue)
    page.handlers.looks = looks
    blocks = page.build()
    holder = lean(StateHolder, SessionState)()
    holder.set_blocks(blocks)
    session = holder["somebody"]
    shown_ = page.ui["go"]
    session[shown_._id] = shown_
    session._update_value_in_config(shown_._id, "x" * 1000)
    assert not session.config_values
    assert session[shown_._id] is shown_
    assert len(session.blocks_config.blocks) == len(blocks.blocks)


@pytest.mark.parametrize("changed", [{}, {"status": "<p>x"}, {"run": "a", "timer": 2.0}])
def test_what_a_handler_leaves_alone_is_not_made_anew(changed, tmp_path):
    with serving.guarded(gradio.Blocks, gradio.Error, tmp_path)() as blocks:
        made = {
            "status": gradio.HTML(),
            "timer": gradio.Timer(10),
            "tiles": gradio.HTML("<b>9"),
            "run": gradio.State(""),
        }
        made["timer"].tick(lambda: None, None, list(made.values()))
    (event,) = blocks.fns.values()

    def given():
        return [gradio.update(value=changed[name]) if name in changed else gradio.skip() for name in made]

    holder = lean(StateHolder, SessionState)()
    holder.set_blocks(blocks)
    answered = asyncio.run(blocks.postprocess_data(event, given(), holder["us"]))
    whole = asyncio.run(gradio.Blocks.postprocess_data(blocks, event, given(), holder["gradio"]))
    for name, ours, theirs in zip(made, answered, whole, strict=True):
        assert ours == (theirs if name in changed or name == "run" else gradio.skip())
    assert holder["us"][made["tiles"]._id] is made["tiles"]
    assert holder["gradio"][made["tiles"]._id] is not made["tiles"]  # or nothing would be gained


def test_what_a_program_starts_on_an_open_page_is_stopped_with_its_key_alone(
    queue, workers, looks, monkeypatch
):
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "no")
    handlers = StudioPage(queue).handlers
    handlers.looks = looks
    keyed, plain = (handlers.launch({"model": "demo"}, "x", key) for key in ("secret", ""))
    for run_id, key in ((keyed, "other"), (keyed, ""), (plain, ""), (plain, "secret")):
        with pytest.raises(UserError):
            handlers.halt(run_id, key)
    assert not queue.may_change(plain, "")
    handlers.halt(keyed, "secret")
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "yes")
    assert queue.may_change(handlers.launch({"model": "demo"}), "anybody here")


def test_who_follows_takes_no_place_of_those_who_do_not(tmp_path, monkeypatch):
    """Gradio answers `max_threads` events at once, and a follower is one of them until the run ends."""
    monkeypatch.setenv("PIP_STUDIO_FOLLOWERS", "200")
    assert serving.serving_options(tmp_path, threading.Event())["max_threads"] >= 200 + 40
