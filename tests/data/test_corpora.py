"""A text's name to its documents: mixes, tables, pasted text, and what is wrong with the rest."""

from __future__ import annotations

import json
import math

import pytest

from pip_core.core.errors import UserError
from pip_core.core.recipe import Recipe
from pip_core.data import corpora
from pip_core.data.corpora import DOMAINS, KNOWN, calibration_texts, documents, hub_of, parts, pinned, title

from .. import tiny


def test_shares_of_a_mix():
    shares = dict(parts("mixed"))
    assert tuple(shares) == DOMAINS
    assert sum(shares.values()) == pytest.approx(1)
    letters = {d: len("".join(documents(d))) for d in DOMAINS}
    for domain, share in shares.items():
        assert share == pytest.approx(letters[domain] / sum(letters.values()), rel=0.02)
    assert parts("c4@v1") == (("c4@v1", 1.0),)
    assert parts("mix:encyclopedic=0.5, code=0.2,wikitext2=0.3") == (
        ("encyclopedic", 0.5),
        ("code", 0.2),
        ("wikitext2", 0.3),
    )
    assert parts("mix:hub:a/b:train@x#f=3,my/file.txt=1,code=0") == (
        ("hub:a/b:train@x#f", 0.75),
        ("my/file.txt", 0.25),
    )


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ("mix:", "'' is not a part of a mix: write mix:NAME=SHARE,NAME=SHARE"),
        ("mix:code", "'code' is not a part of a mix"),
        ("mix:code=", "'code=' is not a part of a mix"),
        ("mix:code=1,,dialogue=1", "'' is not a part of a mix"),
        ("mix:code=-1", "'code=-1' is not a part of a mix"),
        ("mix:code=nan", "'code=nan' is not a part of a mix"),
        ("mix:code=inf", "'code=inf' is not a part of a mix"),
        ("mix:code=1,code=2", "'code=2' is not a part of a mix"),
        ("mix:mixed=1", "'mixed=1' is not a part of a mix"),
        ("mix:text:Hello=1", "is not a part of a mix"),
        ("mix:code=0,dialogue=0", "needs a share above 0 for at least one"),
        ("mix:prose=1", "Unknown text 'prose': choose mixed, encyclopedic, dialogue"),
    ],
)
def test_a_mix_that_is_none(mix, message):
    with pytest.raises(UserError) as refused:
        calibration_texts(mix)
    assert message in str(refused.value)


def test_domains_of_a_mix():
    found = calibration_texts("mix:code=1,dialogue=3")
    assert [(d.name, d.share, d.duplicates) for d in found] == [("code", 0.25, 0), ("dialogue", 0.75, 0)]
    assert list(found[1].documents) == documents("dialogue")
    assert math.isclose(sum(d.share for d in calibration_texts("mix:code=1,dialogue=1,encyclopedic=1")), 1)


def test_duplicates_are_dropped_and_counted(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("One.\n\n\nTwo.\n\n\n One. \n\n\nOne.\n\n\nThree.\n")
    assert documents(str(path)) == ["One.", "Two.", "Three."]
    (domain,) = calibration_texts(str(path))
    assert (domain.documents, domain.duplicates) == (("One.", "Two.", "Three."), 2)


def test_columns_of_a_table(tmp_path, monkeypatch):
    rows = [{"id": str(n), "body": f"Text {n}\r\nends.\n", "text": f"t{n}"} for n in range(5)]
    path = tiny.write_lines(tmp_path / "own.jsonl", rows)
    assert documents(path) == [f"t{n}" for n in range(5)]
    assert documents(f"{path}#body") == [f"Text {n}\nends." for n in range(5)]
    assert documents(f"{path}#body", characters=20) == ["Text 0\nends.", "Text 1\nends."]
    (tmp_path / "a.csv").write_text("number,words\n1,\n2,two words\n")
    assert documents(f"{tmp_path / 'a.csv'}#words") == ["two words"]
    giant = tiny.write_lines(tmp_path / "giant.jsonl", [{"text": f"text {n}"} for n in range(9)])
    monkeypatch.setattr(corpora, "LONGEST_TEXT", 13)
    assert documents(str(giant)) == ["text 0", "text 1", "text 2"]
    only = tiny.write_lines(tmp_path / "only.jsonl", [{"n": 1, "words": "one"}, {"n": 2, "words": None}])
    assert documents(only) == ["one"]
    named = tiny.write_lines(tmp_path / "a#b.jsonl", [{"text": "A file's name may hold the sign."}])
    assert documents(named) == ["A file's name may hold the sign."]


@pytest.mark.parametrize(
    ("rows", "field", "message"),
    [
        (
            [{"a": "x", "b": "y"}],
            "",
            "has no column 'text'; its columns are a, b. Name the one that holds the text",
        ),
        ([{"a": 1}], "", "has no column 'text'; its columns are a."),
        ([{"a": "x"}], "#b", "The calibration text 'own.jsonl' has no column 'b'; it has a."),
        ([{"text": "x"}, {"a": "y"}], "", "has no column 'text'; it has a."),
        ([{"text": {"a": 1}}], "", "holds no text in its column 'text', but dict values"),
        ([{"text": 3}], "", "holds no text in its column 'text', but int values"),
        ([{"text": [[1]]}], "", "holds no text in its column 'text', but list values"),
        ([{"text": " "}, {"text": None}], "", "The calibration text 'own.jsonl' is empty."),
        ([], "", "The calibration text 'own.jsonl' is empty."),
    ],
)
def test_a_column_that_is_none(tmp_path, rows, field, message):
    path = tiny.write_lines(tmp_path / "own.jsonl", rows)
    with pytest.raises(UserError) as refused:
        documents(path + field)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_the_beginning_of_a_large_table_is_read(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "Twelve chars"}\n{"text": "and some more"}\nbroken\n')
    assert documents(str(path), characters=20) == ["Twelve chars", "and some more"]
    with pytest.raises(UserError, match=r"own\.jsonl, line 3: not valid JSON"):
        documents(str(path))


def test_only_the_beginning_of_a_large_text_is_read(tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(b"One.\n\n\nTwo.\n\n\nThree.\n" + b"x" * 400 + b"\xff")
    assert documents(str(path), characters=8) == ["One.", "Two."]
    with pytest.raises(UserError, match=r"own\.txt' is not UTF-8 text"):
        documents(str(path))


def test_pasted_text_lives_in_the_recipe():
    pasted = 'text:Früher, im Garten.\r\n\r\n\r\nZweiter Text, "mit" = und , und #.'
    recipe = Recipe.from_json(Recipe(calibration=pasted).to_json())
    assert documents(recipe.calibration) == ["Früher, im Garten.", 'Zweiter Text, "mit" = und , und #.']
    assert title(recipe.calibration) == f"pasted text of {len(pasted) - 5} characters"
    assert pinned(pasted) == pasted


@pytest.mark.parametrize(
    ("pasted", "message"),
    [
        ("", "The pasted calibration text is empty."),
        (" \n\n\n ", "The pasted calibration text is empty."),
        ("a\0b", "holds a NUL character"),
        ("a\ud83d", "holds half a character"),
        ("long " * 300_000, "has 1,500,000 characters; above 1,000,000 give it as a file."),
    ],
)
def test_pasted_text_that_is_none(pasted, message):
    with pytest.raises(UserError) as refused:
        calibration_texts(f"text:{pasted}")
    assert message in str(refused.value)


def test_pasted_text_may_hold_what_json_escapes():
    recipe = Recipe(calibration='text:line\n\ttab \\ "quoted" \u2028 end')
    assert json.loads(recipe.to_json())["calibration"] == recipe.calibration


def test_known_names():
    assert str(hub_of("c4")) == "hub:allenai/c4/en:train#text"
    assert str(hub_of("wikitext2-test@abc")) == "hub:Salesforce/wikitext/wikitext-2-raw-v1:test@abc#text"
    assert hub_of("code") is hub_of("wikitext3") is hub_of("my/c4.txt") is None
    assert not {*KNOWN} & {*DOMAINS, corpora.HELDOUT, corpora.MIXED}


def test_titles(tmp_path):
    assert title(str(tmp_path / "own.txt")) == "own.txt"
    assert title("hub:a/b#c") == "hub:a/b#c"
    assert title("mix:a/b.txt=1,code=1") == "mix:a/b.txt=1,code=1"
    assert title("code") == "code"
