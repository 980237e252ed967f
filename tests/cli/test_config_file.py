"""One file drives a whole experiment: what is printed reads back as the same run, and what is wrong in it is named."""

import argparse
import io
import json
import re
import sys
from dataclasses import Field

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import clr_ctrl
import eval as eval_script
import generate as generate_script
import make_vocab
import tokenize_corpus
import train as train_script
from novelgpt.cli import run
from novelgpt.cli.config_file import SECTIONS, load_yaml, read_config, spell_yaml
from novelgpt.cli.table import describe_option, entries_of, is_switch, reader
from novelgpt.messages import UserError

SCRIPTS = {
    "clean": clr_ctrl, "vocabulary": make_vocab, "tokenize": tokenize_corpus, "train": train_script,
    "eval": eval_script, "generate": generate_script,
}  # fmt: skip
HARD_TEXTS = (
    "", " ", "#井", "a: b", "- a", "null", "true", "No", "12:30", "1e-4", "010", "2024-01-01", "'\"\\", "“……”——",
    "a\nb\n", "\ta\r\n", "\u2028\u0085\ufeff", "--epochs", "-1", "{a}", "[CLS]萧炎😀", "%(default)s 100%", "&a", "*a",
    "!x", "`", "@", "a" * 5000,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_flushing")


def parse(section: str, *argv: str):
    """Return the options of a script's command line."""
    return SCRIPTS[section].build_parser().parse_options(list(argv))


def entries(section: str) -> dict[str, Field]:
    """Return the table of a script by the names in files."""
    return entries_of(SCRIPTS[section].build_parser().table)


def flagged(section: str) -> dict[str, Field]:
    """Return the options of a script that have a flag."""
    return {name: entry for name, entry in entries(section).items() if not entry.metadata["positional"]}


def printed(section: str, *argv: str, capsys) -> str:
    """Return what a script prints with --print_config."""
    assert run(SCRIPTS[section].main, [*argv, "--print_config"]) == 0
    return capsys.readouterr().out


def other_values(name: str, entry: Field) -> list[list[str]]:
    """Return command lines that give an option each of some values that are not its default."""
    facts, flag = entry.metadata, f"--{name}"
    if facts["positional"]:
        return [["a.txt"], ["a b.txt", "井.json"]]
    if is_switch(entry):
        return [[flag], [f"--no-{name}"]]
    if facts["many"]:
        texts = ["a", "b, c", "[x]", "null"]  # after one flag, or each after its own
        return [[flag, "井"], [word for text in texts for word in (flag, text)] if name == "drop" else [flag, *texts]]
    if facts["choices"]:
        return [[flag, choice] for choice in facts["choices"]]
    if not facts["read"]:
        return [[f"{flag}={text}"] for text in HARD_TEXTS]
    texts = ("0", "1", "2", "3", "0.5", "1e-5", "07:30", "12:30", "100000")
    return [[flag, text] for text in texts if accepts(entry, text)]


def accepts(entry: Field, text: str) -> bool:
    """Tell whether an option takes a value."""
    try:
        reader(entry)(text)
    except argparse.ArgumentTypeError:
        return False
    return True


@pytest.mark.parametrize("section", SCRIPTS)
def test_what_is_printed_reads_back_as_the_same_options_whatever_they_are(section, tmp_path, capsys):
    path = tmp_path / "printed.yaml"
    values = [other_values(name, entry) for name, entry in entries(section).items()]
    assert all(values) and sum(map(len, values)) > 10
    rounds = [[flags[turn % len(flags)] for flags in values] for turn in range(max(map(len, values)))]
    for argv in [[], *([word for flags in chosen for word in flags] for chosen in rounds)]:  # every value at least once
        path.write_text(printed(section, *argv, capsys=capsys), encoding="utf-8")
        assert parse(section, "--config", str(path)) == parse(section, *argv), argv


@pytest.mark.parametrize("section", SCRIPTS)
def test_every_option_is_printed_with_its_help_as_a_comment(section, capsys):
    lines = printed(section, capsys=capsys).splitlines()
    table = entries(section)
    assert lines[0] == f"{section}:"
    assert [line.split(":")[0].strip() for line in lines[2::2]] == list(table)
    helps = [describe_option(entry) for entry in table.values()]
    assert [line.removeprefix("  # ") for line in lines[1::2]] == helps
    assert all(len(words) > 5 for words in helps)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))), st.booleans())
def test_any_text_is_read_back_as_it_was_printed(text, readable):
    for value in (text, [text, text]):
        spelled = spell_yaml(value, readable=readable)
        assert "\n" not in spelled
        assert readable or spelled.isascii()
        assert load_yaml(f"key: {spelled}\n") == {"key": value}


def test_what_all_scripts_print_into_one_file_drives_all_of_them(tmp_path, capsys):
    changes = {
        "clean": ["my novel.txt", "--keep_ads"], "vocabulary": ["--vocab_size", "300"], "tokenize": ["--num_pieces=3"],
        "train": ["--lr", "3e-5", "--until", "12:30"], "eval": ["--text", "“井”"],
        "generate": ["--topk", "3", "--bad_words", "水", "井"],
    }  # fmt: skip
    path = tmp_path / "all.yaml"
    text = "".join(printed(section, *argv, capsys=capsys) for section, argv in changes.items())
    path.write_text(text, encoding="utf-8")
    as_json = tmp_path / "all.json"
    as_json.write_text(json.dumps(yaml.safe_load(text)), encoding="utf-8")
    for section, argv in changes.items():
        expected = parse(section, *argv)
        assert parse(section, "--config", str(path)) == expected
        assert parse(section, "--config", str(as_json)) == expected


def test_an_output_that_is_not_utf8_gets_ascii_that_reads_back(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="gbk")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        parse("generate", "--prefix", "萧炎😀", "--print_config")
    stream.flush()
    data = stream.buffer.getvalue()
    assert data.isascii()
    (tmp_path / "printed.yaml").write_bytes(data)
    assert parse("generate", "--config", str(tmp_path / "printed.yaml")).prefix == "萧炎😀"


# --- what is wrong in it ---


def refusal_of(section: str, *argv: str) -> UserError:
    """Return the error of a command line."""
    with pytest.raises(UserError) as caught:
        parse(section, *argv)
    assert caught.value.code == 2
    return caught.value


CORRECT, BELOW = "correct the file at that place", "write one `  option: value` a line below it"
BAD = ("abc", "-1", "0", "1.5", "nan", "inf", "1e400", "25:00", "９")


@pytest.mark.parametrize("name", ["bad.yaml", "bad.json"])
@pytest.mark.parametrize("section", SCRIPTS)
def test_a_value_out_of_range_has_the_same_message_from_a_flag_and_from_a_file(section, name, tmp_path):
    path, tried = tmp_path / name, 0
    for option, entry in flagged(section).items():
        if is_switch(entry) or not (entry.metadata["read"] or entry.metadata["choices"]):
            continue
        for value in [value for value in BAD if not accepts(entry, value)]:
            from_flag = refusal_of(section, f"--{option}={value}").message
            assert from_flag.startswith(f"--{option}: ") and repr(value) in from_flag
            assert re.search(" from | above | below | one of | a name ", from_flag)
            number = float(value) if name.endswith("json") and value in ("-1", "0", "1.5") else value
            spelled = repr(number) if isinstance(number, float) else value
            path.write_text(json.dumps({section: {option: number}}), encoding="utf-8")
            expected = f"{path}: {refusal_of(section, f'--{option}={spelled}').message}"
            assert refusal_of(section, "--config", str(path)).message == expected
            tried += 1
    assert tried > 0 or section == "clean"


@pytest.mark.parametrize("section", SCRIPTS)
def test_an_unknown_key_is_named_with_the_nearest_in_every_script(section, tmp_path):
    for option in flagged(section):
        wrong = option + "x"
        path = tmp_path / "bad.json"
        path.write_text(json.dumps({section: {wrong: 1}}), encoding="utf-8")
        problem = refusal_of(section, "--config", str(path))
        assert (problem.message, problem.hint) == (f"{path}: unknown key {wrong}", f"did you mean {option}?")
        problem = refusal_of(section, f"--{wrong}=1")
        assert (problem.message, problem.hint) == (f"unknown option --{wrong}", f"did you mean --{option}?")


@pytest.mark.parametrize("section", SCRIPTS)
def test_a_mapping_or_a_switch_where_a_value_belongs_is_refused_in_every_script(section, tmp_path):
    path = tmp_path / "bad.json"
    for option, entry in flagged(section).items():
        for value in ("maybe", 1, [True]) if is_switch(entry) else ({"a": 1}, True):
            path.write_text(json.dumps({section: {option: value}}), encoding="utf-8")
            expected = "true or false" if is_switch(entry) else "one value"
            message = refusal_of(section, "--config", str(path)).message
            assert message == f"{path}: {option}: found {value!r}, expected {expected}"


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("a.yaml", "train:\n  lr: 1\n  lr: 2\n", "--config {path}: the key lr appears twice", CORRECT),
        ("a.yaml", "train: {}\ntrain: {}\n", "--config {path}: the key train appears twice", CORRECT),
        ("a.json", '{"lr": 1, "lr": 2}', "--config {path}: the key lr appears twice", CORRECT),
        ("a.yaml", "train: 5\neval: {}\n", "{path}: section train: found '5', expected options", BELOW),
        ("a.yaml", "train: [lr]\neval:\n", "{path}: section train: found ['lr'], expected options", BELOW),
        ("a.yaml", "trian: {lr: 1}\neval:\n", "{path}: unknown section trian", "did you mean train?"),
        ("a.yaml", "train: {}\nlr: 1\n", "{path}: unknown section lr", "known: " + ", ".join(SECTIONS)),
    ],
)
def test_a_file_of_a_wrong_shape_is_refused(tmp_path, name, text, message, hint):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    problem = refusal_of("train", "--config", str(path))
    assert (problem.message, problem.hint) == (message.format(path=path), hint)


def test_values_are_what_the_file_says_and_not_what_yaml_makes_of_them(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train: {until: 12:30, lr: 1e-4, seed: 010, sample_prefix: 2024-01-01}\n", encoding="utf-8")
    options = parse("train", "--config", str(path))
    values = (options.until, options.lr, options.seed, options.sample_prefix)
    assert values == ("12:30", 1e-4, 10, "2024-01-01")


def test_a_mapping_taken_over_by_reference_may_be_changed(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train: &base {device: cpu, batch_size: 4}\neval: {<<: *base, batch_size: 2}\n", encoding="utf-8")
    assert read_config(str(path))["eval"] == {"device": "cpu", "batch_size": "2"}
    assert parse("eval", "--config", str(path)).batch_size == 2
