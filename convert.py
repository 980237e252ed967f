"""Take a model elsewhere and back: Hugging Face folders in three precisions, GGUF for llama.cpp, MindSpore checkpoints.

    python convert.py model/final_model build/model_bf16 --dtype bf16
    python convert.py model/final_model build/novel.gguf --to gguf --dtype fp16
    python convert.py model/final_model build/mindspore --to mindspore
    python convert.py build/mindspore build/back --from mindspore

The source is any GPT-2 folder, with model.safetensors or the older pytorch_model.bin, or a MindSpore checkpoint. GGUF
needs the package gguf, MindSpore the package mindspore.
"""

import argparse
from collections.abc import Sequence

from novelgpt.cli import new_parser, parse_options, run
from novelgpt.messages import EXIT_DONE, EXIT_USAGE, UserError, say


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("places", nargs="*", metavar="PLACE", help="the source and the output: a folder or .ckpt; for gguf a file")
    add("--to", choices=("hf", "gguf", "mindspore"), default="hf", help="what to write (default hf, a model folder)")
    add("--from", choices=("auto", "hf", "mindspore"), default="auto", help="what the source is; auto finds out")
    add("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="number format of the weights (default fp32)")
    add("--model_config", help="config JSON of a lone MindSpore checkpoint, which holds none")
    add("--tokenizer_path", help="vocabulary of a lone MindSpore checkpoint, or of a folder without one")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Convert as the command line says; return the exit status."""
    options = parse_options(build_parser(), argv, section="convert")
    if len(options.places) != 2:
        message = f"found {len(options.places)} places, expected two: the source and the output"
        raise UserError(message, "python convert.py model/final_model build/model", EXIT_USAGE)
    place, output = options.places
    from novelgpt.conversion import check_output, open_source, write_model

    check_output(place, output, options.to)
    given = {"model_config": options.model_config, "tokenizer_path": options.tokenizer_path}
    source = open_source(place, getattr(options, "from"), **given)
    write_model(source, output, options.to, dtype=options.dtype)
    say(f"{place}: {source.parameters:,} parameters written as {options.to} in {options.dtype}")
    print(output)
    return EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(run(main))
