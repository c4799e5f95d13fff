"""Texts of every script: what is a word, what is edited, and that Latin texts are drawn as ever."""

from __future__ import annotations

import hashlib
import random

import pytest

from pip_core.core.errors import UserError
from pip_core.data.contamination import overlap
from pip_core.data.perturbation import PERTURBATION_KINDS, Perturber
from pip_core.data.writing import LATIN, letters_of, script_of, writing_of

from .. import tiny

TEXTS = {
    "russian": "Собака бежала вокруг дерева, а Кошка сидела на коврике. МОСКВА была далеко. Python тоже.",
    "chinese": "我们的世界很大,人们住在不同的地方。他说:今天天气很好!Python 是一种语言。",
    "japanese": "東京へ行きました。コーヒーを飲んで、友達と話しました。",
    "greek": "Ο σκύλος έτρεξε γύρω από το δέντρο και η Γάτα κοιμήθηκε.",
    "hindi": "कुत्ता पेड़ के चारों ओर दौड़ा और बिल्ली चटाई पर बैठी। यह नहीं है।",
    "korean": "개가 나무 주위를 뛰어다녔고 고양이는 집으로 돌아왔습니다.",
    "thai": "สุนัขวิ่งไปรอบต้นไม้ และแมวกลับบ้าน",
    "arabic": "ركض الكلب حول الشجرة ثم عاد القط إلى البيت",
    "decomposed": "Пе\u0301рвый день е\u0301хал домо\u0301й на трамвае",
}
ENGLISH = "The dog ran around the tree and came home again, said the old man quietly to his friends."


def long(text: str) -> str:
    return "text:" + " ".join(f"{text} {number}" for number in range(60))


@pytest.mark.parametrize("name", TEXTS)
def test_every_script_is_edited_by_its_own_letters(name, tokenizer):
    recipe = tiny.recipe_for("unused", calibration=long(TEXTS[name]), windows=4, window_tokens=96)
    calibration = tiny.calibration_for(recipe, tokenizer)
    pairs = calibration.pairs(1)
    assert not list(calibration.warnings())
    for pair in pairs:
        assert pair.edits
        assert pair.clean.words[-1] == pair.perturbed.words[-1] > 0
        for _, before, after in pair.edits:
            assert before != after
            scripts = {script_of(letter[0]) for letter in letters_of(before)}
            assert {script_of(letter[0]) for letter in letters_of(after)} <= scripts
            # A mark stays behind a letter: nothing is left when the letters with their marks are.
            assert "".join(letters_of(after)) == after


@pytest.mark.parametrize("kind", PERTURBATION_KINDS)
def test_capitals_and_marks_stay(kind):
    writing = writing_of(TEXTS.values())
    for word in ("Москва", "МОСКВА", "москва", "до\u0301м"):
        for seed in range(10):
            edited = Perturber((), [kind], writing).edit(word, random.Random(seed))
            assert edited != word
            assert (edited.isupper(), edited.islower(), edited.istitle()) == (
                word.isupper(),
                word.islower(),
                word.istitle(),
            )
            assert edited.count("\u0301") == word.count("\u0301")


def test_edits_prefer_words_of_the_text():
    writing = writing_of(["кот ток рот"])
    edited = {Perturber((), PERTURBATION_KINDS, writing).edit("кот", random.Random(n)) for n in range(9)}
    assert edited == {"рот"}


def test_text_without_spaces_is_divided_into_pieces_of_characters():
    text = TEXTS["japanese"]
    words = [text[a:b] for a, b in writing_of([text]).spans(text)]
    assert words[:3] == ["東京へ", "行きま", "した。"]
    assert "".join(words) == text


def test_latin_texts_are_drawn_as_ever(tokenizer):
    """With a few words of other letters in them too. The digest was written down before other scripts were
    edited."""
    for calibration in (tiny.FOUR, long(f"{ENGLISH} {ENGLISH} Un garçon naïf à Łódź, 東京."), "code"):
        domains = tiny.calibration_for(
            tiny.recipe_for("unused", calibration=calibration), tokenizer
        ).text.domains
        assert all(writing_of(domain.documents) is LATIN for domain in domains)
    pairs = tiny.draw(tiny.recipe_for("unused", calibration=tiny.FOUR, windows=8), tokenizer)
    drawn = repr([(p.clean.text, p.perturbed.text, p.edits, p.perturbed.words.tolist()) for p in pairs])
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "004f06d2d661bbb8"


def test_a_russian_text_is_not_read_by_its_latin_words_alone(tokenizer):
    text = " ".join([TEXTS["russian"].replace("Python", "день")] * 30 + [TEXTS["russian"]]) + " "
    pairs = tiny.pairs_for(tokenizer, 12, calibration="text:" + text * 2)
    assert sum("Python" in pair.clean.text for pair in pairs) < 6


def test_a_method_that_compares_no_views_takes_any_text(tokenizer):
    recipe = tiny.recipe_for("unused", calibration=long("12 + 34 = 46; 😀 7"))
    calibration = tiny.calibration_for(recipe, tokenizer)
    with pytest.raises(UserError, match="without letters to edit"):
        calibration.check()
    calibration = tiny.calibration_for(recipe, tokenizer, compares=False)
    assert len(calibration.pairs(1)) == 3
    assert not list(calibration.warnings())


def test_passages_without_letters_come_last(tokenizer):
    recipe = tiny.recipe_for("unused", calibration=long(ENGLISH) + " 1 + 2" * 300)
    one, other = (
        tiny.calibration_for(recipe, tokenizer, compares=compares).pairs(1) for compares in (True, False)
    )
    assert [p.clean.text for p in one] == [p.clean.text for p in other]


def test_too_few_edits_are_said(tokenizer):
    recipe = tiny.recipe_for("unused", calibration=long("12 + 34 = 46; 7 - 8 = is -1 and 5"))
    (warning,) = tiny.calibration_for(recipe, tokenizer).warnings()
    assert "60 %" in warning


@pytest.mark.parametrize("name", ["chinese", "hindi", "thai"])
def test_overlap_is_seen_in_every_script(name):
    text = TEXTS[name] * 2
    assert overlap([text], [text[5:]]).shared == 1
    assert overlap([text], [TEXTS["greek"] * 3]).shared == 0
