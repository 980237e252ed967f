"""What to write from: prefixes of the command line, of files, titles; and what may be wrong with them."""

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from novelgpt.cli import GenerateOptions
from novelgpt.corpus.chapters import read_heading
from novelgpt.corpus.cleaning import clean_text
from novelgpt.corpus.documents import read_text
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, say, warn
from novelgpt.writing.book import Book, unseen_characters
from novelgpt.writing.plan import BLOCK

SHOWN = 6  # characters or names listed in one warning


@dataclass(frozen=True)
class Prompt:
    """One prefix.

    Attributes:
        text: as given to the model.
        title: what its files are called, empty when the samples go to samples.txt.
    """

    text: str
    title: str = ""


def resolve_options(options: GenerateOptions) -> GenerateOptions:
    """Return the options as they will be used, with a seed if none was given.

    Raises:
        UserError: options that contradict each other.
    """
    if options.length == 0:
        message = "--length: found 0, expected at least 1, or -1 to fill the context"
        raise UserError(message, "--length 1000", EXIT_USAGE)
    check_combinations(options)
    changes: dict[str, object] = {}
    if options.mark:  # a short text, which ends where its document ends
        changes |= {"stop": "chapter", "copies": False}
    if options.titles or options.titles_file:
        changes["nsamples"] = options.articles_per_title
    if options.stream:  # two texts at a time would be shown mixed
        changes["batch_size"] = 1
    if options.seed is None:
        changes["seed"] = secrets.randbits(32)
    return replace(options, **changes)


def check_combinations(options: GenerateOptions) -> None:
    """Refuse options that have no meaning beside --interactive or --mark."""
    if options.mark:
        for name in ("titles", "titles_file", "interactive", "keep_head", "max_copy"):
            if getattr(options, name):
                message = f"--mark and --{name}: found both, expected one of them"
                raise UserError(message, f"leave --{name} out", EXIT_USAGE)
        if options.stop not in ("sentence", "chapter"):  # sentence is the default
            message = f"--stop {options.stop}: what --mark asks for ends where its document ends"
            raise UserError(message, "leave --stop out", EXIT_USAGE)
    for name in ("titles", "titles_file", "prompts_file"):
        if options.interactive and getattr(options, name):
            message = f"--interactive and --{name}: found both, expected one of them"
            raise UserError(message, f"leave --{name} out; --prefix or --prefix_file is the beginning", EXIT_USAGE)


def read_prompts(options: GenerateOptions) -> list[Prompt]:
    """Return the prefixes that the options name: --titles, --titles_file, --prompts_file, --prefix_file, else --prefix.

    Raises:
        UserError: two of them at once, or a file that is missing, empty or not UTF-8.
    """
    given = [name for name in ("titles", "titles_file", "prompts_file", "prefix_file") if getattr(options, name)]
    if len(given) > 1:
        message = f"--{given[0]} and --{given[1]}: found both, expected one of them"
        raise UserError(message, f"leave --{given[1]} out", EXIT_USAGE)
    if options.prompts_file:
        return [Prompt(line) for line in read_lines("--prompts_file", options.prompts_file)]
    if options.prefix_file:
        return [Prompt(read_chapter(options.prefix_file, drop_heading=bool(options.mark)))]
    titles = options.titles or (read_lines("--titles_file", options.titles_file) if options.titles_file else [])
    return [Prompt(f"{title}\n", title) for title in titles] or [Prompt(options.prefix)]


def read_lines(flag: str, path: str) -> list[str]:
    """Return the lines of a UTF-8 file that are not blank."""
    hint = "give a UTF-8 text file with one on each line"
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise UserError(f"{flag} {path}: {problem.strerror}", hint, EXIT_INPUT) from problem
    except UnicodeDecodeError as problem:
        raise UserError(f"{flag} {path}: not UTF-8 at byte {problem.start}", hint, EXIT_INPUT) from problem
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError(f"{flag} {path}: no line in it, expected at least one", hint, EXIT_INPUT)
    return lines


def read_chapter(path: str, *, drop_heading: bool) -> str:
    """Read a text in any encoding and clean it as clr_ctrl.py does.

    Args:
        path: a text file.
        drop_heading: leave a heading in the first line out, since it would tell the title that is asked for.
    """
    text = clean_text(read_text(path).text).text
    heading, _, rest = text.partition("\n")
    if drop_heading and rest and read_heading(heading):
        say(f"{path}: the heading {heading!r} is left out, since it tells the title")
        return rest
    return text


def marked_prefix(text: str, mark: str, tokenizer: NovelTokenizer, room: int) -> list[int]:
    """Return the ids of a text with a mark behind it, as rows are trained: a text that is too long loses its beginning.

    Args:
        text: the prefix.
        mark: an added token.
        tokenizer: of the model.
        room: tokens that all of it may take, at least 3.

    Raises:
        UserError: the vocabulary has no such token.
    """
    if mark not in tokenizer.marks:
        message = f"--mark {mark}: not a token of the model"
        raise UserError(message, f'train with --rows --add_tokens "{mark}" --loss_after "{mark}"', EXIT_USAGE)
    ids = tokenizer.encode_prefix(text).tolist()
    return [ids[0], *ids[1:][max(0, len(ids) + 1 - room) :], tokenizer.marks[mark]]


def examine_prompt(text: str, tokenizer: NovelTokenizer, book: Book | None, context: int) -> None:
    """Say in one line each what the model cannot make sense of in a prefix.

    Args:
        text: the prefix as typed.
        tokenizer: of the model.
        book: what the model has read, None when it is not at hand.
        context: tokens the model can hold.
    """
    ids = tokenizer.encode_prefix(text).tolist()
    plain = tokenizer.show(ids)
    if not plain.strip():
        say("the prefix is empty: the text begins like a chapter")
    if unknown := ids.count(tokenizer.unk_id):
        warn(f"prefix: {unknown} characters are not in the model's vocabulary; it reads [UNK] for them")
    if len(ids) + BLOCK > context:
        room = f"the context of {context:,} leaves room for {context - BLOCK:,}"
        warn(f"prefix: {len(ids):,} tokens, {room}; the model reads the last part of it")
    if book is None:
        return
    if unseen := unseen_characters(plain, book.documents):
        warn(f"prefix: never in the book: {' '.join(unseen[:SHOWN])}{' …' * (len(unseen) > SHOWN)}")
    if names := [pair for pair in book.unknown_runs(plain) if pair[1] and not set(pair[0]) & set(unseen)]:
        words = ", ".join(f"{name} (the book has {near})" for name, near in names[:SHOWN])
        warn(f"prefix: the book never writes {words}{' …' * (len(names) > SHOWN)}")
