"""The options of generate.py -> prompts: the tokens that a model continues and the rule by which its texts stop.

--prefix, --prefix_file, --prompts_file, --titles ─read─ texts ─encode once─ prompts ─examine─ warnings
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from novelgpt.cli import GenerateOptions
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, printable, say, warn
from novelgpt.network import check_model_folder, load_own_tokenizer, read_folder_config
from novelgpt.writing.book import Book, corpus_facts, find_book, hint_at_book, unseen_characters
from novelgpt.writing.text import CHECK_EVERY, StopRule, answer_rule

SHOWN = 6  # characters or names listed in one warning


@dataclass(frozen=True)
class Prompt:
    """What a model is to continue."""

    text: str  # as the user gave it
    title: str  # what its files are called, empty when the samples go to samples.txt
    text_ids: list[int]  # token ids of all of the text
    ids: list[int]  # what the model is given: the same, or with a mark the text's last part and the mark
    stop_rule: StopRule  # where its texts stop


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
    """Refuse options that have no meaning beside --interactive or --mark, or without it."""
    if options.story and not options.interactive:
        message = "--story: has no effect without --interactive"
        raise UserError(message, "add --interactive, or leave --story out", EXIT_USAGE)
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


def read_texts(options: GenerateOptions) -> list[tuple[str, str]]:
    """Return texts and titles as named by --titles, --titles_file, --prompts_file, --prefix_file, or else --prefix.

    Raises:
        UserError: two of them at once, or a file that is missing, empty or not UTF-8.
    """
    given = [name for name in ("titles", "titles_file", "prompts_file", "prefix_file") if getattr(options, name)]
    if len(given) > 1:
        message = f"--{given[0]} and --{given[1]}: found both, expected one of them"
        raise UserError(message, f"leave --{given[1]} out", EXIT_USAGE)
    if options.prompts_file:
        return [(line, "") for line in read_lines("--prompts_file", options.prompts_file)]
    if options.prefix_file:
        return [(read_chapter(options.prefix_file, drop_heading=bool(options.mark)), "")]
    # a title is the heading of a chapter: the first line, with its end
    titles = options.titles or (read_lines("--titles_file", options.titles_file) if options.titles_file else [])
    return [(f"{title}\n", title) for title in titles] or [(options.prefix, "")]


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
    """Read a text in any encoding and clean it as clr_ctrl.py does, for a title without the heading that tells it."""
    # reading any encoding takes a quarter of a second to load, which a prefix of some words does without
    from novelgpt.corpus.cleaning import clean_text
    from novelgpt.corpus.documents import read_text
    from novelgpt.corpus.headings import read_heading

    text = clean_text(read_text(path).text).text
    heading, _, rest = text.partition("\n")
    if drop_heading and rest and read_heading(heading):
        say(f"{path}: the heading “{' '.join(heading.split())}” is left out, since it tells the title")
        return rest
    return text


def read_vocabulary(options: GenerateOptions) -> tuple:
    """Return the NovelTokenizer and the context of a model folder, in tokens, without reading its weights.

    Raises:
        UserError: no model folder, another vocabulary, or an option that does not fit the model.
    """
    check_model_folder(options.model_path, hashes=False)
    config = read_folder_config(options.model_path)
    tokenizer = load_own_tokenizer(Path(options.model_path), options.model_path, config)
    check_options(options, tokenizer, config["n_positions"])
    return tokenizer, config["n_positions"]


def check_options(options: GenerateOptions, tokenizer, context: int) -> None:
    """Raise a UserError unless the options fit a model's vocabulary and context, tokens."""
    check_vocabulary(options.tokenizer_path, tokenizer, options.model_path)
    check_limits(options, context=context, vocab_size=tokenizer.vocab_size)


def check_vocabulary(path: str | None, tokenizer, model_path: str) -> None:
    """Raise unless a vocabulary file is the model's own."""
    if path is None:
        return
    # first the size, then the first line that differs
    given = tokenizer.from_file(path)
    hint = f"leave --tokenizer_path out: {model_path} has its own vocabulary"
    if given.vocab_size != tokenizer.vocab_size:
        message = f"--tokenizer_path {path}: {given.vocab_size:,} tokens, the model has {tokenizer.vocab_size:,}"
        raise UserError(message, hint, EXIT_USAGE)
    if given.fingerprint != tokenizer.fingerprint:
        pairs = zip(given.tokens, tokenizer.tokens, strict=True)
        line, (ours, theirs) = next((line, pair) for line, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        message = f"--tokenizer_path {path}: line {line} is {printable(ours)!r}, in the model {printable(theirs)!r}"
        raise UserError(message, hint, EXIT_USAGE)


def check_limits(options: GenerateOptions, *, context: int, vocab_size: int) -> None:
    """Refuse a head longer than a quarter of the context, and more candidates than there are tokens."""
    if options.keep_head > context // 4:
        message = f"--keep_head: found {options.keep_head}, expected at most {context // 4}, a quarter of the context"
        raise UserError(message, f"--keep_head {context // 4}", EXIT_USAGE)
    if options.topk > vocab_size:
        message = f"--topk: found {options.topk:,}, expected at most the vocabulary's {vocab_size:,} tokens"
        raise UserError(message, "--topk 8", EXIT_USAGE)


def open_book(options: GenerateOptions) -> Book | None:
    """Return the book of the model, if it is at hand; UserError where --max_copy cannot do without."""
    book = find_book(options.model_path, options.corpus) if options.model_path or options.corpus else None
    if book is None and options.max_copy is not None:
        message = "--max_copy: the book that the model was trained on is not at hand"
        raise UserError(message, hint_at_book(options.model_path), EXIT_USAGE)
    if options.max_copy is not None and not options.copies:
        raise UserError("--max_copy: --no-copies measures no copies", "leave --no-copies out", EXIT_USAGE)
    return book


def encode_prompts(texts: Sequence[tuple[str, str]], options: GenerateOptions, tokenizer, context: int) -> list[Prompt]:
    """Turn texts into what the model is to continue.

    Args:
        texts: with their titles, as from read_texts.
        options: of generate.py: length, stop, cut_loops, mark and model_path are used.
        tokenizer: the NovelTokenizer of the model.
        context: tokens the model can hold.

    Raises:
        UserError: the vocabulary has no such mark.
    """
    # one rule for all of them, but with --length -1
    rule = StopRule(options.length, options.stop, options.cut_loops)
    if options.mark:
        rule, room = answer_limits(options, context)
    prompts = []
    for text, title in texts:
        ids = given = tokenizer.encode_prefix(text).tolist()
        if options.mark:
            given = add_mark(ids, options.mark, tokenizer, room)
        elif options.length == -1:  # what this prefix leaves of the context
            rule = replace(rule, length=max(1, context - len(ids)))
        prompts.append(Prompt(text, title, ids, given, rule))
    return prompts


def answer_limits(options: GenerateOptions, context: int) -> tuple[StopRule, int]:
    """Return where the answer to a mark stops, and how many tokens the text with the mark may take before it."""
    # a row of training held a text, its mark and the answer; the answer may take a quarter of it
    row = min(context, corpus_facts(options.model_path).get("block_size") or context)  # tokens
    most = max(1, row // 4)
    if options.length > most and options.length != GenerateOptions.length:
        warn(f"--length {options.length}: what --mark asks for gets at most {most} tokens, a quarter of a row of {row}")
    rule = answer_rule(most if options.length == -1 else min(options.length, most), cut_loops=options.cut_loops)
    # the text keeps as much as in training, less room for the answer
    return rule, max(row // 2, min(row, context - CHECK_EVERY) - rule.max_tokens)


def add_mark(ids: list[int], mark: str, tokenizer, room: int) -> list[int]:
    """Return a text's ids with a mark behind, as rows are trained; beyond `room` (3 or more) its beginning goes."""
    if mark not in tokenizer.marks:
        message = f"--mark {mark}: not a token of the model"
        raise UserError(message, f'train with --rows --add_tokens "{mark}" --loss_after "{mark}"', EXIT_USAGE)
    return [ids[0], *ids[1:][max(0, len(ids) + 1 - room) :], tokenizer.marks[mark]]


def examine_prompt(prompt: Prompt, tokenizer, context: int, book: Book | None) -> None:
    """Warn about what the model cannot make sense of in a text, one line each.

    Args:
        prompt: what it is to continue.
        tokenizer, context: the model's NovelTokenizer, and the tokens that it can hold.
        book: what the model has read, None when it is not at hand or the text is too long to be looked up.
    """
    # what the vocabulary and the context say
    ids, plain = prompt.text_ids, tokenizer.show(prompt.text_ids)
    if not plain.strip():
        say("the prefix is empty: the text begins like a chapter")
    if unknown := ids.count(tokenizer.unk_id):
        warn(f"prefix: {unknown} characters are not in the model's vocabulary; it reads [UNK] for them")
    if len(ids) + CHECK_EVERY > context:
        room = f"the context of {context:,} leaves room for {context - CHECK_EVERY:,}"
        warn(f"prefix: {len(ids):,} tokens, {room}; the model reads the last part of it")
    if book is None:
        return
    # what the book says; where it lacks a character, its pairs are no news
    unseen = unseen_characters(plain, book.documents)
    if unseen:
        warn(f"prefix: never in the book: {' '.join(unseen[:SHOWN])}{' …' if len(unseen) > SHOWN else ''}")
    if names := [pair for pair in book.misspelt_names(plain) if not set(pair[0]) & set(unseen)]:
        listed = ", ".join(f"{name} (the book has {near})" for name, near in names[:SHOWN])
        warn(f"prefix: the book never writes {listed}{' …' if len(names) > SHOWN else ''}")
