"""Measure how a model's texts read beside chapters of the same author that it has not read.

    python bench/bench_learning.py --hours 1 --novel my_novel.txt --folder build/hour
    python bench/bench_reading.py --folder build/hour --settings "preset=seed" "topp=0.95" "best_of=10"
    python bench/bench_reading.py --folder build/hour --settings "preset=balanced" "adapt=1" --names 50 --chapters 8
    python bench/bench_reading.py --folder build/hour --settings "preset=balanced" --long 20000 --long_texts 10

The folder is one of bench_learning: train.json, pieces/ with held-out chapters, model/final_model. Each setting writes
--texts texts of --length characters with generate.py's own session and defaults, but for what the setting says; only
loops are not cut, so that they count. The texts go on with pages of the held-out chapters; figures, see reading.py and
remembering.py, stand beside the author's own. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import reading
import remembering

from novelgpt.cli import GenerateOptions, names_with, with_changes
from novelgpt.corpus.pieces import open_pieces
from novelgpt.files import write_json
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, say_error, warn
from novelgpt.network import load_model
from novelgpt.writing.copying import CopyMeter
from novelgpt.writing.decoder import Decoder, Weights
from novelgpt.writing.generation import Session, open_session
from novelgpt.writing.prompts import open_book, resolve_options
from novelgpt.writing.text import StopRule

ROOT = Path(__file__).resolve().parents[1]
PROMPT = 200  # characters of a held-out page that a text goes on with
SLACK = 32  # tokens written beyond the length, since a rare character takes three
LEAST_CHARACTERS = 20_000  # held out, below which no figure means anything
COHERENCE = 200  # characters behind a prompt that the second network reads
SHOWN = ("likeness_auc", "likeness_learned", "forward", "reverse", "loops", "loops_4", "within_usual_loops")
SHOWN += ("copied_10", "copied_20", "quotes", "names_known", "names_kept", "coherence", "sentence_length")
SHOWN += ("sentence_rhythm", "paragraph_length", "dialogue_share")


@dataclass(frozen=True)
class Novel:
    """A book as a run has it."""

    folder: Path  # of the run
    learned: list[str]  # training chapters
    held_out: list[str]  # the others
    meter: CopyMeter  # of the training chapters

    @property
    def model_path(self) -> Path:
        """The model folder."""
        return self.folder / "model/final_model"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", help="of a run of bench_learning.py --hours; without it as --quick")
    add("--settings", nargs="+", default=["preset=seed", "preset=balanced"], metavar="WORDS", help="name=value …")
    add("--texts", type=int, default=100, help="of each setting")
    add("--prompts", type=int, default=20, help="pages that they go on with")
    add("--length", type=int, default=1000, help="characters of a text")
    add("--names", type=int, default=0, metavar="N", help="also N texts after pages with a new name in them")
    add("--person", help="whose place it takes; default: who speaks most")
    add("--long", type=int, default=0, metavar="N", help="also texts of N characters, measured from part to part")
    add("--long_texts", type=int, default=10, help="how many of them")
    add("--chapters", type=int, default=0, metavar="N", help="also N chapters scored before and after --adapt")
    add("--second", metavar="FOLDER", help="a model of another seed, which judges coherence")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=1)
    add("--save", metavar="FOLDER", help="keep the texts there")
    add("--quick", action="store_true", help="the bundled novel and a network of seconds: does it run at all")
    return parser


def make_quick_run(folder: Path) -> None:
    """Train a network of seconds on the bundled novel."""
    network = {"model_type": "gpt2", "n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64, "n_ctx": 64}
    (folder / "config.json").write_text(json.dumps(network))
    clean = ["clr_ctrl.py", "data/sample/novel.txt", "--output", folder / "train.json"]
    train = ["train.py", "--raw", "--raw_data_path", folder / "train.json", "--output_dir", folder / "model"]
    train += ["--tokenized_data_path", folder / "pieces", "--model_config", folder / "config.json", "--epochs", "1"]
    train += ["--valid_fraction", "0.3", "--sample_length", "0", "--device", "cpu", "--log_step", "1000"]
    vocabulary = ["make_vocab.py", "--raw_data_path", folder / "train.json", "--vocab_file", folder / "vocab.txt"]
    train += ["--tokenizer_path", folder / "vocab.txt"]
    for words in (clean, vocabulary, train):
        subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True, capture_output=True)


def read_novel(folder: Path) -> Novel:
    """Read the chapters of a run: those it has learned, and those it has not."""
    for name in ("pieces", "model/final_model"):
        if not (folder / name).is_dir():
            hint = f"python bench/bench_learning.py --hours 1 --novel my_novel.txt --folder {folder}"
            message = f"--folder {folder}: no {name} in it, expected a run of bench_learning.py"
            raise UserError(message, hint, EXIT_INPUT)
    pieces = open_pieces(folder / "pieces")
    _, tokenizer = load_model(folder / "model/final_model")
    learned, held_out = (split_chapters(stream.read(), tokenizer) for stream in (pieces.train, pieces.valid))
    size = sum(map(len, held_out))
    if not size:
        message = f"--folder {folder}: no chapters are held out, so there is nothing to compare with"
        hint = f"train again: python train.py --raw --valid_fraction 0.1 --output_dir {folder}/model"
        raise UserError(message, hint, EXIT_INPUT)
    if size < LEAST_CHARACTERS:
        least = f"at least {LEAST_CHARACTERS:,} are needed"
        warn(f"{folder}: {size:,} characters are held out, and {least}: the figures mean nothing")
    return Novel(folder, learned, held_out, CopyMeter(learned))


def split_chapters(ids: np.ndarray, tokenizer) -> list[str]:
    """Return the documents of a stream of tokens, which [CLS] divides."""
    parts = np.split(ids, np.flatnonzero(ids == tokenizer.cls_id))
    texts = (tokenizer.show(part[part != tokenizer.cls_id]) for part in parts)
    return [text for text in texts if text.strip()]


def read_setting(words: str, novel: Novel, seed: int) -> GenerateOptions:
    """Return generate.py's options of a setting such as "topp=0.95 adapt=1"."""
    changes: dict[str, object] = {"seed": seed, "cut_loops": False, "corpus": str(novel.folder / "train.json")}
    for word in words.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--settings: found {word!r}, expected name=value", "--settings topp=0.95", EXIT_USAGE)
        is_switch = isinstance(getattr(GenerateOptions, name, None), bool)
        changes[name] = value in ("1", "true", "True") if is_switch else value
    options = with_changes(GenerateOptions(), changes, names_with(GenerateOptions, python=True))
    return resolve_options(replace(options, model_path=str(novel.model_path)))


class Writer:
    """A setting that writes."""

    def __init__(self, options: GenerateOptions):
        self.session: Session = open_session(options, open_book(options))
        self.written = 0  # texts

    def write(self, prompts: list[str], count: int, length: int) -> list[list[str]]:
        """Return `count` texts of each prompt, of so many characters, without the prompt."""
        tokenizer, groups = self.session.tokenizer, []
        for prompt in prompts:
            ids = tokenizer.encode_prefix(prompt).tolist()
            samples = self.session.write(ids, StopRule(length + SLACK), count, first=self.written)
            groups.append([self.session.show_new(sample)[:length] for sample in samples])
            self.written += count
        return groups


def choose_prompts(novel: Novel, length: int, count: int) -> list[reading.Page]:
    """Return beginnings of held-out pages, spread evenly, from the first whole paragraph on."""
    chosen = reading.spread_evenly(reading.cut_pages(novel.held_out, length), count)
    return [reading.Page(begin_paragraph(page.text), page.group) for page in chosen]


def begin_paragraph(text: str, length: int = PROMPT) -> str:
    r"""Return so many characters of a page, from the first whole paragraph on if one begins soon.

    >>> begin_paragraph("尾巴\n头上有几个字", 3)
    '头上有'
    """
    start = text.find("\n") + 1
    return text[start if start < len(text) // 2 else 0 :][:length]


@torch.no_grad()
def continuation_loss(weights: Weights, tokenizer, prompt: str, text: str) -> float:
    """Return the nats a token of what follows a prompt."""
    before = tokenizer.encode_prefix(prompt).tolist()[-weights.context // 2 :]
    ids = torch.tensor((before + tokenizer.encode(text).tolist())[: weights.context])
    logits = Decoder(weights, rows=1, slots=len(ids)).prefill(0, ids, every=True)  # (N, V)
    nats = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    return float(nats[len(before) - 1 :].mean())


def measure_coherence(folder: str, prompts: list[str], texts: list[str], author: list[str]) -> reading.Figure:
    """Return how much less a text surprises a second network after its own prompt than after another one, in nats."""
    place = Path(folder)
    model, tokenizer = load_model(place / "model/final_model" if (place / "model/final_model").is_dir() else place)
    weights = Weights(model)
    half = len(prompts) // 2
    foreign = prompts[half:] + prompts[:half]

    def gains(written: list[str]) -> list[float]:
        rows = zip(prompts, foreign, [text[:COHERENCE] for text in written], strict=True)
        return [
            continuation_loss(weights, tokenizer, other, text) - continuation_loss(weights, tokenizer, own, text)
            for own, other, text in rows
        ]

    values = gains(texts)
    return reading.Figure(reading.mean(values), *reading.interval(values), reading.mean(gains(author)))


def following_of(novel: Novel, prompt: str) -> str:
    """Return what the author wrote after a prompt."""
    chapter = next(chapter for chapter in novel.held_out if prompt in chapter)
    start = chapter.index(prompt) + len(prompt)
    return chapter[start : start + COHERENCE] or prompt


def measure_setting(words: str, novel: Novel, options: argparse.Namespace) -> dict:
    """Write by a setting and return all its figures."""
    chosen = read_setting(words, novel, options.seed)
    writer, start = Writer(chosen), time.perf_counter()
    length = min(options.length, max(map(len, novel.held_out)) // 2)
    pages, prompts = reading.cut_pages(novel.held_out, length), choose_prompts(novel, length, options.prompts)
    each = max(1, options.texts // len(prompts))
    groups = writer.write([prompt.text for prompt in prompts], each, length)
    seconds = time.perf_counter() - start
    written = [reading.Page(text, page.group) for page, texts in zip(prompts, groups, strict=True) for text in texts]
    if options.save:
        write_json(Path(options.save) / f"{words.replace(' ', '_').replace('/', '_')}.json", [p.text for p in written])
    known = "\n".join(prompt.text for prompt in prompts)
    figures: dict = reading.measure_texts(written, pages, novel.learned, novel.meter, known)
    if options.second:
        own = [prompt.text for prompt in prompts for _ in range(each)]
        author = [following_of(novel, prompt) for prompt in own]
        figures["coherence"] = measure_coherence(options.second, own, [page.text for page in written], author)
    if options.names:
        figures |= remembering.measure_names(writer.write, novel.held_out, options.names, options.person)
    if options.long:
        count = max(1, options.long_texts // remembering.TOGETHER)
        some = [prompt.text for prompt in prompts[:: max(1, len(prompts) // count)][:count]]
        groups = writer.write(some, min(options.long_texts, remembering.TOGETHER), options.long)
        texts = [text for group in groups for text in group]
        figures["long"] = remembering.measure_drift(texts, novel.learned, novel.meter)
    if options.chapters and chosen.adapt:
        model, _ = load_model(novel.model_path)
        figures["next_chapter"] = remembering.measure_next_chapter(
            writer.session, model, novel.held_out, options.chapters
        )
    facts = {"setting": words, "texts": len(written), "seconds": round(seconds, 1)}
    return facts | {name: plain(value) for name, value in figures.items()}


def plain(value: object) -> object:
    """Return a figure as JSON has it; what is none stays."""
    return value.as_json() if isinstance(value, reading.Figure) else value


def print_table(results: list[dict]) -> None:
    """Print a row a figure and a column a setting, the author last."""
    names = [name for name in SHOWN if name in results[0]]
    print(f"{'':20}" + "".join(f"{result['setting'][:26]:>28}" for result in results) + f"{'the author':>14}")
    for name in names:
        cells = [describe(result[name]) for result in results]
        author = results[0][name]["author"]
        last = "–" if author is None else f"{author:.4f}"
        print(f"{name:20}" + "".join(f"{cell:>28}" for cell in cells) + f"{last:>14}")
    print(f"{'seconds':20}" + "".join(f"{result['seconds']:>28.1f}" for result in results))
    for result in results:
        for name, drift in result.get("long", {}).items():
            verdict = "steady" if drift["steady"] else "drifts"
            print(f"{result['setting']}: {name}: first, middle, last {drift['means']}: {verdict}")
        if "next_chapter" in result:
            print(f"{result['setting']}: next chapter {result['next_chapter']}")


def describe(figure: dict) -> str:
    """Return a figure with its interval."""
    if figure["value"] is None:
        return "–"
    low, high = figure["interval"]
    return f"{figure['value']:.4f} ({low:.3f} … {high:.3f})"


def run(options: argparse.Namespace, folder: Path) -> dict:
    """Measure every setting on a run, print the table, return the figures."""
    novel = read_novel(folder)
    results = []
    for words in options.settings:
        results.append(measure_setting(words, novel, options))
        print(json.dumps(results[-1], ensure_ascii=False), file=sys.stderr, flush=True)
    print_table(results)
    return {"settings": results, "length": options.length, "seed": options.seed, "torch": torch.__version__}


def main() -> int:
    """Measure, print, end with one line of JSON."""
    options = build_parser().parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        if options.quick or not options.folder:
            options.texts, options.prompts, options.length = 8, 4, 200
            make_quick_run(Path(name))
        try:
            figures = run(options, Path(name if options.quick or not options.folder else options.folder).resolve())
        except UserError as problem:
            say_error(problem)
            return problem.code
    print(json.dumps(figures | {"novel": Path(options.folder or "bundled").name}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
