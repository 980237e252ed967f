"""novelgpt: one Chinese novel in, a GPT-2 that continues it out.

The names below are the Python API. Each is loaded when it is first asked for, so `import novelgpt` costs nothing;
editors and type checkers read `__init__.pyi`.
"""

import importlib

__version__ = "0.1.0"
# name -> the module that has it
PLACES = {
    **dict.fromkeys(("EvaluateOptions", "GenerateOptions", "TrainOptions"), "novelgpt.cli"),
    **dict.fromkeys(("TrainResult", "Written", "evaluate", "generate", "train"), "novelgpt.api"),
    "NovelTokenizer": "novelgpt.corpus.tokenizers",
    "UserError": "novelgpt.messages",
    "load_model": "novelgpt.network",
}
__all__ = list(PLACES)


def __getattr__(name: str) -> object:
    """Load a name of the API."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    """List the API beside what is loaded."""
    return sorted({*globals(), *__all__})
