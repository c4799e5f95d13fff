"""The page's components, without a browser: what a session makes of them anew is what was built."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.helpers import special_args
from gradio.route_utils import oauth_token_from_body

import app
from pip_core.core.network import asking_token
from pip_core.core.paths import ASSETS
from pip_core.runs.queue import RunQueue


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> app.StudioPage:
    built = app.StudioPage(RunQueue(tmp_path_factory.mktemp("page") / "runs"))
    built.build()
    return built


def test_a_component_made_anew_offers_and_shows_the_same(page):
    """A session makes components anew from what their constructors were given, and refuses other choices."""
    for name, component in page.ui.items():
        found = vars(type(component)(**{**component.constructor_args, "render": False}))
        for what in ("choices", "value", "visible", "interactive"):
            assert found.get(what) == vars(component).get(what), (name, what)
    assert ("10", "10") in page.ui["keep"].choices


@pytest.mark.parametrize(("typed", "taken"), [(61, 60), (0, 2), (20, 20), (None, None)])
def test_what_is_typed_beyond_the_ends_of_a_slider_is_taken_as_its_end(page, typed, taken):
    assert page.ui["target"].preprocess(typed) == taken
    assert page.ui["target"].get_block_name() == "slider"


def test_a_choice_made_during_another_counts(page):
    """Gradio drops what happens while the last of its kind is under way, unless the event says otherwise. A
    search is ended by the next one, which must not wait for it."""
    blocks = page.ui["run"].parent
    while blocks.parent is not None:
        blocks = blocks.parent
    typed = {"input", "change"}
    for event in blocks.fns.values():
        # Of a text field `input` comes from keys that write a letter alone, not from what is pasted.
        assert not any(k == "input" and isinstance(blocks.blocks[n], gr.Textbox) for n, k in event.targets)
        if any(kind in typed for _, kind in event.targets):
            searches = event.targets == [(page.ui["search"]._id, "change")]
            assert event.trigger_mode == ("multiple" if searches else "always_last"), event.targets


def test_on_a_space_handlers_are_told_the_token_of_who_signed_in(tmp_path, monkeypatch):
    """As gradio keeps it in a session; nobody's where nobody has, nor what a request says of itself."""
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "of the space")
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda _: None)  # takes packages that the Hub adds
    made = app.StudioPage(RunQueue(tmp_path / "runs"))
    blocks, told = made.build(), []
    assert blocks.expects_oauth
    monkeypatch.setattr(made.queue, "resume", lambda _: told.append(asking_token()))
    monkeypatch.setattr(made.handlers, "_check_may_change", lambda *_: None)
    (resume,) = [e for e in blocks.fns.values() if (made.ui["resume"]._id, "click") in e.targets]
    who = dict.fromkeys(("name", "preferred_username", "profile", "picture"), "me")
    info = {"access_token": "hf_mine", "scope": "", "expires_at": time.time() + 60, "userinfo": who}
    late = {**info, "expires_at": time.time() - 1}
    written = oauth_token_from_body(SimpleNamespace(oauth_token="hf_mine"))
    assert written
    for kept, sent in ((info, None), (None, None), (late, None), (None, written), (late, written)):
        asked = SimpleNamespace(session={"oauth_info": kept} if kept else {})
        given, *_ = special_args(resume.fn, [{"owner": "me"}, "run"], asked, token=sent)
        assert "hf_mine" not in str(resume.fn(*given))
    assert told == ["hf_mine", "", "", "", ""]
    assert asking_token() == ""


@pytest.mark.parametrize("sheet", sorted(ASSETS.glob("*.css")), ids=lambda path: path.stem)
def test_no_rule_overrides_a_part_of_what_it_sets_by_a_variable(sheet):
    """Gradio writes every rule anew, and what the browser then says of such a property is empty."""
    whole = re.compile(r"(?:^|;)\s*(border|background|padding|margin|font|flex)\s*:[^;]*var\(")
    for rule in re.findall(r"\{([^{}]*)\}", sheet.read_text(encoding="utf-8")):
        for found in whole.finditer(rule):
            after = re.findall(r"(?:^|;)\s*([a-z-]+)\s*:", rule[found.end() :])
            assert not [n for n in after if n.startswith(f"{found[1]}-") and n != "border-radius"], rule
