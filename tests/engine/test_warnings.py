"""What a run says that makes its own figures worth less."""

from __future__ import annotations

import json

from pip_core.core import events as ev
from pip_core.engine.run import run

from .. import tiny


def test_what_is_measured_on_the_calibration_text_is_said_once(recipe, tmp_path):
    read = "Every morning the old keeper climbed all the winding stairs and lit the big lamp for us"
    item = {"query": read, "choices": ["again", "never"], "gold": 0}
    (tmp_path / "seen.jsonl").write_text("\n".join([json.dumps(item)] * 2))
    text = "text:" + "\n\n\n".join([f"{read} again. " + "The cat sat. " * n for n in (30, 40, 30)])
    chosen = recipe.replace(calibration=text, windows=1, tasks=(str(tmp_path / "seen.jsonl"),))
    found = list(run(chosen, out=tmp_path / "model"))
    said = [e.message for e in tiny.only(found, ev.Warned)]
    assert len(said) == 3
    assert said[0].startswith("1 documents of the calibration text 'pasted text of ")
    assert said[1].startswith("1 of the 2 items of seen are the same as an earlier one")
    assert said[2].startswith("2 of 2 items of seen share 13 words in a row")
    card = (tmp_path / "model" / "README.md").read_text()
    assert all(message in card for message in said)
    assert read not in card
    assert not tiny.only(run(chosen, history=found[:-1]), ev.Warned)
