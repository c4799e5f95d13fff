"""A GGUF file by llama.cpp's converter: where there is none, where it refuses, what is kept of its work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pip_core.checkpoints import gguf_export
from pip_core.checkpoints.gguf_export import SCRIPT, VARIABLE, refuse_other_order, teller_of, write_gguf
from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.core.recipe import Recipe
from pip_core.ui.parts import gguf

SAME = {"alike": True, "largest_difference": 0.0, "largest": 9.0}
WRITES = "import sys; open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write('GGUF')"


@pytest.fixture
def model(tmp_path, llama_folder) -> Path:
    """An exported model, of which nothing was removed."""
    return shutil.copytree(llama_folder, tmp_path / "run" / "model")


@pytest.fixture
def converts(tmp_path, monkeypatch):
    """Stand-ins for the converter, and for the process that looks at what it made."""

    def as_(script: str, found: dict) -> None:
        (tmp_path / SCRIPT).write_text(script)
        monkeypatch.setenv(VARIABLE, str(tmp_path))
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
    assert VARIABLE in refused(model)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert f"no {SCRIPT}" in refused(model)


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
    *_, last = gguf.make(queue, looks, "run")
    assert Path(last["gguf"]["value"]).read_text() == "GGUF"
    exported = SimpleNamespace(exported=object())
    shown = SimpleNamespace(state="finished", summary=exported, folder=model.parent, example=False)
    assert gguf.offer(shown)["gguf"] == {"visible": True, "value": last["gguf"]["value"]}
    assert gguf.offer(shown)["gguf_make"] == {"visible": True}
    monkeypatch.delenv(VARIABLE)
    offered = gguf.offer(shown)
    assert offered["gguf_make"] == {"visible": False}
    assert VARIABLE in offered["gguf_state"]["value"]
    *_, last = gguf.make(queue, looks, "run")
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
