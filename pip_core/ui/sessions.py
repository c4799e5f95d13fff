"""What the server remembers of an open page: the values of its state, and no copy of the page. No gradio."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class _Nothing(dict):
    """Keeps nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


def lean(holder: Any, session: Any) -> Any:
    """A class of gradio's state holders whose sessions are small.

    Gradio's own keep a copy of what every component of the page is made of, for links to a page as somebody
    left it ("deep links"), which this page does not offer: half a megabyte and a quarter of a second each.

    Args:
        holder: `gradio.state_holder.StateHolder`.
        session: `gradio.state_holder.SessionState`.
    """

    class LeanSession(session):
        def __init__(self, blocks: Any) -> None:
            # Of components that the page does not have no copy is made.
            super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks=()))
            self.config_values = _Nothing()

        def __setitem__(self, key: int, value: Any) -> None:
            known = self.blocks_config.blocks.get(key)
            if known is not None and known.stateful:
                super().__setitem__(key, value)
            else:
                self.blocks_config.blocks[key] = value

        def _update_config(self, key: int) -> None:
            pass

        def _update_value_in_config(self, key: int, value: Any) -> None:
            pass

    class LeanHolder(holder):
        def __getitem__(self, session_id: str) -> Any:
            if session_id not in self.session_data:
                self.session_data[session_id] = LeanSession(self.blocks)
            return super().__getitem__(session_id)

    return LeanHolder
