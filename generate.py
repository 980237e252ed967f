"""Let a trained model continue a prefix.

    python generate.py --prefix "[CLS]萧炎大喝一声" --save_samples
    python generate.py --model_path model/best_model --length 5000 --nsamples 1 --stop chapter --seed 7

The samples go to stdout and, with --save_samples, to mnt/samples.txt and mnt/samples.jsonl.
"""

import argparse
import secrets
from collections.abc import Sequence

from novelgpt.cli import new_parser, parse_options, real, run, whole
from novelgpt.console import printable, progress_bar, say
from novelgpt.errors import EXIT_USAGE, UserError

STOPS = ("sentence", "paragraph", "chapter", "never")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of generate.py."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--model_path", default="model/final_model", help="folder of the model")
    add("--tokenizer_path", help="its vocabulary again, only to check that it is the one meant")
    add("--device", help="one GPU number, mps or cpu (default: the first GPU, else the CPU)")
    add("--prefix", default="[CLS]萧炎大喝一声", help="what the text begins with")
    add("--length", type=whole(-1), default=1000, help="new tokens; -1 fills the model's context")
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
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 where the processor has it")
    add("--quantize", choices=("int8",), help="eight-bit weights; prints what that costs in perplexity")
    add("--save_samples", action=argparse.BooleanOptionalAction, default=False, help="write the samples to files")
    add("--save_samples_path", default="mnt/", metavar="FOLDER", help="where to")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write the samples."""
    options = parse_options(build_parser(), argv, section="generate")
    check_options(options)
    from novelgpt.writing.session import open_session

    session = open_session(options)
    return write_all(options, session)


def check_options(options: argparse.Namespace) -> None:
    """Refuse what argparse cannot see, and choose a seed if none was given."""
    if options.length == 0:
        raise UserError(
            "--length: found 0, expected at least 1, or -1 to fill the context", "--length 1000", EXIT_USAGE
        )
    if options.seed is None:
        options.seed = secrets.randbits(32)


def write_all(options: argparse.Namespace, session) -> int:
    """Write all samples of the one prefix, save and print them."""
    from novelgpt.writing.samples import SampleFolder, format_sample

    folder = SampleFolder(options.save_samples_path) if options.save_samples else None
    for aside in folder.moved if folder else []:
        say(f"moved the samples of an earlier run to {aside}")
    with progress_bar(options.nsamples * session.plan.length, unit=" tokens") as bar:
        for number, sample in enumerate(session.write(options.prefix, watch=Watch(session, folder, bar)), 1):
            text = session.text_of(sample)
            if folder:
                folder.add(text, session.facts_of(sample, options.prefix))
            print(printable(format_sample(number, text)), end="", flush=True)
    if folder:
        folder.close()
        say(f"{options.nsamples} samples: {folder.text_path} and {folder.lines_path}")
    return 0


class Watch:
    """Moves the progress bar and saves growing texts."""

    def __init__(self, session, folder, bar):
        self.session, self.folder, self.bar, self.seen = session, folder, bar, {}

    def __call__(self, samples) -> None:
        """Take the samples of a batch after every block."""
        self.bar.update(sum(len(sample.ids) - self.seen.get(sample.index, 0) for sample in samples))
        self.seen = {sample.index: len(sample.ids) for sample in samples}
        if self.folder:
            self.folder.keep_unfinished(
                {sample.index + 1: lambda sample=sample: self.session.text_of(sample) for sample in samples}
            )


if __name__ == "__main__":
    raise SystemExit(run(main))
