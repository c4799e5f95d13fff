"""A seeded grammar of small stories: the demo model's training text, its texts and its tasks.

A story brings a few people of one town together and tells one or two episodes. Every episode ends
in sentences whose last words follow from what was told: who, whose, where, how many, or what came
of it. Cut before those words, such a sentence is a question with a known answer.

What is measured is held out by pairs. A pair of a name and a thing (a place, an object, something
counted, a cause) is held out by its hash; no training story ever holds both words of such a pair,
and every question asks about one. So no answer can have been read before.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .words import (
    AT,
    BOYS,
    CAUSES,
    CLOSINGS,
    COUNT,
    COUNTED,
    CREATURES,
    DAYS,
    DEEDS,
    FEWER,
    GATHER,
    GIRLS,
    GIVE,
    GO,
    HAD,
    LEFT,
    LINKS,
    LOOKS,
    MORE,
    MOVE,
    NAMES,
    NUMBERS,
    OBJECTS,
    OWNED,
    OWNS,
    PLACES,
    RETOLD,
    STAY,
    WATCH,
    WEATHER,
    WHAT,
    WHERE,
    WHO,
)

THINGS = (*PLACES, *OBJECTS, *COUNTED, *(c[0] for c in CAUSES))
# One pair in so many is held out.
HELD_OUT_ONE_IN = 10
# How the trainer and the tests name their streams of stories.
TRAINING, CALIBRATION, HELDOUT, TASK = "training", "calibration", "heldout", "task"


@dataclass(frozen=True)
class Question:
    """The beginning of a sentence, and how it may end, the right end first; without a full stop."""

    query: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Episode:
    """What is told, in whole sentences, and what follows from it; the first question is the one
    that a task asks."""

    told: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Story:
    """A story, and where in it the answers stand: `(start, end)` in characters, with the space
    before."""

    text: str
    answers: tuple[tuple[int, int], ...]


def held_out(name: str, thing: str) -> bool:
    """Whether no training story may hold both `name` and `thing`; the same on every machine."""
    digest = hashlib.blake2b(f"{name}/{thing}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


_WORD = re.compile("[A-Za-z]+")
# Stands around answers while a story is put together, and in no story.
_MARK = "|"
_NAMES, _THINGS = frozenset(NAMES), frozenset(THINGS)
_HELD_OUT = frozenset((n, t) for n in NAMES for t in THINGS if held_out(n, t))


def held_out_pairs(text: str) -> list[tuple[str, str]]:
    """Every held-out pair whose name and thing both stand in the text, as words."""
    words = set(_WORD.findall(text))
    return sorted((n, t) for n in words & _NAMES for t in words & _THINGS if (n, t) in _HELD_OUT)


def sentences(text: str) -> list[str]:
    """The text's sentences, each with its full stop."""
    return [s if s.endswith(".") else s + "." for s in re.split(r"(?<=\.)\s+", text)]


class Teller:
    """Draws episodes about a cast of people, one stream of random numbers.

    Args:
        asked: where given, a (name, thing) that the episode's first question must be about;
            the name is the first of the cast. Otherwise things that are held out with anybody of
            the cast are avoided.
    """

    def __init__(self, rng: random.Random, cast: list[str], asked: tuple[str, str] | None = None) -> None:
        self.rng, self.cast, self.asked = rng, cast, asked
        self.used: set[str] = set()

    def things(self, kind: tuple[str, ...], count: int) -> list[str]:
        """`count` things of a kind not told of so far; the first is the one asked about."""
        first = [self.asked[1]] if self.asked else []
        free = [t for t in kind if t not in self.used and t not in first]
        if not self.asked:
            free = [t for t in free if not any((n, t) in _HELD_OUT for n in self.cast)]
        found = first + self.rng.sample(free, count - len(first))
        self.used.update(found)
        return found

    def people(self, count: int) -> list[str]:
        """`count` of the cast; the first is the one asked about."""
        if self.asked:
            return [self.cast[0], *self.rng.sample(self.cast[1:], count - 1)]
        return self.rng.sample(self.cast, count)

    def link(self, sentence: str) -> str:
        """The sentence, often with a word of time before it."""
        if self.rng.random() < 0.4:
            return sentence
        if sentence.startswith("The "):
            sentence = "t" + sentence[1:]
        return f"{self.rng.choice(LINKS)} {sentence}"

    def who(self) -> Episode:
        """Everybody does something with an object of their own; who did one of these?"""
        people, objects = self.people(len(self.cast)), self.things(OBJECTS, len(self.cast))
        verbs = self.rng.sample(sorted(DEEDS), len(people))
        deeds = list(zip(people, verbs, objects, strict=True))
        told = [self._with(DEEDS[verb], n, thing) for n, verb, thing in self.rng.sample(deeds, len(deeds))]
        return Episode(
            tuple(told),
            tuple(
                Question(self.rng.choice(WHO).format(verb=verb, thing=thing), _first(n, people))
                for n, verb, thing in deeds
            )
            + tuple(
                Question(self.rng.choice(WHAT).format(n=n, verb=verb), _first(thing, objects))
                for n, verb, thing in deeds
            ),
        )

    def possession(self) -> Episode:
        """An object passes from hand to hand; whose is it in the end?"""
        owner, *others = self.people(len(self.cast))
        mine, other = self.things(OBJECTS, 2)
        giver = others[0]
        told = [self._with(HAD, giver, mine)]
        if len(others) > 1:
            told.append(self._with(HAD, others[1], other))
            self.rng.shuffle(told)
        passed = [giver, owner]
        if len(others) > 1 and self.rng.random() < 0.3:
            passed.insert(1, others[1])
        for a, b in itertools.pairwise(passed):
            told.append(self.link(self.rng.choice(GIVE).format(a=a, b=b, thing=mine)))
        owners = {mine: owner, other: others[1]} if len(others) > 1 else {mine: owner}
        return Episode(
            tuple(told),
            tuple(
                Question(self.rng.choice(OWNS).format(thing=thing), _first(n, (owner, *others)))
                for thing, n in owners.items()
            )
            + tuple(
                Question(self.rng.choice(OWNED).format(n=n), _first(thing, (mine, other)))
                for thing, n in owners.items()
            ),
        )

    def places(self) -> Episode:
        """One goes on to another place and one stays; where is one of them in the end? Wrong are places
        that nobody was at."""
        asked, other = self.people(2)
        answer, *more = self.things(PLACES, 4)
        stays = self.rng.random() < 0.5
        mover, stayer = (other, asked) if stays else (asked, other)
        kept, first, last = (answer, *more[:2]) if stays else (more[0], more[1], answer)
        told = [
            self.rng.choice(GO).format(n=mover, place=first),
            self.rng.choice(GO).format(n=stayer, place=kept),
        ]
        self.rng.shuffle(told)
        moves = [self.link(self.rng.choice(MOVE).format(n=mover, place=last))]
        if self.rng.random() < 0.5:
            moves.insert(self.rng.randrange(2), self.rng.choice(STAY).format(n=stayer, place=kept))
        where = {mover: last, stayer: kept}
        return Episode(
            (*told, *moves),
            tuple(
                Question(self.rng.choice(AT).format(n=n), (where[n], *_elsewhere(where[n], (answer, *more))))
                for n in (asked, other)
            )
            + tuple(
                Question(self.rng.choice(WHERE).format(place=where[n]), _first(n, (asked, other)))
                for n in (asked, other)
            ),
        )

    def counting(self) -> Episode:
        """Somebody has some of a thing, then more or fewer; how many in the end?"""
        n, other = self.people(2)
        (thing,) = self.things(COUNTED, 1)
        start, change = self.rng.randint(2, 10), self.rng.randint(1, 4)
        less = change < start - 1 and self.rng.random() < 0.5
        end = start - change if less else start + change
        forms = {"n": n, "m": other, "thing": thing, "change": NUMBERS[change], **_pronouns(n)}
        told = (
            self.rng.choice(COUNT).format(start=NUMBERS[start], **forms),
            self.link(self.rng.choice(FEWER if less else MORE).format(**forms)),
        )
        # Two is the least, so that no end has the singular.
        wrong = self.rng.sample([e for e in range(max(2, end - 3), end + 4) if e != end], 3)
        choices = tuple(f"{NUMBERS[e]} {thing}" for e in (end, *wrong))
        return Episode(told, (Question(self.rng.choice(LEFT).format(**forms), choices),))

    def causes(self) -> Episode:
        """Something happens to each of two; what came of it for one of them?"""
        people = self.people(2)
        known = {c[0]: c for c in CAUSES}
        drawn = [known[k] for k in self.things(tuple(known), 4)]
        told = [c[1].format(n=n, **_pronouns(n)) + "." for n, c in zip(people, drawn, strict=False)]
        self.rng.shuffle(told)
        ends = tuple(c[3] for c in drawn)
        return Episode(
            tuple(told),
            tuple(
                Question(c[2].format(n=n), _first(c[3], ends)) for n, c in zip(people, drawn, strict=False)
            ),
        )

    def _with(self, forms: Sequence[str], n: str, thing: str) -> str:
        """One of the forms, told of a person and an object, often with what it looks like."""
        looks = f"{self.rng.choice(LOOKS)} {thing}" if self.rng.random() < 0.7 else thing
        words = {"thing": _a(thing), "Thing": _a(looks).capitalize(), "bare": looks}
        return self.rng.choice(forms).format(n=n, **words, **_pronouns(n))


KINDS: dict[str, Callable[[Teller], Episode]] = {
    "who": Teller.who,
    "possession": Teller.possession,
    "places": Teller.places,
    "counting": Teller.counting,
    "causes": Teller.causes,
}
_ABOUT = {
    "who": OBJECTS,
    "possession": OBJECTS,
    "places": PLACES,
    "counting": COUNTED,
    "causes": tuple(c[0] for c in CAUSES),
}


def story(rng: random.Random) -> Story:
    """A story without any held-out pair: an opening, one or two episodes, an ending."""
    cast = rng.sample(NAMES, rng.choice((2, 3, 3)))
    teller = Teller(rng, cast)
    parts = [_opening(rng, cast)] if rng.random() < 0.6 else []
    # What came of it is knowledge and quickly learned; the others need more telling.
    kinds = [k for k in rng.sample(sorted(KINDS), 3) if k != "causes" or rng.random() < 0.5]
    for kind in kinds[: rng.choice((1, 2))]:
        episode = KINDS[kind](teller)
        parts += episode.told
        if rng.random() < 0.35:
            parts.append(_retold(rng, episode.told))
        parts += [
            f"{q.query}{_MARK} {q.choices[0]}{_MARK}."
            for q in rng.sample(episode.questions, min(3, len(episode.questions)))
        ]
        if rng.random() < 0.2:
            parts.append(f"{rng.choice(CREATURES)} {rng.choice(WATCH)}.")
    if rng.random() < 0.4:
        parts.append(rng.choice(CLOSINGS))
    pieces = _sentences(" ".join(parts)).split(_MARK)
    ends = list(itertools.accumulate(len(p) for p in pieces))
    return Story("".join(pieces), tuple(zip(ends[0::2], ends[1::2], strict=False)))


def stories(stream: str, seed: int = 0) -> Iterator[Story]:
    """Stories without end; the same ones for the same stream and seed, on every machine."""
    rng = random.Random(f"{seed}/{stream}")
    while True:
        yield story(rng)


def questions(kind: str, count: int, seed: int = 0) -> list[dict]:
    """Items of a task (`query`, `choices`, `gold`), each about another held-out pair where possible.

    Args:
        kind: one of `KINDS`.
    """
    rng = random.Random(f"{seed}/{TASK}/{kind}")
    pairs = sorted((n, t) for n, t in _HELD_OUT if t in _ABOUT[kind])
    rng.shuffle(pairs)
    items = []
    for number in range(count):
        name, thing = pairs[number % len(pairs)]
        cast = [name, *rng.sample([n for n in NAMES if n != name], 2)]
        episode = KINDS[kind](Teller(rng, cast, (name, thing)))
        shown = rng.sample(cast, len(cast))
        opening = _opening(rng, shown) if rng.random() < 0.5 else ""
        question = episode.questions[0]
        query = _sentences(" ".join(filter(None, (opening, *episode.told, question.query))))
        choices = [f"{c}." for c in question.choices]
        gold = choices[0]
        rng.shuffle(choices)
        items.append({"query": query, "choices": choices, "gold": choices.index(gold)})
    return items


def _opening(rng: random.Random, cast: list[str]) -> str:
    everybody = f"{', '.join(cast[:-1])} and {cast[-1]}"
    gather = rng.choice(GATHER).format(all=everybody)
    shape = rng.randrange(4)
    if shape == 0:
        return f"{rng.choice(DAYS)} {rng.choice(WEATHER)}. {gather}."
    if shape == 1:
        return f"{rng.choice(DAYS)} {gather}."
    if shape == 2:
        return f"{gather}, for {rng.choice(WEATHER)}."
    return f"{gather}."


def _elsewhere(place: str, told: Sequence[str]) -> list[str]:
    """Three places that were not told of: those that come after `place` in the list."""
    start = PLACES.index(place)
    return [p for p in PLACES[start:] + PLACES[:start] if p not in told][:3]


def _a(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _first(right: str, choices: Sequence[str]) -> tuple[str, ...]:
    """The choices with the right one moved to the front."""
    return (right, *(c for c in choices if c != right))


def _retold(rng: random.Random, told: Sequence[str]) -> str:
    """The end of what was told, again, by a creature of the town: what is last stays last."""
    return f"{rng.choice(CREATURES)} {rng.choice(RETOLD)}. {' '.join(told[-rng.choice((1, 2)) :])}"


def _pronouns(name: str) -> dict[str, str]:
    assert name in GIRLS or name in BOYS
    girl = name in GIRLS
    return {"p": "she", "o": "her", "s": "her"} if girl else {"p": "he", "o": "him", "s": "his"}


def _sentences(text: str) -> str:
    """The text with a capital at the beginning of every sentence."""
    return ". ".join(s[:1].upper() + s[1:] for s in text.split(". "))
