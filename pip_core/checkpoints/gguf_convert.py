"""Script that `gguf_export` runs in a process of its own: llama.cpp's converter makes a GGUF file of a model.

Usage: python -m pip_core.checkpoints.gguf_convert MODEL FILE FORMAT [DENSE]. The Python path leads to the
converter's package `conversion`. With DENSE, a folder, the file says of the tokenizer that it splits texts as
that of the model there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..core.environment import quiet_libraries


def convert(model: Path, file: Path, format: str, dense: Path | None) -> None:
    """Write the model in the folder `model` to `file`.

    Args:
        format: one of `gguf_export.FORMATS`, which has the converter's own names.

    Raises:
        NotImplementedError: the converter does not know this kind of model or of tokenizer.
    """
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from conversion.base import TextModel
    from transformers import AutoTokenizer

    if dense is not None:
        known, splits = TextModel.get_vocab_base_pre, AutoTokenizer.from_pretrained(dense)
        TextModel.get_vocab_base_pre = lambda self, tokenizer: known(self, splits)
    with torch.inference_mode():
        architecture = get_model_architecture(ModelBase.load_hparams(model, False), ModelType.TEXT)
        written_as = gguf.LlamaFileType[f"MOSTLY_{format.upper()}"]
        get_model_class(architecture)(model, written_as, file).write()


if __name__ == "__main__":
    quiet_libraries()
    _, made_of, to, written_as, *told = sys.argv
    convert(Path(made_of), Path(to), written_as, Path(told[0]) if told else None)
