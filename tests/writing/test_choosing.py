"""--best_of: which candidate is kept, and that it is the same one for every batch."""

import numpy as np
import pytest
from helpers import BOOK, assert_generate_fails, call_generate, save_model_and_book

from novelgpt.api import generate
from novelgpt.cli import GenerateOptions
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.network import build_model, load_model
from novelgpt.writing.book import Book
from novelgpt.writing.choosing import LEVELS, Chooser, distance, read_nats
from novelgpt.writing.copying import Copied
from novelgpt.writing.decoder import Weights
from novelgpt.writing.generation import open_session
from novelgpt.writing.text import Sample, StopRule


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("choosing"))


@pytest.fixture(scope="module")
def chooser():
    """A chooser whose model finds every character of the book equally likely, with its nats replaced by 1 to 3."""
    tokenizer = CharacterTokenizer(build_vocabulary(BOOK))
    model = build_model({"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 32}, tokenizer)
    result = Chooser(3, Weights(model), tokenizer, BOOK, None)
    result.usual = np.quantile([1.0, 2.0, 3.0], LEVELS)
    return result


def candidate(attempt: int, nats: list[float], ended: str = "length") -> Sample:
    return Sample(0, [2], ids=[300] * len(nats), ended=ended, attempt=attempt, nats=nats)


PLAIN = "月落乌啼霜满天江枫渔火对愁眠"
NEAR, DULL, WILD = [1.0, 2.0, 3.1], [0.1, 0.2, 0.3], [5.0, 9.0, 9.0]


@pytest.mark.parametrize(
    ("candidates", "texts", "copied", "kept"),
    [
        ([candidate(0, DULL), candidate(1, NEAR), candidate(2, WILD)], [PLAIN] * 3, [0, 0, 0], 1),
        # neither loops nor copies come first, however near
        ([candidate(0, WILD), candidate(1, NEAR, "loop"), candidate(2, DULL)], [PLAIN] * 3, [0, 0, 0], 2),
        ([candidate(0, WILD), candidate(1, NEAR), candidate(2, DULL)], [PLAIN, PLAIN * 9, PLAIN], [0, 0, 0], 2),
        ([candidate(0, WILD), candidate(1, NEAR), candidate(2, DULL)], [PLAIN] * 3, [0, 41, 40], 2),
        # where all of them loop, the one that does not copy; where all do both, the nearest
        ([candidate(0, NEAR, "loop"), candidate(1, WILD, "loop")], [PLAIN] * 2, [99, 0], 1),
        ([candidate(0, WILD, "loop"), candidate(1, NEAR, "loop")], [PLAIN] * 2, [99, 99], 1),
        # of equal ones the first; one without a token is never near
        ([candidate(0, NEAR), candidate(1, NEAR)], [PLAIN] * 2, [0, 0], 0),
        ([candidate(0, []), candidate(1, WILD)], ["", PLAIN], [0, 0], 1),
    ],
)
def test_the_candidate_nearest_the_book_is_kept(chooser, candidates, texts, copied, kept):
    assert chooser.choose(candidates, texts, copied, 0.0) is candidates[kept]


def test_the_distance_is_the_mean_over_quantiles():
    usual = np.quantile([0.0, 1.0], LEVELS)
    # the quantile q of 0 and 1 is q, that of 0 and 3 is 3 q: the mean of 2 q over 0.05 to 0.95 is 1
    assert distance([0.0, 3.0], usual) == pytest.approx(1.0)
    assert distance([1.0, 0.0], usual) == pytest.approx(0.0)


@pytest.mark.parametrize("length", [1, 2, 20, 33, 100])
def test_the_nats_of_a_text_are_those_of_its_windows(place, length):
    import torch

    model, tokenizer = load_model(place / "model")
    ids = [tokenizer.cls_id, *tokenizer.encode("".join(BOOK) * 2).tolist()][:length]
    found, half = read_nats(Weights(model), ids), model.config.n_positions // 2
    expected = []
    for end in range(1, length):
        # each place after the first half is read in the window that begins at the last multiple of half before it
        start = max(0, (end // half - 1) * half) if length > half else 0
        if length > half and end < half:
            continue
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:end]])).logits[0, -1].double()
        expected.append(float(logits.logsumexp(0) - logits[ids[end]]))
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_seed_writes_the_same_best_text_in_every_batch_and_says_what_it_cost(place, capsys):
    words = ("--prefix", "月落乌啼", "--best_of", "5", "--nsamples", "2", "--length", "30")
    assert call_generate(place, *words) == 0
    first = capsys.readouterr()
    assert call_generate(place, *words, "--batch_size", "1") == 0
    assert capsys.readouterr().out == first.out
    assert "--best_of 5: " in first.err and " tokens for 2 texts, " in first.err
    assert call_generate(place, *words, "--seed", "2") == 0
    assert capsys.readouterr().out != first.out


def test_the_best_text_is_one_of_the_candidates(place):
    settings = {"length": 30, "seed": 3, "device": "cpu", "precision": "fp32", "stop": "never"}
    (best,) = generate(place / "model", "月落乌啼", nsamples=1, best_of=4, **settings)
    (alone,) = generate(place / "model", "月落乌啼", nsamples=1, **settings)
    session_texts = candidates_of(place, settings)
    assert session_texts[0] == alone.ids and best.ids in session_texts and len(session_texts) == 4


def candidates_of(place, settings: dict) -> list[list[int]]:
    """Return the ids of four tries of the first sample, each written by itself."""
    session = open_session(GenerateOptions(model_path=str(place / "model"), copies=False, **settings))
    ids = session.tokenizer.encode_prefix("月落乌啼").tolist()
    return [session.write_batch(ids, StopRule(30), [0], attempt=attempt)[0].ids for attempt in range(4)]


def test_each_further_try_of_a_text_that_copies_has_candidates_of_its_own(place):
    options = GenerateOptions(model_path=str(place / "model"), seed=3, best_of=3, max_copy=1)
    session = open_session(options, Book(BOOK))
    tries = []

    def measure(sample) -> Copied:
        tries.append((sample.attempt, tuple(sample.ids)))
        return Copied(9, 0, 0, 0, 0.0)  # far too much, whatever it is

    session.measure_copies = measure
    list(session.write(session.tokenizer.encode_prefix("月落").tolist(), StopRule(20), 1))
    # six tries of three candidates each; what is chosen is measured once more
    assert {attempt for attempt, _ in tries} == set(range(18)) and session.chooser.texts == 6
    assert len({ids for _, ids in tries}) == 18


def test_without_its_book_nothing_can_be_chosen(place, tmp_path, capsys):
    import json
    import shutil

    shutil.copytree(place / "model", tmp_path / "model")
    manifest = json.loads((tmp_path / "model/manifest.json").read_text(encoding="utf-8"))
    manifest["corpus"]["path"] = "gone.json"
    (tmp_path / "model/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    message = "--best_of: the book that the model was trained on is not at hand"
    hint = "--corpus FILE, where FILE is what was gone.json"
    assert_generate_fails(tmp_path, capsys, ["--best_of", "3"], message, hint, 2)


@pytest.mark.parametrize("count", ["0", "65", "10000"])
def test_no_and_too_many_candidates_are_refused(place, capsys, count):
    assert call_generate(place, "--best_of", count) == 2
    assert f"--best_of: found '{count}', expected a whole number from 1 to 64" in capsys.readouterr().err
