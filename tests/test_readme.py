"""README and docs/: same commands in both languages, flags that exist, quick commands run as printed, true messages.

A block after the comment `<!-- runs -->` is run in order, in one copy of the checkout whose demo config is made tiny.
"""

import contextlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from novelgpt.cli import Parser, run
from novelgpt.cli.config_file import read_config, read_options
from novelgpt.lock import run_lock
from novelgpt.messages import COMMANDS, EXIT_DONE, EXIT_STATE

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "docs/options.md"  # by a command, which has a test of its own
TWINS = {"README.md": "README_zh.md"}  # page -> the same in Chinese
TWINS |= {
    f"docs/{path.name}".replace("_zh", ""): f"docs/{path.name}"
    for path in sorted((ROOT / "docs").glob("*_zh.md"))
    if path.name.replace("_zh", "") not in GENERATED
}
PAGES = [*TWINS, *TWINS.values()]
SCRIPTS = ("clr_ctrl.py", "make_vocab.py", "tokenize_corpus.py", "train.py", "eval.py", "generate.py", "studio.py")
SCRIPTS += ("convert.py",)
PARTS = ("clean", "vocabulary", "tokenize", "train", "eval", "generate", "studio", "convert")
SECTIONS = dict(zip(SCRIPTS, PARTS, strict=True))
BLOCK = re.compile(r"(<!-- runs -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python|torchrun) [^`]*\.py\b[^`]*)`")
FLAG = re.compile(r"`(--[a-z][\w-]*)")
ABSENT = {"--segment", "--bpe_token", "--encoder_json", "--vocab_bpe", "--fp16_opt_level", "--fast_pattern"} | {
    "--no_wordpiece"
}  # named as options of GPT2-Chinese that do not exist here
# what the text names already; whoever adds it takes it out of this list
MADE_BY_THE_READER = {"config/my.json"}
TINY = {  # the same options, smaller numbers
    name: re.sub(r"(nsamples|epochs|length): \d+", r"\1: 2", (ROOT / name).read_text(encoding="utf-8"))
    for name in ("config/demo.yaml", "config/finetune_titles.yaml")
} | {
    "config/model_config_demo.json": '{"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 128}',
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[tuple[bool, str, str]]:
    """Return (runs, language, body) of every fenced block."""
    return [(bool(mark), language, body) for mark, language, body in BLOCK.findall(read(name))]


def commands() -> list[str]:
    """Return every command that calls a script, in blocks and within lines."""
    bodies = [body for name in TWINS for _, language, body in blocks(name) if language == "bash"]
    lines = [line for body in bodies for line in body.splitlines() if re.search(r"\b\w+\.py\b", line)]
    lines += re.findall(r"^  (python .+)$", read("demo.sh"), re.MULTILINE)  # its last words
    return [*lines, *(words for name in PAGES for words in INLINE.findall(read(name)))]


def parser_of(script: str) -> Parser:
    return importlib.import_module(script.removesuffix(".py")).build_parser()


def flags_of(script: str) -> set[str]:
    """Return every flag that the help of a script lists."""
    lists = re.findall(r"^  (-.+?)(?:  |$)", parser_of(script).format_help(), re.MULTILINE)
    return {flag for names in lists for flag in re.findall(r"--[\w-]+", names)}


KNOWN = {flag for script in SCRIPTS for flag in flags_of(script)}


def headings(name: str) -> list[str]:
    """Return the headings of a page with their signs; a comment of a block is none."""
    return re.findall(r"^#+ .+$", BLOCK.sub("", read(name)), re.MULTILINE)


def rows(name: str) -> list[list[str]]:
    """Return the cells of every table row, headline and rule left out."""
    lines = read(name).splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith("|") and not line.startswith("| ---") and not following.startswith("| ---")
    ]


def messages(name: str, words: str = "error: |warning: ") -> list[str]:
    """Return the messages in the first cells of tables that begin with some words."""
    return [message for row in rows(name) for message in re.findall(f"`((?:{words})[^`]*)`", row[0])]


@pytest.mark.parametrize("english", TWINS)
def test_a_page_and_its_chinese_have_the_same_blocks_headings_tables_and_messages(english):
    chinese = TWINS[english]
    assert blocks(english) == blocks(chinese)
    assert [line.count("#") for line in headings(english)] == [line.count("#") for line in headings(chinese)]
    assert messages(english) == messages(chinese)
    assert [len(row) for row in rows(english)] == [len(row) for row in rows(chinese)]
    cells = [[row[0].split("<br>")[-1] for row in rows(name)] for name in (english, chinese)]
    codes = [[cell for cell in column if re.fullmatch("`[^`]+`", cell)] for column in cells]
    assert codes[0] == codes[1]


@pytest.mark.parametrize("english", TWINS)
def test_every_figure_stands_in_both_languages(english):
    figures = [set(re.findall(r"\d[\d,.]*[,.]\d+", BLOCK.sub("", read(name)))) for name in (english, TWINS[english])]
    assert figures[0] ^ figures[1] <= {"3.7", "8,200", "1,200"}  # 3.7 million is 370 万, 82 million 8,200 万


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_the_readme_stays_a_walk_of_less_than_300_lines_with_the_figures_of_the_demo(name):
    assert read(name).count("\n") < 300
    assert all(figure in read(name) for figure in ("7.606", "4.491", "13,317"))
    assert all(f"`novelgpt {command}`" in read(name) for command in COMMANDS.values())


@pytest.mark.parametrize("line", dict.fromkeys(commands()))
def test_a_printed_command_names_an_existing_script_with_flags_and_values_it_takes(line):
    words = shlex.split(line.split(" > ")[0], comments=True)
    place = next(index for index, word in enumerate(words) if word.endswith(".py"))
    script, arguments = words[place], words[place + 1 :]
    assert words[0] in ("python", "torchrun")
    assert (ROOT / script).is_file()
    if script in SCRIPTS:
        assert parser_of(script).parse_known_args(arguments)[1] == []


def test_the_title_runs_of_the_text_write_into_folders_of_their_own():
    runs = [shlex.split(line)[2:] for line in commands() if "train.py --config config/finetune_titles.yaml" in line]
    folders = [parser_of("train.py").parse_options(argv).output_dir for argv in runs]
    assert folders == ["model_titles/", "model_titles2/"]


def test_a_printed_config_file_holds_only_keys_of_its_scripts(tmp_path):
    printed = [body for name in TWINS for _, language, body in blocks(name) if language == "yaml"]
    assert printed
    for number, body in enumerate(printed):
        path = tmp_path / f"{number}.yaml"
        path.write_text(body, encoding="utf-8")
        assert set(read_config(str(path))) <= set(SECTIONS.values())
        for script, section in SECTIONS.items():
            read_options(str(path), parser_of(script).table, section=section)


@pytest.mark.parametrize("name", PAGES)
def test_every_flag_in_the_text_exists(name):
    assert not ABSENT & KNOWN
    unknown = set(FLAG.findall(read(name))) - KNOWN
    assert unknown == (ABSENT if "gpt2_chinese" in name else {"--fast_pattern"} if "measurements" in name else set())


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading.

    >>> slug("## 从现成的中文 GPT-2 开始")
    '从现成的中文-gpt-2-开始'
    """
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md"])
def test_every_link_and_every_named_file_of_the_checkout_exists(name):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", read(name)) if not link.startswith("http")]
    anchors = {link[1:] for link in links if link.startswith("#")}
    assert anchors <= {slug(heading) for heading in headings(name)}
    linked = [os.path.relpath((ROOT / name).parent / link, ROOT) for link in links if not link.startswith("#")]
    named = re.findall(r"`((?:novelgpt|tests|bench|docs|config)/[\w/.]+)`", read(name))
    named += [path for path in re.findall(r"`(\w+\.py)`", read(name)) if not list(ROOT.glob(f"novelgpt/**/{path}"))]
    missing = {path for path in linked + named if not (ROOT / path).exists()}
    assert missing <= MADE_BY_THE_READER


def copy_checkout(folder: Path, changes: dict[str, str]) -> Path:
    """Copy what a fresh clone holds as far as the commands need it, with some files changed."""
    for name in (*SCRIPTS, "cache/vocab_small.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("config", "data/sample"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "novelgpt").symlink_to(ROOT / "novelgpt")  # with the compiled code of its __pycache__
    for name, text in changes.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run_block(language: str, body: str, folder: Path, python: Path) -> subprocess.CompletedProcess:
    """Run a block as a reader would, with that `python`."""
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = ["bash", "-ec", body] if language == "bash" else [python, "-c", body]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def walked(tmp_path_factory, warm_python) -> Path:
    """A copy of the checkout in which all quick blocks have been run."""
    folder = copy_checkout(tmp_path_factory.mktemp("walked"), TINY)
    for runs, language, body in [block for name in TWINS for block in blocks(name)]:
        if runs:
            done = run_block(language, body, folder, warm_python)
            assert done.returncode == 0, body + done.stdout + done.stderr
            assert done.stdout, body
    return folder


@pytest.mark.sweep
def test_the_quick_commands_run_as_printed_and_leave_what_the_text_says(walked):
    for name in (
        "data/train.json data/train.report.json cache/vocab_novel.txt data/tokenized/manifest.json model/final_model "
        "model/best_model model/model_epoch1 model/run.json model/log.jsonl mnt/samples.txt mnt/samples.jsonl my.yaml"
    ).split():
        assert (walked / name).exists(), name
    samples = [path.read_text(encoding="utf-8") for path in walked.glob("mnt/samples*.txt")]
    assert max(text.count("那天夜里没有月亮。") for text in samples) == 2
    assert "CLS" not in "".join(samples)


JSON_OF_ANOTHER_KEY = '[{"words": "第一章"}]'
HELD_OPEN = "hold the lock"
# message: (folder, command, files written before). The folders are a fresh checkout and the walked one.
CAUSES = {
    "error: novel.txt: cannot be read: No such file or directory": ("fresh", "clr_ctrl.py novel.txt", {}),
    "error: novel.txt: encoding undecided: gb18030 reads …": (
        "fresh",
        "clr_ctrl.py novel.txt",
        {"novel.txt": "你".encode("gb18030")},
    ),
    "error: novel.txt: not Chinese text in any known encoding; the nearest, …": (
        "fresh",
        "clr_ctrl.py novel.txt",
        {"novel.txt": ("Il était une fois, à la forêt, un garçon qui gardait un puits. " * 40).encode("latin-1")},
    ),
    "error: chapters.json: not JSON at line 1 column 9: …": (
        "fresh",
        "clr_ctrl.py chapters.json",
        {"chapters.json": '["第一章", "第二'.encode()},
    ),
    "error: chapters.json: item 0: found words, expected 'text' or 'content'": (
        "fresh",
        "clr_ctrl.py chapters.json",
        {"chapters.json": JSON_OF_ANOTHER_KEY.encode()},
    ),
    "error: --min_length 100000: all 27 documents are shorter": (
        "walked",
        "tokenize_corpus.py --min_length 100000 --tokenized_data_path other",
        {},
    ),
    "error: cache/vocab_novel.txt: cannot be read: No such file or directory": (
        "fresh",
        "train.py --tokenizer_path cache/vocab_novel.txt",
        {},
    ),
    "error: data/tokenized: no pieces here (manifest.json is missing)": (
        "fresh",
        "train.py --model_config config/model_config_demo.json --stride 128",
        {},
    ),
    "error: data/tokenized: the pieces are stale": ("walked", "train.py --config config/demo.yaml", {}),
    "warning: --device 0,1: no GPU 0, 1 (there is no GPU); using the CPU": (
        "walked",
        "train.py --config config/demo.yaml --tokenizer_path cache/vocab_novel.txt --batch_size 4 --device 0,1",
        {},
    ),
    "error: --fp16: cpu does not compute in fp16": (
        "walked",
        "train.py --config config/demo.yaml --tokenizer_path cache/vocab_novel.txt --fp16 --device cpu",
        {},
    ),
    "error: --stride 512: longer than the window of 256 tokens, so text would be skipped": (
        "fresh",
        "train.py --model_config config/model_config_demo.json --stride 512",
        {},
    ),
    "error: model: holds … run with other settings": (
        "walked",
        "train.py --config config/demo.yaml --tokenizer_path cache/vocab_novel.txt --batch_size 4",
        {},
    ),
    "error: model: in use by pid …": (
        HELD_OPEN,
        "train.py --config config/demo.yaml --tokenizer_path cache/vocab_novel.txt",
        {},
    ),
    "error: --loss_after [TIL]: not a token of the vocabulary": (
        "fresh",
        "train.py --rows --train_file data/sample/novel.txt --loss_after [TIL]",
        {},
    ),
    "error: --stride: has no meaning with --rows, which reads one text a record": (
        "fresh",
        "train.py --rows --train_file data/sample/novel.txt --stride 128",
        {},
    ),
    "error: model/final_model: no such folder, expected a model folder": ("fresh", "generate.py", {}),
    "error: model/final_model: damaged: …": ("damaged", "generate.py", {}),
    "error: unknown option --epoch": ("fresh", "train.py --epoch 3", {}),
    "error: config/my.json: unknown key n_layers": (
        "fresh",
        "train.py --model_config config/my.json",
        {"config/my.json": b'{"n_layers": 4, "n_embd": 256, "n_head": 4, "n_positions": 256}'},
    ),
}
HARD_TO_CAUSE = {"error: step …: loss not finite 3 steps in a row; last good checkpoint: …"}


def pattern_of(message: str) -> str:
    """Turn a message with `…` for what varies into a regular expression."""
    return ".*".join(map(re.escape, message.split("…")))


def test_the_messages_of_the_readme_are_some_of_the_page_of_problems():
    assert set(messages("README.md")) < set(messages("docs/problems.md"))
    assert set(messages("README_zh.md", "错误：")) < set(messages("docs/problems_zh.md", "错误："))


@pytest.mark.sweep  # the walk takes half a minute
@pytest.mark.parametrize("message", messages("docs/problems.md"))
def test_a_message_of_the_table_is_what_the_script_says(message, request, tmp_path, monkeypatch, capsys):
    if message in HARD_TO_CAUSE:
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "novelgpt/training").glob("*.py"))
        assert "loss not finite {BAD_IN_A_ROW} steps in a row; last good checkpoint: " in source
        assert "BAD_IN_A_ROW = 3" in source
        return
    cause(message, request, tmp_path, monkeypatch)
    assert re.search(f"^{pattern_of(message)}", capsys.readouterr().err, re.MULTILINE)


def pairs_of_messages() -> list[tuple[str, str]]:
    """Return (English, Chinese) of every message that the Chinese page has in both languages."""
    cells = [row[0] for row in rows("docs/problems_zh.md") if "<br>" in row[0]]
    return [tuple(reversed(re.fullmatch("`([^`]+)`<br>`([^`]+)`", cell).groups())) for cell in cells]


@pytest.mark.sweep  # the walk takes half a minute
@pytest.mark.parametrize(("english", "chinese"), pairs_of_messages())
def test_a_chinese_message_is_what_the_script_says_in_chinese(english, chinese, request, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LANGUAGE", "zh")
    cause(english, request, tmp_path, monkeypatch)
    assert re.search(f"^{pattern_of(chinese)}", capsys.readouterr().err, re.MULTILINE)


def cause(message: str, request, place: Path, monkeypatch) -> None:
    """Run the command that ends with a message."""
    where, command, files = CAUSES[message]
    folder = copy_checkout(place, {}) if where == "fresh" else request.getfixturevalue("walked")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if where == "damaged":
        folder = damaged_copy(folder, place)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    script, *arguments = shlex.split(command)
    main = importlib.import_module(script.removesuffix(".py")).main
    with run_lock("model") if where == HELD_OPEN else contextlib.nullcontext():
        assert run(main, arguments) != EXIT_DONE


def damaged_copy(folder: Path, place: Path) -> Path:
    """Copy the final model elsewhere and lengthen one of its files."""
    shutil.copytree(folder / "model/final_model", place / "model/final_model")
    with open(place / "model/final_model/config.json", "ab") as file:
        file.write(b" ")
    return place


def test_the_exit_codes_of_the_text_are_those_of_the_code():
    source = (ROOT / "novelgpt/messages.py").read_text(encoding="utf-8")
    codes = dict(re.findall(r"^(EXIT_\w+) = (\d+)", source, re.MULTILINE))
    assert [codes[f"EXIT_{name}"] for name in ("DONE", "USAGE", "INPUT", "ENVIRONMENT", "STATE", "DIVERGED")] == list(
        "023456"
    )
    assert EXIT_STATE == 5
    assert "Exit codes: 0 done, 2 a flag" in read("docs/problems.md")


def test_the_last_lines_of_training_are_quoted_as_they_are():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "novelgpt/training").glob("*.py"))
    for words in ("memorising since ", "still improving at "):
        assert words in source
        assert all(f"`{words}…`" in read(name) for name in PAGES if "README" in name or "problems" in name)
