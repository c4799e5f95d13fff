"""Kinds of tokenizers: texts without some pieces are split as the tokenizer without them splits them."""

from __future__ import annotations

import json

import pytest
import torch
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.core.paths import ASSETS
from pip_core.core.recipe import Recipe
from pip_core.engine.run import run
from pip_core.engine.stages.prune_vocabulary import VocabularyPruned
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset, check_kind

from .. import tiny, zoo

TRAINED_ON = [str(ASSETS / "text" / f"{name}.txt") for name in ("dialogue", "encyclopedic")]
SPECIAL = ["[UNK]", "<s>", "</s>"]


def _trained(tokenizer: Tokenizer, trainer) -> PreTrainedTokenizerFast:
    tokenizer.train(TRAINED_ON, trainer)
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="[UNK]"
    )


def unigram() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=900, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )
    return _trained(made, trainer)


def word_piece() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)
    return _trained(made, trainer)


def marked_pairs() -> PreTrainedTokenizerFast:
    """A byte pair encoding whose tokens inside a word have a mark, which a merge drops."""
    made = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece("##")
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False
    )
    return _trained(made, trainer)


@pytest.fixture(scope="module")
def made() -> dict[str, PreTrainedTokenizerFast]:
    return {"Unigram": unigram(), "WordPiece": word_piece(), "marked": marked_pairs()}


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "marked"])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.0])
def test_a_text_is_split_as_the_smaller_tokenizer_splits_it(made, kind, share):
    tokenizer = made[kind]
    vocabulary = Vocabulary.of(tokenizer, zoo.CONFIGS["llama"]())
    scores = torch.rand(vocabulary.rows, generator=torch.Generator().manual_seed(3))
    tokens = len(vocabulary.ids)
    left = max(len(vocabulary.fixed), int(share * tokens))
    assert len(vocabulary.fixed) < tokens / 4
    subset = VocabularySubset(vocabulary, vocabulary.keep(scores, left))
    smaller = subset.tokenizer(tokenizer)
    held_out = (ASSETS / "text" / "heldout.txt").read_text(encoding="utf-8")
    for text in (held_out, "Snowboarders, 東京 and antidisestablishmentarianism! [UNK]", "a"):
        before, after = tokenizer(text)["input_ids"], smaller(text)["input_ids"]
        if kind != "marked":  # parts of a token may be merged with their neighbours
            assert subset.retokenize(torch.tensor(before)).tolist() == after
        assert smaller.decode(after) == tokenizer.decode(before)
        assert len(after) >= len(before)
    # A row that begins inside a word: what follows its first token is the same text.
    row = torch.tensor(tokenizer(held_out)["input_ids"][5:60])
    whole, first = subset.retokenize(row).tolist(), subset.retokenize(row[:1]).tolist()
    assert whole[: len(first)] == first == list(subset.retokenize_token(int(row[0])))
    names = [smaller.convert_ids_to_tokens(whole), tokenizer.convert_ids_to_tokens(row.tolist())]
    one, other = ("".join(part).replace("##", "") for part in names)
    assert one == other


def test_a_run_removes_pieces(made, tmp_path):
    model = tiny.save(tmp_path / "model", "llama", made["Unigram"])
    tasks = [tiny.write_lines(tmp_path / "choices.jsonl", tiny.choice_rows())]
    asked: Recipe = tiny.recipe_for(
        model, tasks, target=0.32, vocabulary=1.0, vocabulary_limit=0.7, measure="end"
    )
    events = list(run(asked, tmp_path / "out"))
    assert isinstance(events[-1], ev.Finished), events[-1]
    (removed,) = tiny.only(events, VocabularyPruned)
    left, read = AutoTokenizer.from_pretrained(tmp_path / "out"), AutoModelForCausalLM.from_pretrained
    assert read(tmp_path / "out").config.vocab_size == removed.rows - removed.tokens
    assert left.backend_tokenizer.model.__class__.__name__ == "Unigram"
    assert len(removed.removed()) == removed.tokens
    # More than the rows without a token, which go first.
    assert removed.tokens > zoo.VOCABULARY - len(made["Unigram"]) + 100
    assert removed.longer > 1
    text = "The fox is quick."
    assert left.decode(left(text)["input_ids"], skip_special_tokens=True) == text


def test_a_tokenizer_of_a_sentencepiece_file_alone(made, tmp_path):
    """As older checkpoints have it: no `tokenizer.json`."""
    model = tiny.save(tmp_path / "model", "llama", made["Unigram"])
    for path in model.glob("*token*"):
        path.unlink()
    SentencePieceTrainer.train(
        input=",".join(TRAINED_ON),
        model_prefix=str(model / "tokenizer"),
        model_type="bpe",
        vocab_size=1200,
        byte_fallback=True,
        minloglevel=2,
    )
    named = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (model / "tokenizer_config.json").write_text(json.dumps(named))
    asked = tiny.recipe_for(model, target=0.32, vocabulary=1.0, vocabulary_limit=0.7, measure="end")
    events = list(run(asked, tmp_path / "out"))
    assert isinstance(events[-1], ev.Finished), events[-1]
    assert not (tmp_path / "out" / "tokenizer.model").exists()
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (model, tmp_path / "out"))
    assert len(after) < len(before)
    code = (ASSETS / "text" / "code.txt").read_text(encoding="utf-8")[:500]
    for text in ("Snowboarders, 東京 and  antidisestablishmentarianism!", code):
        one, other = before(text)["input_ids"], after(text)["input_ids"]
        assert after.decode(other) == before.decode(one)
        assert len(other) >= len(one)


def test_what_could_not_be_written_is_refused_before_any_weight(made, tmp_path, monkeypatch):
    lacking = models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "abc": 3, "##bc": 4}, unk_token="[UNK]")
    pieces = Tokenizer(lacking)
    pieces.decoder = decoders.WordPiece()
    no_decoder = Tokenizer(models.BPE())
    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    for tokenizer, why in ((pieces, "##c"), (no_decoder, "no decoder"), (words, "WordLevel")):
        with pytest.raises(UserError, match=why):
            check_kind(json.loads(tokenizer.to_str()))
    # Without its piece the text is another: the decoder drops all spaces of the first one.
    letters = [(letter, -9.0) for letter in "▁The"]
    spaces = Tokenizer(models.Unigram([("?", 0.0), *letters, ("▁The▁", -1.0)], 0))
    spaces.pre_tokenizer, spaces.decoder = pre_tokenizers.Metaspace(split=False), decoders.Metaspace()
    folders = {
        "WordLevel": tiny.save(tmp_path / "words", "llama", PreTrainedTokenizerFast(tokenizer_object=words)),
        "cannot be written": tiny.save(
            tmp_path / "spaces", "llama", PreTrainedTokenizerFast(tokenizer_object=spaces)
        ),
    }
    read = []
    monkeypatch.setattr("pip_core.checkpoints.load.weights_sha256", read.append)
    monkeypatch.setattr("pip_core.engine.stages.prune_vocabulary.TOKENIZER", "not known before it is loaded")
    for why, folder in folders.items():
        events = list(run(tiny.recipe_for(folder, vocabulary=0.5)))
        assert isinstance(events[-1], ev.Failed)
        assert why in events[-1].message
        assert read == []
    lone = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [])))
    lone.backend_tokenizer.decoder = decoders.ByteLevel()
    config = zoo.CONFIGS["llama"]()
    config.vocab_size = 3
    with pytest.raises(UserError, match="lists no merges"):
        Vocabulary.of(lone, config)
