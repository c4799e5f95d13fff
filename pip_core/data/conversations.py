"""Conversations in rows of data: which values are one, and the text that they hold.

Messages are written as `role` and `content` (OpenAI) or as `from` and `value` (ShareGPT). A content is a
text, or a list of parts of which some are texts.
"""

from __future__ import annotations

MESSAGE_KEYS = (("role", "content"), ("from", "value"))
PART_KEYS = ("text", "content", "value")


def is_conversation(value: object) -> bool:
    """Whether a value is a list of messages."""
    return isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)


def text_of(value: object) -> str | None:
    """The text of a cell: a text, a list of texts, or the messages of a conversation, joined by line breaks.
    Pictures and calls of tools in it are left out. None where it holds something else than text."""
    if value is None or value == []:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _part(value)
    if not isinstance(value, list):
        return None
    found = [text_of(part) for part in value]
    if any(text is None for text in found):
        return None
    return "\n".join(text for text in found if text)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and any(all(key in value for key in keys) for keys in MESSAGE_KEYS)


def _part(value: dict) -> str | None:
    """The text of a message or of a part of one."""
    for _, content in MESSAGE_KEYS:
        if _is_message(value) and content in value:
            return text_of(value[content])
    for key in PART_KEYS:
        if key in value and (value[key] is None or isinstance(value[key], str | list)):
            return text_of(value[key])
    # Such as {"type": "image_url", "image_url": ...}.
    return "" if isinstance(value.get("type"), str) else None
