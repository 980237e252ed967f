"""novelgpt: one Chinese novel in, a GPT-2 that continues it out.

The names below are the Python API. Each is loaded when it is first asked for, so `import novelgpt` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from novelgpt.api import TrainResult, Written, evaluate, generate, train
    from novelgpt.cli import EvaluateOptions, GenerateOptions, TrainOptions
    from novelgpt.corpus.tokenizers import NovelTokenizer
    from novelgpt.messages import UserError
    from novelgpt.network import load_model

__version__ = "0.1.0"
__all__ = [
    "EvaluateOptions",
    "GenerateOptions",
    "NovelTokenizer",
    "TrainOptions",
    "TrainResult",
    "UserError",
    "Written",
    "evaluate",
    "generate",
    "load_model",
    "train",
]
PLACES = {
    "NovelTokenizer": "novelgpt.corpus.tokenizers",
    "UserError": "novelgpt.messages",
    "load_model": "novelgpt.network",
    **dict.fromkeys(("EvaluateOptions", "GenerateOptions", "TrainOptions"), "novelgpt.cli"),
    **dict.fromkeys(("TrainResult", "Written", "evaluate", "generate", "train"), "novelgpt.api"),
}


def __getattr__(name: str) -> object:
    """Load a name of the API."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    """List the API beside what is loaded."""
    return sorted({*globals(), *__all__})
