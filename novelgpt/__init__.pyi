"""The API as editors and type checkers see it; what runs is __init__.py, which loads each name when it is asked for."""

from novelgpt.api import TrainResult, Written, evaluate, generate, train
from novelgpt.cli import EvaluateOptions, GenerateOptions, TrainOptions
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import UserError
from novelgpt.network import load_model

__version__: str
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
