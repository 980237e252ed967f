"""Let a trained model continue a prefix.

    python generate.py --prefix "[CLS]萧炎大喝一声" --save_samples
    python generate.py --model_path model/best_model --length 5000 --nsamples 1 --stop chapter --seed 7
    python generate.py --model_path model_titles/best_model --prefix_file chapter.txt --mark "[TIL]"

The samples go to stdout and, with --save_samples, to mnt/samples.txt and mnt/samples.jsonl.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import GenerateOptions, Parser
from novelgpt.messages import EXIT_INPUT, UserError, progress_bar, say, warn


def build_parser() -> Parser[GenerateOptions]:
    """Return the command line of generate.py."""
    return Parser(GenerateOptions, __doc__, section="generate", prog="generate.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the samples."""
    options = build_parser().parse_options(argv)
    # files of prompts are read before the model, which takes seconds: what is wrong with them is told at once
    from novelgpt.writing.prompts import encode_prompts, examine_prompt, read_texts, resolve_options

    options = resolve_options(options)
    if options.find:
        return show_openings(options)
    texts = read_texts(options)
    from novelgpt.writing.generation import open_session

    session = open_session(options)
    context = session.weights.context  # tokens
    prompts = encode_prompts(texts, options, session.tokenizer, context)
    for prompt in prompts:
        book = None if options.prefix_file else session.book  # every name of a chapter would be looked up
        examine_prompt(prompt, session.tokenizer, context, book)
    # by turns with a person, or all at once
    if options.interactive:
        return write_interactively(session, prompts[0], options)
    return write_all(session, prompts, options)


def show_openings(options: GenerateOptions) -> int:
    """Print openings of the book that may serve as prefixes."""
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


def write_all(session, prompts, options: GenerateOptions) -> int:
    """Write all samples of all prompts; save and print each one as it is finished."""
    from novelgpt.writing.samples import Output

    output = Output(session, options, is_saved=options.save_samples or bool(prompts[0].title))
    often = {"check_every": 1} if options.stream else {}  # tokens
    total = options.nsamples * sum(prompt.stop_rule.length for prompt in prompts)
    # a text that grows on the terminal is its own progress
    with progress_bar(total, unit=" tokens", enabled=not options.stream, leave=False) as bar:
        for turn, prompt in enumerate(prompts):
            # samples are numbered through all prompts, for the number decides what is written
            for indices in session.batches(turn * options.nsamples, options.nsamples):
                for samples in session.grow_batch(prompt.ids, prompt.stop_rule, indices, **often):
                    output.update(samples, prompt, bar)
                for sample in session.limit_copies(samples, prompt.stop_rule):
                    output.add(sample, prompt)
    output.close()
    return 0


def write_interactively(session, prompt, options: GenerateOptions) -> int:
    """Write by turns with the person at the terminal, from a prompt on."""
    from novelgpt.writing.interactive import STORY, write_by_turns

    path = Path(options.save_samples_path) / STORY
    if options.prefix_file and path.exists():
        hint = "move it away to start a new one"
        warn(f"--prefix_file {options.prefix_file}: not used, since {path} is continued; {hint}")
    write_by_turns(session, session.tokenizer.show(prompt.ids), prompt.stop_rule, path, sys.stdin, print)
    say(f"kept in {path}")
    return 0
