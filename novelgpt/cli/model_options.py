"""The tables of studio.py and convert.py: what is done with a model that is trained.

As in options.py every option is written here and nowhere else.
"""

from dataclasses import dataclass

from novelgpt.cli.options import BOOK
from novelgpt.cli.table import option, whole
from novelgpt.cli.values import book_name, precision_name


@dataclass(frozen=True)
class StudioOptions:
    """Options of studio.py."""

    book: str | None = option(None, BOOK, book_name, metavar="NAME")
    # what writes, and what it learned from
    model_path: str = option("model/final_model", "folder of the model", in_book="model/final_model")
    run_dir: str = option("model/", "folder of the run whose training page is shown", in_book="model/")
    corpus: str | None = option(None, "the book it was trained on (default: where it was then)", metavar="FILE")
    device: str | None = option(None, "one GPU number or cpu (default: the first GPU, else the CPU)")
    precision: str = option(
        "auto", "auto: bf16 where the machine has it", precision_name, choices=("auto", "fp32", "bf16")
    )
    quantize: str | None = option(None, "8-bit weights, keys, values: fastest, on CPUs", choices=("int8",))
    # where the stories are kept; generate.py --story looks for them in its --save_samples_path
    stories_dir: str = option("mnt/stories/", "folder of the stories", in_book="samples/stories/")
    # who may reach it
    host: str = option("127.0.0.1", "address that it answers at; any but this one lets other machines in")
    port: int = option(8000, "its port, or the next one that is free; 0 = any", whole(0, 65535))
    allow_origin: tuple[str, ...] = option(
        (), "pages of other servers that may use it, for example https://writer.example", many=True, metavar="ORIGIN"
    )
    frontend: str | None = option(None, "a page of another program, one HTML file, shown at /frontend", metavar="FILE")
    no_browser: bool = option(False, "open no browser")


@dataclass(frozen=True)
class ConvertOptions:
    """Options of convert.py."""

    places: tuple[str, ...] = option((), "source and output: folder, .ckpt, .gguf", positional=True, metavar="PLACE")
    to: str = option("hf", "what to write; hf is a model folder", choices=("hf", "gguf", "mindspore"))
    source: str = option(
        "auto", "what the source is; auto detects it", choices=("auto", "hf", "mindspore"), flag="from"
    )
    dtype: str = option("fp32", "format of the weights; q8_0 is for GGUF", choices=("fp32", "bf16", "fp16", "q8_0"))
    model_config: str | None = option(None, "config JSON of a lone MindSpore checkpoint, which holds none")
    tokenizer_path: str | None = option(None, "vocabulary of a lone MindSpore checkpoint, or of a folder without one")
