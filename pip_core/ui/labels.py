"""The page's standing words: its head, its help."""

from __future__ import annotations

HEAD = """
<div id="masthead"><h1>PIP Studio</h1><p>make a language model smaller, and see what it costs</p></div>
"""

HELP = """
<button class="ghost" aria-haspopup="dialog" onclick="document.getElementById('help').showModal()"
 aria-label="Help">?</button>
<dialog id="help" aria-labelledby="help-title">
<h2 id="help-title">What happens here</h2>
<p>A language model is a stack of blocks, and not all of them matter. This page finds the parts that matter
least, takes them out one after another, and measures after every step what the model can still do.</p>
<ol>
<li><b>Two views.</b> The model reads a text as it is, and with letters swapped, replaced or inserted. A part
whose gradients do not tell the two apart knows nothing of the difference.</li>
<li><b>One goes.</b> The part with the lowest score is removed; then what is left is scored again.</li>
<li><b>Measured.</b> Perplexity (how surprised the model is by a text it has not seen; lower is better) and
accuracy on questions, each with its standard error. <i>Within noise</i> means that chance alone could well
have made the difference.</li>
<li><b>Yours.</b> The result is an ordinary checkpoint that transformers loads, reloaded and verified before
it is offered.</li>
</ol>
<p>Runs go on when this page is closed. They belong to this browser; whoever has a run's link can see it.</p>
<form method="dialog"><button class="ghost">Close</button></form>
</dialog>
"""
DARK = """
<button class="ghost" onclick="pip.dark(!document.body.classList.contains('dark'))"
 aria-label="Light or dark">◐</button>
"""
STEPS = """
<ol class="how">
<li><b>Two views</b> The model reads a text as it is and with letters edited; every part gets a score for how
much it tells the two apart.</li>
<li><b>The lowest goes</b> One part is removed, what is left is scored again on views drawn anew, until the
target is met.</li>
<li><b>Measured at every step</b> Accuracy with its error and perplexity, against the whole model; at the end
a checkpoint that loads anywhere.</li>
</ol>
"""
# Every control: its label, and what it does in one short line.
CONTROLS = {
    "model": ("Model", "from the list, a Hugging Face id, or a folder"),
    "calibration": ("Text", "to read while scoring; auto goes with the model; or a file, hub:OWNER/NAME"),
    "kinds": ("Edits of the second view", "what is done to a word, preferring real words"),
    "rate": ("Words edited, %", "how much the second view differs"),
    "pasted": ("Your own text", "is read instead"),
    "method": ("Method", "what decides"),
    "units": ("Removes", "what goes"),
    "target": ("How much, %", "of all parameters, to remove"),
    "keep": ("Keep", "blocks that lose nothing"),
    "drop": ("Drop", "blocks that go first, in this order"),
    "asked": ("Tasks", "what is measured; auto goes with the model; or a file, NAME=FILE"),
    "questions": ("Your own questions", 'a line each: {"query": "…", "choices": ["…", "…"], "gold": 0}'),
    "windows": ("Windows", "pairs of views that are read, per iteration"),
    "window_tokens": ("Window length", "tokens of a clean view"),
    "items": ("Items per task", "measured after every removal; 0 is all of them"),
    "seed": ("Seed", "same recipe, same removals, always"),
    "allocation": ("Heads and channels", "how many each block gives"),
    "depth_share": ("Blocks first, %", "of the target, where blocks go and then channels"),
    "step": ("Step", "units per iteration, or a share below 1; 0 is the usual"),
    "vocabulary": ("Rare tokens, %", "of the target, at the end; auto goes with model and method"),
    "refit": ("Refit at the end", "what is left is solved anew by least squares, without training"),
    "dtype": ("Number format", "to compute in"),
    "upto": ("Removals taken over", "of this run, by a fork"),
    "prompt": ("Prompt", "both models answer it"),
    "text": ("A text of yours", "both models read it, and say what they expect next"),
    "chosen": ("Runs of this browser", "each becomes a line"),
    "methods": ("Methods", "a run for each, all else as the form says; they wait in line"),
    "name": ("New name", "of the run that is shown"),
}
# Stories, since the model that comes first knows nothing else; any other can go on with them too.
PROMPT = "One windy morning Ada, Ben and Clara met under the old oak. Ada had a red kite."
SAMPLE = (
    "Late one evening Nora and Felix were looking for something to do. Nora went to the harbour. Felix "
    "stayed at the mill. Nora had three apples. Felix gave her four more. Now Nora had seven. At sunset "
    "Felix sat at the mill."
)
