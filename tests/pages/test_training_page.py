"""training.html: one small file that holds all, says how a run stands in both languages, and runs nothing foreign."""

import base64
import hashlib
import html
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from runs import BEGAN, NOVEL, loss_at, make_records, start_record, write_run

import eval as eval_script
from novelgpt.cli import run
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, EXIT_USAGE
from novelgpt.pages import write_training_page
from novelgpt.pages.chart import draw_spark, thin_points

SHELL, DEMO, FULL, LONG = 60_000, 250_000, 400_000, 1_000_000  # bytes at most
HOSTILE = "</script><script>window.hit=1</script><!--\x07\u202e\"'&{{ 7*7 }}"


def page_of(folder: Path, records: list[dict], **settings) -> str:
    """Return the page of a run folder with these records."""
    write_training_page(write_run(folder / "run", records, **settings))
    return (folder / "run/training.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict:
    """Return the figures that stand in a page."""
    return json.loads(re.search(r'<script type="application/json" id="run">(.*?)</script>', page, re.DOTALL)[1])


def words_of(page: str, language: str) -> str:
    """Return what a page says in one language, without tags."""
    other = "zh" if language == "en" else "en"
    page = re.sub("<option.*?</option>", "", page)  # whose words the script puts in
    shown = re.sub(rf'<span class="{other}"[^>]*>.*?</span>', "", page.split("</header>")[1].split("<script")[0])
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def test_the_page_is_small_and_so_is_a_long_run(tmp_path):
    assert len(page_of(tmp_path / "empty", []).encode()) <= SHELL
    assert len(page_of(tmp_path / "full", make_records(15)).encode()) <= DEMO < FULL
    lines = [
        {"step": step, "epoch": 1, "loss": loss_at(step) + step % 7 / 50, "time": BEGAN + step}
        for step in range(1, 20_001)
    ]
    assert len(page_of(tmp_path / "long", [start_record(), *lines]).encode()) <= LONG


def test_samples_of_any_length_leave_the_page_in_its_size(tmp_path):
    records = [record | ({"text": NOVEL * 5} if record.get("event") == "sample" else {}) for record in make_records(15)]
    assert len(page_of(tmp_path, records).encode()) <= FULL


def test_its_policy_allows_its_own_script_by_hash_and_nothing_else(tmp_path):
    page = page_of(tmp_path, make_records(3))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    assert not re.findall(
        r"""(?:src|href|action)\s*=|url\(|@import|\son\w+\s*=\s*["']""",
        re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL),
    )
    assert page.count("</script>") == 2


def test_it_says_the_same_in_both_languages(tmp_path):
    page = page_of(tmp_path, make_records(turn=1200))
    english, chinese = words_of(page, "en"), words_of(page, "zh")
    for word in (
        "Memorising",
        "since",
        "epoch 7",
        "held-out loss",
        "A page it has never read",
        "Style, beside the book's",
    ):
        assert word in english, word
    for word in ("在背书", "第 7 轮", "留出损失", "它没读过的一段", "文风，与原书相比"):
        assert word in chinese, word
    assert not re.search("[a-z]{4,} [a-z]{3,}", re.sub(r"python .*?(?=复制)", "", chinese).replace("novelgpt", ""))


def test_figures_and_marks_stand_in_the_page_without_a_script(tmp_path):
    page = re.sub(r"<script.*?</script>", "", page_of(tmp_path, make_records()), flags=re.DOTALL)
    paths = dict(re.findall(r'<path class="(\w+ this)" d="([^"]*)"', page))
    assert paths["held this"] and len(re.findall("[ML]", re.findall(r'class="curve this" d="([^"]*)"', page)[0])) == 150
    assert "5-grams with a cache</span>" in page and "5.050" in page  # the yardstick by name
    # 15 evaluations, the last one lowest: 4 + 4 / 11 ** 1.2 = 4.2251, e to that 68.4
    assert page.count("<tr><td") == 14 and page.count('<tr class="best"><td') == 1
    assert "<b>4.225</b>" in page and "<b>68.4</b>" in page
    assert NOVEL[4000:4100] in page  # the real continuation


@pytest.mark.parametrize(
    ("records", "kind", "command"),
    [
        (make_records(), "learning", "train.py --output_dir {run} --epochs 30 --allow_change epochs"),
        (make_records(turn=1200), "memorising", "generate.py --model_path {run}/best_model"),
        (
            [*make_records(done=4), {"event": "stop", "step": 800}],
            "learning",
            "train.py --epochs 15 --output_dir {run}",
        ),
        (make_records(done=4), "learning", "generate.py --model_path {run}/best_model"),
    ],
)
def test_the_verdict_comes_with_the_command_that_follows_from_it(tmp_path, records, kind, command):
    page = page_of(tmp_path, records)
    assert f'data-kind="{kind}"' in page
    commands = [html.unescape(text) for text in re.findall(r'<code tabindex="0">(.*?)</code>', page)]
    assert f"python {command.format(run=tmp_path / 'run')}" in commands


def test_the_model_that_the_run_names_is_the_one_to_write_with(tmp_path):
    verdict = {"event": "verdict", "kind": "converged", "model": "final_model", "text": "…"}
    assert "--model_path {}/final_model".format(tmp_path / "run") in page_of(tmp_path, [*make_records(done=4), verdict])


def test_no_command_names_a_model_that_is_not_there(tmp_path):
    page = page_of(tmp_path, make_records(done=4), models=())
    assert "generate.py" not in page


def test_hostile_texts_stay_texts(tmp_path):
    records = make_records(2, book=HOSTILE, passage={"tokens": [HOSTILE[:20]] * 9})
    records = [
        record | ({"kind": HOSTILE, "prefix": HOSTILE, "text": HOSTILE} if "prefix" in record else {})
        for record in records
    ]
    page = page_of(tmp_path, [*records, {"event": "stop", "reason": HOSTILE}])
    assert page.count("</script>") == 2 and "<!--" not in page and "\x07" not in page and "\u202e" not in page
    seen = HOSTILE.replace("\x07", r"\x07").replace("\u202e", r"\u202e")
    (sample,) = data_of(page)["frames"][-1]["samples"].values()
    assert sample["text"] == seen.removeprefix(seen) and sample["prefix"] == seen  # a prefix is not said twice


def test_a_run_of_before_has_its_page_too(tmp_path, capsys):
    shutil.copytree(ROOT / "tests/fixtures/former_run/run", tmp_path / "run")
    assert run(eval_script.main, ["--training_page", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out), shown.err) == ({"training_page": f"{tmp_path}/run/training.html"}, "")
    page = (tmp_path / "run/training.html").read_text(encoding="utf-8")
    assert data_of(page)["held_out"] == {"steps": [0, 4, 6], "seconds": [], "losses": [5.8019, 5.1815, 4.8817]}
    assert not data_of(page)["live"] and 'id="plot"' in page and 'id="lapse"' not in page


def test_what_cannot_be_written_is_an_error_of_the_system_and_the_old_page_stays(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", make_records(2))
    write_training_page(folder)
    before = (folder / "training.html").read_bytes()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError):
        write_training_page(folder)
    assert (folder / "training.html").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "log.jsonl",
        "run.json",
        "training.html",
    ]


def test_what_the_command_cannot_do_is_said(tmp_path, capsys, monkeypatch):
    folder = write_run(tmp_path / "run", [])
    assert run(eval_script.main, ["--training_page", str(tmp_path)]) == EXIT_INPUT
    shown = (
        f"error: {tmp_path}: no log.jsonl there, expected a run folder\n\nhint: python eval.py --training_page model/\n"
    )
    assert capsys.readouterr().err == shown
    assert run(eval_script.main, ["--training_page", str(folder), "--text", "井"]) == EXIT_USAGE
    shown = "error: --training_page scores nothing, so --text has no effect\n\nhint: leave it out\n"
    assert capsys.readouterr().err == shown
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert run(eval_script.main, ["--training_page", str(folder)]) == EXIT_ENVIRONMENT
    assert capsys.readouterr().err.startswith(f"error: {folder}: training.html not written: No space left on device\n")


def test_of_many_points_no_peak_is_lost():
    ys = [0.0] * 50_000
    ys[31_234], ys[40_000] = 9.0, -9.0
    kept = thin_points(range(50_000), ys)
    assert {0, 31_234, 40_000, 49_999} <= set(kept) and len(kept) <= 4 * (600 + 250)


def test_a_small_line_has_a_gap_where_nothing_was_measured():
    # heights 1 to 3 with 6 % of the range above and below: 0.88 to 3.12; (3.12 - 2) / 2.24 is the middle
    spark = draw_spark([1.0, None, 3.0], 2.0)
    assert spark["goal"] == 500 and spark["line"].count("M") == 2 and "L" not in spark["line"]
