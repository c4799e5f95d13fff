"""Token ids wherever they stand, when tokens are removed; and the proof that no other weight changed."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tokenizers import processors
from transformers import GenerationConfig, PreTrainedTokenizerFast

from pip_core.core import events as ev
from pip_core.core.errors import UserError
from pip_core.engine.run import run
from pip_core.structure.kept_weights import check_kept, kept_sums
from pip_core.structure.token_ids import change_config, ids_in, ids_in_config
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset

from .. import tiny, zoo

# Ids of ordinary tokens that a random choice would mostly remove.
LATE = list(range(1500, 1530))
SETTINGS = {
    "eos_token_id": [1, LATE[0]],
    "suppress_tokens": LATE[1:3],
    "begin_suppress_tokens": [LATE[3]],
    "bad_words_ids": [[LATE[4], LATE[5]], [LATE[6]]],
    "force_words_ids": [[[LATE[7]], [LATE[8], 300]]],
    "forced_decoder_ids": [[1, LATE[9]]],
    "sequence_bias": [[[LATE[10], LATE[11]], -1.5]],
    "forced_bos_token_id": LATE[12],
    "image_token_index": LATE[13],
    "max_new_tokens": LATE[20],
    "task_specific_params": {"summary": {"decoder_start_token_id": LATE[14], "max_length": LATE[21]}},
}
NAMED = {1, 300, *LATE[:15]}


def settings(**changes) -> GenerationConfig:
    found = GenerationConfig()
    for name, value in copy.deepcopy({**SETTINGS, **changes}).items():
        setattr(found, name, value)
    return found


def subset_of(tokenizer: PreTrainedTokenizerFast, generation: GenerationConfig) -> VocabularySubset:
    vocabulary = Vocabulary.of(tokenizer, zoo.CONFIGS["llama"](), generation)
    return VocabularySubset(vocabulary, vocabulary.keep(-torch.arange(zoo.VOCABULARY).float(), 800))


def test_every_field_of_ids_is_found():
    assert ids_in(SETTINGS) == ids_in_config(settings()) == NAMED


def test_ids_are_renumbered_wherever_they_stand(tokenizer):
    found = settings()
    subset = subset_of(tokenizer, found)
    assert set(subset.kept.tolist()) >= NAMED
    subset.renumber(found)
    new = subset.new
    assert found.eos_token_id == [new[1], new[LATE[0]]]
    assert found.suppress_tokens == [new[i] for i in LATE[1:3]]
    assert found.begin_suppress_tokens == [new[LATE[3]]]
    assert found.bad_words_ids == [[new[LATE[4]], new[LATE[5]]], [new[LATE[6]]]]
    assert found.force_words_ids == [[[new[LATE[7]]], [new[LATE[8]], new[300]]]]
    assert found.forced_decoder_ids == [[1, new[LATE[9]]]]
    assert found.sequence_bias == [[[new[LATE[10]], new[LATE[11]]], -1.5]]
    assert (found.forced_bos_token_id, found.image_token_index) == (new[LATE[12]], new[LATE[13]])
    inside = found.task_specific_params["summary"]
    assert inside == {"decoder_start_token_id": new[LATE[14]], "max_length": LATE[21]}
    assert found.max_new_tokens == LATE[20]
    assert max(ids_in_config(found)) < 800


def test_biases_by_tuples():
    found = settings(sequence_bias={(5, 7): 2.0, (5, 99): 1.0})
    change_config(found, {i: i + 1000 for i in NAMED | {5, 7}}.__getitem__)
    assert found.sequence_bias == {(1005, 1007): 2.0}


def test_ids_that_no_row_has_are_dropped(tokenizer):
    strange = zoo.VOCABULARY + 5
    found = settings(
        eos_token_id=[1, strange], pad_token_id=strange, bad_words_ids=[[2, strange], [3]], unk_token_id=-1
    )
    subset = subset_of(tokenizer, found)
    subset.renumber(found)
    assert (found.eos_token_id, found.pad_token_id) == ([subset.new[1]], None)
    assert found.bad_words_ids == [[subset.new[3]]]
    assert found.unk_token_id == -1


def test_what_a_tokenizer_puts_around_texts_and_pads_with(tokenizer):
    """An ordinary token before each text, a special one behind it, padding with another."""
    found = copy.deepcopy(tokenizer)
    backend = found.backend_tokenizer
    first, last, pad = LATE[0], 1, LATE[2]
    words = [found.convert_ids_to_tokens(i) for i in (first, last, pad)]
    template = processors.TemplateProcessing(
        single=f"{words[0]} $A {words[1]}", special_tokens=[(words[0], first), (words[1], last)]
    )
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    backend.enable_padding(pad_id=pad, pad_token=words[2])
    subset = subset_of(found, GenerationConfig())
    made = subset.tokenizer(found)
    assert made("text")["input_ids"][0] == subset.new[first]
    assert made("text")["input_ids"][-1] == subset.new[last]
    written = json.loads(made.backend_tokenizer.to_str())
    assert (written["padding"] or {"pad_id": subset.new[pad]})["pad_id"] == subset.new[pad]


def test_a_tokenizer_with_more_tokens_than_rows_is_refused_before_scoring(tokenizer, tasks, tmp_path):
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"pad_token": "[PAD]"})
    assert more.pad_token_id == zoo.VOCABULARY
    folder = tiny.save(tmp_path / "dense", "llama", more)
    recipe = tiny.recipe_for(folder, tasks, vocabulary=0.3, measure="end")
    events = list(run(recipe, tmp_path / "out"))
    assert {type(e) for e in events} == {ev.Loading, ev.Failed}
    assert "'[PAD]'" in events[-1].message
    assert "0 % rare tokens removed" in events[-1].message


def test_a_changed_weight_is_told():
    model = zoo.build("llama")
    before = kept_sums(model)
    check_kept(model, before)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 2] += 1e-6
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj"):
        check_kept(model, before)


def test_exchanged_rows_and_tables_are_told():
    kept = torch.tensor([3, 5, 9])
    model = zoo.build("llama-biases")
    before = kept_sums(model, kept)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        model.get_input_embeddings().weight = torch.nn.Parameter(table[[5, 3, 9]].clone())
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight[kept].clone())
    with pytest.raises(UserError, match="embed_tokens"):
        check_kept(model, before)
    with torch.no_grad():
        model.get_input_embeddings().weight = torch.nn.Parameter(table[kept].clone())
    check_kept(model, before)
    model.get_input_embeddings().weight = model.lm_head.weight
    with pytest.raises(UserError, match="embed_tokens"):
        check_kept(model, before)
