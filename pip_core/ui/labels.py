"""The fixed words of the page: head, help, and the label of every control."""

from __future__ import annotations

HEAD = """
<div id="masthead"><h1>PIP Studio</h1><p>make a language model smaller, and see what it costs</p></div>
"""

HELP = """
<button class="ghost" aria-haspopup="dialog" onclick="document.getElementById('help').showModal()"
 aria-label="Help">?</button>
<dialog id="help" aria-labelledby="help-title">
<h2 id="help-title">How it works</h2>
<p>A language model is a stack of blocks, and some parts of them matter little. PIP Studio finds those parts,
removes them one after another, and measures after every step what the model can still do.</p>
<ol>
<li><b>Score.</b> The model reads a clean text and a misspelt one, with letters swapped, replaced or inserted.
Each part is scored by how differently it reacts to the two. PIP-Gate puts a gate on what the part adds to the
model's hidden state and compares the gradients at the gate, word by word.</li>
<li><b>Remove.</b> The part with the lowest score is removed and the rest is scored again, until the target is
reached.</li>
<li><b>Measure.</b> <i>Perplexity</i> is how surprised the model is by a text it has not seen; lower is
better. <i>Accuracy</i> is the share of questions answered correctly. Both have a standard error. <i>No
measurable loss</i> means that chance alone could have made the difference.</li>
<li><b>Download.</b> You get a checkpoint that transformers loads. It is loaded again and verified
before it is offered.</li>
</ol>
<p>A <i>block</i> is one layer of the model: <i>attention</i>, which looks at other words, and an <i>MLP</i>,
which works on each word. <i>Heads</i> and <i>channels</i> are the units inside these. A <i>parameter</i> is
one number of the model.</p>
<p>Runs continue when this page is closed. They belong to this browser; whoever has a run's link can view
it.</p>
<p><b>Keys.</b> <kbd>Ctrl</kbd> or <kbd>⌘</kbd> with <kbd>Enter</kbd> starts the run, <kbd>Alt</kbd> with
<kbd>1</kbd> to <kbd>5</kbd> opens a tab, <kbd>Esc</kbd> closes a dialog.</p>
<p><button class="ghost" id="notify" aria-pressed="false" onclick="pip.notify(this)">Notify me when a run
ends</button> <span class="line" id="notify-note" role="status"></span></p>
<form method="dialog"><button class="ghost">Close</button></form>
</dialog>
"""
DIALOGS = """
<dialog id="edit-run" aria-labelledby="edit-title"><form method="dialog">
<h2 id="edit-title">Rename or note</h2>
<p><label for="edit-name">Name</label><input id="edit-name" maxlength="80"></p>
<p><label for="edit-note">Note</label><textarea id="edit-note" maxlength="300" rows="3"></textarea></p>
<p class="presses"><button class="ghost" value="edit">Save</button>
<button class="ghost" value="" formnovalidate>Cancel</button></p></form></dialog>
<dialog id="delete-run" aria-labelledby="delete-title"><form method="dialog">
<h2 id="delete-title">Delete this run?</h2>
<p><b></b> with its model and its log. You can undo this for a minute.</p>
<p class="presses"><button class="ghost danger" value="delete">Delete it</button>
<button class="ghost" value="" autofocus>Keep it</button></p></form></dialog>
"""
SIGN_IN = "Sign in"
DARK = """
<button class="ghost" onclick="pip.dark(!document.body.classList.contains('dark'))"
 aria-label="Light or dark">◐</button>
"""
# Buttons: component, label.
ACTIONS = (
    *(("stop", "Stop"), ("pause", "Pause"), ("undo", "Undo last"), ("resume", "Resume")),
    ("export_now", "Export now"),
)
# Beside the verdict.
TAKE = (("get", "Download"), ("try_it", "Chat"), ("push_it", "Push"), ("again", "Prune it yourself"))
# Button -> the tab that it opens.
LEADS = {"get": "download", "try_it": "chat", "push_it": "download"}
FILES = (
    *(("card", "Model card"), ("recipe", "Recipe"), ("events", "Events"), ("csv", "Measurements, CSV")),
    ("scores_csv", "Scores, CSV"),
)
SLIDER = (
    "How it answers <small>drag from 0 % to the target; words that differ from the whole model's are "
    "marked</small>"
)
IMPORTANCE = "Importance <small>pale = least important</small>"
COST = "What it costs <small>change from the whole model; band: ± one standard error of the change</small>"
METHOD = "See the method <small>a run's own texts, scores and removals</small>"
STAGE_CURVES = "On the way <small>what the step at work reports</small>"
# Controls that are no setting's: a label and one short line. Settings bring their own, see `core.settings`.
CONTROLS = {
    "search": ("Search", "Part of a model's name; nothing is downloaded"),
    "found": ("Found", "Choose one"),
    "pasted": ("Your own text", "Replaces the text above"),
    "measured_tasks": ("Tasks", "Auto picks some; or a file, or NAME=FILE"),
    "questions": ("Your own questions", 'One per line: {"query": "…", "choices": ["…", "…"], "gold": 0}'),
    "upto": ("Keep the first … removals", "The branch begins with them"),
    "prompt": ("Prompt", "Both models answer it. Left empty, the example in grey is asked"),
    "suggested": ("Suggestions", "Prompts that suit this model"),
    "longest": ("Longest answer", "In tokens"),
    "text": ("Your text", "Both models read it and predict every next word piece (token)"),
    "wanted": ("Search", "A part of a token, or script:NAME, such as script:cyrillic; empty is all"),
    "token_page": ("Page", "Of 50 tokens"),
    "lengthened": ("Your text", "Both tokenizers split it; what it takes now is measured"),
    "chosen": ("Runs to compare", "Yours and the examples; each becomes a line"),
    "methods": ("Methods", "One run each, with the other settings of the form"),
    "push_repo": ("Repository", "OWNER/NAME, such as me/smollm2-135m-pruned"),
    "push_token": (
        "Access token",
        "Used for this push and not kept; leave it empty if this machine is logged in",
    ),
    "push_public": ("Public", "Everybody sees it, once it is verified"),
    "push_overwrite": ("Overwrite", "Replace what the repository holds now; its history keeps the old files"),
}
# A short story, since the first model in the list knows nothing else; any other can read it too.
SAMPLE = (
    "Late one evening Nora and Felix were looking for something to do. Nora went to the harbour. Felix "
    "stayed at the mill. Nora had three apples. Felix gave her four more. Now Nora had seven. At sunset "
    "Felix sat at the mill."
)
