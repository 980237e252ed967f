"""What several test modules share: refusals, texts that are hard on a tokenizer, tiny runs and what they leave."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from novelgpt.messages import UserError

ALL_CHARACTERS = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
NASTY = [
    "",
    "萧炎大喝一声",
    "[CLS]正文[SEP]里[PAD]的[MASK]方括号[UNK][unused1]",
    "<0x41><0xE4>",
    "\x00\x00中\x00",
    "\r\n\r \t　\u2028\u2029\x85\ufeff",
    "👨‍👩‍👧‍👦🏳️‍🌈",
    "한글과 조합 한글",
    "𠮷𪚥𰻞",
    "e\u0301\u0323\u200b\u202e",
    "\ue000\uf8ff\U0010ffff",
    "##的 ##ing",
]
TRAINING_TEXT = "萧炎大喝一声，纵身而起。“萧炎！”药老喝道……\n　　萧炎大喝一声：“来得好！”\n" * 20


def refusal_of(call: Callable, *arguments, **settings) -> UserError:
    """Return the error of a call that must be refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **settings)
    return caught.value


def reference_ids(reference, text: str) -> list[int]:
    """Encode every line by transformers' BertTokenizer without marks, and join the lines with [SEP]."""
    ids: list[int] = []
    for line in text.split("\n"):
        ids += [*reference.encode(line, add_special_tokens=False), reference.sep_token_id]
    return ids[:-1]


BOOK = [
    "第一章 风起\n萧炎大喝一声，那人抬起头来。“走！”她说道。\n风起了……山中无人。",
    "第二章 云涌\n月落乌啼霜满天，江枫渔火对愁眠。姑苏城外寒山寺，夜半钟声到客船。",
]


def parse_samples(text: str) -> list[str]:
    """Return the texts of a samples.txt; fails on anything but whole blocks."""
    texts, lines = [], iter(text.split("\n"))
    for line in lines:
        if line == "":
            assert next(lines, None) is None
            break
        assert line == f"{'=' * 40} SAMPLE {len(texts) + 1} {'=' * 40}"
        body = []
        while (line := next(lines)) != "=" * 90:
            body.append(line)
        texts.append("\n".join(body))
    return texts


def save_model_and_book(folder: Path) -> Path:
    """Write a corpus and a small model that knows where it is; returns the folder."""
    from novelgpt.corpus.tokenizers.character import CharacterTokenizer
    from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
    from novelgpt.files import sha256_of
    from novelgpt.network import build_model, save_model

    corpus = folder / "train.json"
    corpus.write_text(json.dumps(BOOK, ensure_ascii=False), encoding="utf-8")
    tokenizer = CharacterTokenizer(build_vocabulary(BOOK, reserved=2))
    config = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
    facts = {"corpus": {"path": str(corpus), "sha256": sha256_of(corpus)}}
    save_model(build_model(config, tokenizer), tokenizer, folder / "model", **facts)
    return folder


def call_generate(folder: Path, *arguments: str) -> int:
    """Call generate.py with the model of a folder and return its exit status."""
    import generate
    from novelgpt.cli import run

    defaults = ["--model_path", str(folder / "model"), "--length", "30", "--seed", "1", "--device", "cpu"]
    return run(generate.main, [*defaults, *arguments])


def assert_generate_fails(folder: Path, capsys, arguments: list[str], message: str, hint: str, code: int) -> None:
    """Assert that generate.py ends with an error, its hint and its status, and prints nothing."""
    assert call_generate(folder, *arguments) == code
    output = capsys.readouterr()
    assert output.err.endswith(f"error: {message}\n\nhint: {hint}\n"), output.err
    assert output.out == ""


# --- training ---


class StopAfter:
    """Asks to stop at the n-th question the loop puts; never when n is None."""

    def __init__(self, questions: int | None = None):
        self.left = questions
        self.stopped_by = None
        self.save_asked = False

    def reason(self) -> str:
        """Nobody has asked."""
        return ""

    def must_stop(self) -> bool:
        """Count the question."""
        if self.left is not None:
            self.left -= 1
        return self.left is not None and self.left <= 0


@contextlib.contextmanager
def stopping_after(questions: int) -> Iterator[None]:
    """Let whole calls of train stop at that question."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("novelgpt.training.session.StopSignals.must_stop", StopAfter(questions).must_stop)
        yield


def fit(options, stop: StopAfter | None = None) -> bool:
    """Train or resume without a lock; tell whether the run came to its end."""
    from novelgpt.training.checkpoint import find_checkpoint
    from novelgpt.training.run import prepare_run
    from novelgpt.training.stopping import Stopped
    from novelgpt.training.trainer import Trainer

    run = prepare_run(options)
    options.output_path.mkdir(exist_ok=True)
    try:
        Trainer(run, stop or StopAfter()).fit(find_checkpoint(options.output_path))
    except Stopped:
        return False
    return True


def load_network_of(options) -> tuple:
    """Return the network, config and tokenizer that a run of these options begins with."""
    from novelgpt.training.adapting import choose_tokenizer
    from novelgpt.training.run import load_network

    tokenizer = choose_tokenizer(options.tokenizer_path, options.pretrained_model, options.add_tokens)
    return *load_network(options, tokenizer), tokenizer


def read_log(folder: Path) -> list[dict]:
    """Return the figures of a log without the entries that depend on the clock."""
    return [record for record in read_story(folder) if "event" not in record]


def read_story(folder: Path) -> list[dict]:
    """Return all records of a log, events too, without the entries that depend on the clock."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = ("time", "tokens_per_second", "seconds")
    return [{key: value for key, value in record.items() if key not in clock} for record in records]


def step_losses(folder: Path) -> list[float]:
    """Return the training losses of a log."""
    return [record["loss"] for record in read_log(folder) if "loss" in record]


def result_of(folder: Path) -> dict:
    """Return all that a finished run leaves: bytes of weights and optimizer, position, log."""
    from novelgpt.training.checkpoint import list_checkpoints, read_progress

    last = list_checkpoints(folder)[-1]
    files = {path.name: path.read_bytes() for path in last.glob("*.safetensors")}
    files |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*_*/model.safetensors")}
    return {**files, "progress": replace(read_progress(last), log_bytes=0), "log": read_log(folder)}


def copy_run(options, folder: Path):
    """Copy a tiny run with its pieces and config into another folder; return its options there."""
    home = options.output_path.parent
    shutil.copytree(home, folder, dirs_exist_ok=True)
    values = {name: value for name, value in asdict(options).items() if str(value).startswith(str(home))}
    return replace(options, **{name: value.replace(str(home), str(folder)) for name, value in values.items()})


def assert_survives_stops(options, folder: Path, questions: int, *, least: int, whole=None) -> None:
    """Stop a run at every so many questions, at least so many times; it must end like one left alone.

    The options of that one, already finished, may be given as `whole`.
    """
    if whole is None:
        whole = options
        assert fit(whole)
    broken = replace(options, output_dir=str(folder / "broken"))
    stops = 0
    while not fit(broken, StopAfter(questions)):
        stops += 1
    assert stops >= least
    ours, expected = result_of(broken.output_path), result_of(whole.output_path)
    assert ours["log"] == expected["log"]
    assert ours["progress"] == expected["progress"]
    assert ours == expected


def assert_survives_a_stop_anywhere(options, folder: Path) -> None:
    """Stop a run once at each of its questions and resume it; it must end like one left alone."""
    assert fit(options)
    expected = result_of(options.output_path)
    stop = StopAfter(10**9)
    fit(replace(options, output_dir=str(folder / "counted")), stop)
    for questions in range(1, 10**9 - stop.left + 1):
        broken = replace(options, output_dir=str(folder / f"broken{questions}"))
        assert not fit(broken, StopAfter(questions))
        assert fit(broken)
        assert result_of(broken.output_path) == expected, questions


def spoil_steps(monkeypatch, steps: set[int], value: float, *, gradient: bool) -> None:
    """Make loss or gradient of the given training passes not finite."""
    import torch

    from novelgpt.network import sum_loss

    passes = iter(range(1, 10**6))

    def spoiled(*arguments, **settings):
        loss = sum_loss(*arguments, **settings)
        if not torch.is_grad_enabled() or next(passes) not in steps:
            return loss
        if gradient:
            loss.register_hook(lambda whole: whole * value)
            return loss
        return loss * value

    monkeypatch.setattr("novelgpt.training.parallel.sum_loss", spoiled)


# --- devices ---


@contextlib.contextmanager
def counting_launches() -> Iterator[list[tuple[str, int]]]:
    """Yield a list of all operations that compute or copy, what a GPU is launched for: name, bytes of its tensors."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    launches: list[tuple[str, int]] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
            name, result = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
            if not is_view and not name.startswith(("empty", "_unsafe_view", "detach", "device")):
                tensors = {id(each): each for each in tree_leaves((args, kwargs, result)) if torch.is_tensor(each)}
                launches.append((name, sum(each.nbytes for each in tensors.values())))
            return result

    with Counting():
        yield launches
