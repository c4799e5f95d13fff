"""The standard tasks, with the prompts of lm-evaluation-harness 0.4.13 (zero-shot).

Each is one line of the table below and one function from a row of the task's Hub data set to an
`Item`. Prompts, choices and clean-ups follow the harness's task files; `benchmarks/parity.py` compares
both item by item. Rows in the project's own format (see `items`) are read as well; the standard prompt is
added to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..core.errors import UserError
from .items import OWN_FIELDS, Item, gold, own_item, text, texts


@dataclass(frozen=True)
class Standard:
    """A standard task: the location of its rows on the Hub, and the conversion of a row to an item.

    Attributes:
        fields: the fields of a row, for messages.
        metric: the metric commonly reported, "acc" or "acc_norm".
        read: converts a row of the Hub's data set to an item.
        add_prompt: converts an item in the project's own format to one with the standard prompt.
        greedy: True where an answer is right if greedy decoding writes it.
    """

    name: str
    dataset: str
    config: str | None
    split: str
    fields: str
    metric: str
    read: Callable[[dict], Item]
    add_prompt: Callable[[Item], Item] = lambda item: item
    greedy: bool = False

    def item(self, row: dict) -> Item:
        """The item of a row in the format of the Hub's data set or in the project's own.

        Raises:
            UserError: what is wrong with the row; the caller adds which row.
        """
        if not OWN_FIELDS.isdisjoint(row):
            item, greedy = own_item(row)
            if greedy != self.greedy:
                raise UserError(f"The row is no question of {self.name}, whose rows have {self.fields}.")
            return self.add_prompt(item)
        try:
            return self.read(row)
        except (UserError, KeyError, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, UserError) else f"{error} cannot be read."
            raise UserError(f"{reason} A row of {self.name} has {self.fields}.") from None


def _question_prompt(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _prompted_question(item: Item) -> Item:
    return replace(item, prompt=_question_prompt(item.prompt.removeprefix("Question: ").removesuffix("\n")))


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
    return _lettered(row, _question_prompt(text(row, "question")), "answerKey")


def _openbookqa(row: dict) -> Item:
    return _lettered(row, text(row, "question_stem"), "answerKey")


def _piqa(row: dict) -> Item:
    choices = (text(row, "sol1"), text(row, "sol2"))
    return Item(_question_prompt(text(row, "goal")), choices, gold(row, "label", 2))


def _without_wikihow_marks(value: str) -> str:
    """A text of HellaSwag without remains of WikiHow's layout, as the harness cleans it."""
    value = re.sub(r"\[.*?\]", "", value.strip().replace(" [title]", ". "))
    return value.replace("  ", " ")


def _hellaswag(row: dict) -> Item:
    context = f"{text(row, 'ctx_a', empty=True)} {text(row, 'ctx_b', empty=True).capitalize()}"
    prompt = _without_wikihow_marks(f"{text(row, 'activity_label')}: {context}")
    cleaned = {"endings": [_without_wikihow_marks(e) for e in texts(row, "endings", least=2)]}
    choices = texts(cleaned, "endings", least=2)
    label = row.get("label")
    number = int(label) if isinstance(label, str) and label.isdigit() else label
    return Item(prompt, choices, gold({"label": number}, "label", len(choices)))


def _winogrande(row: dict) -> Item:
    """Partial scoring: each option opens the sentence, and the likelihood of its rest counts."""
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
    # The premise without its full stop, as in the harness.
    prompt = f"{text(row, 'premise').strip()[:-1]} {_CONNECTORS[row['question']]}"
    choices = tuple(_clause(text(row, f"choice{n}")) for n in (1, 2))
    return Item(prompt, choices, gold(row, "label", 2))


def _clause(choice: str) -> str:
    """A choice as the harness writes it: after a second space, with a small first letter."""
    return f" {choice[0].lower()}{choice[1:]}"


def _prompted_copa(item: Item) -> Item:
    found = re.fullmatch(r"(.*?),? (because|therefore)\s*", item.prompt, flags=re.DOTALL)
    if not found:
        raise UserError("'query' must end with 'because' or 'therefore'.")
    return replace(item, prompt=" ".join(found.groups()), choices=tuple(map(_clause, item.choices)))


def _lambada(row: dict) -> Item:
    before, _, word = text(row, "text").rpartition(" ")
    if not before or not word.strip():
        raise UserError("'text' must be several words, the last of which is to be predicted.")
    return Item(before, (word,), 0)


_ARC = ("question, choices (text, label) and answerKey", "acc_norm", _arc, _prompted_question)
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
        _prompted_question,
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
        _prompted_copa,
    ),
    Standard(
        "lambada_openai", "EleutherAI/lambada_openai", "default", "test", "text", "acc", _lambada, greedy=True
    ),
)

WIKITEXT = "wikitext"
WIKITEXT_ROWS = ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test")


def wikitext_pages(whole: str) -> list[str]:
    """The pages of WikiText, from its one text; each begins with a heading ` = Title = `."""
    pages = re.split(r"(?m)^(?= = [^=\n]+ = $)", whole)
    return [p for p in pages if p.strip()]


def wikitext_detokenized(page: str) -> str:
    """A page of WikiText as prose, by the rules of the harness's detokenizer in their order."""
    for pattern, replacement in _DETOKENIZE:
        page = re.sub(pattern, replacement, page)
    return page


_DETOKENIZE = (
    (r"s '", "s'"),
    # A mistake of the harness that is kept: it is meant for digits after an apostrophe, and matches none.
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
