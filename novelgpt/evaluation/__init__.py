"""How well a model predicts a text: tokens -> nats per token -> loss, chapters, surprise; and counts to beat.

The door of this wing. PyTorch stands behind it, so each name is loaded when it is first asked for.
"""

import importlib

PLACES = {
    "Evaluation": "evaluation",
    "NOT_SCORED": "evaluation",
    "evaluation_batches": "evaluation",
    "score_batches": "evaluation",
    "LearningCopy": "dynamic",
    "STRETCH": "dynamic",
    "score_adapted": "dynamic",
    "Measure": "report",
    "count_texts": "yardsticks",
    "measure_counting": "yardsticks",
    "compare_losses": "yardsticks",
    "mix": "yardsticks",
}


def __getattr__(name: str) -> object:
    """Load a name of the wing."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
