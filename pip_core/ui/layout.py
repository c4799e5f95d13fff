"""The page as plain data: components, events, and the parts that both come in. No gradio.

A part of the page is one file of `parts`. `app.py` turns its components and events into gradio's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.recipe import Recipe
from . import labels
from .fields import Changes, hint_of, label_of

if TYPE_CHECKING:
    from ..runs.queue import RunQueue
    from .handlers import PageHandlers
    from .model_tools import ModelTools
    from .shown import Shown

# Of what is folded away, and comes only once there is something for it.
FOLDED = {"open": False, "visible": False, "elem_classes": "card"}
# Of an event: only the last of what is chosen quickly one after the other counts.
LAST = {"trigger_mode": "always_last"}


@dataclass(frozen=True)
class Node:
    """A component, or a container of others.

    Attributes:
        kind: the name of gradio's class, or "Chart", a Plotly figure that is redrawn in place.
        name: what events know it by, and its id in the document. Only what is named can be read or changed.
        options: what it is made with.
    """

    kind: str
    name: str = ""
    children: tuple[Node, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wire:
    """What answers events.

    Attributes:
        events: such as "go.click".
        handler: from the values of `inputs` to changes of `outputs`; of one that `grows`, to their values.
        refreshes: the page is refreshed afterwards.
        finally_js: JavaScript that the browser runs at the end.
        options: gradio's, of the listener.
    """

    events: tuple[str, ...]
    handler: Callable
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    refreshes: bool = False
    grows: bool = False
    finally_js: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Services:
    """What answers the page's events."""

    queue: RunQueue
    handlers: PageHandlers
    tools: ModelTools


def _nothing(_: Any) -> Any:
    return ()


def _no_changes(_: Any) -> Changes:
    return {}


@dataclass(frozen=True)
class Drawing:
    """What shows something that a run has come to.

    Attributes:
        names: of its components.
        of: attributes of the run's summary that it is made from, of `run_summary.SHOWN`; it is made
            again only when one of them became another.
        draw: the changes of its components. They are sent where they differ from what the browser has.
    """

    names: tuple[str, ...]
    of: tuple[str, ...]
    draw: Callable[[Shown], Changes]


def drawing(name: str, of: Sequence[str], value: Callable[[Shown], Any]) -> Drawing:
    """A component that shows `value` of a run, see `Drawing`."""
    return Drawing((name,), tuple(of), lambda shown: {name: {"value": value(shown)}})


@dataclass(frozen=True)
class Part:
    """A part of the page: what it consists of, what it answers, and what it shows of a run.

    Attributes:
        name: its own; the id of a tab, and its title unless it has another.
        layout, wires: its components and events.
        drawings: what shows something that a run has come to.
        offered, offer: names of components that also depend on the run's state and on whose it is.
    """

    name: str
    layout: Callable[[Services], Sequence[Node]] = _nothing
    wires: Callable[[Services], Sequence[Wire]] = _nothing
    drawings: tuple[Drawing, ...] = ()
    offered: tuple[str, ...] = ()
    offer: Callable[[Shown], Changes] = _no_changes
    title: str = ""

    @property
    def drawn(self) -> tuple[str, ...]:
        """Names of the components of its drawings."""
        return tuple(name for one in self.drawings for name in one.names)


def box(kind: str, *children: Node, name: str = "", **options: Any) -> Node:
    """A container: "Row", "Column", "Tabs", "Tab"."""
    return Node(kind, name, children, options)


def row(*children: Node, name: str = "", **options: Any) -> Node:
    return Node("Row", name, children, options)


def column(*children: Node, name: str = "", **options: Any) -> Node:
    return Node("Column", name, children, options)


def folding(title: str, *children: Node, name: str = "", **options: Any) -> Node:
    """What folds away below a title; it is folded unless it says `open=True`."""
    return Node("Accordion", name, children, {"label": title, "open": False, **options})


def card(title: str, *children: Node, name: str = "", classes: Sequence[str] = (), **options: Any) -> Node:
    """A framed part of the page with a title."""
    heading = words(f"<h2 class='title'>{title}</h2>")
    return Node("Column", name, (heading, *children), {"elem_classes": ["card", *classes], **options})


def words(html: str, **options: Any) -> Node:
    """HTML that stays as it is."""
    return Node("HTML", "", (), {"value": html, **options})


def html(name: str, value: Any = "", **options: Any) -> Node:
    """HTML that changes."""
    return Node("HTML", name, (), {"value": value, **options})


def chart(name: str, value: dict) -> Node:
    """A Plotly figure that is redrawn in place.

    Args:
        value: the empty figure, see `reporting.theme`.
    """
    return Node("Chart", name, (), {"value": value})


def control(name: str, kind: str, **options: Any) -> Node:
    """A control with its label and its one short line: a setting's own, or see `labels.CONTROLS`."""
    known = {info.name: info for info in Recipe.settings()}
    label, info = labels.CONTROLS.get(name) or (label_of(known[name]), hint_of(known[name]))
    return Node(kind, name, (), {"label": label, "info": info, **options})


def asking(field_: Node, press: Node) -> Node:
    """A field, and beside it the button that asks what is written there."""
    return row(field_, press, equal_height=True, elem_classes="asking")


def button(name: str, label: str, kind: str = "Button", **options: Any) -> Node:
    """A small button."""
    key = "value" if kind == "Button" else "label"
    return Node(kind, name, (), {key: label, "size": "sm", "min_width": 80, **options})
