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
from .scorers import method
from .stats import compare, retained
from .story import Story

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
        detail = f"{len(story.removals)} of {story.planned} removals are decided and kept."
    elif state == "finished" and isinstance(story.ending, ev.Finished):
        share = 1.0
        detail = (
            f"{len(story.ending.removed)} blocks removed in {clock(story.ending.seconds)}. "
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
        return "<p class='empty'>Every removed block will be listed here, with its score and its cost.</p>"
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


def two_views(text: str, edits: Sequence[tuple[int, str, str]]) -> str:
    """A text as it is and perturbed, edits marked in both."""
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
        "<div><h4>… and its perturbed view: blocks that cannot tell the two apart go first</h4><p>"
        + " ".join(other)
        + " …</p></div></div>"
    )


def method_note(name: str) -> str:
    """Two sentences on a method, and where it comes from."""
    found = method(name)
    return f"<p class='note'>{escape(found.summary)} <cite>{escape(found.paper)}</cite></p>"


def verdict(story: Story) -> str:
    """The badge of a finished run: what was verified, and how to load it."""
    done = story.exported
    return (
        f"<div class='verified'><b>Reloaded and verified.</b> A fresh process loaded the export with "
        f"<code>from_pretrained</code> alone; {agreement(done.largest_difference)}, and it "
        f"wrote {done.tokens} tokens with and without the key-value cache.</div>"
        "<pre><code>from transformers import AutoModelForCausalLM\n"
        'model = AutoModelForCausalLM.from_pretrained("path/to/model")</code></pre>'
    )


def no_verdict() -> str:
    return "<p class='empty'>When a run has finished, its model can be downloaded here, verified.</p>"


def plan(found: Plan, target: float) -> str:
    """What a press of the button will do."""
    sentence = plan_sentence(target, found.count, found.facts.blocks, found.share)
    minutes = max(1, round(found.seconds / 60))
    return (
        f"<div class='plan'><b>{escape(sentence)}</b> "
        f"{found.facts.parameters / 1e6:.1f}M → "
        f"{found.facts.parameters * (1 - found.share) / 1e6:.1f}M parameters. "
        f"About {minutes} min on this machine, once the model is here.</div>"
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
