"""The page's fragments of HTML: status line, tiles, the two views, the log. No gradio.

Every text that is not ours is escaped here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from . import events as ev
from .figures import removal_table
from .narrate import agreement, clock, paired_words, plan_sentence
from .plan import Plan
from .preflight import Inspection
from .scorers import method
from .stats import compare, retained
from .story import Story
from .units import TITLES

# state -> (tone of the dot, words)
STATES = {
    "none": ("idle", "Nothing has run yet."),
    "starting": ("live", "Starting the worker"),
    "running": ("live", "Running"),
    "stopping": ("live", "Stopping after this batch"),
    "finished": ("good", "Finished"),
    "stopped": ("idle", "Stopped"),
    "failed": ("bad", "Failed"),
    "interrupted": ("bad", "The worker ended unexpectedly"),
}


def status(story: Story, state: str, reason: str | None = None) -> str:
    """One line: what is happening, how far, how long; and a bar.

    Args:
        reason: why the worker ended, where it could say.
    """
    tone, words = STATES[state]
    detail, share = "", None
    progress = story.progress
    if state == "none":
        detail = "Leave everything as it is and press Prune."
    elif state == "interrupted":
        reason = reason or "It was killed, or the machine ran out of memory."
        detail = f"{reason} Nothing decided is lost: press Resume."
    elif state == "failed" and isinstance(story.ending, ev.Failed):
        detail = story.ending.message
    elif state == "stopped":
        detail = f"{len(story.removals)} of {story.planned} iterations are decided and kept."
    elif state == "finished" and isinstance(story.ending, ev.Finished):
        share = 1.0
        detail = (
            f"{story.ending.lost} removed in {clock(story.ending.seconds)}. "
            "The export was loaded again by a fresh process and verified."
        )
    elif isinstance(progress, ev.Loading):
        words = progress.what[0].upper() + progress.what[1:]
        if progress.total:
            share = progress.done / progress.total
            detail = f"{progress.done / 1e6:.0f} of {progress.total / 1e6:.0f} MB"
    elif isinstance(progress, ev.Progress):
        share = _share_done(progress)
        if state == "running":
            words = _where(story, progress)
        detail = f"{clock(progress.elapsed)} elapsed · about {clock(progress.remaining)} left"
    bar = f"<progress max='1' value='{share or 0:.3f}' aria-label='share of the run that is done'></progress>"
    return (
        f"<div class='status {tone}' data-state='{state}' role='status'><span class='dot'></span>"
        f"<b>{escape(words)}</b><span class='detail'>{escape(detail)}</span>{bar}</div>"
    )


def tiles(story: Story) -> str:
    """Three numbers, dense and now, with what was kept."""
    dense, now = story.dense, story.latest
    if story.started is None or dense is None or now is None:
        body = [("parameters", "-", ""), ("perplexity", "-", ""), ("accuracy", "-", "")]
    else:
        kept = now.parameters / dense.parameters
        body = [
            (
                "parameters",
                f"{dense.parameters / 1e6:.1f}M → {now.parameters / 1e6:.1f}M",
                f"{1 - kept:.1%} fewer",
            ),
            (
                "perplexity",
                f"{dense.perplexity:.1f} → {now.perplexity:.1f}",
                f"± {now.perplexity_se:.1f}, {now.windows} windows of {now.window_tokens} tokens",
            ),
            (
                "accuracy",
                f"{dense.accuracy:.1%} → {now.accuracy:.1%}",
                _kept_words(dense, now),
            ),
        ]
    cells = "".join(
        f"<div class='tile'><span>{name}</span><b>{value}</b><small>{escape(note)}&nbsp;</small></div>"
        for name, value, note in body
    )
    return f"<div class='tiles'>{cells}</div>"


def tasks(story: Story) -> str:
    """Accuracy per task, dense against now."""
    dense, now = story.dense, story.latest
    if dense is None or now is None:
        return "<p class='empty'>Accuracy on every task will stand here.</p>"
    rows = "".join(
        f"<tr><td>{escape(a.name)}</td><td>{a.metric}</td><td>{a.items}</td><td>{a.chance:.0%}</td>"
        f"<td>{a.accuracy:.1%} ± {a.se:.1%}</td><td>{b.accuracy:.1%} ± {b.se:.1%}</td>"
        f"<td>{paired_words(c)}</td></tr>"
        for a, b, c in zip(dense.tasks, now.tasks, compare(dense, now).tasks, strict=True)
    )
    return (
        "<table><thead><tr><th>task</th><th>metric</th><th>items</th><th>guessing</th><th>dense</th>"
        "<th>now</th><th>difference</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
    )


def removals(story: Story) -> str:
    """The table of what went."""
    table = removal_table(story)
    if table.empty:
        return "<p class='empty'>Everything that goes will be listed here, with its score and its cost.</p>"
    return table.to_html(index=False, border=0, classes="removals")


def log(story: Story) -> str:
    """What happened, as sentences, newest first."""
    if not story.sentences:
        return "<p class='empty'>What happens will be told here, in sentences.</p>"
    items = "".join(
        f"<li><time>{time.strftime('%H:%M:%S', time.localtime(at))}</time> {escape(text)}</li>"
        for at, text in reversed(story.sentences)
    )
    return f"<ol class='log'>{items}</ol>"


def two_views(text: str, edits: Sequence[tuple[int, str, str]], remark: str = "") -> str:
    """A text as it is and perturbed, edits marked in both, and a remark on it."""
    changed = {number: (before, after) for number, before, after in edits}
    clean, other = [], []
    for number, word in enumerate(text.split()):
        if number in changed:
            before, after = changed[number]
            head, _, tail = word.partition(before)
            clean.append(f"{escape(head)}<mark>{escape(before)}</mark>{escape(tail)}")
            other.append(f"{escape(head)}<mark class='edit'>{escape(after)}</mark>{escape(tail)}")
        else:
            clean.append(escape(word))
            other.append(escape(word))
    return (
        "<div class='views'><div><h4>A text as it is …</h4><p>" + " ".join(clean) + " …</p></div>"
        "<div><h4>… and its perturbed view: what cannot tell the two apart goes first</h4><p>"
        + " ".join(other)
        + " …</p></div></div>"
        + (f"<p class='note'>{escape(remark)}</p>" if remark else "")
    )


def method_note(name: str) -> str:
    """Two sentences on a method, and where it comes from."""
    found = method(name)
    return f"<p class='note'>{escape(found.summary)} <cite>{escape(found.paper)}</cite></p>"


def verdict(story: Story) -> str:
    """The badge of a finished run: what was verified, and how to load it."""
    done = story.exported
    if done.uneven:
        how, says = "this project's own loader", f" No plain config can describe it: {escape(done.uneven)}."
        snippet = 'from pip_core.uneven import load_uneven\nmodel = load_uneven("path/to/model")'
    else:
        how, says = "<code>from_pretrained</code> alone", ""
        snippet = (
            "from transformers import AutoModelForCausalLM\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/model")'
        )
    return (
        f"<div class='verified'><b>Reloaded and verified.</b> A fresh process loaded the export with {how}; "
        f"{agreement(done.largest_difference)}, and it wrote {done.tokens} tokens with and without the "
        f"key-value cache.{says}</div><pre><code>{snippet}</code></pre>"
    )


def no_verdict() -> str:
    return "<p class='empty'>When a run has finished, its model can be downloaded here, verified.</p>"


def model_facts(found: Inspection) -> str:
    """What is known of a model before it is here: a line, and the rest folded away."""
    need = max(found.memory.values())
    fits = "fits" if found.fits else "does not fit"
    plainly = [TITLES[c.kind] for c in found.choices if c.plain]
    parts = "".join(
        f"<tr><td>{escape(name)}</td><td>{count / 1e6:.1f}M</td><td>{count / found.parameters:.0%}</td></tr>"
        for name, count in found.parts.items()
    )
    choices = "".join(
        f"<li><b>{escape(TITLES[c.kind])}</b>: {escape(c.goal)}{_loads(c.plain) if c.possible else ''}</li>"
        for c in found.choices
    )
    how = "" if found.listed else ", recognised by its structure"
    return (
        f"<div class='facts {'' if found.fits else 'problem'}'>{escape(found.model_type)}{how} · "
        f"{found.blocks} blocks · {found.parameters / 1e6:.1f}M parameters · needs about {need / 1e9:.1f} of "
        f"{found.available / 1e9:.0f} GB: {fits}"
        f"<details><summary>exports plainly: {escape(', '.join(plainly) or 'nothing')}</summary>"
        f"<table><tbody>{parts}</tbody></table><p>To remove {found.target:.0%}:</p><ul>{choices}</ul>"
        "</details></div>"
    )


def no_facts() -> str:
    return "<div class='facts'>&nbsp;</div>"


def _loads(plain: bool) -> str:
    return "; an ordinary checkpoint" if plain else "; loads with this project's loader only"


def plan(found: Plan, target: float) -> str:
    """What a press of the button will do."""
    sentence = plan_sentence(target, found.goal, found.share)
    minutes = max(1, round(found.seconds / 60))
    total = found.anatomy.parameters
    return (
        f"<div class='plan'><b>{escape(sentence)}</b> "
        f"{total / 1e6:.1f}M → {total * (1 - found.share) / 1e6:.1f}M parameters. "
        f"About {minutes} min on this machine, once the model is here."
        f"{' The result loads with this project&#39;s loader only.' if found.uneven else ''}</div>"
    )


def problem(message: str) -> str:
    """A refusal, where the user is looking."""
    return f"<div class='plan problem' role='alert'>{escape(message)}</div>"


def _where(story: Story, progress: ev.Progress) -> str:
    if progress.stage == "exporting":
        return "Exporting, then loading it again in a fresh process to verify"
    if progress.iteration == 0:
        return f"Measuring the dense model · {progress.done / progress.total:.0%}"
    verb = "scoring" if progress.stage == "scoring" else "measuring"
    count = (
        f"{progress.done}/{progress.total}"
        if progress.stage == "scoring"
        else f"{progress.done / progress.total:.0%}"
    )
    return f"Iteration {progress.iteration} of {story.planned} · {verb} {count}"


def _share_done(progress: ev.Progress) -> float:
    whole = progress.elapsed + progress.remaining
    return progress.elapsed / whole if whole else 0.0


def _kept_words(dense: ev.Evaluated, now: ev.Evaluated) -> str:
    if now.iteration == 0:
        return f"± {dense.accuracy_se:.1%}, the dense model"
    kept, mean = retained(dense, now), compare(dense, now).mean
    noise = ", within noise" if mean.noise else ""
    above = "" if kept.above_chance is None else f", {kept.above_chance:.0%} of what is above guessing"
    return f"{kept.share:.0%} kept ± {kept.se:.1%}{above}{noise}"
