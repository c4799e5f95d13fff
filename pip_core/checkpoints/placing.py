"""Where each block of a dispatched model is: on an accelerator, in the machine's memory, or on disk.

accelerate's device map decides, given what each may hold; blocks keep their order. Embeddings, head and final
norm are where the run computes first.
"""

from __future__ import annotations

import torch
from accelerate import infer_auto_device_map
from transformers import PreTrainedConfig

from ..core.accelerator import device, devices, free_bytes
from ..core.memory import free_memory
from ..core.process_group import current
from ..structure.families import blocks_of, skeleton

# In a device map: held in memory and given to an accelerator when it is computed with; read from disk then.
MEMORY, DISK = "cpu", "disk"
# Share of the machine's free memory that blocks may take where an accelerator computes.
SHARE = 0.7

Place = torch.device | str


def own_devices() -> list[torch.device]:
    """The devices that a model of this process may be on: all, or its own where several share a run."""
    return devices() if current().size == 1 else [device()]


def places(config: PreTrainedConfig, dtype: torch.dtype, blocks: int) -> dict[int, Place]:
    """Where each block of a model goes, by its number.

    Args:
        blocks: how many stay on the devices that compute, together.
    """
    stack = blocks_of(skeleton(config))
    if not blocks:
        return dict.fromkeys(range(len(stack)), DISK)
    largest = max(sum(p.numel() for p in block.parameters()) for block in stack) * dtype.itemsize
    found = own_devices()
    names: dict[int | str, torch.device] = {_name(place): place for place in found}
    free = [free_bytes(place) for place in found]
    most: dict[int | str, float] = {
        name: blocks * largest * each / sum(free) for name, each in zip(names, free, strict=True)
    }
    # accelerate keeps the room of a block free on the first of them, for what it brings there.
    most[next(iter(names))] += largest * 1.01
    if MEMORY not in most:
        most[MEMORY] = SHARE * free_memory()
    mapped = infer_auto_device_map(
        stack,
        max_memory={name: int(size) for name, size in most.items()},
        no_split_module_classes=sorted({type(block).__name__ for block in stack}),
        dtype=dtype,
    )
    chosen = [mapped.get(str(number), mapped.get("")) for number in range(len(stack))]
    return {number: names.get(name, name) for number, name in enumerate(chosen)}


def _name(place: torch.device) -> int | str:
    """What accelerate calls a device."""
    return place.type if place.type in ("cpu", "mps") else place.index or 0
