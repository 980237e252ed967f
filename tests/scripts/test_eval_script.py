"""eval.py from its command line: one JSON object on stdout, equal to transformers' own figures."""

import gzip
import json
import math
import shlex
from pathlib import Path

import pytest
import torch
from conftest import STORY, make_tiny_options
from transformers import AutoModelForCausalLM, AutoTokenizer

import clr_ctrl
import eval as eval_script
import tokenize_corpus
from novelgpt.cli import run
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import read_json, write_json
from novelgpt.network import build_model, save_model


@pytest.fixture
def folder(tmp_path):
    """A model folder; pieces lie beside it."""
    options = make_tiny_options(tmp_path)
    tokenizer = load_tokenizer(options.tokenizer_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    model = build_model(config, tokenizer, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # so that losses differ
    save_model(model, tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def score(capsys, folder, *argv: str) -> dict:
    """Run the script and return the object it prints."""
    assert run(eval_script.main, [f"--model_path={folder}", "--device=cpu", *argv]) == 0
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    return json.loads(said.out)


def refusal_of(capsys, *argv: str) -> tuple[int, str]:
    """Return exit status and message of a refused call."""
    status = run(eval_script.main, ["--device=cpu", *argv])
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    return status, said.err


def test_a_sentence_is_scored_as_transformers_scores_it(folder, capsys):
    text = "水里的星星。"  # 6 characters, 8 tokens with its marks: one window
    result = score(capsys, folder, f"--text={text}")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(f"[CLS]{text}[CLS]", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert ids.shape == (1, 8)
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    assert result["loss"] == pytest.approx(loss, rel=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert result["bits_per_character"] == pytest.approx(loss / math.log(2) * 8 / 6, rel=1e-5)
    assert (result["scored_tokens"], result["tokens"], result["characters"]) == (7, 8, 6)
    assert (result["window"], result["stride"], result["model"]) == (16, 8, str(folder))


def test_the_held_out_part_is_scored_by_default(folder, capsys):
    pieces = folder.parent / "pieces"
    result = score(capsys, folder, f"--tokenized_data_path={pieces}")
    counts = json.loads((pieces / "manifest.json").read_text(encoding="utf-8"))["valid"]
    assert (result["tokens"], result["characters"]) == (counts["tokens"], counts["characters"])
    assert result["scored_tokens"] == counts["tokens"] - 1


@pytest.mark.parametrize("name", ["text.json", "text.txt"])
def test_a_file_is_scored_and_every_chapter_by_itself(folder, capsys, tmp_path, name):
    if name.endswith("json"):
        write_json(tmp_path / name, STORY)
    else:
        (tmp_path / name).write_text(STORY[0], encoding="gb18030")
    result = score(capsys, folder, f"--text_path={tmp_path / name}", "--per_chapter", "--stride=16")
    expected = STORY if name.endswith("json") else STORY[:1]
    assert [chapter["heading"] for chapter in result["chapters"]] == [text.split("\n")[0] for text in expected]
    # every character of the story is one token, and a mark stands on either side
    assert [chapter["tokens"] for chapter in result["chapters"]] == [len(text) + 2 for text in expected]
    assert all(chapter["loss"] > 0 for chapter in result["chapters"])


DIRTY = (
    "\r\n".join(f"{text.replace(chr(10), chr(13) + chr(10) + '　　')}\r\n(本章完)" for text in STORY)
    + "\r\nwww.example.com\x07\r\n"
)


@pytest.mark.parametrize("name", ["novel.txt", "novel.txt.gz", "novel.csv", "novel.jsonl"])
def test_a_novel_has_exactly_the_figures_of_its_clean_chapters(folder, capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    data = {
        "novel.txt": DIRTY.encode("gb18030"),
        "novel.txt.gz": gzip.compress(DIRTY.encode("gb18030")),
        "novel.csv": f'text\n"{DIRTY}"\n'.encode(),
        "novel.jsonl": json.dumps({"text": DIRTY}).encode(),
    }
    Path(name).write_bytes(data[name])
    assert run(clr_ctrl.main, [name, "--output", "clean.json"]) == 0
    assert json.loads(Path("clean.json").read_text(encoding="utf-8")) == STORY
    capsys.readouterr()
    clean = score(capsys, folder, "--text_path=clean.json", "--per_chapter")
    assert score(capsys, folder, f"--text_path={name}", "--per_chapter") == clean
    assert len(clean["chapters"]) == 3


def test_what_was_cleaned_is_said_and_clean_chapters_are_taken_as_they_are(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("novel.txt").write_text(DIRTY, encoding="utf-8")
    write_json("kept.json", [*STORY, "(本章完)"])
    for path in ("novel.txt", "kept.json"):
        assert run(eval_script.main, [f"--model_path={folder}", "--device=cpu", f"--text_path={path}"]) == 0
    said = capsys.readouterr()
    assert said.err.split("\n")[0] == (
        f"novel.txt: cleaned as clr_ctrl.py does: 3 documents, {sum(map(len, STORY))} characters; lines left out: 4"
    )
    assert said.err.count("cleaned") == 1
    characters = [json.loads(line)["characters"] for line in said.out.strip().split("\n")]
    assert characters == [sum(map(len, STORY)), sum(map(len, STORY)) + 5]


def test_one_document_is_said_in_the_singular(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("novel.txt").write_text(STORY[0], encoding="utf-8")
    assert run(eval_script.main, [f"--model_path={folder}", "--device=cpu", "--text_path=novel.txt"]) == 0
    said = f"novel.txt: cleaned as clr_ctrl.py does: 1 document, {len(STORY[0])} characters; lines left out: 0"
    assert capsys.readouterr().err.split("\n")[0] == said


def test_in_a_folder_a_file_stands_above_its_chapters_and_an_only_chapter_is_not_said_twice(
    folder, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("books").mkdir()
    write_json("books/a.json", STORY[:1])
    write_json("books/b.json", STORY[1:])
    assert run(eval_script.main, [f"--model_path={folder}", "--device=cpu", "--text_path=books", "--per_chapter"]) == 0
    said = capsys.readouterr()
    names = [line.partition("  ")[2] for line in said.err.split("\n") if "  " in line]
    assert names == ["books/a.json", "books/b.json", "第二章 剑", "第三章 潮"]
    texts = json.loads(said.out)["texts"]
    assert [len(text["chapters"]) for text in texts] == [1, 2]
    assert texts[0]["chapters"][0]["loss"] == pytest.approx(texts[0]["loss"])


def test_pieces_of_another_vocabulary_are_refused_with_the_command_for_this_model(folder, capsys, tmp_path):
    pieces = tmp_path / "pieces"
    save_vocabulary(tmp_path / "vocab.txt", build_vocabulary([*STORY, "龘"]))
    write_json(tmp_path / "story.json", STORY * 3)
    words = [f"--raw_data_path={tmp_path / 'story.json'}", f"--tokenizer_path={tmp_path / 'vocab.txt'}"]
    assert run(tokenize_corpus.main, [*words, f"--tokenized_data_path={pieces}"]) == 0
    capsys.readouterr()
    status, said = refusal_of(capsys, f"--model_path={folder}", f"--tokenized_data_path={pieces}")
    assert status == 5 and said.startswith(f"error: {pieces}: the pieces are stale\n  vocabulary: made from sha256 ")
    hint = said.split("hint: ")[1].strip()
    # the hint runs as it stands, and then the evaluation does
    assert hint.startswith("python tokenize_corpus.py ") and f" --tokenizer_path {folder} " in hint
    assert run(tokenize_corpus.main, shlex.split(hint)[2:]) == 0
    capsys.readouterr()
    assert score(capsys, folder, f"--tokenized_data_path={pieces}")["scored_tokens"] > 0


def test_pieces_with_nothing_held_out_are_refused_with_a_command_that_holds_out(folder, capsys, tmp_path):
    write_json(tmp_path / "story.json", STORY * 3)
    words = [f"--raw_data_path={tmp_path / 'story.json'}", f"--tokenizer_path={folder}", "--valid_fraction=0"]
    assert run(tokenize_corpus.main, [*words, f"--tokenized_data_path={tmp_path / 'pieces'}"]) == 0
    capsys.readouterr()
    status, said = refusal_of(capsys, f"--model_path={folder}", f"--tokenized_data_path={tmp_path / 'pieces'}")
    assert (status, said.split("\n")[0]) == (3, f"error: {tmp_path / 'pieces'}: nothing is held out")
    assert run(tokenize_corpus.main, shlex.split(said.split("hint: ")[1])[2:]) == 0
    capsys.readouterr()
    assert score(capsys, folder, f"--tokenized_data_path={tmp_path / 'pieces'}")["scored_tokens"] > 0


def test_batch_size_changes_nothing(folder, capsys):
    text = "--text=" + "".join(STORY)
    one, many = (score(capsys, folder, text, f"--batch_size={size}") for size in (1, 64))
    assert one["loss"] == pytest.approx(many["loss"], rel=1e-6)


def test_text_and_file_together_are_refused(folder, capsys):
    said = refusal_of(capsys, f"--model_path={folder}", "--text=a", "--text_path=b.txt")
    assert said == (2, "error: --text and --text_path: found both, expected one\n\nhint: leave one out\n")


def test_a_stride_longer_than_the_context_is_refused(folder, capsys):
    said = refusal_of(capsys, f"--model_path={folder}", "--text=a", "--stride=17")
    assert said == (2, "error: --stride 17: longer than the context of 16\n\nhint: --stride 16\n")


def test_a_missing_model_is_refused(capsys, tmp_path):
    status, said = refusal_of(capsys, f"--model_path={tmp_path / 'no'}", "--text=a")
    assert status == 5
    assert said == (
        f"error: {tmp_path / 'no'}: no such folder, expected a model folder\n\n"
        "hint: give a folder such as model/final_model\n"
    )


def test_a_missing_text_is_refused(folder, capsys, tmp_path):
    status, said = refusal_of(capsys, f"--model_path={folder}", f"--text_path={tmp_path / 'no.txt'}")
    assert status == 3
    assert said.startswith(f"error: {tmp_path / 'no.txt'}: ")


def test_missing_pieces_are_refused(folder, capsys, tmp_path):
    status, said = refusal_of(capsys, f"--model_path={folder}", f"--tokenized_data_path={tmp_path / 'no'}")
    assert status == 5
    assert said.startswith(f"error: {tmp_path / 'no'}: no pieces here (manifest.json is missing)\n\nhint: python ")


def test_a_device_that_is_none_is_refused(folder, capsys):
    status, said = refusal_of(capsys, f"--model_path={folder}", "--text=a", "--device=abc")
    assert (status, said.split("\n")[0]) == (2, "error: --device: found 'abc', expected GPU numbers, cuda, mps or cpu")


def test_an_empty_text_has_no_figure_per_character_and_is_still_json(folder, capsys):
    assert run(eval_script.main, [f"--model_path={folder}", "--device=cpu", "--text="]) == 0
    result = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert (result["tokens"], result["scored_tokens"], result["characters"]) == (2, 1, 0)
    assert result["bits_per_character"] is None


def test_pieces_of_another_text_than_the_models_are_scored_with_a_warning(folder, capsys, tmp_path):
    argv = [f"--model_path={folder}", f"--tokenized_data_path={tmp_path / 'pieces'}", "--device=cpu"]
    own = read_json(tmp_path / "pieces" / "manifest.json")["source"]
    manifest = read_json(folder / "manifest.json")
    for sha256, warned in ((own["sha256"], False), ("0" * 64, True)):
        write_json(folder / "manifest.json", manifest | {"corpus": {"path": "data/train.json", "sha256": sha256}})
        assert run(eval_script.main, argv) == 0
        warning = (
            f"warning: {tmp_path / 'pieces'}: no longer of the corpus that {folder} was trained on, "
            f"but of {own['path']}\n"
        )
        assert (warning in capsys.readouterr().err) == warned
        assert run(eval_script.main, [*argv, "--text=井里"]) == 0
        assert "no longer" not in capsys.readouterr().err
