"""One precedence of options, one kind of message, one exit code each."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
import yaml
from conftest import ROOT

import eval as eval_script
import train as train_script
from novelgpt.cli import Parser, run
from novelgpt.cli.table import entries_of, is_switch, option, real, whole
from novelgpt.commands import generate
from novelgpt.messages import UserError, printable

BAD_VALUES = ("", " ", "abc", "-1", "0", "1.5", "1e400", "nan", "inf", "None", "9" * 30, "０", "\x1b[31m", "十")


@dataclass(frozen=True)
class SomeOptions:
    """An option of every kind."""

    epochs: int = option(15, "passes, 100 % of them", whole(1, 100))
    lr: float = option(1e-4, "rate", real(0, 1))
    raw: bool = option(False, "raw")
    device: str | None = option(None, "device")
    optimizer: str = option("adamw", "optimizer", choices=("adamw", "muon"))
    marks: tuple[str, ...] = option((), "marks", many=True)


def parse(*argv: str, section: str = "train") -> SomeOptions:
    """Parse a command line of a script."""
    return Parser(SomeOptions, "A script.", section=section).parse_options(list(argv))


def refusal_of(*argv: str) -> UserError:
    """Return the error of a command line."""
    with pytest.raises(UserError) as caught:
        parse(*argv)
    return caught.value


@pytest.fixture
def write_config(tmp_path):
    """Return a function that writes a config file and gives its path."""

    def write(content: object, name: str = "my.yaml") -> str:
        text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_the_command_line_goes_before_the_config_file_and_that_before_the_defaults(write_config):
    path = write_config({"epochs": 3, "lr": 0.5, "raw": True})
    options = parse("--lr", "0.25", "--config", path)
    assert (options.epochs, options.lr, options.raw, options.optimizer) == (3, 0.25, True, "adamw")
    assert parse("--config", path, "--no-raw").raw is False
    assert parse("--no-raw", f"--config={path}").raw is False


def test_json_and_yaml_say_the_same(write_config):
    values = {"epochs": 3, "lr": 1e-3, "device": "0,1", "marks": ["[甲]", "[乙]"]}
    from_yaml = parse("--config", write_config(values))
    from_json = parse("--config", write_config(json.dumps(values), "my.json"))
    assert from_yaml == from_json
    assert from_yaml.marks == ("[甲]", "[乙]")


@pytest.mark.parametrize(
    ("text", "device"), [("device: 0", "0"), ("device: 0,1", "0,1"), ("device: [0, 1]", "0,1"), ("device: null", None)]
)
def test_a_device_may_be_a_number_a_text_or_a_list(write_config, text, device):
    assert parse("--config", write_config(text)).device == device


def test_a_script_reads_its_own_section_and_no_other(write_config):
    path = write_config({"train": {"epochs": 3}, "generate": {"topk": 8}, "eval": None})
    assert parse("--config", path).epochs == 3
    assert parse("--config", path, section="eval").epochs == 15


def test_an_unknown_section_is_named(write_config):
    path = write_config({"train": {"epochs": 3}, "evaluate": {}})
    problem = refusal_of("--config", path)
    assert (problem.message, problem.hint) == (f"{path}: unknown section evaluate", "did you mean eval?")


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"epoch": 3}, "unknown key epoch", "did you mean epochs?"),
        ({"Lr": 3}, "unknown key Lr", "did you mean lr?"),
        ({7: 3}, "unknown key 7", "known: epochs, lr, raw, device, optimizer, marks"),
        ({"config": "other.yaml"}, "unknown key config", "known: epochs, lr, raw, device, optimizer, marks"),
        ({"raw": "yes please"}, "raw: found 'yes please', expected true or false", "raw: true"),
        ({"raw": 1}, "raw: found '1', expected true or false", "raw: true"),
        ({"epochs": {"a": 1}}, "epochs: found {'a': '1'}, expected one value", "see --epochs in --help"),
        ({"epochs": True}, "epochs: found True, expected one value", "see --epochs in --help"),
    ],
)
def test_a_wrong_entry_of_a_config_file_is_named_with_the_file(write_config, values, message, hint):
    path = write_config(values)
    problem = refusal_of("--config", path)
    assert (problem.message, problem.hint, problem.code) == (f"{path}: {message}", hint, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "x"], "--epochs: found 'x', expected a whole number from 1 to 100"),
        (["--epochs", "0"], "--epochs: found '0', expected a whole number from 1 to 100"),
        (["--epochs", "1.5"], "--epochs: found '1.5', expected a whole number from 1 to 100"),
        (["--lr", "nan"], "--lr: found 'nan', expected a number from 0 to 1"),
        (["--lr=-1"], "--lr: found '-1', expected a number from 0 to 1"),
        (["--lr"], "--lr: expected one argument"),
        (["--optimizer", "sgd"], "--optimizer: found 'sgd', expected one of adamw, muon"),
        (["--config"], "--config: expected one argument"),
    ],
)
def test_a_wrong_value_names_flag_value_and_range(argv, message):
    problem = refusal_of(*argv)
    assert (problem.message, problem.code) == (message, 2)
    assert problem.hint.endswith(" --help")


def test_a_wrong_value_in_a_config_file_names_flag_value_and_range(write_config):
    path = write_config({"epochs": 0})
    problem = refusal_of("--config", path, "--lr=0.5")
    assert problem.message == f"{path}: --epochs: found '0', expected a whole number from 1 to 100"
    assert refusal_of("--config", path, "--lr=5").message == "--lr: found '5', expected a number from 0 to 1"


@pytest.mark.parametrize(
    ("word", "name", "hint"),
    [
        ("--epoch", "epoch", "did you mean --epochs?"),
        ("--divice=0,1", "divice", "did you mean --device?"),
        ("-lr", "lr", "did you mean --lr?"),
        ("--zzz", "zzz", f"python {os.path.basename(sys.argv[0])} --help"),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(word, name, hint):
    problem = refusal_of(word)
    assert (problem.message, problem.hint, problem.code) == (f"unknown option --{name}", hint, 2)


def test_a_word_that_belongs_to_no_option_may_be_a_file_to_go_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my novel.txt").write_text("月落", encoding="utf-8")
    for parser, word, hint in (
        (generate.build_parser(), "my novel.txt", "--prefix_file 'my novel.txt'"),
        (generate.build_parser(), "nix.txt", "python generate.py --help"),
        (train_script.build_parser(), "my novel.txt", "python train.py --help"),
    ):
        with pytest.raises(UserError) as caught:
            parser.parse_options([word, "--seed", "1"])
        assert (caught.value.message, caught.value.hint) == (f"a word that belongs to no option: {word}", hint)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("- 1\n- 2", "a.yaml", "found a list, expected a mapping"),
        ("", "a.yaml", "found a NoneType, expected a mapping"),
        ("[1]", "a.json", "found a list, expected a mapping"),
        ('{"epochs": }', "a.json", "Expecting value: line 1 column 12 (char 11)"),
    ],
)
def test_a_config_file_that_is_no_mapping_is_refused(write_config, text, name, message):
    path = write_config(text, name)
    problem = refusal_of("--config", path)
    assert (problem.message, problem.code) == (f"--config {path}: {message}", 2)


def test_a_config_file_that_is_no_yaml_is_refused_with_the_place(write_config):
    problem = refusal_of("--config", write_config("epochs: 3\nlr: [1,\n"))
    assert "line 3, column 1" in problem.message and "\n" not in problem.message


def test_a_config_file_runs_no_code(write_config, tmp_path):
    problem = refusal_of("--config", write_config(f"epochs: !!python/object/apply:os.mkdir ['{tmp_path}/fired']"))
    assert "could not determine a constructor" in problem.message
    assert not (tmp_path / "fired").exists()


def test_a_missing_or_undecodable_config_file_is_refused(tmp_path):
    problem = refusal_of("--config", str(tmp_path / "no.yaml"))
    assert problem.message == f"--config {tmp_path / 'no.yaml'}: No such file or directory"
    (tmp_path / "gbk.yaml").write_bytes("# 萧炎".encode("gb18030"))
    problem = refusal_of("--config", str(tmp_path / "gbk.yaml"))
    assert (problem.message, problem.hint) == (
        f"--config {tmp_path / 'gbk.yaml'}: not UTF-8 at byte 2", "save it as UTF-8",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["train", "eval"])
def test_the_printed_options_fed_back_are_the_same_options(name, tmp_path, capsys):
    script = {"train": train_script, "eval": eval_script}[name]
    changes = {
        "train": "--epochs 3 --raw --lr 2e-5 --warmup_steps 100 --device 0,1 --no-random_phase --until 07:30",
        "eval": "--stride 7 --per_chapter --text 他说：“……#1” --device 0",
    }[name]
    for argv in ([], changes.split()):
        with pytest.raises(SystemExit) as stopped:
            script.build_parser().parse_options([*argv, "--print_config"])
        assert stopped.value.code == 0
        (tmp_path / "printed.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
        given = ["--config", str(tmp_path / "printed.yaml")]
        assert script.build_parser().parse_options(given) == script.build_parser().parse_options(argv)


@pytest.mark.parametrize("name", ["train", "eval"])
def test_no_bad_value_of_any_flag_makes_a_traceback_and_every_message_names_its_flag(name, capsys):
    script = {"train": train_script, "eval": eval_script}[name]

    def parse_only(argv):
        script.build_parser().parse_options(argv)
        return 0

    tried = 0
    for option_name, entry in entries_of(script.build_parser().table).items():
        flag = f"--{option_name}"
        if is_switch(entry):
            continue
        for value in BAD_VALUES:
            status = run(parse_only, [f"{flag}={value}"])
            said = capsys.readouterr().err
            assert status in (0, 2)
            if status == 2:
                tried += 1
                assert said.startswith(f"error: {flag}: ") and "\n\nhint: " in said
                assert printable(repr(value)) in said
                assert "Traceback" not in said and "\x1b" not in said
    assert tried > 15


def test_the_command_is_the_script_and_its_words(monkeypatch):
    monkeypatch.setattr("sys.argv", ["some/train.py", "--raw"])
    parser = Parser(SomeOptions, "A script.", section="train")
    assert parser.command() == ["some/train.py", "--raw"]
    assert parser.command(["--lr=1"]) == ["train.py", "--lr=1"]


# --- exit codes ---


def raiser(problem: BaseException):
    """Return a main that raises."""

    def main(_argv):
        raise problem

    return main


@pytest.mark.parametrize(
    ("problem", "status", "said"),
    [
        (UserError("a: found 1", "give 2", 5), 5, "error: a: found 1\n\nhint: give 2\n"),
        (UserError("a \x1b[31m", "b"), 3, "error: a \\x1b[31m\n\nhint: b\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (MemoryError(), 4, "error: not enough memory\n\nhint: close other programs, or use a smaller batch or input\n"),
        (SystemExit(0), 0, ""),
        (SystemExit(None), 0, ""),
        (SystemExit(7), 7, ""),
    ],
)
def test_every_end_has_its_exit_code_and_its_words_on_stderr(problem, status, said, capsys):
    assert run(raiser(problem), []) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_the_traceback_of_an_error_is_shown_on_request_only(capsys):
    assert run(raiser(UserError("a", "b", 3)), ["--debug"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(raiser(ZeroDivisionError()), [])


def run_script(*argv: str, **settings) -> subprocess.CompletedProcess:
    """Run a script of ours in a process of its own."""
    return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, check=False, **settings)


def test_a_reader_that_went_away_is_exit_141_without_a_traceback():
    command = f"{sys.executable} train.py --print_config; echo status $? >&2"
    piped = subprocess.run(
        ["bash", "-c", f"( {command} ) | true"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in piped.stderr and "BrokenPipe" not in piped.stderr
    assert "status 141" in piped.stderr or "status 0" in piped.stderr  # 0: it had written before the reader left


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_an_output_of_another_encoding_is_no_traceback(encoding, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = run_script("train.py", "--config", str(tmp_path / "沒有😀.yaml"), env=environment)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr and b"No such file or directory" in done.stderr


def test_ctrl_c_while_a_script_starts_is_exit_130():
    code = "import os, signal, sys, time; from novelgpt.cli import run\n"
    code += "def main(argv): os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\nsys.exit(run(main, []))"
    done = run_script("-c", code)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"stopped\n")


def test_a_line_of_a_signal_in_the_midst_of_another_costs_that_line_only(tmp_path):
    code = "import io, os, sys; from novelgpt.messages import say\n"
    code += "class Raw(io.RawIOBase):\n"
    code += "    def writable(self): return True\n"
    code += "    def write(self, data):\n"
    code += "        say('inner') if b'outer' in bytes(data) else None\n"  # as a handler would
    code += "        return os.write(2, data)\n"
    code += "sys.stderr = io.TextIOWrapper(io.BufferedWriter(Raw()), line_buffering=True)\n"
    code += "say('outer'); say('after')"
    done = run_script("-c", code)
    assert (done.returncode, b"outer\n" in done.stderr, b"after\n" in done.stderr) == (0, True, True)


@pytest.mark.parametrize(
    ("rank", "is_told", "speaks"),
    [("0", None, True), ("1", None, False), ("1", False, True), ("0", True, False), ("1", True, False)],
)
def test_one_of_several_processes_tells_an_error_and_the_others_give_it_time(
    rank, is_told, speaks, monkeypatch, capsys
):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setenv("LOCAL_RANK", rank)
    problem = UserError("a: found 1", "give 2", 5)
    problem.is_told = is_told
    assert run(raiser(problem), []) == 5
    assert capsys.readouterr().err == ("error: a: found 1\n\nhint: give 2\n" if speaks else "")
    assert len(waits) == (0 if speaks else 1)
