"""Whether the tensors of a checkpoint are those that its config promises, and what to do where not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.errors import UserError
from .checksum import INDEX, WEIGHTS

# Buffers that older releases of transformers wrote into checkpoints.
OLD_BUFFERS = re.compile(r"(inv_freq|masked_bias|(attn|attention)\.bias)$")
# What stands beside packed weights, or in their place.
PACKED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|absmax|weight_(scale|packed|scale_inv|shape))(\.|$)|_scale_inv$"
)
# What a trainer puts beside a decoder, for rewards.
OF_A_TRAINER = re.compile(r"(^|\.)(v_head|value_head|reward_head)\.")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
BLOCK = re.compile(r"\.(?:h|layers|blocks)\.(\d+)\.")


def refuse_unlisted_weights(folder: Path, name: str) -> None:
    """Refuse safetensors files that no loader looks for, since they have names of their own and no index.

    Raises:
        UserError: there are no others.
    """
    if (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        return
    found = min(path.name for path in folder.glob("*.safetensors"))
    raise UserError(
        f"'{name}' holds weights ({found}), but neither {WEIGHTS} nor {INDEX}, by which they are found. Copy "
        "what is missing from where the model came from; files in a form of their own "
        "(consolidated.safetensors) are not read."
    )


def refuse_incomplete(name: str, missing: Sequence[str], unexpected: Iterable[str]) -> None:
    """Refuse weights of another model than the config describes.

    Args:
        name: what people call the model.
        missing: names of tensors that the config promises and the files lack.
        unexpected: names of tensors in the files that the config does not describe.

    Raises:
        UserError: there are such tensors.
    """
    strange = [u for u in unexpected if not OLD_BUFFERS.search(u)]
    if missing:
        _refuse_wrapped(name, missing, strange)
    if missing or strange:
        what, such = (
            (f"lacks {len(missing)} tensors that its config promises", missing[0])
            if missing
            else (f"holds {len(strange)} tensors that its config does not describe", strange[0])
        )
        raise UserError(f"The checkpoint of '{name}' {what}, such as {such}. {_advice(missing, strange)}")


def _advice(missing: Sequence[str], strange: Sequence[str]) -> str:
    """What may have happened, and what to do."""
    if any(PACKED.search(n) for n in strange):
        return (
            "Its weights are quantised, and its config does not say how (quantization_config). Choose the "
            "unquantised checkpoint of the same model."
        )
    if strange and not missing and all(OF_A_TRAINER.search(n) for n in strange):
        return (
            "A trainer added that head. Save the model without it: with TRL, "
            "model.pretrained_model.save_pretrained(FOLDER)."
        )
    if len(missing) == 1 and not strange and HEAD.search(missing[0]):
        return (
            'If its head is the table of its embeddings, write "tie_word_embeddings": true into its '
            "config.json; otherwise it is damaged, and other programs would make up a head without a word."
        )
    if strange and all(BLOCK.search(n) for n in (*missing, *strange)):
        if missing:
            return (
                "Its blocks are not numbered from 0 on without a gap, as when some were taken out by hand. "
                "Number them anew, in the names of the tensors."
            )
        return (
            "It holds more blocks than its config says (num_hidden_layers), and other programs would leave "
            "them out. Write the right number, or prune the whole model here."
        )
    return ("It is damaged or its" if missing else "Its") + " config is for another model."


def _refuse_wrapped(name: str, missing: Sequence[str], unexpected: Iterable[str]) -> None:
    """Refuse tensors that are all there, under names that begin otherwise.

    Raises:
        UserError: they are.
    """
    found = set(unexpected)
    starts = {other.removesuffix(own) for own in missing for other in found if other.endswith(f".{own}")}
    for start in sorted(starts):
        if all(start + own in found or own.startswith("lm_head.") for own in missing):
            raise UserError(
                f"The names of the tensors in '{name}' begin with '{start}', which a wrapper (torch.compile, "
                "DistributedDataParallel, peft) puts there, so that no program finds them. Save the model "
                "inside the wrapper, or take that part off the names."
            )
