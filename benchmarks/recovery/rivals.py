"""Published ways to remove 20 % of a model, each as its paper and its code do it; see README.md.

Every function changes the model of a `Bench` in place, and is told how many parameters must go beside those
of the tokens, which were chosen before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from pip_core.checkpoints.load import Loaded
from pip_core.core.progress import drain
from pip_core.core.units import BLOCKS, CHANNELS, HEADS, Units, group
from pip_core.data.calibration import Calibration
from pip_core.scoring import get_scorer
from pip_core.structure.anatomy import Anatomy, anatomy_of
from pip_core.structure.families import blocks_of
from pip_core.structure.hooks import Hooks, first_of
from pip_core.structure.shape import Shape
from pip_core.structure.sites import Site, sites_of
from pip_core.structure.surgery import reshape
from pip_core.structure.vocabulary import VocabularySubset

# LLM-Pruner leaves the first and the last blocks as they are (4 and 2 of LLaMA's 32).
FIRST, LAST = 4, 2
# Minitron's width: the residual stream keeps eight ninths, and channels make up the rest.
STREAM = 8 / 9
# Channels that a matrix is a multiple of.
MULTIPLE = 8


@dataclass
class Bench:
    """What a rival works on.

    Attributes:
        loaded: the dense model, which becomes the pruned one.
        calibration: the text that it is scored on; `rows` batches of it, int64 `(B, T)`, which what is solved
            by least squares reads.
        subset: the tokens that are left; None where all are.
    """

    loaded: Loaded
    calibration: Calibration
    rows: Sequence[torch.Tensor]
    subset: VocabularySubset | None

    @property
    def model(self) -> PreTrainedModel:
        return self.loaded.model

    def zeros(self, *shape: int) -> torch.Tensor:
        """Sums that begin, float64, where the model is."""
        return torch.zeros(shape, dtype=torch.float64, device=self.model.device)

    def anatomy(self) -> Anatomy:
        return anatomy_of(self.loaded.config)

    def cut(self, units: Sequence[Units]) -> None:
        """Remove units of the dense model."""
        anatomy = self.anatomy()
        shape = Shape.dense(anatomy)
        reshape(self.model, anatomy, shape, shape.without(units))

    def scores(self, method: str, sites: Sequence[Site]) -> list[torch.Tensor]:
        """The scores of a method of this project on the pairs of the first iteration."""
        blocks, pairs = blocks_of(self.model), self.calibration.pairs(1)
        return drain(self.calibration.score(get_scorer(method), self.model, blocks, sites, pairs))

    def read(self, modules: dict[str, nn.Module]) -> Generator[dict[str, torch.Tensor], None, None]:
        """What modules return on each batch of `rows`: by name, `(B, T, d)`, in the model's number format."""
        for batch in self.rows:
            found: dict[str, torch.Tensor] = {}
            with Hooks() as hooks, torch.inference_mode():
                for name, module in modules.items():
                    hooks.after(module, _keep(found, name))
                self.model.base_model(input_ids=batch, use_cache=False)
            yield found

    def streams(self) -> Generator[list[torch.Tensor], None, None]:
        """The residual stream before the first block and after each, on each batch."""
        modules = {"start": self.model.get_input_embeddings()}
        modules |= {str(n): block for n, block in enumerate(blocks_of(self.model))}
        for found in self.read(modules):
            yield [found[name] for name in modules]


def _keep(found: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def keep(args: object, kwargs: object, output: object) -> None:
        found[name] = first_of(output)

    return keep


def lowest(scores: torch.Tensor, count: int, site: Site) -> list[tuple[str, int, int]]:
    """The `count` units of a site with the lowest scores."""
    return [(site.kind, site.block, int(n)) for n in scores.argsort(stable=True)[:count]]


def llm_pruner(bench: Bench, parameters: int) -> None:
    """Taylor on groups of heads and on channels, the same share of both in every block but the outer ones."""
    anatomy = bench.anatomy()
    inner = range(FIRST, len(anatomy.blocks) - LAST)
    sites = [s for s in sites_of(anatomy, Shape.dense(anatomy), (HEADS, CHANNELS)) if s.block in inner]
    each = parameters / len(inner)
    heads, channels = (next(s for s in sites if s.kind == kind) for kind in (HEADS, CHANNELS))
    share = each / (heads.size * heads.cost + channels.size * channels.cost)
    # There are few groups of heads: channels make up for what a whole number of them leaves.
    groups = min(heads.size - 1, max(1, round(share * heads.size)))
    count = {HEADS: groups, CHANNELS: math.ceil((each - groups * heads.cost) / channels.cost)}
    found = zip(sites, bench.scores("taylor", sites), strict=True)
    bench.cut(group(u for site, scores in found for u in lowest(scores, count[site.kind], site)))


def flap(bench: Bench, parameters: int) -> None:
    """FLAP's scores, one threshold for the whole model, and a bias in place of what was removed."""
    anatomy = bench.anatomy()
    sites = sites_of(anatomy, Shape.dense(anatomy), (HEADS, CHANNELS))
    scores = bench.scores("flap", sites)
    order = sorted((float(s), n, u) for n, found in enumerate(scores) for u, s in enumerate(found))
    gone: list[list[int]] = [[] for _ in sites]
    for _, n, unit in order:
        if parameters <= 0:
            break
        if len(gone[n]) < sites[n].size - 1:
            gone[n].append(unit)
            parameters -= sites[n].cost
    biases = _biases(bench, sites, gone)
    bench.cut(group((s.kind, s.block, u) for s, units in zip(sites, gone, strict=True) for u in units))
    for site, bias in zip(sites, biases, strict=True):
        projection = blocks_of(bench.model)[site.block].get_submodule(site.output)
        projection.bias = nn.Parameter(bias.to(bench.model.dtype))


def _biases(bench: Bench, sites: Sequence[Site], gone: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """What the removed units of each site add on the average, `(d,)`."""
    blocks = blocks_of(bench.model)
    sums = [bench.zeros(site.features) for site in sites]
    tokens = 0
    for batch in bench.rows:
        with Hooks() as hooks, torch.inference_mode():
            for total, site in zip(sums, sites, strict=True):

                def add(args: tuple, kwargs: object, total: torch.Tensor = total) -> None:
                    total.add_(args[0].double().sum((0, 1)))

                hooks.before(blocks[site.position].get_submodule(site.output), add)
            bench.model.base_model(input_ids=batch, use_cache=False)
        tokens += batch.numel()
    found = []
    for total, site, units in zip(sums, sites, gone, strict=True):
        removed = bench.zeros(site.size)
        removed[list(units)] = 1
        mean = total / tokens * removed.repeat_interleave(site.features // site.size)
        found.append(site.output_weight(blocks[site.position]).detach().double() @ mean)
    return found


def _run(bench: Bench, count: int, first: int, last_token: bool) -> int:
    """The first of `count` blocks in a row that turn the residual stream least.

    Args:
        first: lowest number that the run may begin with.
        last_token: whether the angle is that of each row's last token alone; of all tokens otherwise, the
            cosine.
    """
    starts = range(first, len(blocks_of(bench.model)) - count + 1)
    far = bench.zeros(len(starts))
    for streams in bench.streams():
        for n, start in enumerate(starts):
            one, other = streams[start].double(), streams[start + count].double()
            if last_token:
                one, other = one[:, -1], other[:, -1]
            cosine = F.cosine_similarity(one, other, dim=-1).clamp(-1, 1)
            far[n] += (cosine.acos() / math.pi if last_token else 1 - cosine).sum()
    return starts[int(far.argmin())]


def _count(bench: Bench, parameters: int) -> int:
    anatomy = bench.anatomy()
    return math.ceil(parameters / anatomy.blocks[0].parameters)


def _drop(bench: Bench, start: int, count: int) -> None:
    bench.cut([Units(BLOCKS, n, (0,)) for n in range(start, start + count)])


def deeper_layers(bench: Bench, parameters: int) -> None:
    """The run of blocks across which the last token's stream turns least."""
    count = _count(bench, parameters)
    _drop(bench, _run(bench, count, 0, last_token=True), count)


def replace_me(bench: Bench, parameters: int) -> None:
    """The run of blocks with the least cosine distance, replaced by one linear map: the least squares of what
    follows the run on what the MLP before it adds, folded into that MLP's last projection."""
    count = _count(bench, parameters)
    start = _run(bench, count, 1, last_token=False)
    blocks = blocks_of(bench.model)
    mlp = blocks[start - 1].mlp
    modules = {"mlp": mlp, "before": blocks[start - 1], "after": blocks[start + count - 1]}
    size = bench.model.config.hidden_size
    xx, xy = (bench.zeros(size, size) for _ in range(2))
    for found in bench.read(modules):
        added, before, after = (found[name].double().flatten(0, 1) for name in modules)
        xx += added.T @ added
        xy += added.T @ (after - before + added)
    folded = torch.linalg.solve(xx, xy).T @ mlp.down_proj.weight.detach().double()
    mlp.down_proj.weight.data.copy_(folded)
    _drop(bench, start, count)


def minitron(bench: Bench, parameters: int) -> None:
    """Width by activations: features of the residual stream and channels, the same number in every block."""
    model, anatomy = bench.model, bench.anatomy()
    blocks, config = blocks_of(model), model.config
    kept = round(STREAM * config.hidden_size / 64) * 64
    left = sum(p.numel() for p in model.parameters()) - parameters
    # Rows of the vocabulary that go are counted before this is called, and cut after it.
    gone = 0 if bench.subset is None else config.vocab_size - len(bench.subset.kept)
    attention = 2 * (config.num_attention_heads + config.num_key_value_heads) * config.head_dim + 2
    fixed = config.vocab_size - gone + 1 + len(blocks) * attention
    left -= gone * config.hidden_size
    channels = int((left / kept - fixed) / (3 * len(blocks))) // MULTIPLE * MULTIPLE
    stream = bench.zeros(config.hidden_size)
    widths = sites_of(anatomy, Shape.dense(anatomy), (CHANNELS,))
    inner = [bench.zeros(s.size) for s in widths]
    norms = [getattr(b, name) for b in blocks for name in ("input_layernorm", "post_attention_layernorm")]

    def count(total: torch.Tensor, values: torch.Tensor) -> None:
        """Of every feature the mean size over a row's tokens, squared and added up over the rows."""
        total.add_(values.double().abs().mean(1).square().sum(0))

    for batch in bench.rows:
        with Hooks() as hooks, torch.inference_mode():
            for norm in norms:
                hooks.after(norm, lambda args, kwargs, output: count(stream, output))
            for total, site in zip(inner, widths, strict=True):
                projection = blocks[site.position].get_submodule(site.output)
                hooks.before(projection, lambda args, kwargs, total=total: count(total, args[0]))
            model.base_model(input_ids=batch, use_cache=False)
    units = group(u for s, t in zip(widths, inner, strict=True) for u in lowest(t, s.size - channels, s))
    bench.cut(units)
    narrow_stream(model, stream.argsort(descending=True)[:kept].sort().values)


def narrow_stream(model: PreTrainedModel, kept: torch.Tensor) -> None:
    """Keep features of the residual stream of a llama, in place."""
    for name, module in model.named_modules():
        leaf = name.rpartition(".")[-1]
        if leaf in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens"):
            axis = 1
        elif leaf in ("o_proj", "down_proj") or leaf.endswith("norm"):
            axis = 0
        else:
            continue
        module.weight = nn.Parameter(module.weight.detach().index_select(axis, kept))
    model.get_input_embeddings().embedding_dim = len(kept)
    model.config.hidden_size = len(kept)
    model.tie_weights()


RIVALS: dict[str, Callable[[Bench, int], None]] = {
    "llm-pruner": llm_pruner,
    "deeper-layers": deeper_layers,
    "minitron": minitron,
    "replace-me": replace_me,
    "flap": flap,
}
