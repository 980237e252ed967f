"""generate.py from end to end, in this process and in fresh ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import assert_generate_fails, call_generate, parse_samples, save_model_and_book

from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.messages import printable
from novelgpt.writing.copying import CopyMeter
from novelgpt.writing.samples import format_sample
from novelgpt.writing.text import STOPS, Endings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus and a small model that knows it."""
    return save_model_and_book(tmp_path_factory.mktemp("generate"))


def test_ten_samples_stand_in_the_file_and_on_stdout(place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = ("--prefix", "[CLS]萧炎大喝一声")
    assert call_generate(place, *prefix, "--save_samples", "--save_samples_path", "mnt") == 0
    output = capsys.readouterr().out
    text = Path("mnt/samples.txt").read_text(encoding="utf-8")
    samples = parse_samples(text)
    assert len(set(samples)) == 10 and all(sample.startswith("萧炎大喝一声") for sample in samples)
    lines = [json.loads(line) for line in Path("mnt/samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [line["text"] for line in lines] == samples
    assert [line["index"] for line in lines] == list(range(10))
    first = lines[0]
    assert (first["prompt"], first["seed"]) == ("[CLS]萧炎大喝一声", 1)
    assert {name: first["settings"][name] for name in ("preset", "temperature", "topk", "topp")} == {
        "preset": "balanced", "temperature": 1.0, "topk": 0, "topp": 0.98,
    }  # fmt: skip
    assert (
        first["copied"].keys() == {"longest", "start", "document", "offset", "share"} and "distinct_4" in first["style"]
    )
    assert output.count("=" * 90) == 10
    assert sorted(path.name for path in Path("mnt").iterdir()) == ["samples.jsonl", "samples.txt"]


def samples_of(place, folder, *arguments) -> list[str]:
    assert call_generate(place, "--save_samples", "--save_samples_path", str(folder), *arguments) == 0
    return parse_samples((folder / "samples.txt").read_text(encoding="utf-8"))


def test_the_batch_size_has_no_influence_on_the_texts(place, tmp_path):
    whole = samples_of(place, tmp_path / "whole", "--nsamples", "12", "--batch_size", "12", "--stop", "never")
    assert len(set(whole)) == 12
    for nsamples in range(1, 13, 3):
        for batch_size in (1, 4, 5, 30):
            sizes = ("--nsamples", str(nsamples), "--batch_size", str(batch_size), "--stop", "never")
            assert samples_of(place, tmp_path / f"{nsamples}-{batch_size}", *sizes) == whole[:nsamples]


@pytest.mark.sweep
def test_a_fresh_process_writes_the_same(place, tmp_path):
    here = samples_of(place, tmp_path / "here", "--nsamples", "2")
    command = [sys.executable, str(ROOT / "generate.py"), "--model_path", str(place / "model"), "--length", "30"]
    command += ["--seed", "1", "--device", "cpu", "--nsamples", "2", "--save_samples", "--save_samples_path", "mnt"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert parse_samples((tmp_path / "mnt/samples.txt").read_text(encoding="utf-8")) == here


def test_streaming_shows_what_is_saved(place, tmp_path, capsys):
    plain = samples_of(place, tmp_path / "plain", "--nsamples", "3", "--stop", "never", "--no-cut_loops")
    capsys.readouterr()
    options = ("--nsamples", "3", "--stop", "never", "--no-cut_loops", "--stream")
    assert samples_of(place, tmp_path / "stream", *options) == plain
    assert parse_samples(capsys.readouterr().out) == [printable(text) for text in plain]


def test_a_closed_pipe_and_an_ascii_terminal_lose_nothing(place, tmp_path, warm_python):
    command = f"{warm_python} {ROOT / 'generate.py'} --model_path {place / 'model'} --length 30 --seed 1 --device cpu"
    command += " --nsamples 3 --batch_size 1 --save_samples --save_samples_path mnt"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(f"{command} | head -c 5; exit ${{PIPESTATUS[0]}}", shell=True, cwd=tmp_path, env=environment,
                          executable="/bin/bash", capture_output=True)  # fmt: skip
    assert done.returncode in (0, 141) and b"Traceback" not in done.stderr
    assert len(parse_samples((tmp_path / "mnt/samples.txt").read_text(encoding="utf-8"))) >= 1


def test_prompts_and_titles_come_from_files(place, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("萧炎\n\n月落\n", encoding="utf-8")
    texts = samples_of(place, tmp_path / "a", "--prompts_file", str(tmp_path / "prompts.txt"), "--nsamples", "2")
    assert [text[:2] for text in texts] == ["萧炎", "萧炎", "月落", "月落"] and len(set(texts)) == 4
    samples_of(place, tmp_path / "b", "--titles", "风起", "云/涌", "--articles_per_title", "2")
    assert f"\ntitles: {tmp_path / 'b' / 'titles'}/\n" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert names == ["samples.jsonl", "samples.txt", "titles"]
    names = sorted(path.name for path in (tmp_path / "b/titles").iterdir())
    assert names == ["云_涌-1.txt", "云_涌-2.txt", "风起-1.txt", "风起-2.txt"]
    assert (tmp_path / "b/titles/风起-2.txt").read_text(encoding="utf-8").startswith("风起\n")


def test_every_prompt_is_encoded_once(place, tmp_path, monkeypatch):
    encoded, encode = [], CharacterTokenizer.encode_prefix
    monkeypatch.setattr(
        CharacterTokenizer, "encode_prefix", lambda self, text: encoded.append(text) or encode(self, text)
    )
    (tmp_path / "prompts.txt").write_text("萧炎\n月落\n", encoding="utf-8")
    words = ["--prompts_file", str(tmp_path / "prompts.txt"), "--nsamples", "3", "--batch_size", "2", "--max_copy", "1"]
    assert call_generate(place, *words, "--stream") == 0
    assert encoded == ["萧炎", "月落"]


def test_a_prefix_that_is_not_given_is_an_opening_of_the_book_as_the_seed_says(place, tmp_path):
    first, second = (
        "萧炎大喝一声，那人抬起头来。“走！”她说道。",
        "月落乌啼霜满天，江枫渔火对愁眠。姑苏城外寒山寺，夜半钟声到客船。",
    )
    for seed, opening in ((0, first), (1, second), (7, second)):
        words = ("--nsamples", "2", "--length", "5", "--seed", str(seed))
        texts = samples_of(place, tmp_path / str(seed), *words)
        assert [text[: len(opening)] for text in texts] == [opening, opening]


def test_a_prefix_that_is_given_stays_even_if_it_is_the_default(place, tmp_path):
    (tmp_path / "options.yaml").write_text("generate:\n  prefix: '[CLS]萧炎大喝一声'\n", encoding="utf-8")
    for number, words in enumerate((["--prefix", "[CLS]萧炎大喝一声"], ["--config", str(tmp_path / "options.yaml")])):
        (text,) = samples_of(place, tmp_path / str(number), *words, "--nsamples", "1", "--length", "5")
        assert text.startswith("萧炎大喝一声") and not text.startswith("萧炎大喝一声，那人")


def test_without_the_book_the_prefix_is_the_one_of_the_table(place, tmp_path):
    import shutil

    shutil.copytree(place / "model", tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    words = ("--model_path", str(tmp_path / "model"), "--nsamples", "1", "--length", "5")
    assert samples_of(place, tmp_path / "mnt", *words)[0].startswith("萧炎大喝一声")


def test_a_long_prefix_is_shortened_for_people_and_whole_in_the_records(place, tmp_path, capsys):
    chapter = "月落乌啼霜满天。\n" * 100 + "江枫渔火对愁眠，"
    (tmp_path / "chapter.txt").write_text(chapter, encoding="utf-8")
    words = ("--prefix_file", str(tmp_path / "chapter.txt"), "--nsamples", "1", "--length", "9")
    (text,) = samples_of(place, tmp_path, *words)
    shown = capsys.readouterr().out
    assert text.startswith("…江枫渔火对愁眠，") and parse_samples(shown) == [printable(text)]
    record = json.loads((tmp_path / "samples.jsonl").read_text(encoding="utf-8"))
    assert record["prefix_characters"] == len(chapter)
    assert record["text"] == chapter + text.removeprefix("…江枫渔火对愁眠，")


def test_what_is_wrong_is_said_before_torch_is_loaded(place, tmp_path):
    model = f"--model_path {place / 'model'}"
    wrong = ["--model_path nope", "--topp 2", f"{model} --prefix_file nope", f"{model} --tokenizer_path nope"]
    wrong += [f"{model} --mark [TIL]", f"{model} --topk 99999", f"{model} --max_copy 3 --no-copies"]
    code = (
        "import os, sys\nfrom novelgpt.cli import run\nfrom novelgpt.commands.generate import main\n"
        "for line in sys.argv[1:]:\n    before = os.times()\n    assert run(main, line.split()) in (2, 3, 5)\n"
        "    after = os.times()\n    assert not {'torch', 'numba', 'transformers'} & set(sys.modules), line\n"
        "print(os.times().user + os.times().system)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = [
        subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        for words in (wrong, wrong[3:4], wrong[3:4])
    ]
    assert done[0].stderr.count("error: ") == len(wrong)
    assert min(float(each.stdout) for each in done[1:]) <= 0.3  # seconds of the processor, the start of Python included


def test_the_first_characters_come_without_transformers_and_soon(place, tmp_path):
    code = (
        "import os, sys\nfrom novelgpt.cli import run\nfrom novelgpt.commands.generate import main\n"
        "assert run(main, sys.argv[1:]) == 0\nassert 'transformers' not in sys.modules\n"
        "print(os.times().user + os.times().system, file=sys.stderr)"
    )
    words = ["--model_path", str(place / "model"), "--length", "5", "--nsamples", "1", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *words]
    seconds = []
    while not seconds or (min(seconds) > 3 and len(seconds) < 3):  # the first one may compile
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        seconds.append(float(done.stderr.split("\n")[-2]))
    assert min(seconds) <= 3, seconds  # of the processor; with transformers it was over 5


def test_a_search_for_an_end_that_finds_none_is_said(place, capsys, monkeypatch):
    monkeypatch.setitem(STOPS, "chapter", 40)
    monkeypatch.setattr(Endings, "is_end", lambda self, ids, at, stop: stop == "sentence" and at == 25)
    words = ("--length", "20", "--stop", "chapter", "--nsamples", "1", "--no-cut_loops")
    assert call_generate(place, *words) == 0
    line = "warning: sample 1 came to no chapter's end within 60 tokens; it is cut after 25 tokens\n"
    assert line in capsys.readouterr().err


def test_openings_are_lines_of_the_book(place, capsys):
    assert call_generate(place, "--find", "月落", "--openings", "3") == 0
    assert capsys.readouterr().out == "月落乌啼霜满天，江枫渔火对愁眠。姑苏城外寒山寺，夜半钟声到客船。\n"


@pytest.mark.parametrize(
    ("prefix", "line"),
    [
        ("箫炎龘落乌", "warning: prefix: never in the book: 箫 龘"),
        (
            "月落" * 60,
            "warning: prefix: 121 tokens, the context of 64 leaves room for 48; the model reads the last part of it",
        ),
        (
            "月落" * 24,
            "warning: prefix: 49 tokens, the context of 64 leaves room for 48; the model reads the last part of it",
        ),
        ("", "the prefix is empty: the text begins like a chapter"),
    ],
)
def test_strange_prefixes_are_pointed_out(place, capsys, prefix, line):
    assert call_generate(place, "--nsamples", "1", "--length", "3", "--prefix", prefix) == 0
    assert f"{line}\n" in capsys.readouterr().err


def test_texts_that_copy_too_much_are_written_anew(place, tmp_path, capsys, monkeypatch):
    from novelgpt.writing.copying import Copied
    from novelgpt.writing.generation import Session

    def measure_copies(session, sample):  # sample 2 copies less at its third try, sample 3 always too much
        longest = {0: 5, 1: 30 - sample.attempt * 10, 2: 40 - sample.attempt}[sample.index]
        return Copied(longest, 0, 0, 0, 0.0)

    free = samples_of(place, tmp_path / "free", "--nsamples", "3")
    monkeypatch.setattr(Session, "measure_copies", measure_copies)
    kept = samples_of(place, tmp_path / "kept", "--nsamples", "3", "--max_copy", "12")
    assert [one == other for one, other in zip(free, kept, strict=True)] == [True, False, False]
    lines = (tmp_path / "kept/samples.jsonl").read_text(encoding="utf-8").split("\n")[:3]
    assert [json.loads(line)["attempt"] for line in lines] == [0, 2, 5]
    warning = "warning: sample 3: the best of 6 tries still copies 35 characters (--max_copy 12)\n"
    assert capsys.readouterr().err.count(warning) == 1
    assert samples_of(place, tmp_path / "stream", "--nsamples", "3", "--max_copy", "12", "--stream") == kept
    shown = capsys.readouterr()
    assert all(printable(format_sample(number, kept[number - 1])) in shown.out for number in (2, 3))
    assert shown.err.count("copied too much; another try is kept:\n") == 2


def test_quantizing_prints_what_it_costs(place, capsys):
    assert call_generate(place, "--nsamples", "1", "--quantize", "int8") == 0
    assert "--quantize int8: perplexity of the book's last chapter, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--length", "0"], "--length: found 0, expected at least 1, or -1 to fill the context", "--length 1000"),
        (["--length", "10000001"],
         "--length: found '10000001', expected a whole number from -1 to 10000000", None),
        (["--topp", "2"], "--topp: found '2', expected a number from 0 to 1", None),
        (["--temperature", "nan"], "--temperature: found 'nan', expected a number from 0 up", None),
        (["--temperature", "-1"], "--temperature: found '-1', expected a number from 0 up", None),
        (["--nsamples", "0"], "--nsamples: found '0', expected a whole number from 1 up", None),
        (["--keep_head", "17"], "--keep_head: found 17, expected at most 16, a quarter of the context",
         "--keep_head 16"),
        (["--titles", "a", "--titles_file", "b"], "--titles and --titles_file: found both, expected one of them",
         "leave --titles_file out"),
        (["--interactive", "--titles", "a"], "--interactive and --titles: found both, expected one of them",
         "leave --titles out; --prefix or --prefix_file is the beginning"),
        (["--interactive", "--prompts_file", "a"], "--interactive and --prompts_file: found both, expected one of them",
         "leave --prompts_file out; --prefix or --prefix_file is the beginning"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(place, capsys, arguments, message, hint):
    assert_generate_fails(place, capsys, arguments, message, hint or "python generate.py --help", 2)


def test_topk_above_the_vocabulary_is_refused(place, capsys):
    size = len((place / "model/vocab.txt").read_text(encoding="utf-8").split("\n")) - 1
    message = f"--topk: found 99,999, expected at most the vocabulary's {size} tokens"
    assert_generate_fails(place, capsys, ["--topk", "99999"], message, "--topk 8", 2)


def test_another_vocabulary_is_refused(place, capsys):
    tokens = (place / "model/vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    tokens[-2:] = tokens[:-3:-1]
    other = place / "other.txt"
    other.write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
    number = len(tokens) - 1
    message = f"--tokenizer_path {other}: line {number} is {tokens[-2]!r}, in the model {tokens[-1]!r}"
    hint = f"leave --tokenizer_path out: {place / 'model'} has its own vocabulary"
    assert_generate_fails(place, capsys, ["--tokenizer_path", str(other)], message, hint, 2)
    shorter = place / "shorter.txt"
    shorter.write_text("".join(token + "\n" for token in tokens[:-1]), encoding="utf-8")
    message = f"--tokenizer_path {shorter}: {number} tokens, the model has {number + 1}"
    assert_generate_fails(place, capsys, ["--tokenizer_path", str(shorter)], message, hint, 2)
    own = str(place / "model/vocab.txt")
    assert call_generate(place, "--tokenizer_path", own, "--nsamples", "1", "--length", "3") == 0


def test_a_cut_weight_file_is_refused(place, capsys, tmp_path):
    import shutil

    broken = tmp_path / "model"
    shutil.copytree(place / "model", broken)
    weights = broken / "model.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-4])
    message = f"{broken}: damaged: model.safetensors has {size - 4:,} bytes, expected {size:,}"
    hint = "use another model folder of the run, or train again"
    assert_generate_fails(place, capsys, ["--model_path", str(broken)], message, hint, 5)


def test_max_copy_needs_the_meter(place, capsys):
    message, hint = "--max_copy: --no-copies measures no copies", "leave --no-copies out"
    assert_generate_fails(place, capsys, ["--max_copy", "9", "--no-copies"], message, hint, 2)


def test_an_index_that_cannot_be_kept_costs_no_run(tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    meter = CopyMeter(["月落乌啼霜满天"], tmp_path / "cache" / "copies.npy")
    assert meter.measure("乌啼霜").longest == 3
    assert capsys.readouterr().err.endswith("; the book's index is built again in every run\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_said(place, warm_python):
    command = [warm_python, str(ROOT / "generate.py"), "--model_path", str(place / "model"), "--length", "9"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=place)
    assert done.returncode == 4
    assert done.stderr.endswith("error: no space left on the disk\n\nhint: free some space\n")


def test_max_copy_needs_the_book(place, capsys, tmp_path):
    import shutil

    shutil.copytree(place / "model", tmp_path / "model", ignore=shutil.ignore_patterns("manifest.json"))
    message = "--max_copy: the book that the model was trained on is not at hand"
    arguments = ["--model_path", str(tmp_path / "model"), "--max_copy", "9"]
    hint = f"clean the novel of {tmp_path / 'model'} again: python clr_ctrl.py NOVEL --output book.json; "
    assert_generate_fails(place, capsys, arguments, message, f"{hint}then --corpus book.json", 2)
    line = "no --prefix and no book at hand: beginning with 萧炎大喝一声; --prefix TEXT begins otherwise\n"
    assert call_generate(place, *arguments[:2], "--nsamples", "1", "--length", "2") == 0
    assert line in capsys.readouterr().err
    assert call_generate(place, *arguments[:2], "--nsamples", "1", "--length", "2", "--prefix", "月落") == 0
    assert line not in capsys.readouterr().err


def test_a_book_that_has_another_text_now_is_not_named_as_the_one_to_give(tmp_path, capsys):
    place = save_model_and_book(tmp_path)
    book = tmp_path / "train.json"
    book.write_text('["another"]', encoding="utf-8")
    message = f"--find: the book of {tmp_path / 'model'} is not at hand"
    again = "python clr_ctrl.py NOVEL --output book.json; then --corpus book.json"
    hint = f"clean the novel of {tmp_path / 'model'} again: {again}"
    assert_generate_fails(place, capsys, ["--find", "月落"], message, hint, 3)
    book.rename(tmp_path / "moved.json")
    hint = f"--corpus FILE, where FILE is what was {book}"
    assert_generate_fails(place, capsys, ["--find", "月落"], message, hint, 3)


def test_an_absent_gpu_is_replaced_by_the_cpu_aloud(place, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert call_generate(place, "--device", "1", "--nsamples", "1", "--length", "3") == 0
    assert "warning: --device 1: no GPU 1 (there is no GPU); using the CPU\n" in capsys.readouterr().err


def test_length_minus_one_fills_the_context(place, tmp_path):
    fill = ("--length", "-1", "--stop", "never", "--no-cut_loops", "--nsamples", "1")
    samples_of(place, tmp_path, *fill, "--prefix", "萧炎大喝一声")
    line = json.loads((tmp_path / "samples.jsonl").read_text(encoding="utf-8"))
    assert line["tokens"] == 64 - 7 and line["ended"] == "length"


def test_length_minus_one_counts_the_prefix_in_use(place, tmp_path):
    fill = ("--length", "-1", "--stop", "never", "--no-cut_loops", "--nsamples", "1")
    (tmp_path / "prompts.txt").write_text("萧炎\n月落乌啼霜满天\n", encoding="utf-8")
    for name, words, expected in (
        ("prompts", ["--prompts_file", str(tmp_path / "prompts.txt")], [64 - 3, 64 - 8]),  # [CLS] and the characters
        ("chapter", ["--prefix_file", str(tmp_path / "chapter.txt")], [64 - 21]),
        ("titles", ["--titles", "风起", "--articles_per_title", "1"], [64 - 4]),  # and the end of the line
    ):
        (tmp_path / "chapter.txt").write_text("江枫渔火" * 5, encoding="utf-8")
        samples_of(place, tmp_path / name, *fill, *words)
        lines = (tmp_path / name / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["tokens"] for line in lines] == expected, name
