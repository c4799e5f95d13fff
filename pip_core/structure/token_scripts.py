"""Which tokens belong to which script, so that it can be said which texts get longer, and which tokens stay.

A script is the first word of a letter's Unicode name: LATIN, CYRILLIC, HANGUL, CJK, ARABIC, DEVANAGARI, ...
A letter that is another's form, such as a full-width one, has that one's script (its compatibility
decomposition, NFKC). What is written in several, such as an apostrophe that counts as a letter, has none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache

from transformers import PreTrainedTokenizerBase

from ..core.errors import UserError
from .vocabulary import Vocabulary, VocabularySubset

SCRIPT, TEXT, FILE = "script:", "text:", "file:"


# What names of letters begin with that belong to no script, or to several, once they are decomposed.
OF_NO_SCRIPT = {
    *("Caron", "Halfwidth", "Ideographic", "Katakana-hiragana", "Masu"),
    *("Modifier", "Roman", "Turned", "Vedic", "Vertical"),
}


@cache
def _script_of_letter(letter: str) -> str:
    if not letter.isalpha():
        return ""
    plain = next(filter(str.isalpha, unicodedata.normalize("NFKC", letter)), "")
    script = unicodedata.name(plain, "").partition(" ")[0].capitalize() if plain else ""
    return "" if script in OF_NO_SCRIPT else script


def script_of(text: str) -> str:
    """The script of a text's first letter; empty where there is none, as in numbers and signs."""
    return next((script for letter in text if (script := _script_of_letter(letter))), "")


def tokens_by_script(vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Script -> ids of the tokens that are made of others, and so may go; the largest first."""
    found: dict[str, list[int]] = {}
    ids = list(vocabulary.parts)
    for token, text in zip(ids, tokenizer.batch_decode([[i] for i in ids]), strict=True):
        if script := script_of(text):
            found.setdefault(script, []).append(token)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def lengths_by_script(
    subset: VocabularySubset, scripts: Mapping[str, list[int]]
) -> dict[str, tuple[int, int, float]]:
    """Script -> how many of its tokens were removed, how many there were, and in how many tokens one of them
    is written now, the mean over all. Only scripts that lost some; most of all removed first."""
    found = {}
    for script, ids in scripts.items():
        if removed := sum(i not in subset.new for i in ids):
            pieces = sum(len(subset.retokenize_token(i)) for i in ids) / len(ids)
            found[script] = removed, len(ids), pieces
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def tokens_to_keep(
    wanted: Iterable[str],
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, str],
) -> set[int]:
    """Ids of the tokens that `wanted` names: `script:CYRILLIC` all of a script, `text:WORDS` and `file:PATH`
    those that the text is written with.

    Args:
        texts: contents of the files, by path.

    Raises:
        UserError: the vocabulary has no tokens of such a script, or a text is written with none that could
            go.
    """
    kept: set[int] = set()
    for name in wanted:
        if name.startswith(SCRIPT):
            scripts = tokens_by_script(vocabulary, tokenizer)
            script = name.removeprefix(SCRIPT).strip().capitalize()
            if script not in scripts:
                raise UserError(
                    f"This model's tokenizer has no tokens of the script '{script}' that could be kept. It "
                    f"has {', '.join(list(scripts)[:12])}."
                )
            kept.update(scripts[script])
            continue
        path = name.removeprefix(FILE)
        text = name.removeprefix(TEXT) if name.startswith(TEXT) else texts[path]
        ids = set(tokenizer(text, add_special_tokens=False)["input_ids"])
        if not (ids & vocabulary.parts.keys()) - vocabulary.fixed:
            raise UserError(
                f"There is nothing to keep for '{name}': this model's tokenizer writes it with tokens that "
                "always stay, such as letters and bytes. Leave it out, or name a text in whole words that "
                "the tokenizer knows."
            )
        kept.update(ids)
    return kept
