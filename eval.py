"""Measure how well a model predicts a text: loss, perplexity, bits per character.

    python eval.py --model_path model/best_model
    python eval.py --text_path other_novel.json --per_chapter

Without a text it scores what training held out. The result is one JSON object on stdout.
"""

import argparse
import json
from collections.abc import Sequence

from novelgpt.alias_table import precision_name
from novelgpt.cli import new_parser, parse_options, run, whole
from novelgpt.console import say
from novelgpt.errors import EXIT_DONE, EXIT_USAGE, UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--model_path", default="model/final_model", help="model folder (default model/final_model)")
    add("--tokenized_data_path", default="data/tokenized/", help="pieces whose held-out part is scored")
    add("--text_path", help="score this text instead: .txt, .json, .jsonl, .csv or a folder, in any encoding")
    add("--text", help="score this sentence instead")
    add("--encoding", help="encoding of text_path; default: found out")
    add("--stride", type=whole(1), help="tokens between windows, at most the context (default half of it)")
    add("--batch_size", type=whole(1), default=8, help="windows a pass (default 8)")
    add("--per_chapter", action=argparse.BooleanOptionalAction, default=False, help="score every chapter by itself too")
    add(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also score by a 4-gram of the training pieces",
    )
    formats = ("auto", "bf16", "fp16", "fp32")
    add("--precision", type=precision_name, choices=formats, default="fp32", help="number format (default fp32)")
    add("--device", help="a GPU number, mps or cpu; default: the first GPU there is")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Score what the command line says; return the exit status."""
    options = parse_options(build_parser(), argv, section="eval")
    if options.text is not None and options.text_path:
        raise UserError("--text and --text_path: found both, expected one", "leave one out", EXIT_USAGE)
    print(json.dumps(evaluate(options), ensure_ascii=False))
    return EXIT_DONE


def evaluate(options: argparse.Namespace) -> dict:
    """Load model and text, score, and return the result as a JSON object."""
    from novelgpt.devices import choose_devices, choose_precision
    from novelgpt.model import load_model
    from novelgpt.training import scoring

    device = choose_devices(options.device)[0]
    model, tokenizer = load_model(options.model_path, device=device)
    window = model.config.n_positions
    stride = options.stride or max(1, window // 2)
    if stride > window:
        raise UserError(f"--stride {stride}: longer than the context of {window}", f"--stride {window}", EXIT_USAGE)
    protocol = scoring.Protocol(window, stride, options.batch_size, options.precision)
    stream, characters = find_text(options, tokenizer)
    loss_of = scoring.loss_function(model, choose_precision(options.precision, device))
    result = scoring.score_stream(loss_of, stream, protocol, characters=characters, device=device)
    say(f"loss {result.loss:.4f} perplexity {result.perplexity:.2f} bits per character {result.bits_per_character:.4f}")
    chapters = []
    if options.per_chapter:
        for part in scoring.chapter_streams(stream, tokenizer):
            text = tokenizer.show(part[1 : len(part) - 1])
            score = scoring.score_stream(loss_of, part, protocol, characters=len(text), device=device)
            chapters.append({"heading": text.split("\n")[0][:40], "loss": score.loss, "tokens": score.tokens})
            say(f"{score.loss:.4f}  {chapters[-1]['heading']}")
    facts = {"chapters": chapters} if options.per_chapter else {}
    if options.baseline:
        facts |= baseline(options, tokenizer, stream, result)
    return scoring.report(result, protocol, model=str(options.model_path), **facts)


def baseline(options: argparse.Namespace, tokenizer, stream, result) -> dict:
    """Score the same text by a 4-gram of the training pieces; return its figures for the report."""
    from novelgpt.corpus.pieces import open_pieces
    from novelgpt.training.yardstick import compare_words, score_ngram

    pieces = open_pieces(options.tokenized_data_path, expect={"vocabulary_sha256": tokenizer.fingerprint})
    ngram = score_ngram(pieces.train, stream, vocab_size=tokenizer.vocab_size, characters=result.characters)
    if ngram is None:
        return {"ngram_loss": None, "ngram_nats_per_character": None}
    say(compare_words(result.loss, ngram.loss))
    return {"ngram_loss": ngram.loss, "ngram_nats_per_character": ngram.nats_per_character}


def find_text(options: argparse.Namespace, tokenizer):
    """Return the token stream to score and its characters."""
    from novelgpt.corpus.documents import read_sources
    from novelgpt.training import scoring

    if options.text is None and not options.text_path:
        return scoring.held_out(options.tokenized_data_path, tokenizer)
    if options.text is not None:
        documents = [options.text]
    else:
        sources = read_sources([options.text_path], encoding=options.encoding)
        documents = [document for source in sources for document in source.documents]
    return scoring.text_stream(documents, tokenizer), sum(map(len, documents))


if __name__ == "__main__":
    raise SystemExit(run(main))
