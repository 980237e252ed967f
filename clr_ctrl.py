"""Turn a novel as found into clean chapters: data/train.json and a report of everything that was changed.

    python clr_ctrl.py novel.txt
    python clr_ctrl.py books/ more.jsonl --output data/train.json --report report.html

Takes .txt, .json, .jsonl, .csv, each also as .gz, whole folders, and "-" for standard input, in any encoding. Without
a path it reads data/input.json or data/input.txt, or else the bundled novel.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import new_parser, parse_options, run
from novelgpt.files import write_text
from novelgpt.messages import EXIT_USAGE, UserError, say, warn

OWN_NOVELS = ("data/input.json", "data/input.txt")
SAMPLE = "data/sample/novel.txt"
VOCABULARY = "cache/vocab_small.txt"


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = new_parser(__doc__)
    switch = argparse.BooleanOptionalAction
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders of novels")
    parser.add_argument("--output", default="data/train.json", metavar="FILE", help="the clean documents")
    parser.add_argument("--encoding", metavar="NAME", help="encoding of the input; found out if not given")
    parser.add_argument("--field", metavar="NAME", help="key or column of the text; text or content if not given")
    parser.add_argument("--keep_ads", action=switch, default=False, help="leave advertisements and site lines in")
    parser.add_argument("--keep_private", action=switch, default=False, help="leave private-use characters in")
    parser.add_argument("--width", choices=("half", "full"), help="write all ASCII and full-width signs this way")
    parser.add_argument(
        "--traditional_to_simplified", action=switch, default=False, help="convert the script; needs OpenCC"
    )
    parser.add_argument("--report", metavar="FILE", help="also write the report as one HTML page")
    parser.add_argument("--titles", metavar="FILE", help="also write chapters with titles as records: text[TIL]title")
    return parser


def choose_paths(given: Sequence[str]) -> list[str]:
    """Return the paths given, or the user's own novel, or the bundled one with a notice."""
    if given:
        return list(given)
    for path in OWN_NOVELS:
        if Path(path).exists():
            return [path]
    sample = Path(__file__).parent / SAMPLE
    say(f"no path given and no {' or '.join(OWN_NOVELS)}: taking the bundled novel {SAMPLE}")
    return [SAMPLE if Path(SAMPLE).exists() else str(sample)]


def check_outputs(options: argparse.Namespace, report: Path) -> None:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Clean the novels and write documents and report."""
    options = parse_options(build_parser(), argv, section="clean")
    from novelgpt.corpus.books import Treatment
    from novelgpt.corpus.library import Library
    from novelgpt.corpus.report import report_path, summarise, terminal_lines, write_report
    from novelgpt.corpus.titles import title_words

    check_outputs(options, report_path(options.output))
    treatment = Treatment(options.keep_ads, options.keep_private, options.width, options.traditional_to_simplified)
    library = Library(treatment, encoding=options.encoding, field=options.field, vocabulary_path=VOCABULARY)
    library.write(choose_paths(options.paths), options.output, titles=options.titles)
    report = summarise(library.facts, options.output, library.left_out)
    write_report(report_path(options.output), report)
    if options.report:
        from novelgpt.pages import report_page

        write_text(options.report, report_page(report))
    for line in terminal_lines(report):
        say(line)
    if options.titles:
        say(title_words(library.titles, options.titles))
    for entry in library.left_out:
        warn(f"left out: {entry['error']}")
    written = [f"{options.output} ({report['documents']:,} documents)", str(report_path(options.output))]
    say(f"written: {', '.join(written + list(filter(None, (options.report, options.titles))))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
