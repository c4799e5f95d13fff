"""What every scoring method owes the model and the run: nothing left behind, nothing held, no copy."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from pip_core.core.process_group import added
from pip_core.core.units import EXPERTS
from pip_core.data.perturbation import Pair, View
from pip_core.scoring import METHODS, Scorer
from pip_core.structure.families import blocks_of

from .. import tiny, zoo
from ..scoring.test_rival_methods import RIVALS, scores, sites_in


@pytest.fixture(scope="module")
def pairs(tokenizer) -> list[Pair]:
    """Five texts, of four domains."""
    return tiny.pairs_for(tokenizer, 5, window_tokens=40)


def of_llama(scorer: Scorer) -> str:
    """The smallest kind of units that the method scores in a model that is no mixture."""
    return [kind for kind in scorer.kinds if kind != EXPERTS][-1]


def fingerprint(model: PreTrainedModel) -> tuple:
    return (
        [(n, p.requires_grad, p.grad, p.data_ptr(), p._version) for n, p in model.named_parameters()],
        [
            (n, m.training, "forward" in vars(m), len(m._forward_hooks), len(m._forward_pre_hooks))
            for n, m in model.named_modules()
        ],
        [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()],
    )


@pytest.mark.parametrize("scorer", RIVALS, ids=lambda m: m.name)
def test_leaves_the_model_as_it_was(scorer, pairs):
    model = zoo.build("llama")
    sites, before = sites_in(model, of_llama(scorer)), fingerprint(model)
    for abandoned in (False, True):
        steps = []
        work = tiny.scoring(scorer, model, sites, pairs)
        with torch.enable_grad():
            for done in work:
                steps.append(done)
                assert torch.is_grad_enabled()
                assert not torch.is_inference_mode_enabled()
                if abandoned:
                    break
        work.close()
        assert fingerprint(model) == before
        assert steps == sorted(steps)
        assert abandoned or steps[-1] == len(pairs)


@pytest.mark.parametrize("scorer", [m for m in RIVALS if m.cost(1)], ids=lambda m: m.name)
def test_a_failure_leaves_the_model_as_it_was(scorer, pairs):
    model = zoo.build("llama")
    before = fingerprint(model)
    view = View("x", torch.tensor([10**6, 1]), torch.tensor([0, 0]))
    with pytest.raises(IndexError):
        scores(model, scorer.name, of_llama(scorer), [replace(pairs[0], clean=view, domain=7), pairs[1]])
    assert fingerprint(model) == before


@pytest.mark.parametrize("scorer", METHODS, ids=lambda m: m.name)
def test_what_two_processes_found_adds_up(scorer, pairs):
    model = zoo.build("llama")
    sites = sites_in(model, of_llama(scorer))
    begun = [lambda: scorer.begin(model, list(blocks_of(model)), sites)]
    if scorer.scores_tokens:
        begun.append(lambda: scorer.begin_tokens(model))
    for begin in begun:
        whole, *parts = found = [begin() for _ in range(3)]
        for work, some in zip(found, (pairs, pairs[:2], pairs[2:]), strict=True):
            for pair in some:
                list(work.add([pair]) or ())
        for name in whole.sums:
            setattr(parts[0], name, added(*(getattr(part, name) for part in parts)))
        torch.testing.assert_close(parts[0].scores(), whole.scores(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scorer", RIVALS, ids=lambda m: m.name)
def test_bfloat16_scores_stay_near(scorer, pairs):
    model = zoo.build("llama")
    kind = of_llama(scorer)
    exact = torch.cat(scores(model, scorer.name, kind, pairs))
    near = torch.cat(scores(model.to(torch.bfloat16), scorer.name, kind, pairs))
    assert torch.equal(near.isfinite(), exact.isfinite())
    finite = exact.isfinite()
    torch.testing.assert_close(
        near[finite], exact[finite], rtol=0.1, atol=0.05 * float(exact[finite].abs().max())
    )


class Live(TorchDispatchMode):
    """Bytes of the tensors made inside it that are alive, at the most; `model`'s own do not count."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known = {p.untyped_storage()._cdata for p in model.parameters()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("scorer", METHODS, ids=lambda m: m.name)
def test_no_method_holds_a_copy_of_the_model(scorer, pairs):
    config = {
        **zoo.SHAPE,
        "hidden_size": 128,
        "intermediate_size": 768,
        "vocab_size": 64,
        "num_hidden_layers": 8,
    }
    model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.bfloat16).eval()
    views = [
        replace(v, ids=v.ids[:32] % 64, words=v.words[:32]) for p in pairs for v in (p.clean, p.perturbed)
    ]
    short = [Pair(a, b, (), n) for n, (a, b) in enumerate(zip(views[::2], views[1::2], strict=True))]
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    sites = sites_in(model, scorer.kinds[0])
    with Live(model) as live:
        tiny.scores(scorer, model, sites, short)
    assert 0 < live.peak < 0.5 * weights
