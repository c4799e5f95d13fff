"""Which windows are drawn from which text, and the preview of them."""

from __future__ import annotations

import json

import pytest

from pip_core.core.errors import UserError
from pip_core.data.corpora import DOMAINS, POOL_CHARACTERS, calibration_texts
from pip_core.data.preview import preview
from pip_core.data.windows import CHARACTERS_PER_TOKEN, in_turn, window_counts

from .. import tiny
from ..data.test_perturbation import edits_apart


def test_preview_shows_text_and_edits():
    text, edits, spans, note, lack = preview(tiny.recipe_for("unused", rate=0.5))
    assert (note, lack) == ("", "")
    assert 20 < len(text) <= 240
    words = [text[start:end] for start, end in spans]
    assert words == text.split()
    assert edits
    assert all(clean in words[i] and edits_apart(clean.lower(), new.lower()) for i, clean, new in edits)
    assert preview(tiny.recipe_for("unused", rate=0.5)) == (text, edits, spans, "", "")


def test_preview_of_what_is_not_here_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_STUDIO_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: pytest.fail("asked the Hub"))
    for calibration in ("wikitext2", "c4@v1", "hub:org/name/config:split#field"):
        shown = preview(tiny.recipe_for("unused", calibration=calibration))
        assert shown.note.startswith(f"{calibration} is fetched when the run begins")
        assert shown.edits


@pytest.mark.parametrize(
    "calibration", ["text:Only a few words of one's own.", "mix:code=1,dialogue=2", "own.jsonl"]
)
def test_preview_of_every_choice(tmp_path, monkeypatch, calibration):
    monkeypatch.chdir(tmp_path)
    tiny.write_lines(tmp_path / "own.jsonl", [{"text": "A" * 900}, {"text": "B" * 900}])
    shown = preview(tiny.recipe_for("unused", calibration=calibration))
    assert 0 < len(shown.text) <= 240
    assert shown.edits
    assert shown.note == ""


@pytest.mark.parametrize(
    ("shares", "windows", "counts"),
    [
        ([0.5, 0.2, 0.3], 10, [5, 2, 3]),
        ([0.5, 0.2, 0.3], 16, [8, 3, 5]),
        ([0.5, 0.2, 0.3], 1, [1, 0, 0]),
        ([0.25] * 4, 6, [2, 2, 1, 1]),
        ([1 / 3] * 3, 9, [3, 3, 3]),
        ([1 / 7] * 7, 14, [2] * 7),
        ([0.001, 0.999], 100, [0, 100]),
        ([1.0], 5, [5]),
    ],
)
def test_windows_by_largest_remainders(shares, windows, counts):
    assert window_counts(shares, windows) == counts
    order = list(in_turn(counts))
    assert [order.count(i) for i in range(len(counts))] == counts
    # At every point of the order each domain is within one window of its part.
    for step in range(1, windows + 1):
        for i, count in enumerate(counts):
            assert abs(order[:step].count(i) - count * step / windows) < 1


def test_a_mix_is_drawn_by_its_shares(tokenizer):
    pairs = tiny.pairs_for(tokenizer, 10, calibration="mix:code=0.2,dialogue=0.5,encyclopedic=0.3")
    whole = {d: "\n\n".join(calibration_texts(d)[0].documents) for d in DOMAINS}
    homes = [next(d for d in DOMAINS if p.clean.text.split("\n\n")[0] in whole[d]) for p in pairs]
    assert {d: homes.count(d) for d in homes} == {"code": 2, "dialogue": 5, "encyclopedic": 3}


def test_a_domain_that_is_too_short_is_named(tokenizer, tmp_path):
    short = tiny.write_lines(tmp_path / "short.jsonl", [{"text": "The dog ran away. " * 9}])
    with pytest.raises(UserError) as refused:
        tiny.pairs_for(tokenizer, 20, calibration=f"mix:code=1,{short}=1")
    message = str(refused.value)
    assert message.startswith("The calibration text 'short.jsonl' holds only about 2 windows of 24 tokens")
    assert "10 are asked for" in message
    with pytest.raises(UserError, match="'pasted text of 162 characters' holds only about 2 windows"):
        tiny.pairs_for(tokenizer, 20, calibration="text:" + "The dog ran away. " * 9)


def test_many_characters_to_a_token_are_not_the_end_of_a_text(tokenizer):
    word = max((t for t in tokenizer.get_vocab() if t[1:].isalpha() and t[0] == "Ġ"), key=len)[1:]
    assert len(word) > CHARACTERS_PER_TOKEN
    pairs = tiny.pairs_for(tokenizer, 10, calibration=f"text:{' '.join([word] * 300)}")
    assert [len(p.clean.ids) for p in pairs[1:]] == [len(pairs[1].clean.ids)] * 9


def test_only_as_much_of_a_large_file_is_read_as_is_drawn_from(tokenizer, tmp_path):
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        for n in range(POOL_CHARACTERS // 4000 + 1):
            file.write(json.dumps({"text": f"Row {n} and the dog. ".ljust(4000, "x")}) + "\n")
        file.write("broken\n")
    assert len(tiny.pairs_for(tokenizer, 3, calibration=str(path))) == 3
