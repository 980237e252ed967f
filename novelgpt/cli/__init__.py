"""Command lines, config files and tables of options: the door of this part."""

from novelgpt.cli.model_options import ConvertOptions, StudioOptions
from novelgpt.cli.options import (
    CleanOptions,
    EvaluateOptions,
    GenerateOptions,
    TokenizeOptions,
    TrainOptions,
    VocabularyOptions,
)
from novelgpt.cli.parser import BEGAN, IS_RANK, Parser, run, spell_command
from novelgpt.cli.table import PRESET, PRESETS, book_places, names_with, preset_values, with_changes

__all__ = [
    "BEGAN",
    "IS_RANK",
    "PRESET",
    "PRESETS",
    "CleanOptions",
    "ConvertOptions",
    "EvaluateOptions",
    "GenerateOptions",
    "Parser",
    "StudioOptions",
    "TokenizeOptions",
    "TrainOptions",
    "VocabularyOptions",
    "book_places",
    "names_with",
    "preset_values",
    "run",
    "spell_command",
    "with_changes",
]
