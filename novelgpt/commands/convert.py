"""Take a model elsewhere and back: Hugging Face folders in three precisions, GGUF for llama.cpp, MindSpore checkpoints.

    python convert.py model/final_model build/model_bf16 --dtype bf16
    python convert.py model/final_model build/novel.gguf --to gguf --dtype q8_0
    python convert.py model/final_model build/mindspore --to mindspore
    python convert.py build/mindspore build/back --from mindspore

The source is any GPT-2 folder, with model.safetensors or the older pytorch_model.bin, or a MindSpore checkpoint. GGUF
needs the package gguf, MindSpore the package mindspore.
"""

from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import ConvertOptions, Parser
from novelgpt.messages import EXIT_DONE, EXIT_USAGE, UserError, say


def build_parser() -> Parser[ConvertOptions]:
    """Return the command line of convert.py."""
    return Parser(ConvertOptions, __doc__, section="convert", prog="convert.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says; return the exit status."""
    options = build_parser().parse_options(argv)
    if len(options.places) != 2:
        message = f"found {len(options.places)} places, expected two: the source and the output"
        raise UserError(message, "python convert.py model/final_model build/model", EXIT_USAGE)
    if options.dtype == "q8_0" and options.to != "gguf":
        message = f"--dtype q8_0: --to {options.to} does not know it, only GGUF does"
        raise UserError(message, "--to gguf; or --dtype bf16, fp16 or fp32", EXIT_USAGE)
    place, output = options.places
    from novelgpt.network import check_model_folder  # brings numpy, which --help does without

    if not Path(place).exists() and not place.endswith(".ckpt"):
        check_model_folder(place, flag="")  # says so before torch is loaded
    from novelgpt.conversion import check_output, open_source, write_model

    check_output(place, output, options.to)
    given = {"model_config": options.model_config, "tokenizer_path": options.tokenizer_path}
    source = open_source(place, options.source, **given)
    write_model(source, output, options.to, dtype=options.dtype)
    say(f"{place}: {source.parameters:,} parameters written as {options.to} in {options.dtype}")
    print(output)
    return EXIT_DONE
