"""Messages in Chinese: every one of the code is in the table, and people are spoken to in their language."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from messages_in_code import Messages

from novelgpt import languages
from novelgpt.cli import run
from novelgpt.commands import clean, convert, generate, studio, tokenize, train, vocab
from novelgpt.commands import eval as evaluate
from novelgpt.messages import EXIT_USAGE, UserError, say, warn

COMMANDS = (clean, convert, evaluate, generate, studio, tokenize, train, vocab)
# what argparse, the system and the modules json and re say
FOREIGN = (
    "options", "positional arguments", "show this help message and exit", "expected one argument",
    "expected at least one argument", "ignored explicit argument {}", "No such file or directory", "Permission denied",
    "Is a directory", "File exists", "Not a directory", "No space left on device", "Read-only file system",
    "File name too long", "Input/output error", "Expecting value", "Extra data",
    "Expecting property name enclosed in double quotes",
    "Expecting {} delimiter", "Unterminated string starting at", "Invalid control character at",
    "data/input.json or data/input.txt",
    "missing ), unterminated subpattern at position {}", "unterminated character set at position {}",
    "unbalanced parenthesis at position {}", "nothing to repeat at position {}", "multiple repeat at position {}",
    "bad escape {} at position {}",
)  # fmt: skip
# what people are told by way of records and of several pieces
ELSEWHERE = (
    "table of contents", "heading doubled", "{} and {} more", "{} chapters", "{} documents", "missing {}",
    "{} document without a title", "{} documents without a title", "repeated {}", "tabs {}", "indents {}", "address {}",
    "{} document without text below the title", "{} documents without text below the title",
    "data:", "parameters:", "batches:", "steps:", "warm-up:", "memory:", "time:", "disk:",
    "models {} GB", "checkpoints {} GB", "use {}", "here {}", "{} loss {}", "still improving at {}",
    "step {}/{} epoch {} loss {}", "measuring: step {} of {}, {} s each …",
    "--max_hours {} is over", "--until {} is past", "'text' or 'content'",
    "{} characters read", "bits per character", "scored tokens", "unknown tokens", "held out of {}", "item {}",
    *(f"page\x04{word}" for word in ("missing", "repeated", "tabs", "indents", "address")),
    *(f"page\x04{word}" for word in ("accuracy", "loss", "model", "perplexity", "stride", "window")),
)  # fmt: skip
# what a caller in Python has done wrong
INTERNAL = (
    "x of shape {} for a matrix with {} inputs", "{} inputs, at most {} can be added up in 32 bits",
    "step {}, expected a slice without a step", "token id {}, expected 0 to {}",
)  # fmt: skip
NAMES = re.compile(r"CR LF|Hugging Face")
ENGLISH = re.compile(r"(?<![\w./_-])[A-Za-z]{2,}[,:;]? [A-Za-z]{2,}(?![\w./_-])")  # two words in a row


@pytest.fixture(scope="module")
def messages():
    """The messages in the code."""
    return Messages(ROOT / "novelgpt")


@pytest.fixture(scope="module")
def table():
    """The table."""
    return languages.chinese_table()


@pytest.fixture
def chinese(monkeypatch):
    """A reader of Chinese."""
    monkeypatch.setenv("LANGUAGE", "zh_CN")


def fill_in(message: str) -> str:
    """Put a number into every place of a message."""
    numbers = iter(range(11, 30))
    return re.sub(r"\{\}", lambda _: str(next(numbers)), message)


def english_in(shown: str) -> list[str]:
    """Return the lines with two English words in a row, but for commands."""
    lines = [line for line in shown.split("\n") if not re.match(r"(?: +|提示：)(?:python|torchrun) ", line)]
    return [line for line in lines if ENGLISH.search(NAMES.sub("", line))]


def write_row(text: str) -> str:
    """Return the row of a message for the table, its Chinese left open."""
    context, _, message = text.rpartition(languages.CONTEXT)
    head = f'msgctxt "{context}"\n' if context else ""
    return f'{head}msgid {json.dumps(message, ensure_ascii=False)}\nmsgstr ""\n'


def test_every_message_of_the_code_is_in_the_table(messages, table):
    wanted = [text for text in messages.templates if " " in text.strip() or text in messages.direct]
    missing = [text for text in wanted if text not in table and text not in INTERNAL]
    rows = [f"# {messages.templates[text]}\n{write_row(text)}" for text in missing]
    assert not rows, "add these to novelgpt/chinese.po, with the Chinese:\n\n" + "\n".join(rows)


def test_every_row_of_the_table_is_a_message_of_the_code(messages, table):
    known = {*messages.templates, *FOREIGN, *ELSEWHERE}
    assert [message for message in table if message not in known] == []
    assert [message for message in (*FOREIGN, *ELSEWHERE) if message not in table] == []


def test_no_row_is_a_word_that_may_be_the_name_of_a_file_or_a_column(table):
    words = {"stopped", "both", "all", "more", "fewer", "written", "options"}
    assert {message for message in table if re.fullmatch("[a-z]+", message)} <= words


def test_every_row_has_its_chinese_and_a_place_for_every_value(table):
    for message, chinese in table.items():
        places, numbers = re.findall(r"\{(\d*)\}", chinese), range(message.count("{}"))
        assert chinese, message
        assert len(places) == len(numbers) if "" in places else set(places) <= set(map(str, numbers)), message


@pytest.mark.parametrize("part", range(4))
def test_every_message_is_recognised_with_its_values(table, part):
    rows = [(message, chinese) for message, chinese in table.items() if languages.CONTEXT not in message]
    for message, chinese in rows[part::4]:
        values = [str(number) for number in range(11, 11 + message.count("{}"))]
        assert languages.to_chinese(fill_in(message)) == languages.fill(chinese, values), message


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.GBK"}, "zh"),
        ({"LANG": "zh_TW.Big5", "LC_ALL": ""}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "POSIX"}, "en"),
        ({"LANG": "C.UTF-8", "LANGUAGE": "zh_CN:zh"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LANGUAGE": "en_US:zh_CN"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale_as_gettext_reads_it(monkeypatch, environment, expected):
    for name in languages.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(languages.locale, "setlocale", lambda category: "C")
    assert languages.language() == expected


def test_where_no_variable_is_set_the_system_tells_as_windows_does(monkeypatch):
    for name in languages.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(languages.locale, "setlocale", lambda category: "Chinese (Simplified)_China.936")
    assert languages.language() == "zh"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--topp: found '2', expected a number from 0 to 1", "--topp：得到 '2'，应为 0 到 1 的数"),
        ("novel.txt: cannot be read: No such file or directory", "novel.txt：读不了：没有这个文件或文件夹"),
        ("nothing of ours; 第一章: 开始, and then", "nothing of ours; 第一章: 开始, and then"),
        ("“你去哪里: 长安, 洛阳?”他问", "“你去哪里: 长安, 洛阳?”他问"),
        ("data: no pieces here (manifest.json is missing)", "data：这里没有分片（缺少 manifest.json）"),
        ("data:        25 documents, 33,985 tokens", "数据：       25 篇文档，33,985 个词元"),
        ("  removed: U+0000 3, U+001A 2, U+FEFF 2 …", "  已删除：U+0000 3，U+001A 2，U+FEFF 2 …"),
        ("written: a.json (2 documents), b.json, c.html", "写出的：a.json（2 篇），b.json，c.html"),
        ("  numbers: repeated 2–3, 7; heading doubled 2 lines dropped", "  章号：重复 2–3，7；丢弃标题重复 2 行"),
        (
            "stopped early: 3 evaluations in a row were not better than epoch 2 (held-out loss 4.8); use a/best_model",
            "提前结束：连续 3 次评估都没有好过第 2 轮（留出损失 4.8）；请用 a/best_model",
        ),
        (
            "epoch 1/9 held-out loss 4.8 perplexity 132.23 accuracy 17.02% bits per character 7.05",
            "第 1/9 轮：留出损失 4.8，困惑度 132.23，准确率 17.02%，每字符比特数 7.05",
        ),
        (
            "step 1/34 epoch 1 loss 7.6 lr 0.01 2,364 tokens/s (data 0.05%), 29 s left",
            "第 1/34 步，第 1 轮，损失 7.6，学习率 0.01，2,364 词元/秒（取数据占 0.05%），还剩 29 秒",
        ),
        (
            "my.json: here top_k is topk; bf16 true is precision bf16",
            "my.json：在这里，top_k 就是 topk；bf16 true 就是 precision bf16",
        ),
        ("2 h 19 min", "2 小时 19 分"),
        ("12 s", "12 秒"),
    ],
)
def test_the_values_of_a_message_are_chinese_too_and_what_is_no_message_stays(chinese, text, expected):
    assert languages.localize(text) == expected


def test_an_error_is_shown_in_chinese_and_kept_in_english(chinese):
    error = UserError("unknown option --epoch", "did you mean --epochs?")
    assert str(error) == "错误：没有 --epoch 这个选项\n\n提示：是不是想写 --epochs？"
    assert (error.message, error.hint) == ("unknown option --epoch", "did you mean --epochs?")


def test_lines_and_warnings_are_in_chinese(chinese, capsys):
    say("stopped")
    warn("step 3 of no message of ours")
    assert capsys.readouterr().err == "已停下\n警告：step 3 of no message of ours\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.rpartition(".")[2])
def test_the_help_of_a_command_has_no_english_sentence(chinese, command, capsys):
    assert run(command.main, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("用法：") and "\n选项:\n" in shown
    assert english_in(shown) == []


def test_lines_of_the_help_fit_a_terminal_though_chinese_characters_take_two_cells(chinese, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    run(train.main, ["--help"])
    options = capsys.readouterr().out.split("\n选项:\n")[1]
    cells = [sum(2 if ord(char) > 0x2E80 else 1 for char in line) for line in options.split("\n")]
    assert max(cells) <= 60


def test_lang_goes_before_the_locale_both_ways_and_reaches_the_processes_started(monkeypatch, capsys):
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    assert run(train.main, ["--lang", "en", "--epochs", "0"]) == EXIT_USAGE
    assert "error: --epochs: found '0', expected a whole number from 1 to 1000000" in capsys.readouterr().err
    assert os.environ["LANGUAGE"] == "en"
    assert run(train.main, ["--epochs", "0", "--lang=zh"]) == EXIT_USAGE
    assert "错误：--epochs：得到 '0'，应为 1 到 1000000 的整数" in capsys.readouterr().err
    assert os.environ["LANGUAGE"] == "zh"


def test_another_language_is_an_error(monkeypatch, capsys):
    monkeypatch.setenv("LANGUAGE", "en")
    assert run(train.main, ["--lang", "fr"]) == EXIT_USAGE
    assert (
        capsys.readouterr().err == "error: --lang: found 'fr', expected one of zh, en\n\nhint: python train.py --help\n"
    )


def test_the_language_stands_in_no_config_file(monkeypatch, capsys, tmp_path):
    (tmp_path / "my.yaml").write_text("lang: zh\n", encoding="utf-8")
    assert run(train.main, ["--config", str(tmp_path / "my.yaml")]) == EXIT_USAGE
    assert "my.yaml: unknown key lang" in capsys.readouterr().err


def test_printed_options_are_explained_in_chinese_and_read_back(chinese, capsys, tmp_path):
    assert run(tokenize.main, ["--num_pieces", "3", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "  # 训练分片的个数（默认 100）\n  num_pieces: 3\n" in printed
    (tmp_path / "my.yaml").write_text(printed, encoding="utf-8")
    assert run(tokenize.main, ["--config", str(tmp_path / "my.yaml"), "--print_config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "utf-8"])
def test_a_novel_is_cleaned_without_an_english_sentence_in_any_encoding_of_the_terminal(tmp_path, encoding):
    environment = {**os.environ, "LANGUAGE": "", "LC_ALL": "zh_CN.GBK", "PYTHONIOENCODING": encoding}
    command = [sys.executable, ROOT / "clr_ctrl.py", ROOT / "data/sample/novel.txt"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    shown = done.stderr.decode(encoding)
    assert done.returncode == 0, shown
    if encoding == "ascii":
        shown = shown.encode().decode("unicode_escape")
    assert "总评：" in shown
    assert english_in(shown) == []


def test_the_table_travels_with_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "*.po" in settings["tool"]["setuptools"]["package-data"]["novelgpt"]


def test_help_in_chinese_starts_as_fast_as_in_english(chinese):
    before = os.times()
    subprocess.run([sys.executable, ROOT / "train.py", "--help"], capture_output=True, check=True)
    after = os.times()  # processor time: what else the machine does must not count
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.3


def test_without_any_locale_everything_is_said_in_english():
    environment = {"SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}
    command = [sys.executable, ROOT / "clr_ctrl.py", "--epoch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = "error: unknown option --epoch\n\nhint: did you mean --report?\n"
    assert (done.returncode, done.stderr) == (EXIT_USAGE, said)
