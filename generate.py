"""Let a trained model continue a prefix.

    python generate.py --prefix "[CLS]萧炎大喝一声" --save_samples
    python generate.py --model_path model/best_model --length 5000 --nsamples 1 --stop chapter --seed 7
    python generate.py --model_path model_titles/best_model --prefix_file chapter.txt --mark "[TIL]"

The samples go to stdout and, with --save_samples, to mnt/samples.txt and mnt/samples.jsonl.
"""

import sys
from collections.abc import Sequence

from novelgpt.cli import GenerateOptions, Parser, run
from novelgpt.messages import EXIT_INPUT, UserError, say


def build_parser() -> Parser[GenerateOptions]:
    """Return the command line of generate.py."""
    return Parser(GenerateOptions, __doc__, section="generate")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the samples."""
    options = build_parser().parse_options(argv)
    from novelgpt.writing.prompts import examine_prompt, read_prompts, resolve_options

    options = resolve_options(options)
    if options.find:
        return show_openings(options)
    prompts = read_prompts(options)
    from novelgpt.writing.session import open_session

    session = open_session(options)
    for prompt in prompts:
        book = None if options.prefix_file else session.book  # every name of a chapter would be looked up
        examine_prompt(prompt.text, session.tokenizer, book, session.weights.context)
    if options.interactive:
        return write_interactively(session, prompts[0].text)
    from novelgpt.writing.run import write_all

    write_all(session, prompts)
    return 0


def show_openings(options: GenerateOptions) -> int:
    """Print openings of the book."""
    from novelgpt.writing.book import find_book

    book = find_book(options.model_path, options.corpus)
    if book is None:
        message = f"--find: the book of {options.model_path} is not at hand"
        raise UserError(message, "--corpus data/train.json", EXIT_INPUT)
    openings = book.find_openings(options.find, options.openings)
    if not openings:
        raise UserError(f"--find: the book never writes {options.find!r}", "try a shorter word", EXIT_INPUT)
    print("\n".join(openings))
    return 0


def write_interactively(session, prefix: str) -> int:
    """Write by turns with the person at the terminal, from a prefix on."""
    from novelgpt.writing.interactive import write_by_turns

    say(f"kept in {write_by_turns(session, prefix, sys.stdin, print)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
