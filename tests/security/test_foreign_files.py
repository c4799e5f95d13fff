"""Files of strangers: what they name, claim and hold; and what goes out again with a model."""

from __future__ import annotations

import csv
import json
import os
import shutil
from types import SimpleNamespace

import pytest
import yaml

from pip_core.checkpoints.checksum import weight_files
from pip_core.checkpoints.folder import licence_of
from pip_core.checkpoints.load import config_of, load
from pip_core.checkpoints.reference import local_folder
from pip_core.cli.recipe_files import read_recipe
from pip_core.core.csv_cells import cell
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.public_text import public
from pip_core.core.recipe import Recipe
from pip_core.data.corpora import calibration_texts
from pip_core.data.private import shareable
from pip_core.evaluation.tasks import load_task
from pip_core.reporting.model_card import card_metadata
from pip_core.runs import files
from pip_core.ui import html

BOMB = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)
CARDS = {
    "---\nlicense: mit\n---\n": "mit",
    "---\ntags:\n- a\nlicense:\n- apache-2.0\n---\nlicense: no": "apache-2.0",
    "---\r\nlicense: 'cc-by-4.0'  # a note\r\n---\r\n": "cc-by-4.0",
    "---\nlicense: other\nlicense_name: own\n---": "other",
    f"---\n{BOMB}\nlicense: *a11\n---\n": None,
    "---\nlicense: |\n  mit\n---\n": None,
    '---\nlicense: "mit\n---\n': None,
    f"---\nlicense: {'x' * 101}\n---\n": None,
    "license: mit": None,
    "---\ntags: []\n---\nlicense: mit\n": None,
    "---\nlicense:\n---\n": None,
}


@pytest.mark.parametrize("number", range(len(CARDS)))
def test_a_licence_is_read_as_a_line_and_nothing_is_unfolded(tmp_path, number):
    text, licence = list(CARDS.items())[number]
    (tmp_path / "README.md").write_bytes(text.encode())
    assert licence_of(tmp_path) == licence


def test_a_licence_writes_no_header_of_ours():
    pruned = SimpleNamespace(perplexity=1.0, texts=(), tasks=())
    written = card_metadata("a/b", "mit\n---\ntags:\n- evil", Recipe(), pruned).to_yaml()
    assert yaml.safe_load(written)["license"] == "other"
    assert "evil" not in yaml.safe_load(written)["tags"]


@pytest.mark.parametrize(
    "named", ["pytorch_model.bin", "../other/model.safetensors", "/etc/passwd", "x/y.safetensors"]
)
def test_an_index_names_safetensors_beside_it_alone(llama_folder, tmp_path, named):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": named}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "other.safetensors").write_bytes(b"")
    for read in (weight_files, lambda f: drain(load(str(f))), lambda f: config_of(str(f))):
        with pytest.raises(UserError, match="no safetensors file beside it"):
            read(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors.index.json", "README.md", "tokenizer.json"]
)
def test_a_pipe_is_not_waited_for(llama_folder, tmp_path, name):
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    if "index" in name:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    try:
        drain(load(str(folder)))
    except UserError:
        assert name != "README.md"


def test_a_space_says_not_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "no")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("{}")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    said = set()
    for name in (
        tmp_path,
        tmp_path / "nothing",
        "./x",
        "there.json",
        "nothing.json",
        "~root/x",
        "~nobody7/x",
    ):
        with pytest.raises(UserError) as caught:
            local_folder(str(name))
        said.add(str(caught.value))
    assert len(said) == 1
    assert local_folder("owner/name") is None
    message = f"'{tmp_path}/runs/model' cannot be written; see https://a.b/c/d and and/or (/etc/x/passwd)."
    assert public(message) == "'…/model' cannot be written; see https://a.b/c/d and and/or (…/passwd)."
    assert str(tmp_path) not in html.problem(message)
    monkeypatch.setenv("PIP_STUDIO_LOCAL_FILES", "yes")
    assert public(message) == message


def test_no_cell_is_a_formula():
    names = ["=1+1", "+1", "-1", "@x", "\t=1", "plain", -0.5]
    assert [cell(name) for name in names] == ["'=1+1", "'+1", "'-1", "'@x", "'\t=1", "plain", -0.5]
    assert next(csv.reader([str(cell("=x"))])) == ["'=x"]


def test_a_task_whose_name_holds_a_sign(tasks, tmp_path):
    path = tmp_path / "my=task.jsonl"
    shutil.copy(tasks[0], path)
    assert load_task(str(path)).name == "my=task"
    with pytest.raises(UserError, match="no standard task"):
        load_task("no=such.jsonl")


def test_what_is_private_stays_with_the_run(finished, recipe):
    """Neither pasted texts nor places of files go out with a model; its owner repeats it all the same."""
    beside = json.loads((finished / "model" / "pip_recipe.json").read_text())
    assert set(beside["left_out"]) == {"model", "tasks"}
    assert beside["recipe"]["model"] == "./llama"
    assert str(finished.parent.parent) not in (finished / "model" / "README.md").read_text()
    assert read_recipe(finished / "model" / "pip_recipe.json") == read_recipe(finished / files.RECIPE)
    settings = {
        "calibration": "text:" + "My diary. " * 9,
        "heldout": "/home/me/uploads/1f2e/held.txt#text",
        "recover_text": "written+~/mine.txt",
        "tasks": ["piqa=/data/p.jsonl", "bits=text:My diary.", "endings"],
        "model": "OWNER/NAME@abc",
        "windows": 3,
    }
    found, left_out = shareable(settings)
    assert left_out == ["calibration", "heldout", "recover_text", "tasks"]
    assert "diary" not in str(found)
    assert (found["heldout"], found["recover_text"]) == ("./held.txt#text", "written+./mine.txt")
    assert [found["tasks"][n] for n in (0, 2)] == ["piqa=./p.jsonl", "endings"]
    mix = "mix:/a/b.txt=0.5,code=0.5"
    assert shareable({"x": mix})[0] == {"x": "mix:./b.txt=0.5,code=0.5"}
    for read in (calibration_texts, load_task):
        with pytest.raises(UserError, match=r"was pasted by whoever made this recipe.*90 characters"):
            read(found["calibration"])
