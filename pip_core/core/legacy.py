"""What earlier versions wrote into run directories, under the names of today."""

from __future__ import annotations

# Version 0.1.
EVENTS = {"Trimmed": "VocabularyPruned", "Undone": "RemovalUndone", "Extended": "TargetExtended"}
FIELDS = {
    "Removed": {"lost": "removed_description", "asked": "forced"},
    "VocabularyPruned": {"lost": "removed_description"},
    "Finished": {"lost": "removed_description"},
    "Refitted": {"left": "not_solved", "moved": "changed"},
}


def upgraded(kind: str, values: dict) -> tuple[str, dict]:
    """An event's name and fields as they are called now."""
    kind = EVENTS.get(kind, kind)
    names = FIELDS.get(kind, {})
    return kind, {names.get(name, name): value for name, value in values.items()}
