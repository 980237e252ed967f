"""Every option of generate.py with its default and range, for the command line and for Python."""

import argparse
import secrets
from collections.abc import Mapping

from novelgpt.alias_table import precision_name
from novelgpt.checks import check_setting
from novelgpt.cli import real, whole
from novelgpt.messages import EXIT_USAGE, UserError, nearest_words

DEFAULT_LENGTH, MOST_TOKENS = 1000, 10_000_000  # of a text; the memory for its numbers is taken at once
STOPS = ("sentence", "paragraph", "chapter", "never")
PYTHON_SETTINGS = (  # the options that mean something to a caller who gets the texts back
    "length nsamples batch_size temperature topk topp min_p repetition_penalty penalty_window no_repeat_ngram_size "
    "bad_words stop cut_loops keep_head seed precision quantize device corpus max_copy"
).split()


def add_generate_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of generate.py."""
    add = parser.add_argument
    add("--model_path", default="model/final_model", help="folder of the model")
    add("--tokenizer_path", help="its vocabulary again, only to check that it is the one meant")
    add("--device", help="one GPU number, mps or cpu (default: the first GPU, else the CPU)")
    add("--prefix", default="[CLS]萧炎大喝一声", help="what the text begins with")
    add("--prefix_file", metavar="FILE", help="a text to go on from, in any encoding, instead of --prefix")
    add("--mark", metavar="TOKEN", help="write only what this token asks for, such as a title after [TIL], to its end")
    add(
        "--length", type=whole(-1, MOST_TOKENS), default=DEFAULT_LENGTH, help="new tokens; -1 fills the model's context"
    )
    add("--nsamples", type=whole(1), default=10, help="how many texts")
    add("--batch_size", type=whole(1), default=10, help="texts written at a time; has no influence on them")
    add(
        "--temperature",
        type=real(0),
        default=1.0,
        help="lower is safer; 0 takes the best token always",
    )
    add("--topk", type=whole(0), default=8, help="choose among so many tokens; 0 = all")
    add("--topp", type=real(0, 1), default=1.0, help="choose among the best tokens of this probability; 0 or 1 = all")
    add("--min_p", type=real(0, 1), default=0.0, help="drop tokens less likely than this share of the best one")
    add("--repetition_penalty", type=real(0, above=True), default=1.0, help="above 1: recent tokens less likely")
    add("--penalty_window", type=whole(0), default=256, help="how many recent tokens that means; 0 = all")
    add("--no_repeat_ngram_size", type=whole(0), default=0, help="never write a run of so many tokens twice; 0 = may")
    add("--bad_words", nargs="+", default=[], metavar="WORD", help="words never written")
    add("--stop", choices=STOPS, default="sentence", help="after --length go on to the end of this")
    add("--cut_loops", action=argparse.BooleanOptionalAction, default=True, help="end a text that repeats itself")
    add("--keep_head", type=whole(0), default=0, help="tokens of the beginning that are never forgotten")
    add("--seed", type=whole(0, 2**64 - 1), help="text i is a function of (seed, i); default: a new one, printed")
    formats = ("auto", "fp32", "bf16")
    add("--precision", type=precision_name, choices=formats, default="auto", help="auto: bf16 where the machine has it")
    add(
        "--quantize", choices=("int8",), help="eight-bit weights, keys and values; prints what that costs in perplexity"
    )
    add("--stream", action=argparse.BooleanOptionalAction, default=False, help="show characters as they are written")
    add("--interactive", action=argparse.BooleanOptionalAction, default=False, help="write by turns with the model")
    add("--prompts_file", metavar="FILE", help="one prefix a line; --nsamples of each")
    add("--titles", nargs="+", metavar="TITLE", help="write a text to each title, one file a text")
    add("--titles_file", metavar="FILE", help="the titles, one a line")
    add("--articles_per_title", type=whole(1), default=5, help="texts of each title")
    add("--corpus", metavar="FILE", help="the book it was trained on (default: where it was then)")
    add("--copies", action=argparse.BooleanOptionalAction, default=True, help="measure what is copied from the book")
    add(
        "--max_copy",
        type=whole(1),
        metavar="N",
        help="write a text that copies more than N characters in a row anew",
    )
    add("--find", metavar="WORDS", help="only show openings of the book that hold these words")
    add("--openings", type=whole(1), default=5, help="how many of them")
    add("--save_samples", action=argparse.BooleanOptionalAction, default=False, help="write the samples to files")
    add("--save_samples_path", default="mnt/", metavar="FOLDER", help="where to")


def check_options(options: argparse.Namespace) -> None:
    """Refuse what argparse cannot see, and choose a seed if none was given."""
    if options.length == 0:
        message = "--length: found 0, expected at least 1, or -1 to fill the context"
        raise UserError(message, "--length 1000", EXIT_USAGE)
    if options.mark:
        check_mark_options(options)
    for name in ("titles", "titles_file", "prompts_file"):
        if options.interactive and getattr(options, name):
            message = f"--interactive and --{name}: found both, expected one of them"
            raise UserError(message, f"leave --{name} out; --prefix or --prefix_file is the beginning", EXIT_USAGE)
    if options.titles or options.titles_file:
        options.nsamples = options.articles_per_title
    if options.seed is None:
        options.seed = secrets.randbits(32)


def check_mark_options(options: argparse.Namespace) -> None:
    """Refuse what has no meaning where a mark asks for a short text; such a text ends where its document ends."""
    for name in ("titles", "titles_file", "interactive", "keep_head", "max_copy"):
        if getattr(options, name):
            message = f"--mark and --{name}: found both, expected one of them"
            raise UserError(message, f"leave --{name} out", EXIT_USAGE)
    if options.stop not in ("sentence", "chapter"):  # sentence is the default
        message = f"--stop {options.stop}: what --mark asks for ends where its document ends"
        raise UserError(message, "leave --stop out", EXIT_USAGE)
    options.stop, options.copies = "chapter", False


def options_of(prefix: str, settings: Mapping[str, object], *, model_path: str) -> argparse.Namespace:
    """Return the options that Python's settings stand for, all others at their defaults.

    Args:
        prefix: what the text begins with.
        settings: names of PYTHON_SETTINGS and values.
        model_path: folder of the model; empty for one that is loaded already.

    Raises:
        UserError: an unknown name (with the nearest one), or a value that the command line would refuse.
    """
    parser = argparse.ArgumentParser()
    add_generate_options(parser)
    actions = {action.dest: action for action in parser._actions}
    options = parser.parse_args([])
    for name, value in settings.items():
        if name not in PYTHON_SETTINGS:
            raise UserError(f"unknown setting {name}", nearest_words(name, PYTHON_SETTINGS), EXIT_USAGE)
        setattr(options, name, check_setting(actions[name], value))
    options.prefix, options.model_path = prefix, model_path
    check_options(options)
    return options
