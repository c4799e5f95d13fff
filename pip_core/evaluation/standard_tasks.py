"""The field's standard tasks, asked as lm-evaluation-harness asks them (its 0.4.13, zero-shot).

Each is one line of the table below and one function from a row of the task's Hub data set to an
`Item`. Prompts, choices and clean-ups follow the harness's task files; `benchmarks/parity.py` compares
both item by item. Rows in the project's own format (see `items`) are read as well: what they lack
of the standard prompt is put around them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..core.errors import UserError
from .items import OWN_FIELDS, Item, gold, own_item, text, texts


@dataclass(frozen=True)
class Standard:
    """A standard task: where its rows lie on the Hub, and how a row becomes a question.

    Attributes:
        fields: what a row has, for people.
        metric: the one commonly reported, "acc" or "acc_norm".
        read: a row of the Hub's data set to an item.
        dress: an item in the project's own format to one with the standard prompt.
        greedy: whether the choice counts when greedy decoding would write it.
    """

    name: str
    dataset: str
    config: str | None
    split: str
    fields: str
    metric: str
    read: Callable[[dict], Item]
    dress: Callable[[Item], Item] = lambda item: item
    greedy: bool = False

    def item(self, row: dict) -> Item:
        """A row, of the Hub's schema or in the project's own format, as a question.

        Raises:
            UserError: what is wrong with the row, without saying which row.
        """
        if not OWN_FIELDS.isdisjoint(row):
            item, greedy = own_item(row)
            if greedy != self.greedy:
                raise UserError(f"The row is no question of {self.name}, whose rows have {self.fields}.")
            return self.dress(item)
        try:
            return self.read(row)
        except (UserError, KeyError, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, UserError) else f"{error} cannot be read."
            raise UserError(f"{reason} A row of {self.name} has {self.fields}.") from None


def _ask(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _dress_question(item: Item) -> Item:
    return replace(item, prompt=_ask(item.prompt.removeprefix("Question: ").removesuffix("\n")))


def _lettered(row: dict, prompt: str, key: str) -> Item:
    """Choices given as `{"text": [...], "label": [...]}` with the right label under `key`."""
    choices = row.get("choices")
    if not isinstance(choices, dict):
        raise UserError("'choices' must hold 'text' and 'label'.")
    found, labels = texts(choices, "text", least=2), list(choices.get("label", ()))
    answer = text(row, key).lstrip()
    if answer not in labels or len(labels) != len(found):
        raise UserError(f"'{key}' is {answer!r}, but the choices are labelled {', '.join(map(str, labels))}.")
    return Item(prompt, found, labels.index(answer))


def _arc(row: dict) -> Item:
    return _lettered(row, _ask(text(row, "question")), "answerKey")


def _openbookqa(row: dict) -> Item:
    return _lettered(row, text(row, "question_stem"), "answerKey")


def _piqa(row: dict) -> Item:
    choices = (text(row, "sol1"), text(row, "sol2"))
    return Item(_ask(text(row, "goal")), choices, gold(row, "label", 2))


def _without_wikihow_marks(value: str) -> str:
    """The harness's clean-up of HellaSwag: what WikiHow's layout left in the texts."""
    value = re.sub(r"\[.*?\]", "", value.strip().replace(" [title]", ". "))
    return value.replace("  ", " ")


def _hellaswag(row: dict) -> Item:
    begun = f"{text(row, 'ctx_a', empty=True)} {text(row, 'ctx_b', empty=True).capitalize()}"
    prompt = _without_wikihow_marks(f"{text(row, 'activity_label')}: {begun}")
    cleaned = {"endings": [_without_wikihow_marks(e) for e in texts(row, "endings", least=2)]}
    choices = texts(cleaned, "endings", least=2)
    label = row.get("label")
    number = int(label) if isinstance(label, str) and label.isdigit() else label
    return Item(prompt, choices, gold({"label": number}, "label", len(choices)))


def _winogrande(row: dict) -> Item:
    """Partial scoring: the rest of the sentence after each option, given everything before it."""
    before, blank, after = text(row, "sentence").partition("_")
    if not blank or not after.strip():
        raise UserError("'sentence' must have a blank '_' with a text after it.")
    answer = row.get("answer")
    if answer not in ("1", "2"):
        raise UserError(f"'answer' is {answer!r}, but must be '1' or '2'.")
    openings = (before + text(row, "option1"), before + text(row, "option2"))
    return Item("", (after.strip(),) * 2, int(answer) - 1, openings)


def _boolq(row: dict) -> Item:
    prompt = f"{text(row, 'passage')}\nQuestion: {text(row, 'question')}?\nAnswer:"
    return Item(prompt, ("no", "yes"), gold(row, "label", 2))


_CONNECTORS = {"cause": "because", "effect": "therefore"}


def _copa(row: dict) -> Item:
    if row.get("question") not in _CONNECTORS:
        raise UserError(f"'question' is {row.get('question')!r}, but must be 'cause' or 'effect'.")
    # The premise without its full stop, as the harness has it.
    prompt = f"{text(row, 'premise').strip()[:-1]} {_CONNECTORS[row['question']]}"
    choices = tuple(_clause(text(row, f"choice{n}")) for n in (1, 2))
    return Item(prompt, choices, gold(row, "label", 2))


def _clause(choice: str) -> str:
    """A choice as the harness goes on with it: after a second space, the first letter small."""
    return f" {choice[0].lower()}{choice[1:]}"


def _dress_copa(item: Item) -> Item:
    found = re.fullmatch(r"(.*?),? (because|therefore)\s*", item.prompt, flags=re.DOTALL)
    if not found:
        raise UserError("'query' must end with 'because' or 'therefore'.")
    return replace(item, prompt=" ".join(found.groups()), choices=tuple(map(_clause, item.choices)))


def _lambada(row: dict) -> Item:
    before, _, word = text(row, "text").rpartition(" ")
    if not before or not word.strip():
        raise UserError("'text' must be several words, the last of which is asked for.")
    return Item(before, (word,), 0)


_ARC = ("question, choices (text, label) and answerKey", "acc_norm", _arc, _dress_question)
STANDARD = (
    Standard("arc_easy", "allenai/ai2_arc", "ARC-Easy", "test", *_ARC),
    Standard("arc_challenge", "allenai/ai2_arc", "ARC-Challenge", "test", *_ARC),
    Standard(
        "piqa",
        "baber/piqa",
        None,
        "validation",
        "goal, sol1, sol2 and label",
        "acc_norm",
        _piqa,
        _dress_question,
    ),
    Standard(
        "hellaswag",
        "Rowan/hellaswag",
        None,
        "validation",
        "activity_label, ctx_a, ctx_b, endings and label",
        "acc_norm",
        _hellaswag,
    ),
    Standard(
        "winogrande",
        "allenai/winogrande",
        "winogrande_xl",
        "validation",
        "sentence, option1, option2 and answer",
        "acc",
        _winogrande,
    ),
    Standard("boolq", "aps/super_glue", "boolq", "validation", "passage, question and label", "acc", _boolq),
    Standard(
        "openbookqa",
        "allenai/openbookqa",
        "main",
        "test",
        "question_stem, choices (text, label) and answerKey",
        "acc_norm",
        _openbookqa,
    ),
    Standard(
        "copa",
        "aps/super_glue",
        "copa",
        "validation",
        "premise, question, choice1, choice2 and label",
        "acc",
        _copa,
        _dress_copa,
    ),
    Standard(
        "lambada_openai", "EleutherAI/lambada_openai", "default", "test", "text", "acc", _lambada, greedy=True
    ),
)

WIKITEXT = "wikitext"
WIKITEXT_ROWS = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test")


def wikitext_pages(whole: str) -> list[str]:
    """WikiText's one text as the pages it was made of: each begins with a heading ` = Title = `."""
    pages = re.split(r"(?m)^(?= = [^=\n]+ = $)", whole)
    return [p for p in pages if p.strip()]


def wikitext_detokenized(page: str) -> str:
    """A page of WikiText as prose: the harness's detokenizer, rule by rule and in its order."""
    for pattern, replacement in _DETOKENIZE:
        page = re.sub(pattern, replacement, page)
    return page


_DETOKENIZE = (
    (r"s '", "s'"),
    # As the harness has it: it means digits after an apostrophe, and matches nothing of the kind.
    (r"/' [0-9]/", "/'[0-9]/"),
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    # One after another: of two marks in a row each gives up its space.
    *((rf" [{mark}] ", f"{mark} ") for mark in ":;.!?,"),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (" ° ", "°"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)
