"""The two views: what is edited, how it is tokenised, and that the draw is reproducible."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from string import ascii_letters

import pytest
import torch
from tokenizers import processors

from pip_core.core.errors import UserError
from pip_core.data.corpora import DOMAINS, calibration_texts
from pip_core.data.perturbation import PERTURBATION_KINDS, Perturber, view_of, vocabulary_words

from .. import tiny

WORDS = frozenset(("alter", "nappy", "ghost", "ghosts", "stale", "least", "house", "horse", "moused"))


def edits_apart(clean: str, other: str) -> set[str]:
    """The kinds of single edit that lead from `clean` to `other`; empty where none does."""
    kinds = set()
    if len(clean) == len(other):
        apart = [i for i in range(len(clean)) if clean[i] != other[i]]
        if len(apart) == 1:
            kinds.add("replace")
        if len(apart) == 2:
            i, j = apart
            if j == i + 1 and clean[i] == other[j] and clean[j] == other[i]:
                kinds.add("swap")
    if len(other) == len(clean) + 1:
        kinds |= {"insert" for i in range(len(other)) if other[:i] + other[i + 1 :] == clean}
    return kinds


@pytest.mark.parametrize(
    ("clean", "other", "kinds"),
    [
        ("later", "alter", {"swap"}),
        ("happy", "nappy", {"replace"}),
        ("host", "ghost", {"insert"}),
        ("host", "host", set()),
        ("host", "hots!", set()),
        ("host", "tsoh", set()),
    ],
)
def test_the_measure_itself(clean, other, kinds):
    assert edits_apart(clean, other) == kinds


@pytest.mark.parametrize("kind", PERTURBATION_KINDS)
@pytest.mark.parametrize("words", [frozenset(), WORDS, "vocabulary"], ids=["none", "few", "vocabulary"])
def test_every_edit_is_one_edit_of_its_kind(kind, words, tokenizer):
    perturber = Perturber(vocabulary_words(tokenizer) if words == "vocabulary" else words, [kind])
    rng = random.Random(3)
    for word in ("later", "happy", "host", "house", "she", "abc", "tree", "encyclopedia", "committee"):
        for _ in range(20):
            edited = perturber.edit(word, rng)
            assert kind in edits_apart(word, edited), f"{word} -> {edited}"


@pytest.mark.parametrize("kind", PERTURBATION_KINDS)
def test_words_of_equal_letters_are_edited_too(kind):
    edited = Perturber((), [kind]).edit("aaa", random.Random(0))
    assert edited != "aaa"
    assert edits_apart("aaa", edited)


@pytest.mark.parametrize(
    ("word", "kind", "edited"),
    [("later", "swap", "alter"), ("happy", "replace", "nappy"), ("host", "insert", "ghost")],
)
def test_prefers_real_words(word, kind, edited):
    assert Perturber({edited}, [kind]).edit(word, random.Random(1)) == edited


def test_a_real_word_of_any_kind_beats_nonsense():
    perturber = Perturber({"ghost"}, PERTURBATION_KINDS)
    assert {perturber.edit("host", random.Random(i)) for i in range(20)} == {"ghost"}


def test_real_words_are_frequent_where_there_are_any(tokenizer):
    words = vocabulary_words(tokenizer)
    pairs = tiny.pairs_for(tokenizer, 8, window_tokens=64, rate=1.0)
    reachable = real = 0
    for _, clean, edited in (e for p in pairs for e in p.edits):
        near = any(
            edits_apart(clean.lower(), w) for w in words if abs(len(w) - len(clean)) <= 1 and w != clean
        )
        reachable += near
        real += near and edited.lower() in words
    assert reachable > 10
    assert real / reachable > 0.95


def test_without_a_real_word_the_ends_stay():
    rng = random.Random(0)
    for kind in PERTURBATION_KINDS:
        for _ in range(20):
            edited = Perturber((), [kind]).edit("wonderful", rng)
            assert edited[0] == "w"
            assert edited[-1] == "l"


@pytest.mark.parametrize("kind", PERTURBATION_KINDS)
def test_keeps_capitals(kind):
    rng = random.Random(0)
    for words in ((), WORDS):
        perturber = Perturber(words, [kind])
        for _ in range(10):
            assert perturber.edit("LATER", rng).isupper()
            assert perturber.edit("Later", rng).istitle()
            assert perturber.edit("later", rng).islower()


@pytest.mark.parametrize("kind", PERTURBATION_KINDS)
def test_capitals_inside_a_word_stay(kind):
    rng = random.Random(0)
    for word in ("setTimeout", "ValueError", "waitMs", "iPhone"):
        for _ in range(20):
            edited = Perturber((), [kind]).edit(word, rng)
            assert edits_apart(word.lower(), edited.lower())
            # Every letter that is still there has the case it had.
            capitals = [c for c in word if c.isupper()]
            assert sum(c.isupper() for c in edited) == len(capitals), f"{word} -> {edited}"
            if kind != "swap":
                assert kind in edits_apart(word, edited), f"{word} -> {edited}"


def test_vocabulary_words(tokenizer):
    words = vocabulary_words(tokenizer)
    assert len(words) > 300
    assert {"the", "and", "that"} <= words
    assert all(re.fullmatch("[a-z]{3,}", w) for w in words)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.6, 1.0])
def test_rate(rate):
    text = " ".join(f"word{'abcdefghij'[i % 10]} {i}" for i in range(100))
    perturbed, edits, _ = Perturber((), PERTURBATION_KINDS).perturb(text, rate, random.Random(0))
    assert len(edits) == round(100 * rate)
    changed = [i for i, (a, b) in enumerate(zip(text.split(), perturbed.split(), strict=True)) if a != b]
    assert changed == [i for i, _, _ in edits]


def test_at_least_one_word_is_edited():
    perturbed, edits, _ = Perturber((), ["insert"]).perturb("Only 3 of us", 0.01, random.Random(0))
    assert len(edits) == 1
    assert perturbed != "Only 3 of us"


def test_a_text_without_words_stays():
    found = Perturber((), ["swap"]).perturb("1 + 2 = 3", 1.0, random.Random(0))
    assert found[:2] == ("1 + 2 = 3", ())


def test_punctuation_and_space_stay():
    text = 'He said:  "Stop!"\n\n(Then   nothing.)\n'
    perturbed, *_ = Perturber((), PERTURBATION_KINDS).perturb(text, 1.0, random.Random(2))
    outside = f"[{ascii_letters}]+"
    assert re.sub(outside, "", perturbed) == re.sub(outside, "", text)


@pytest.fixture(scope="module")
def pairs(tokenizer):
    return tiny.pairs_for(tokenizer, 12, window_tokens=40)


def test_edits_say_what_differs(pairs):
    for pair in pairs:
        ours, theirs = pair.clean.text.split(), pair.perturbed.text.split()
        assert len(ours) == len(theirs)
        assert [i for i, _, _ in pair.edits] == [
            i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b
        ]
        for i, clean, edited in pair.edits:
            assert ours[i].replace(clean, edited, 1) == theirs[i]


def test_both_views_have_the_same_words(pairs):
    for pair in pairs:
        count = len(pair.clean.text.split())
        for view in (pair.clean, pair.perturbed):
            assert sorted(set(view.words.tolist())) == list(range(count))
            assert view.ids.shape == view.words.shape
            assert view.ids.dtype == view.words.dtype == torch.int64


@pytest.mark.parametrize("tokens", [8, 24, 100])
def test_length_of_windows(tokenizer, tokens):
    for pair in tiny.pairs_for(tokenizer, 12, window_tokens=tokens):
        assert tokens / 2 < len(pair.clean.ids) <= tokens


def test_a_word_longer_than_a_window_is_left_out(tokenizer, tmp_path):
    path = tmp_path / "long.txt"
    giant = "".join(random.Random(0).choices("bcdfghjklmnpqrstvwxz", k=300))
    path.write_text(("The dog ran around the tree and the cat sat on the mat. " + giant + " ") * 20)
    for pair in tiny.pairs_for(tokenizer, 6, calibration=str(path)):
        assert len(pair.clean.ids) <= 24
        assert giant[:50] not in pair.clean.text


def test_windows_do_not_overlap(tokenizer):
    texts = [p.clean.text for p in tiny.pairs_for(tokenizer, 40, calibration="dialogue")]
    whole = "\n\n".join(d for docs in calibration_texts("dialogue") for d in docs.documents)
    assert len(set(texts)) == 40
    inside = [t for t in texts if t in whole]
    assert len(inside) > 30
    spans = sorted((whole.index(t), whole.index(t) + len(t)) for t in inside)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_a_mix_takes_its_domains_in_turn(tokenizer):
    mixed = tiny.pairs_for(tokenizer, 8)
    for i, pair in enumerate(mixed):
        domain = "\n\n".join(calibration_texts(DOMAINS[i % 4])[0].documents)
        first = pair.clean.text.split("\n\n")[0]
        assert first in domain


def test_same_recipe_same_pairs(tokenizer):
    recipe = tiny.recipe_for("unused", windows=5)
    one, two = tiny.draw(recipe, tokenizer, 2), tiny.draw(recipe, tokenizer, 2)
    assert [(p.clean.text, p.perturbed.text, p.edits) for p in one] == [
        (p.clean.text, p.perturbed.text, p.edits) for p in two
    ]
    assert all(torch.equal(a.perturbed.ids, b.perturbed.ids) for a, b in zip(one, two, strict=True))


def test_another_iteration_perturbs_anew(tokenizer):
    recipe = tiny.recipe_for("unused", windows=5)
    one, two = tiny.draw(recipe, tokenizer, 1), tiny.draw(recipe, tokenizer, 2)
    assert [p.clean.text for p in one] == [p.clean.text for p in two]
    assert all(a.perturbed.text != b.perturbed.text for a, b in zip(one, two, strict=True))


def test_another_seed_draws_other_windows(tokenizer):
    one, two = (tiny.pairs_for(tokenizer, 5, seed=s) for s in (0, 1))
    assert [p.clean.text for p in one] != [p.clean.text for p in two]


def test_fewer_windows_are_the_first_of_more(tokenizer):
    few, many = tiny.pairs_for(tokenizer, 3), tiny.pairs_for(tokenizer, 7)
    assert [p.perturbed.text for p in few] == [p.perturbed.text for p in many[:3]]


def test_words_of_tokens(tokenizer):
    text = "One  two,\n\n three-four\nfive   six\U0001f600 end"
    view = view_of(text, tokenizer)
    chunks = text.split()
    for number, chunk in enumerate(chunks):
        piece = tokenizer.decode(view.ids[view.words == number])
        assert piece.strip() == chunk
    assert view.words.tolist() == sorted(view.words.tolist())


def test_beginning_of_text_token_belongs_to_the_first_word(tokenizer, bos_tokenizer):
    text = "The  dog\n\nran away"
    plain, with_bos = view_of(text, tokenizer), view_of(text, bos_tokenizer)
    assert with_bos.ids.tolist() == [0, *plain.ids.tolist()]
    assert with_bos.words.tolist() == [0, *plain.words.tolist()]
    assert all(p.clean.ids[0] == 0 for p in tiny.pairs_for(bos_tokenizer, 3))
    assert all(12 < len(p.clean.ids) <= 24 for p in tiny.pairs_for(bos_tokenizer, 8))


def test_an_end_of_text_token_is_no_part_of_a_view(tokenizer):
    ending = tiny.build_tokenizer()
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    plain, with_eos = (view_of("The dog ran", t) for t in (tokenizer, ending))
    assert with_eos.ids.tolist() == plain.ids.tolist()
    assert with_eos.words.tolist() == plain.words.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8 text"),
        (b"text with a\x00zero", "is not UTF-8 text"),
        ("naïve".encode("latin-1"), "is not UTF-8 text"),
        (b"Too short to fill a window.", "holds only about 0 windows of 24 tokens, and 3 are asked for"),
        (b"The dog ran away. " * 9, "holds only about 2 windows"),
    ],
)
def test_unusable_text(tokenizer, tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        tiny.pairs_for(tokenizer, 3, calibration=str(path))
    assert message in str(refused.value)
    assert "text.txt" in str(refused.value)


def test_missing_text(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt' does not exist"):
        tiny.pairs_for(tokenizer, calibration=str(tmp_path / "nowhere.txt"))
    with pytest.raises(UserError, match="Unknown text 'prose': choose mixed, encyclopedic"):
        tiny.pairs_for(tokenizer, calibration="prose")


def test_a_file_of_ones_own(tokenizer, tmp_path):
    path = tmp_path / "own.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"The dog ran around the house.\r\nThen it slept. " * 30)
    pairs = tiny.pairs_for(tokenizer, 3, calibration=str(path))
    assert len(pairs) == 3
    assert not any("\ufeff" in p.clean.text or "\r" in p.clean.text for p in pairs)


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match="fast tokenizer"):
        tiny.draw(tiny.recipe_for("unused"), Slow(), 1)
