"""A GGUF file by llama.cpp's converter: where there is none, where it refuses, what is kept of its work."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pip_core.checkpoints import gguf_check, gguf_export
from pip_core.checkpoints.gguf_export import (
    CONVERTER,
    PACKAGE,
    VARIABLE,
    converter,
    refuse_other_order,
    teller_of,
    write_gguf,
)
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.ui.parts import gguf

SAME = {"alike": True, "largest_difference": 0.0, "largest": 9.0, "same_choice": 1.0, "aside": 0.25}
WRITES = "import sys; open(sys.argv[2], 'w').write('GGUF ' + sys.argv[3])"


@pytest.fixture
def model(tmp_path, llama_folder) -> Path:
    """An exported model, of which nothing was removed."""
    return shutil.copytree(llama_folder, tmp_path / "run" / "model")


@pytest.fixture
def converts(tmp_path, monkeypatch):
    """Stand-ins for the converter, and for the process that looks at what it made."""

    def as_(script: str, found: dict) -> None:
        (tmp_path / CONVERTER).parent.mkdir()
        (tmp_path / CONVERTER).touch()
        monkeypatch.setenv(VARIABLE, str(tmp_path))
        monkeypatch.setattr(gguf_export, "CONVERT", ("-c", script))
        monkeypatch.setattr(gguf_export, "CHECK", ("-c", f"print({json.dumps(found)!r})"))
        monkeypatch.setattr(gguf_export, "POLL_SECONDS", 0.02)

    return as_


def refused(model: Path) -> str:
    with pytest.raises(UserError) as caught:
        drain(write_gguf(model, model.parent / "made.gguf", teller_of(model, str(model))))
    assert [path.name for path in model.parent.iterdir()] == ["model"]
    return str(caught.value)


def test_without_a_converter_it_is_said_how_to_get_one(model, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(gguf_export, "PACKAGE", "no_such_package")
    assert "pip install auto-round" in refused(model)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert f"no {CONVERTER}" in refused(model)


def test_the_package_ships_the_converter_that_is_used(monkeypatch):
    """Its release may move it, or change what `gguf_convert` takes from it."""
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("auto-round is not installed: it needs Python 3.11")
    monkeypatch.delenv(VARIABLE, raising=False)
    package = converter() / CONVERTER.parent
    names = {
        node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else node.asname or node.name
        for node in ast.walk(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.alias)
    }
    assert {"ModelBase", "ModelType", "get_model_architecture", "get_model_class"} <= names
    base = ast.parse((package / "base.py").read_text(encoding="utf-8"))
    text = next(node for node in base.body if isinstance(node, ast.ClassDef) and node.name == "TextModel")
    splits = [node for node in text.body if getattr(node, "name", "") == "get_vocab_base_pre"]
    assert [[argument.arg for argument in node.args.args] for node in splits] == [["self", "tokenizer"]]


def test_weights_are_rounded_as_those_that_were_read():
    """What the file keeps more exactly than its format says is taken as it is; another weight is not."""
    torch.manual_seed(0)
    dense = {"eight": torch.randn(3, 64), "sixteen": torch.randn(3, 64), "narrow": torch.randn(3, 33)}
    other = torch.randn(3, 64)
    model = torch.nn.ParameterDict(dense | {"other": other, "norm": torch.randn(64)})
    norm = model["norm"].clone()
    half = dense["sixteen"].half().float()
    read = {"eight": gguf_check.in_8_bits(dense["eight"]), "sixteen": half, "other": -other}
    gguf_check.round_alike(model, read, "q8_0")
    step = dense["eight"].view(3, 2, 32).abs().amax(-1, keepdim=True) / 127
    gap = (read["eight"] - dense["eight"]).view(3, 2, 32).abs()
    assert (gap <= 0.51 * step).all()
    assert gap.max() > 1e-4
    assert torch.equal(model["eight"], read["eight"])
    assert torch.equal(model["sixteen"], half)
    assert torch.equal(model["narrow"], dense["narrow"].half().float())
    assert torch.equal(model["norm"], norm)
    assert (model["other"] - other).abs().max() < 0.05


@pytest.mark.parametrize(
    ("script", "found", "words"),
    [
        ("import no_such_thing", SAME, "pip install no_such_thing"),
        ("raise NotImplementedError('BPE pre-tokenizer was not recognized')", SAME, "does not know how"),
        ("raise ValueError('a reason of its own')", SAME, "a reason of its own"),
        (WRITES, {**SAME, "alike": False}, "splits texts in another way"),
        (WRITES, {**SAME, "largest_difference": 0.1}, "answers differently"),
        (WRITES, {**SAME, "largest_difference": float("nan")}, "answers differently"),
    ],
)
def test_what_is_refused_or_is_another_model_is_not_kept(model, converts, script, found, words):
    converts(script, found)
    assert words in refused(model)


def test_the_page_offers_what_was_made(model, converts, looks, monkeypatch):
    converts(WRITES, SAME)
    recipe = Recipe(model=str(model))
    queue = SimpleNamespace(folder=lambda _: model.parent, recipe=lambda _: recipe)
    *_, last = gguf.make("q8_0", queue, looks, "run")
    assert Path(last["gguf_q8_0"]["value"]).read_text() == "GGUF q8_0"
    assert "25 % of its weights are not in 8 bits" in last["gguf_state"]["value"]
    exported = SimpleNamespace(exported=object())
    shown = SimpleNamespace(state="finished", summary=exported, folder=model.parent, example=False)
    offered = gguf.offer(shown)
    assert offered["gguf_q8_0"] == {"visible": True, "value": last["gguf_q8_0"]["value"]}
    assert offered["gguf_f16"] == {"visible": False, "value": None}
    assert [offered[f"gguf_make_{form}"]["visible"] for form in ("f16", "q8_0")] == [True, False]
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(gguf_export, "PACKAGE", "no_such_package")
    offered = gguf.offer(shown)
    assert offered["gguf_make_f16"] == {"visible": False}
    assert VARIABLE in offered["gguf_state"]["value"]
    *_, last = gguf.make("f16", queue, looks, "run")
    assert VARIABLE in last["gguf_state"]["value"]


@pytest.mark.parametrize(
    ("kind", "field", "order", "kept"),
    [
        ("gemma2", "layer_types", ["sliding_attention", "full_attention"] * 3, [0, 1, 4, 5]),
        ("gemma3_text", "layer_types", (["sliding_attention"] * 5 + ["full_attention"]) * 2, [*range(6)]),
        ("smollm3", "no_rope_layers", [1, 1, 1, 0] * 2, [0, 1, 6, 7]),
    ],
)
def test_blocks_in_an_order_that_llama_cpp_does_not_know_are_refused(kind, field, order, kept):
    refuse_other_order({"model_type": kind, field: order})
    refuse_other_order({"model_type": kind, field: [order[n] for n in kept]})
    with pytest.raises(UserError, match="another order"):
        refuse_other_order({"model_type": kind, field: order[1:]})
