"""--adapt: what is learned of a text, that nothing else changes, and that going on is exact."""

import pytest
import torch
from helpers import BOOK, call_generate, save_model_and_book
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.cli import GenerateOptions
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.network import load_model
from novelgpt.writing.decoder import Weights, perplexity
from novelgpt.writing.generation import Session, banned_ids, make_controls, open_learner
from novelgpt.writing.learning import KEPT, TextLearner
from novelgpt.writing.text import StopRule

TEXT = BOOK[0] + BOOK[1]
PREFIX = "月落乌啼霜满天，江枫渔火对愁眠。" * 4


@pytest.fixture(scope="module")
def tokenizer():
    return CharacterTokenizer(build_vocabulary([TEXT], reserved=3))


def network(tokenizer, context: int) -> GPT2LMHeadModel:
    """Return a small network with random weights."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_layer=1, n_embd=64, n_head=2, n_positions=context, initializer_range=0.2,
        bos_token_id=tokenizer.cls_id, eos_token_id=tokenizer.cls_id, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def learning_session(tokenizer, context: int, *, kind: str = "fp32", batch_size: int = 10) -> Session:
    """Return a session that adapts."""
    model = network(tokenizer, context)
    controls = make_controls(tokenizer, torch.device("cpu"))
    learner = TextLearner(model, banned_ids(tokenizer), kind=kind)
    return Session(Weights(model, kind=kind), tokenizer, controls, 5, batch_size, learner=learner)


def write(session: Session, prefix: str, count: int, length: int) -> list[list[int]]:
    ids = session.tokenizer.encode_prefix(prefix).tolist()
    return [sample.ids for sample in session.write(ids, StopRule(length), count)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_network_that_a_caller_has_given_stays_on_its_device(tokenizer, monkeypatch, device):
    given, model = [], network(tokenizer, 64)
    monkeypatch.setattr("novelgpt.writing.learning.TextLearner", lambda network, *_, **__: given.append(network))
    open_learner(model, tokenizer, GenerateOptions(adapt=True), "fp32", torch.device(device))
    assert given[0].device == torch.device(device) and model.device == torch.device("cpu")
    assert (given[0] is model) == (device == "cpu")


def test_a_text_that_was_learned_surprises_less_and_the_model_stays_as_it_is(tokenizer):
    model = network(tokenizer, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = tokenizer.encode_prefix(PREFIX).tolist()[:64]
    learner = TextLearner(model, banned_ids(tokenizer))
    assert perplexity(learner.begin(ids), ids) < 0.97 * perplexity(Weights(model), ids)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("context", [16, 24, 63, 64, 256])
def test_every_context_goes_on_far_beyond_itself_and_every_batch_writes_the_same(tokenizer, context):
    length = 3 * min(context, 64)
    alone = write(learning_session(tokenizer, context, batch_size=1), PREFIX, 3, length)
    assert [len(ids) for ids in alone] == [length] * 3 and len({tuple(ids) for ids in alone}) == 3
    assert write(learning_session(tokenizer, context, batch_size=3), PREFIX, 3, length) == alone


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_texts_of_every_number_format_are_the_same_in_every_batch(tokenizer, kind):
    alone = write(learning_session(tokenizer, 128, kind=kind, batch_size=1), PREFIX, 3, 20)
    assert write(learning_session(tokenizer, 128, kind=kind, batch_size=3), PREFIX, 3, 20) == alone


def test_what_left_the_window_of_one_text_changes_no_other_one(tokenizer):
    session = learning_session(tokenizer, 32)
    (first,) = write(session, PREFIX, 1, 80)
    write(session, "那人抬起头来", 1, 80)
    assert write(session, PREFIX, 1, 80) == [first]


def test_tokens_that_are_no_text_are_read_and_not_learned(tokenizer):
    learner = TextLearner(network(tokenizer, 64), banned_ids(tokenizer))
    steps = []
    learner.copy.learn = lambda loss: steps.append(loss.item())
    learner.begin([tokenizer.cls_id, *[tokenizer.unk_id] * 20])
    assert steps == []  # nothing but [UNK]
    learner.begin([tokenizer.cls_id, *[tokenizer.unk_id] * 20, 300])
    assert len(steps) == 2  # one token, twice
    learner.begin([tokenizer.cls_id])
    assert len(steps) == 2


def test_each_token_is_learned_once_a_pass_whatever_the_stretch(tokenizer):
    for context in (2, 7, 64, 100):
        learner = TextLearner(network(tokenizer, context), [])
        places = []
        learner.copy.read = lambda ids, labels, places=places: places.extend(ids[labels >= 0].tolist())
        ids = list(range(100, 190))
        learner.learn(ids, 0, 70)
        learner.learn(ids, 70, 90)
        assert places == ids[1:]


def test_a_story_goes_on_exactly_where_it_was_left(tokenizer, tmp_path):
    first, second = (tokenizer.encode_prefix(text).tolist() for text in (TEXT[:40], TEXT))
    whole = TextLearner(network(tokenizer, 64), [])
    whole.go_on(first)
    whole.go_on(second)
    broken = TextLearner(network(tokenizer, 64), [])
    broken.keep_beside(tmp_path / "story.txt", "model")
    broken.go_on(first)
    again = TextLearner(network(tokenizer, 64), [])
    again.keep_beside(tmp_path / "story.txt", "model")
    assert again.ids == first
    again.go_on(second)
    assert all(map(torch.equal, again.base, whole.base))
    anew = TextLearner(network(tokenizer, 64), [])
    anew.go_on(second)
    assert not all(map(torch.equal, anew.base, whole.base))  # the way there matters, which is why it is kept


def test_a_story_that_was_undone_is_learned_from_the_trained_weights_on(tokenizer):
    ids = tokenizer.encode_prefix(TEXT).tolist()
    learner, fresh = (TextLearner(network(tokenizer, 64), []) for _ in range(2))
    learner.go_on(ids)
    learner.go_on(ids[:30])
    fresh.go_on(ids[:30])
    assert all(map(torch.equal, learner.base, fresh.base))


@pytest.fixture(autouse=True)
def _models_are_told_apart_by_their_names(monkeypatch):
    monkeypatch.setattr("novelgpt.writing.learning.hash_weights", str)


def keep_one(tokenizer, folder, model: str = "model") -> TextLearner:
    """Return a learner that keeps what it has learned in a folder."""
    learner = TextLearner(network(tokenizer, 64), [])
    learner.keep_beside(folder / "story.txt", model)
    return learner


@pytest.mark.parametrize("content", [b"", b"broken", b"\x10\0\0\0\0\0\0\0{}              "])
def test_a_damaged_copy_is_said_and_the_story_learned_anew(tokenizer, tmp_path, capsys, content):
    (tmp_path / KEPT).write_bytes(content)
    learner = keep_one(tokenizer, tmp_path)
    assert learner.ids == []
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and KEPT in said and said.endswith("; the story is learned anew\n")
    learner.go_on([1, 300, 301])
    assert keep_one(tokenizer, tmp_path).ids == [1, 300, 301]


def test_what_another_model_has_learned_is_not_taken(tokenizer, tmp_path, capsys):
    keep_one(tokenizer, tmp_path).go_on([1, 300, 301])
    assert keep_one(tokenizer, tmp_path, "other").ids == []
    message = f"{tmp_path / KEPT} was learned by another model; the story is learned anew\n"
    assert capsys.readouterr().err.endswith(message)


def test_a_full_disk_ends_nothing(tokenizer, tmp_path, capsys, monkeypatch):
    learner = keep_one(tokenizer, tmp_path)
    learner.go_on([1, 300, 301])
    kept = (tmp_path / KEPT).read_bytes()

    def refuse(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("novelgpt.files.os.fsync", refuse)
    learner.go_on([1, 300, 301, 302])
    assert (tmp_path / KEPT).read_bytes() == kept and learner.ids == [1, 300, 301, 302]
    reason = f"{tmp_path / KEPT}: cannot be written: No space left on device"
    again = "the story is kept, what was learned of it is learned anew the next time"
    assert capsys.readouterr().err.endswith(f"warning: {reason}; {again}\n")


# ---- generate.py


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("adapting"))


def contents(folder) -> dict:
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


def test_the_model_folder_stays_byte_for_byte_and_texts_differ(place, capsys, tmp_path):
    before = contents(place)
    chapter = tmp_path / "chapter.txt"
    chapter.write_text(BOOK[1] * 6, encoding="utf-8")  # longer than the context
    words = ("--prefix_file", str(chapter), "--length", "90", "--nsamples", "2")
    assert call_generate(place, *words) == 0
    plain = capsys.readouterr().out
    assert call_generate(place, *words, "--adapt") == 0
    output = capsys.readouterr()
    assert output.out != plain and "--adapt: " in output.err and " tokens learned in " in output.err
    assert contents(place) == before
    assert call_generate(place, *words, "--adapt", "--batch_size", "1") == 0
    assert capsys.readouterr().out == output.out


def test_a_story_by_turns_that_is_left_and_taken_up_is_the_one_written_at_once(place, tmp_path, monkeypatch):
    def turn(folder: str, *lines: str, options: tuple = ()) -> str:
        monkeypatch.setattr("sys.stdin", iter([line + "\n" for line in lines]))
        words = ["--interactive", "--adapt", "--save_samples_path", str(tmp_path / folder), "--length", "40"]
        words += ["--temperature", "0"]  # a part that is taken up has other random numbers
        assert call_generate(place, *words, *options) == 0
        return (tmp_path / folder / "story.txt").read_text(encoding="utf-8")

    begin = ("--prefix", "那人抬起头来。")
    whole = turn("once", "", "", "", options=begin)
    turn("twice", "", options=begin)
    turn("twice", "", "q")
    assert turn("twice", "") == whole
    assert (tmp_path / "twice" / KEPT).read_bytes() == (tmp_path / "once" / KEPT).read_bytes()


def test_characters_that_the_vocabulary_lacks_are_learned_by_their_bytes(place, capsys):
    assert call_generate(place, "--prefix", "𠮷野家の看板🙂", "--adapt", "--nsamples", "1") == 0
    assert "tokens learned in" in capsys.readouterr().err


def test_python_may_adapt_a_loaded_model_and_gets_it_back_as_it_was(place):
    from novelgpt.api import generate

    model, tokenizer = load_model(place / "model")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"length": 20, "nsamples": 2, "seed": 3, "device": "cpu"}
    texts = generate((model, tokenizer), PREFIX, adapt=True, **settings)
    assert texts == generate(place / "model", PREFIX, adapt=True, **settings)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
