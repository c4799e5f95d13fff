"""The settings of recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from ...core.settings import AUTO, Settings, choice, setting, text, whole
from ...recovery.material import Material

OFF, SHORT, UNTIL_LEVEL = "off", "short", "until-level"
# Tokens that are learnt from where the recipe does not say; of the second, at most.
USUAL = {SHORT: 30_000, UNTIL_LEVEL: 1_000_000}
# Tokens that any recovery learns from, at most.
MOST = 1_000_000_000


class RecoverSettings(Settings):
    """Whether what is left learns from the dense model, how long, and on what."""

    recover: Literal["off", "short", "until-level"] = choice(
        OFF,
        (OFF, SHORT, UNTIL_LEVEL),
        "recovery training at the end: what is left learns from the dense model's predictions, for a number "
        "of tokens or until it stops helping; whatever does not help is not kept",
        "Recovery training",
        "What is left learns from the whole model; takes minutes to hours",
        called={UNTIL_LEVEL: "until it stops helping"},
    )
    recover_tokens: int = whole(
        0,
        0,
        MOST,
        f"tokens that recovery learns from, at most; 0 is the usual: {USUAL[SHORT]:,} where short, and "
        f"{USUAL[UNTIL_LEVEL]:,} otherwise",
        "Recovery tokens",
        "Read at most; 0 = automatic",
    )
    recover_minutes: int = whole(
        0,
        0,
        100_000,
        "instead of tokens: about how many minutes recovery takes; how many tokens that is on this machine "
        "is measured when it begins, and where other programs take more of it later, it takes longer",
        "Recovery minutes",
        "Instead of tokens; measured on this machine; 0 = by tokens",
    )
    recover_rate: Annotated[float, Field(gt=0, le=0.1)] = setting(
        1e-4,
        "highest learning rate of recovery",
        "a number above 0 and at most 0.1",
        "Recovery learning rate",
        "The highest; lower it where learning diverges",
    )
    recover_text: str = text(
        AUTO,
        "text that recovery learns from: written (by the dense model itself), a text as for calibration, or "
        "written+NAME for half of each",
        "Recovery text",
        "calibration; written (by the whole model); or a file, or hub:OWNER/NAME",
    )

    @classmethod
    def usual(cls, model: str, method: str, names_blocks: bool) -> Mapping[str, object]:
        return {"recover_text": Material.USUAL}
