"""What one visitor can take from the others: runs, followers, uploads, memory, the Space's secrets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pip_core.checkpoints.hub import ask_hub
from pip_core.core import events as ev
from pip_core.core import memory, network, volumes
from pip_core.core.aside import Aside
from pip_core.core.environment import child_environment, prepare_environment
from pip_core.core.errors import UserError
from pip_core.core.limits import limits, local_files, rows
from pip_core.core.recipe import Recipe
from pip_core.data import hub_datasets
from pip_core.planning.admission import admitted
from pip_core.runs import files, run_directory
from pip_core.ui import serving
from pip_core.ui.follow import Followers

from ..processes import warm_server
from ..run_queues import BLOCK, STARTED, ended

GB = 10**9


def test_one_owner_takes_no_more_than_their_share(queue, workers, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_RUNS_PER_OWNER", "3")
    monkeypatch.setenv("PIP_STUDIO_RUNS_WAITING", "5")
    old = ended(queue, workers, STARTED, BLOCK, ev.Stopped(1))
    mine = [queue.start(Recipe(), "me") for _ in range(3)]
    with pytest.raises(UserError, match="3 runs of yours"):
        queue.start(Recipe(), "me")
    with pytest.raises(UserError, match="3 runs of yours"):
        queue.resume(old)
    queue.stop(mine[2])
    queue.resume(old)
    queue.resume(old)  # it waits already
    queue.start(Recipe())  # what programs start without a name counts as one owner's
    queue.start(Recipe(), "you")
    with pytest.raises(UserError, match="5 runs of all"):
        queue.start(Recipe(), "another")
    assert len(queue.everybodys()) == 6
    monkeypatch.setenv("PIP_STUDIO_SIGNED_IN_TIMES", "2")
    # Signed in there may be more of one visitor's, and who could sign in is told so where it helps.
    with network.asked_with(""), pytest.raises(UserError, match="sign in on this page: up to 6") as told:
        queue.start(Recipe(), "me")
    with network.asked_with("hf_me"), pytest.raises(UserError, match="5 runs of all"):
        queue.start(Recipe(), "me")
    monkeypatch.setenv("PIP_STUDIO_RUNS_WAITING", "50")
    with network.asked_with("hf_me"):
        for _ in range(3):
            queue.start(Recipe(), "me")
        with pytest.raises(UserError, match=r"6 runs of yours.*at most 6") as full:
            queue.start(Recipe(), "me")
    with network.asked_with(""), pytest.raises(UserError, match=r"6 runs of yours.*at most 3") as out:
        queue.start(Recipe(), "me")
    assert [("sign in" in str(refused.value)) for refused in (told, full, out)] == [True, False, False]


def test_a_run_that_does_not_fit_is_refused(monkeypatch):
    assert admitted(Recipe()).units == ("blocks",)
    monkeypatch.setenv("PIP_STUDIO_RUN_HOURS", "0.001")
    with pytest.raises(UserError, match="PIP_STUDIO_RUN_HOURS"):
        admitted(Recipe())
    # A visitor is not told the name of a variable, but to sign in where that helps.
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    said = {}
    for times, token in (("2", None), ("2", ""), ("10000", ""), ("2", "hf_me")):
        monkeypatch.setenv("PIP_STUDIO_SIGNED_IN_TIMES", times)
        with network.asked_with(token), pytest.raises(UserError) as refused:
            admitted(Recipe())
        said[times, token] = str(refused.value)
    assert not [words for words in said.values() if "PIP_STUDIO" in words]
    assert [key for key, words in said.items() if "sign in on this page" in words] == [("10000", "")]
    with network.asked_with("hf_me"):
        monkeypatch.setenv("PIP_STUDIO_SIGNED_IN_TIMES", "10000")
        assert admitted(Recipe()).units == ("blocks",)
    monkeypatch.setenv("PIP_STUDIO_RUN_GB", "0.01")
    with pytest.raises(UserError, match=r"GB of memory.*0\.0 GB here"):
        admitted(Recipe())
    with network.asked_with(""), pytest.raises(UserError, match=r"sign in on this page: up to [\d.]+ GB"):
        admitted(Recipe())


def test_a_worker_stops_when_its_time_is_over(tmp_path, recipe, monkeypatch):
    run_directory.create(tmp_path / "run", recipe)
    monkeypatch.setenv("PIP_STUDIO_RUN_HOURS", "0.0000001")
    *_, said, last = run_directory.work(tmp_path / "run", launched=True)
    assert isinstance(last, ev.Stopped)
    # Several calls on a GPU that is lent are one launch.
    monkeypatch.setenv("PIP_STUDIO_RUN_HOURS", "1")
    note = {"at": time.monotonic() - 3601}
    monkeypatch.setenv("PIP_STUDIO_SIGNED_IN_TIMES", "2")
    files.write(tmp_path / "run" / files.LAUNCHED, json.dumps(note))
    files.write(tmp_path / "run" / files.ABOUT, json.dumps({"signed_in": False}))
    *_, more, last = run_directory.work(tmp_path / "run", launched=True)
    assert isinstance(last, ev.Stopped)
    assert isinstance(said, ev.Warned)
    assert "PIP_STUDIO_RUN_HOURS" in said.message
    assert "signed in for up to 2 hours" in more.message
    assert "signed in" not in said.message
    # Of a visitor who had signed in it goes on.
    files.write(tmp_path / "run" / files.LAUNCHED, json.dumps(note))
    files.write(tmp_path / "run" / files.ABOUT, json.dumps({"signed_in": True}))
    assert isinstance(list(run_directory.work(tmp_path / "run", launched=True))[-1], ev.Finished)


def test_followers_are_few_and_go_with_their_clients(queue, workers, monkeypatch):
    """A state is sent again and again, so that it shows when nobody reads it."""
    monkeypatch.setattr("pip_core.ui.follow.SECONDS", 0.01)
    monkeypatch.setattr("pip_core.ui.follow.HEARTBEAT_SECONDS", 0.02)
    followers, run_id = Followers(queue, 60), queue.start(Recipe(), "me")

    async def follow() -> None:
        open_ = [followers.follow(run_id) for _ in range(60)]
        for one in open_:
            assert (await anext(one))["run"] == run_id
        with pytest.raises(UserError, match="60 programs follow"):
            await anext(followers.follow(run_id))
        assert await anext(open_[0]) == await anext(open_[0])  # nothing changed
        for one in open_:
            await one.aclose()
        assert (await anext(followers.follow(run_id)))["run"] == run_id

    asyncio.run(follow())


def test_uploads_are_refused_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "RECOUNT_SECONDS", 0)
    monkeypatch.delenv(serving.TEMPORARY, raising=False)
    passed, sent = [], []

    async def app(scope, receive, send):
        passed.append(scope["path"])

    async def send(message):
        sent.append(message)

    guard = serving.BoundedUploads(app, tmp_path, 1000)
    post = {"type": "http", "method": "POST", "path": "/gradio_api/upload"}
    asyncio.run(guard(post, None, send))
    (tmp_path / "uploads" / "a").mkdir(parents=True)
    (tmp_path / "uploads" / "a" / "text.txt").write_bytes(bytes(1001))
    asyncio.run(guard(post, None, send))
    asyncio.run(guard({**post, "path": "/gradio_api/queue/join"}, None, send))
    assert passed == ["/gradio_api/upload", "/gradio_api/queue/join"]
    assert sent[0]["status"] == serving.FULL


@pytest.mark.parametrize(
    ("path", "accepted", "packed"),
    [
        ("/gradio_api/run/predict", b"gzip", True),
        ("/here/gradio_api/run/predict", b"gzip, br", True),  # behind a proxy
        ("/", b"gzip", True),
        ("/gradio_api/run/predict", b"identity", False),
        ("/gradio_api/queue/data", b"gzip", False),  # a stream, whose events must not wait for one another
    ],
)
def test_a_refresh_is_compressed_for_browsers_that_take_it(path, accepted, packed):
    whole, sent = b"<p>Block 12 was removed.</p>" * 100, []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": whole})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"accept-encoding", accepted)]}
    asyncio.run(serving.CompressedAnswers(app)(scope, None, send))
    body = b"".join(message.get("body", b"") for message in sent)
    assert (gzip.decompress(body) if packed else body) == whole
    assert (len(body) < len(whole) / 5) is packed


def test_what_a_browser_loads_first_is_read_and_compressed_once():
    whole, asked = b"let block = 12;" * 100, []
    files = {"/assets/a.js": whole, "/gradio_api/file=/b.js": b"its own"}

    async def app(scope, receive, send):
        asked.append(scope["path"])
        found = scope["path"] in files
        headers = [(b"content-type", b"application/javascript"), (b"content-length", b"1500")]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        for part in (b"", files.get(scope["path"], b"none")):
            await send({"type": "http.response.body", "body": part, "more_body": not part})

    kept = serving.KeptFiles(app, [serving.MODULES])

    def get(path, *headers, accepted=b"gzip, br", method="GET"):
        sent = []

        async def send(message):
            sent.append(message)

        of = [(b"accept-encoding", accepted), *headers]
        asyncio.run(kept({"type": "http", "method": method, "path": path, "headers": of}, None, send))
        body = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], dict(sent[0]["headers"]), body

    for _ in range(2):
        status, headers, body = get("/assets/a.js")
        assert (status, headers[b"content-encoding"], gzip.decompress(body)) == (
            200,
            b"gzip",
            files["/assets/a.js"],
        )
        assert headers[b"content-type"] == b"application/javascript"
        assert int(headers[b"content-length"]) == len(body) < 100
    assert asked == ["/assets/a.js"]
    assert get("/assets/a.js", accepted=b"identity")[2] == whole
    assert get("/assets/a.js", (b"range", b"bytes=0-3"))[2] == whole
    # What is not there, and what the server does not keep, is asked for every time.
    assert [get(path)[0] for path in ("/assets/no.js", "/gradio_api/file=/b.js") * 2] == [404, 200] * 2
    assert len(asked) == 1 + 2 + 4


@pytest.mark.parametrize("cut_short", [False, True], ids=["whoever asks leaves", "the file is cut short"])
def test_what_is_kept_of_a_file_is_all_of_it(cut_short):
    """A visitor who closed the page while it loaded left half of a module to all who came after."""
    whole, ends = b"let block = 12;" * 100, [cut_short]

    async def app(scope, receive, send):
        headers = [(b"content-length", str(len(whole)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": whole[:700], "more_body": True})
        leaving = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        # As Starlette ends what it was passing on.
        rest = b"" if leaving.done() or ends.pop() else whole[700:]
        leaving.cancel()
        await send({"type": "http.response.body", "body": rest})

    kept = serving.KeptFiles(app, [serving.MODULES])

    async def gone():
        return {"type": "http.disconnect"}

    def get():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/assets/a.js"}
        asyncio.run(kept({**scope, "headers": [(b"accept-encoding", b"gzip")]}, gone, send))
        return b"".join(message.get("body", b"") for message in sent)

    get()
    ends.append(False)
    assert gzip.decompress(get()) == whole


@pytest.mark.parametrize("server", [lambda: None, warm_server], ids=["fresh", "forked"])
def test_another_process_does_what_may_take_any_memory_and_time(server):
    """And it is killed, and the next call has a new one."""
    aside = Aside(2.0, 1.5 * GB, server=server)
    try:
        assert aside.call(os.getpid) != os.getpid()
        with pytest.raises(UserError, match="PIP_STUDIO_LOOK_SECONDS"):
            aside.call(time.sleep, 60)
        with pytest.raises(UserError, match="PIP_STUDIO_LOOK_GB"):
            aside.call(bytearray, 8 * GB)
        with pytest.raises(UserError, match="PIP_STUDIO_LOOK_GB"):
            aside.call(torch.empty, 8 * GB)
        with pytest.raises(UserError, match="not valid JSON"):
            aside.call(Recipe.from_json, "{")
        assert aside.call(abs, -1) == 1
    finally:
        aside.close()


def test_a_container_counts(tmp_path, monkeypatch):
    """The limit of a group, or of one around it, in both versions of cgroups."""
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text("0::/a/b\n4:memory:/c\n")
    assert memory.total_memory() > GB
    for folder, holds in {
        "a": {"memory.max": "3000", "memory.current": "2000", "memory.stat": "anon 5\ninactive_file 500"},
        "a/b": {"memory.max": "max", "memory.current": "2000"},
        "memory/c": {"memory.limit_in_bytes": "4000", "memory.usage_in_bytes": "100"},
    }.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, text in holds.items():
            (tmp_path / folder / name).write_text(text)
    assert memory.total_memory() == 3000
    assert memory.free_memory() == 1500


def test_a_space_has_other_limits_and_reads_no_files(monkeypatch):
    here = limits()
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    there = limits()
    assert here.run_hours is None
    assert there.run_hours
    assert there.runs_per_owner < here.runs_per_owner
    assert not local_files()
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "yes")
    assert local_files()
    assert {len(row) for row in rows()} == {4}


MOUNTS = {Path("/"): "overlay", Path("/home/user"): "ext4", Path("/data"): "fuse", Path("/tmp"): "tmpfs"}


@pytest.mark.parametrize(
    ("folder", "volume"),
    [
        ("/data/runs", "/data"),
        ("/data", "/data"),
        ("/home/user/app/runs", None),
        ("/tmp/runs", None),
        ("/database/runs", None),
        ("/srv/runs", None),
    ],
)
def test_a_volume_is_told_from_what_goes_with_the_container(folder, volume):
    found = volumes.volume_of(Path(folder), MOUNTS, Path("/home/user/app"))
    assert found == (Path(volume) if volume else None)
    assert volumes.volume_of(Path(folder), {}, Path("/home/user/app")) is None


def test_a_space_says_what_becomes_of_its_runs(tmp_path, monkeypatch):
    assert not serving.kept(tmp_path)["visible"]
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    monkeypatch.setattr(serving, "volume_of", lambda _: None)
    lost = serving.kept(tmp_path)
    monkeypatch.setattr(serving, "volume_of", lambda _: Path("/data"))
    held = serving.kept(tmp_path)
    assert lost["visible"]
    assert held["visible"]
    assert "/data" not in lost["value"]
    assert "/data" in held["value"]
    assert "7 days" in held["value"]
    assert "Signed in" not in held["value"]
    monkeypatch.setenv("OAUTH_CLIENT_ID", "of the space")
    assert "Signed in: up to 6 hours each, and up to 8 at once" in serving.kept(tmp_path)["value"]
    monkeypatch.setenv("PIP_STUDIO_SIGNED_IN_TIMES", "1")
    assert "Signed in" not in serving.kept(tmp_path)["value"]


@pytest.mark.parametrize(("address", "here"), [(None, True), ("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_page_that_others_reach_reads_no_files(tmp_path, monkeypatch, address, here):
    for name in ("PIP_STUDIO_LOCAL_FILES", "PIP_STUDIO_UPLOADS", serving.TEMPORARY, "SPACE_ID"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.delenv(serving.ADDRESS, raising=False)
    if address:
        monkeypatch.setenv(serving.ADDRESS, address)
    serving.prepare_to_serve(tmp_path)
    assert local_files() == here


def test_a_space_sends_no_token_of_its_own(monkeypatch):
    """Neither its page nor what it starts holds one, and no request carries one."""
    secrets = {
        "HF_TOKEN": "hf_secret",
        "OAUTH_CLIENT_SECRET": "x",
        "MY_API_KEY": "y",
        "TOKENS_KEPT": "no secret",
    }
    for name, value in {**secrets, "SPACE_ID": "somebody/space"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "")
    shown = f"import os; print(sorted(n for n in os.environ if n in {list(secrets)}))"
    child = subprocess.run(
        [sys.executable, "-c", shown], env=child_environment(), capture_output=True, text=True
    )
    assert child.stdout.strip() == "['TOKENS_KEPT']"
    asked: list[object] = []

    class Api:
        def __init__(self, token=None):
            asked.append(token)

        def model_info(self, *_, **__):
            return None

        dataset_info = model_info

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    ask_hub("a/b")
    hub_datasets._ask_hub("a/b", None)
    assert asked == [False, False]
    assert network.hub_token() is False
    prepare_environment()
    assert not [name for name in secrets if name in os.environ and name != "TOKENS_KEPT"]
    monkeypatch.delenv("SPACE_ID")
    assert network.hub_token() is None
