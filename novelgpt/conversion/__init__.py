"""A model from anywhere -> a model for anywhere: `open_source` reads, `check_output` and `write_model` write.

    Hugging Face folder ─┐                ┌─ Hugging Face folder, fp32 bf16 fp16
    pytorch_model.bin   ─┼─ GPT2LMHead ───┼─ GGUF file, also q8_0 gguf.py
    MindSpore checkpoint ┘   + tokenizer  └─ MindSpore checkpoint  mindspore.py

Every name is loaded when it is first asked for, since behind all of them stands torch, which takes seconds.
"""

import importlib
from typing import Any

# name: its module
PLACES = dict.fromkeys(("check_output", "open_source", "write_model"), "models")


def __getattr__(name: str) -> Any:
    """Load a name from its module."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
