"""novelgpt: one Chinese novel in, a GPT-2 that continues it out."""

__version__ = "0.1.0"
