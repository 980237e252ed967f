"""What the tests of several folders share."""

import json
from pathlib import Path

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
