"""What a removal costs is measured without cutting anything, and is what cutting it costs."""

from __future__ import annotations

import pytest
import torch

from pip_core.core.units import Units
from pip_core.scoring.base import loss_of
from pip_core.scoring.removal_cost import lowest, masked, nats, nats_without
from pip_core.structure.anatomy import anatomy_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import sites_of
from pip_core.structure.surgery import reshape
from pip_core.structure.vocabulary import Vocabulary, VocabularySubset

from .. import tiny, zoo

EVERY = ("blocks", "attention", "mlp", "heads", "channels")


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *(("llama", kind) for kind in EVERY),
        *(("gpt2", kind) for kind in EVERY if kind != "heads"),
        *((family, "experts") for family in ("mixtral", "deepseek_v3")),
    ],
)
def test_masked_units_add_what_removed_ones_do(family, kind):
    model = zoo.build(family)
    anatomy = anatomy_of(model.config)
    dense, ids = Shape.dense(anatomy), tiny.token_rows(1, 20)[0]
    sites = sites_of(anatomy, dense, (kind,))
    count = 1 if sites[0].size == 1 else sites[0].size // 2
    scores = [
        torch.rand(site.size, generator=torch.Generator().manual_seed(n)) for n, site in enumerate(sites)
    ]
    units = lowest(sites, scores, [count * (n < 2) for n in range(len(sites))])
    with masked(model, sites, units):
        found = sum(nats(model, [ids]))
    assert found != pytest.approx(sum(nats(model, [ids])), abs=1e-5)
    gone = [
        Units(kind, sites[n].block, tuple(sorted(sites[n].numbers[place] for place in places.tolist())))
        for n, places in units.items()
    ]
    reshape(model, anatomy, dense, dense.without(gone))
    assert found == pytest.approx(loss_of(model, ids) * (len(ids) - 1), rel=1e-5)


def test_tokens_left_out_of_the_softmax_cost_what_removed_ones_do(opened):
    loaded = opened("llama", "float32")
    model = loaded.model
    vocabulary = Vocabulary.of(loaded.tokenizer, loaded.config)
    ids = loaded.tokenizer("The dog ran around the old tree.", return_tensors="pt")["input_ids"][0]
    scores = torch.arange(vocabulary.rows, 0, -1).float()
    subset = VocabularySubset(vocabulary, vocabulary.keep(scores, len(vocabulary.fixed) + 20))
    assert len(subset.retokenize(ids)) > len(ids)
    # A text that a vocabulary leaves as it is is read once for it and for the dense model.
    own = ids.tolist()
    other = VocabularySubset(vocabulary, vocabulary.keeping(own).keep(scores, vocabulary.rows - 1))
    (found, dense, less), read = nats_without(model, (subset, None, other), ids)
    assert read == len(subset.retokenize(ids)) + len(ids)
    assert dense == pytest.approx(sum(nats(model, [ids])), rel=1e-6)
    assert less < dense
    subset.apply(model)
    new, first = subset.retokenize(ids), len(subset.retokenize(ids[:1]))
    with torch.no_grad():
        logits = model(input_ids=new[None]).logits[0, :-1].log_softmax(dim=-1)
    losses = -logits.gather(1, new[1:, None])[:, 0]
    assert found == pytest.approx(float(losses[first - 1 :].sum()), rel=1e-5)
