"""The Inspect tab: what is left of the network, task by task, and where the two models differ."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..core.figures import percent
from ..core.timed import Timed, in_words
from ..engine.stages import describe
from ..inspection import latency
from ..inspection.divergence import Place
from ..reporting.messages import NO_CHANGE
from ..reporting.run_summary import RunSummary
from ..structure.anatomy import Anatomy
from ..structure.shape import Shape
from .difference_text import task_words
from .html import empty, table
from .network_map import network_map

# Steps of the scale on which predictions differ: the least divergence in nats, and what it means.
DEGREES = ((0.0, "the same"), (0.05, "a little"), (0.25, "clearly"), (1.0, "another prediction"))
# Characters before a token that are shown with it.
CONTEXT = 40
# What a metric is, for who does not know its name.
METRICS = {
    "acc": "accuracy: the likeliest answer is chosen",
    "acc_norm": "accuracy: the answer that is likeliest per byte is chosen",
}


def maps(summary: RunSummary, anatomy: Anatomy) -> str:
    """The whole model above what is left of it."""
    shape = shape_of(summary, anatomy)
    return (
        "<div class='pair'>"
        + network_map(anatomy, title="The whole model")
        + network_map(
            anatomy,
            shape,
            title=f"Now: {summary.removed_description or shape.removed_description(anatomy)} removed",
        )
        + "</div><p class='line'>A column is a block, its attention above its MLP; height is size. "
        "Hollow = removed, half filled = narrowed.</p>" + _results(summary)
    )


def _results(summary: RunSummary) -> str:
    """The results of the stages after the last removal that have examples to show."""
    found = []
    for result in summary.results.values():
        done = describe(result)
        if not done.examples:
            continue
        rows = "".join(
            f"<dt>{escape(label)}</dt><dd>{_written(texts)}</dd>" for label, texts in done.examples
        )
        found.append(
            f"<h3>{escape(done.heading)}</h3><dl class='tokens'>{rows}</dl><p "
            f"class='line'>{escape(done.note)}</p>"
        )
    return "".join(found)


def _written(tokens: Sequence[str]) -> str:
    """Tokens side by side, a space in them made visible."""
    return " ".join(f"<code>{escape(token.replace(' ', '␣'))}</code>" for token in tokens)


def shape_of(summary: RunSummary, anatomy: Anatomy) -> Shape:
    """What is left of the dense model."""
    return Shape.dense(anatomy).without(unit for removal in summary.removals for unit in removal.units)


def tasks(summary: RunSummary) -> str:
    """Accuracy per task, dense against now, drawn and in words."""
    dense, now = summary.dense, summary.latest
    if dense is None or now is None:
        return empty("The accuracy on every task appears here, of the whole model and of what is left.")
    rows = [
        [
            f"{escape(a.name)} <small title='{METRICS.get(a.metric, '')}'>{escape(a.metric)}, {a.items} "
            "questions</small>",
            percent(a.chance, 0),
            f"{percent(a.accuracy)} ± {percent(a.se)}",
            f"{percent(b.accuracy)} ± {percent(b.se)}",
            _bars(a.accuracy, a.se, b.accuracy, b.se, a.chance),
            escape(words).replace(f"({NO_CHANGE})", f"<small>{NO_CHANGE}</small>") if now.iteration else "",
        ]
        for a, b, words in zip(dense.tasks, now.tasks, task_words(dense, now), strict=True)
    ]
    head = ["task", "guessing", "whole model", "now", "0 to 100 %", "difference"]
    return table(head, rows, "Accuracy on every task, with one standard error", "tasks")


def _end(text: str) -> str:
    """The last words of a text; whole ones, where they are set apart by spaces."""
    if len(text) <= CONTEXT:
        return escape(text)
    end = text[-CONTEXT:]
    return "… " + escape(end.partition(" ")[2] or end)


def disagreements(places: Sequence[Place]) -> str:
    """A text, each token marked by how much the two models' predictions of it differ."""
    if not places:
        return empty("Enter a text of at least two words and press Compare predictions.")
    words = escape(places[0].before) + "".join(
        f"<mark class='d{degree(p.divergence)}' title='{_predictions(p)}'>{escape(p.token)}</mark>"
        for p in places
    )
    rows = [
        [
            _end(p.before) + " <b>" + escape(p.token) + "</b>",
            _nats(p.divergence),
            _likeliest(p.dense),
            _likeliest(p.pruned),
        ]
        for p in sorted(places, key=lambda p: -p.divergence)[:8]
    ]
    mean = sum(p.divergence for p in places) / len(places)
    head = ["next token", "difference, nats", "whole model predicts", "pruned model predicts"]
    return (
        f"<p class='heated'>{words}</p>{_scale()}<p class='line'>On average {_nats(mean)} nats: the "
        "Kullback-Leibler divergence of the pruned model's prediction from the whole model's, over the "
        "tokens that both have. The scale is the same for every text and model.</p>"
        + table(head, rows, "Where the predictions differ most", "places")
    )


def degree(nats: float) -> int:
    """How much two predictions differ, as a step of the scale: 0 not to speak of, 3 another prediction."""
    return sum(nats >= bound for bound, _ in DEGREES[1:])


def _scale() -> str:
    ends = [f"under {DEGREES[1][0]:g}", *(f"from {bound:g}" for bound, _ in DEGREES[1:])]
    items = "".join(
        f"<li><mark class='d{number}'>word</mark> {words}, {ends[number]}</li>"
        for number, (_, words) in enumerate(DEGREES)
    )
    return f"<ul class='scale' aria-label='How much the predictions differ, in nats'>{items}</ul>"


def _nats(value: float) -> str:
    return f"{value:.2f}" if value >= 0.005 else "under 0.01"


def speed_of_run(found: Timed | None) -> str:
    """What a run itself measured of the speed and memory of the two models, or what will be here."""
    if found is None:
        return empty("The speed and memory of both models on this machine appear here.")
    if found.skipped:
        return empty(found.sentence())
    one, other = found.dense_bytes, found.pruned_bytes
    rows = [
        ["reading", f"{in_words(found.reading)} as fast"],
        ["writing", f"{in_words(found.writing)} as fast"],
        ["weights in memory", f"{other / 1e6:.0f} MB instead of {one / 1e6:.0f} MB"],
    ]
    caption = f"Measured at the end of the run: {found.rounds} rounds in turn, {_on(found)}; medians"
    return table(["", "pruned model"], rows, caption)


def _on(found: Timed | latency.LatencyComparison) -> str:
    threads = f", {found.threads} thread{'s' * (found.threads != 1)}" if found.threads else ""
    return f"on {found.device}{threads}"


def speed(found: latency.LatencyComparison) -> str:
    """Speed and memory of the two models, measured side by side."""
    rows = [
        ["reading", *_rates(found.dense.prefill, found.pruned.prefill), _ratio(found.prefill_ratio)],
        ["writing", *_rates(found.dense.decode, found.pruned.decode), _ratio(found.decode_ratio)],
    ]
    for name, field in (("weights in memory", "weights_memory"), ("weights on disk", "weights_disk")):
        one, other = getattr(found.dense, field), getattr(found.pruned, field)
        rows.append(
            [name, f"{one / 1e6:.0f} MB", f"{other / 1e6:.0f} MB", f"{other / one:.2f}" if one else ""]
        )
    one, other = found.dense.cache_per_token, found.pruned.cache_per_token
    share = f"{other / one:.2f}" if one else ""
    rows.append(["cache per token", f"{one / 1e3:.1f} KB", f"{other / 1e3:.1f} KB", share])
    return table(
        ["", "whole model", "pruned", "pruned / whole"],
        rows,
        f"Batch 1, {found.prompt_tokens} tokens read and {found.new_tokens} written, {found.rounds} rounds, "
        f"{found.dtype} {_on(found)}; medians",
    )


def _rates(one: latency.Spread, other: latency.Spread) -> list[str]:
    return [f"{s.median:.0f} tokens/s" for s in (one, other)]


def _ratio(found: latency.Spread) -> str:
    return f"{found.median:.2f} <small>({found.low:.2f} to {found.high:.2f})</small>"


def _bars(dense: float, dense_se: float, now: float, now_se: float, chance: float) -> str:
    """Two thin bars with whiskers, and a tick for guessing."""
    return (
        f"<div class='bars' aria-hidden='true'><i style='width:{dense:.1%}'></i>"
        f"<i class='now' style='width:{now:.1%}'></i>"
        f"<s style='left:{max(0.0, dense - dense_se):.1%};width:{2 * dense_se:.1%}'></s>"
        f"<s class='now' style='left:{max(0.0, now - now_se):.1%};width:{2 * now_se:.1%}'></s>"
        f"<b style='left:{chance:.1%}'></b></div>"
    )


def _predictions(place: Place) -> str:
    dense = ", ".join(f"{word.strip() or '␣'} {percent(share, 0)}" for word, share in place.dense)
    pruned = ", ".join(f"{word.strip() or '␣'} {percent(share, 0)}" for word, share in place.pruned)
    return escape(f"{place.divergence:.2f} nats. Whole model: {dense}. Pruned: {pruned}.", quote=True)


def _likeliest(found: Sequence[tuple[str, float]]) -> str:
    return " · ".join(
        f"{escape(word.strip() or '␣')} <small>{percent(share, 0)}</small>" for word, share in found
    )
