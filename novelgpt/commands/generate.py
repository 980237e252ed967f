"""Let a trained model continue a prefix.

    python generate.py --prefix "[CLS]萧炎大喝一声" --save_samples
    python generate.py --model_path model/best_model --length 5000 --nsamples 1 --stop chapter --seed 7
    python generate.py --model_path model_titles/best_model --prefix_file chapter.txt --mark "[TIL]"

The samples go to stdout and, with --save_samples, to mnt/samples.txt and mnt/samples.jsonl.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import GenerateOptions, Parser
from novelgpt.messages import EXIT_INPUT, UserError, progress_bar, say


def build_parser() -> Parser[GenerateOptions]:
    """Return the command line of generate.py."""
    return Parser(GenerateOptions, __doc__, section="generate", prog="generate.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the samples."""
    parser = build_parser()
    options = parser.parse_options(argv)
    # what needs no torch comes first: that takes seconds, and what is wrong is told at once
    from novelgpt.writing.prompts import (
        encode_prompts,
        examine_prompt,
        open_book,
        read_texts,
        read_vocabulary,
        resolve_options,
    )

    options = resolve_options(options)
    if options.find:
        return show_openings(options)
    texts, has_prefix = read_texts(options), "prefix" in parser.given
    tokenizer, context = read_vocabulary(options)
    book = open_book(options)
    # without any beginning the book has one
    if texts == [(options.prefix, "")] and not has_prefix:
        if book:
            texts = [(book.opening(options.seed), "")]
        elif not options.interactive:  # where a story may go on
            beginning = options.prefix.removeprefix("[CLS]")
            say(f"no --prefix and no book at hand: beginning with {beginning}; --prefix TEXT begins otherwise")
    prompts = encode_prompts(texts, options, tokenizer, context)
    for prompt in prompts:  # every name of a chapter would be looked up
        examine_prompt(prompt, tokenizer, context, None if options.prefix_file else book)
    from novelgpt.writing.generation import open_session

    session = open_session(options, book)
    # by turns with a person, or all at once
    if options.interactive:
        return write_interactively(session, prompts[0], options, is_new=has_prefix or bool(options.prefix_file))
    return write_all(session, prompts, options)


def show_openings(options: GenerateOptions) -> int:
    """Print openings of the book that may serve as prefixes."""
    from novelgpt.writing.book import find_book, hint_at_book

    book = find_book(options.model_path, options.corpus)
    if book is None:
        message = f"--find: the book of {options.model_path} is not at hand"
        raise UserError(message, hint_at_book(options.model_path), EXIT_INPUT)
    openings = book.find_openings(options.find, options.openings)
    if not openings:
        raise UserError(f"--find: the book never writes {options.find!r}", "try a shorter word", EXIT_INPUT)
    print("\n".join(openings))
    return 0


def write_all(session, prompts, options: GenerateOptions) -> int:
    """Write all samples of all prompts; save and print each one as it is finished, or cut where a signal comes."""
    from novelgpt.compute import watching_compilation
    from novelgpt.writing.samples import Output
    from novelgpt.writing.terminal import StopSignals

    # samples are numbered through all prompts, for the number decides what is written
    firsts = [(prompt, turn * options.nsamples) for turn, prompt in enumerate(prompts)]
    work = [(prompt, indices) for prompt, first in firsts for indices in session.batches(first, options.nsamples)]
    total = options.nsamples * sum(prompt.stop_rule.length for prompt in prompts)
    often = {"check_every": 1} if options.stream else {}  # tokens
    with StopSignals() as stop, watching_compilation() as compiling:
        session.is_stopped = stop.is_set
        output = Output(session, options, is_saved=options.save_samples or bool(prompts[0].title), stop=stop)
        # a text that grows on the terminal is its own progress
        with progress_bar(total, unit=" tokens", enabled=not options.stream, leave=False) as bar:
            for prompt, indices in work:
                if stop.is_set():
                    break
                for samples in session.grow_batch(prompt.ids, prompt.stop_rule, indices, **often):
                    output.update(samples, prompt, bar)
                for sample in session.limit_copies(samples, prompt.stop_rule):
                    output.add(sample, prompt)
        output.close(compiling.seconds)
    return output.status


def write_interactively(session, prompt, options: GenerateOptions, *, is_new: bool) -> int:
    """Write by turns with the person at the terminal, from a prompt on or where they stopped."""
    from novelgpt.writing.book import corpus_facts
    from novelgpt.writing.interactive import open_story, write_by_turns

    beginning = session.tokenizer.show(prompt.ids)
    with contextlib.ExitStack() as stack:
        if options.story:
            from novelgpt.studio import Stories, open_at_terminal

            stories = stack.enter_context(contextlib.closing(Stories(Path(options.save_samples_path) / "stories")))
            story = open_at_terminal(stories, options.story, beginning, model=options.model_path, is_new=is_new)
        else:
            facts = {"model": options.model_path, "corpus": corpus_facts(options.model_path).get("sha256")}
            story = open_story(options.save_samples_path, beginning, facts, is_new=is_new)
        try:
            return write_by_turns(session, story, prompt.stop_rule, sys.stdin)
        finally:
            say(f"the story is kept in {story.path}")
