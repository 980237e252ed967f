"""Turn a novel as found into clean chapters: data/train.json and a report of everything that was changed.

    python clr_ctrl.py novel.txt
    python clr_ctrl.py books/ more.jsonl --output data/train.json --report report.html

Takes .txt, .md, .epub, .docx, .html, .json, .jsonl, .csv, each also as .gz, .zip and .tar of these, whole folders, and
"-" for standard input, in any encoding. A folder with a file for each chapter is one book. Without a path it reads
data/input.json or data/input.txt, or else the bundled novel.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import CleanOptions, Parser
from novelgpt.files import MAX_JSON_BYTES, move_aside, read_json, ready_file, write_json, write_text
from novelgpt.messages import EXIT_USAGE, UserError, say, warn

OWN_NOVELS = ("data/input.json", "data/input.txt")
SAMPLE = "data/sample/novel.txt"
VOCABULARY = "cache/vocab_small.txt"
NETWORKS = ("demo", "laptop", "small")  # of config/, as the page weighs a book by them
MAX_LOOKED_AT = 20_000_000  # characters that the page looks at once more
MAX_WARNINGS = 10  # of files left out


def build_parser() -> Parser[CleanOptions]:
    """Return the command line of clr_ctrl.py."""
    return Parser(CleanOptions, __doc__, section="clean", prog="clr_ctrl.py")


def choose_paths(given: Sequence[str], output: str, report: Path) -> list[str]:
    """Return the paths given, or the user's own novel, or the bundled one with a notice.

    Args:
        given: on the command line.
        output, report: what is written, and its report; the bundled novel never replaces another one there.
    """
    if given:
        return list(given)
    for path in OWN_NOVELS:
        if Path(path).exists():
            return [path]
    if Path(output).exists() and (former := former_paths(output, report)) != [SAMPLE]:
        message = f"{output}: holds another novel, and no path of one to clean is given"
        own = shlex.join(former if former and all(map(os.path.exists, former)) else ["novel.txt"])
        flag = "" if output == CleanOptions.output else f" --output {shlex.quote(output)}"
        other = f"or the bundled novel in its place: python clr_ctrl.py {SAMPLE}{flag}"
        raise UserError(message, f"python clr_ctrl.py {own}{flag}\n{other}", EXIT_USAGE)
    say(f"no path given and no {' or '.join(OWN_NOVELS)}: taking the bundled novel {SAMPLE}")
    return [SAMPLE]


def former_paths(output: str, report: Path) -> list[str]:
    """Return the novels that the documents of an output were made of, by its report; none where that is of others."""
    with contextlib.suppress(UserError, OSError, ValueError, KeyError, TypeError):
        facts, is_large = read_json(report), Path(output).stat().st_size > MAX_JSON_BYTES
        documents = [] if is_large else json.loads(Path(output).read_bytes())  # a large one is not looked into
        if is_large or (facts["documents"], facts["characters"]) == (len(documents), sum(map(len, documents))):
            return [book["name"] for book in facts["books"]]
    return []


def keep_other_novel(output: str, report: Path, paths: Sequence[str], names: Sequence[str]) -> None:
    """Move the documents of another novel aside with their report, and say so; the same novel is replaced.

    Args:
        output, report: what is about to be written, and its report.
        paths, names: what is cleaned now, as given, and its files.
    """
    cleaned = set(map(os.path.abspath, names))
    former = former_paths(output, report)
    is_same = former and cleaned.issuperset(map(os.path.abspath, former))
    if is_same or os.path.abspath(output) in cleaned or not (aside := move_aside(output)):
        return
    if report.exists():
        report.replace(aside.with_suffix(".report.json"))
    again = f"python clr_ctrl.py {shlex.join(paths)} --book NAME"
    say(f"{output} held other chapters, moved to {aside}; --raw_data_path {shlex.quote(str(aside))} takes them")
    say(f"--book NAME keeps books apart: {again}")


def check_outputs(options: CleanOptions, report: Path) -> None:
    """Refuse two outputs in one file.

    Args:
        options: of this script.
        report: file of the JSON report.
    """
    places = [(options.output, f"--output {options.output}"), (report, f"the report {report} beside --output")]
    places += [(path, f"--{name} {path}") for name in ("report", "titles") if (path := getattr(options, name))]
    seen: dict[Path, str] = {}
    for path, words in places:
        other = seen.setdefault(Path(path).resolve(), words)
        if other != words:
            raise UserError(f"{words}: the same file as {other}", "give each a file of its own", EXIT_USAGE)


def warn_of(options: CleanOptions, library) -> None:
    """Warn of the files that a Library left out, and of expressions that match nothing."""
    from novelgpt.corpus.doctor import report_path

    left_out = [entry["error"] for entry in library.left_out] + [why for book in library.facts for why in book.left_out]
    for error in left_out[:MAX_WARNINGS]:
        warn(f"left out: {error}")
    if len(left_out) > MAX_WARNINGS:
        warn(f"left out: {len(left_out) - MAX_WARNINGS:,} more files, all in {report_path(options.output)}")
    reasons = {notice["reason"] for facts in library.facts for notice in facts.notices}
    for pattern in options.drop:
        if f"--drop {pattern}" not in reasons:
            warn(f"--drop {pattern}: no line contains it")
    if options.chapters not in (None, "none"):
        for facts in library.facts:
            if not facts.chapters:
                warn(f"{facts.name}: no line matches --chapters {options.chapters}")


def write_page(options: CleanOptions, report) -> None:
    """Write the page of a Report; of documents that are many without what has to be read out of them once more."""
    from novelgpt.corpus.documents import read_corpus
    from novelgpt.network import count_config_parameters, read_model_config
    from novelgpt.pages import report_page

    facts = report.to_json()
    documents = list(read_corpus(options.output)) if facts["characters"] <= MAX_LOOKED_AT else []
    tokens, plans = facts["characters"] + report.documents, []  # one a character, and the mark before each document
    vocabulary = len(set().union(*map(set, documents))) + 256 + 5  # all characters, bytes and marks
    for name in NETWORKS if documents else ():
        config = read_model_config(ready_file(f"config/model_config_{name}.json"), loud=False)
        context, parameters = config["n_positions"], count_config_parameters(config, vocabulary)
        windows = max(1, -(-(tokens - context) // (context // 2)) + 1)
        plans.append({"name": name, "parameters": parameters, "tokens": tokens, "context": context, "windows": windows})
    write_text(options.report, report_page(facts, documents, plans))


def main(argv: Sequence[str] | None = None) -> int:
    """Clean the novels and write documents and report."""
    options = build_parser().parse_options(argv)
    from novelgpt.corpus.books import CleaningOptions, Library
    from novelgpt.corpus.doctor import Report, report_path, terminal_lines

    check_outputs(options, report_path(options.output))
    paths = choose_paths(options.paths, options.output, report_path(options.output))
    library = Library(
        CleaningOptions(
            chapters=options.chapters,
            keep_ads=options.keep_ads,
            drop=options.drop,
            keep_private=options.keep_private,
            width=options.width,
            traditional_to_simplified=options.traditional_to_simplified,
            encoding=options.encoding,
            force_encoding=options.force_encoding,
            field=options.field,
            title_field=options.title_field,
            vocabulary_path=ready_file(VOCABULARY),
        )
    )
    titles = None
    if options.titles:
        from novelgpt.corpus.records import TitleTable

        titles = TitleTable(options.titles)

    def keep() -> None:
        names = [facts.name for facts in library.facts]
        keep_other_novel(options.output, report_path(options.output), paths, names)

    library.write(paths, options.output, watch=titles.watch if titles else None, keep=keep)

    # the report beside the documents, as a page, and on the terminal
    report = Report(options.output, library.facts, library.left_out)
    write_json(report_path(options.output), report.to_json())
    if options.report:
        write_page(options, report)
    for line in terminal_lines(report):
        say(line)
    if titles:
        say(titles.describe())
    warn_of(options, library)
    written = [f"{options.output} ({report.documents:,} documents)", str(report_path(options.output))]
    say(f"written: {', '.join(written + list(filter(None, (options.report, options.titles))))}")
    return 0
