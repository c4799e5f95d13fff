"""What is learnt from and what is held out share nothing; what is written goes on where it was."""

from __future__ import annotations

import pytest
import torch

from pip_core.core.errors import UserError
from pip_core.core.progress import drain
from pip_core.evaluation.tasks import load_task
from pip_core.recovery import material as module
from pip_core.recovery.kept import Kept
from pip_core.recovery.material import SHARED, Material, apart, questions

from .. import tiny, zoo


def made(tokenizer, text: str, **changes) -> Material:
    recipe = tiny.recipe_for("unused", **changes)
    found = Material(text, recipe)
    found.read(tiny.calibration_for(recipe, tokenizer, 64), 6400)
    return found


def grams(rows: torch.Tensor) -> set:
    return {tuple(row[i : i + SHARED]) for row in rows.tolist() for i in range(len(row) - SHARED + 1)}


@pytest.mark.parametrize("text", ["calibration", "science", "encyclopedic", "written+calibration"])
def test_nothing_that_is_held_out_is_learnt_from(tokenizer, text):
    found = made(tokenizer, text)
    assert len(found.rows) * 64 >= 3200
    assert len(found.watched) > 4
    assert grams(found.rows).isdisjoint(grams(found.watched))


def test_rows_that_share_words_are_left_out():
    held = tiny.token_rows(1, 64)
    clean, copied = tiny.token_rows(1, 64, seed=1), tiny.token_rows(1, 64, seed=2)
    copied[0, 20 : 20 + SHARED] = held[0, 5 : 5 + SHARED]
    assert torch.equal(apart(torch.cat([copied, clean]), held), clean)


def test_too_short_a_text_is_refused(tokenizer, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("\n\n\n".join(f"Day {n}: the dog ran home." for n in range(20)))
    with pytest.raises(UserError, match=r"Recovery needs [\d,]+ tokens"):
        made(tokenizer, str(path))
    path.write_text("")
    with pytest.raises(UserError, match=r"The recovery text 'short.txt' is empty"):
        made(tokenizer, str(path))


def test_what_was_written_is_not_written_again(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WRITING_ROWS", 4)
    dense = zoo.build("llama")

    def write(kept: Kept, stop_after: int = 10**9) -> Material:
        found = made(tokenizer, "written")
        work = found.write(dense, zoo.VOCABULARY, 640, 5, kept)
        for _, _ in zip(range(stop_after), work, strict=False):
            pass
        work.close()
        return found

    expected = write(Kept(None, "")).rows
    assert expected.shape == (10, 64)
    assert len({tuple(row) for row in expected.tolist()}) == 10
    kept = Kept(tmp_path / "scratch", "key")
    write(kept, 70)  # in the second batch
    assert len(kept.load("written")["rows"]) == 1
    assert torch.equal(write(kept).rows, expected)
    assert Kept(tmp_path / "scratch", "another").load("written") is None
    (tmp_path / "scratch" / "recover-written.pt").write_bytes(b"half a file")
    assert torch.equal(write(kept).rows, expected)


def test_questions_are_not_those_that_are_measured(tokenizer):
    config = zoo.CONFIGS["llama"]()
    measured = [load_task("endings", 70)]
    found = questions(("endings", "facts"), measured, tokenizer, config)
    asked = [item for task in found for item in task.task.items]
    assert not set(asked) & set(measured[0].items)
    assert {task.task.name: len(task.task.items) for task in found} == {"endings": 14, "facts": 24}
    assert questions(("endings",), [load_task("endings")], tokenizer, config) == []
    assert drain(found[1].choices(zoo.build("llama")))


@pytest.mark.parametrize(
    ("given", "pinned"),
    [
        ("calibration", "calibration"),
        (tiny.FOUR, "calibration"),
        ("written", "written"),
        ("written+calibration", "written+calibration"),
        ("written+science", "written+science"),
        ("science", "science"),
    ],
)
def test_its_name_means_the_same_when_the_run_goes_on(given, pinned):
    assert Material(given, tiny.recipe_for("unused")).pinned == pinned
