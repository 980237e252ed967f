"""The measures of bench_reading on texts whose figures are known, and the bench on a network of seconds."""

import argparse
import json
import sys

import numpy as np
import pytest
from conftest import ROOT
from helpers import refusal_of

from novelgpt.messages import UserError
from novelgpt.writing.copying import CopyMeter

sys.path.insert(0, str(ROOT / "bench"))

import bench_reading
import reading
import remembering
from reading import Page

CHARACTERS = [chr(0x4E00 + number) for number in range(400)]


def chapters_of(seed: int, count: int = 8, length: int = 2000, *, low: int = 0, high: int = 400) -> list[str]:
    """Return chapters of characters drawn evenly from a part of CHARACTERS."""
    drawn = np.random.default_rng(seed).integers(low, high, (count, length))
    return ["".join(CHARACTERS[number] for number in row) for row in drawn]


def pages_of(chapters: list[str], length: int = 500) -> list[Page]:
    return reading.cut_pages(chapters, length)


def test_texts_of_the_same_source_cannot_be_told_apart_and_those_of_others_can():
    author = pages_of(chapters_of(1))
    same = reading.measure_likeness(pages_of(chapters_of(2)), author)
    assert 0.3 < same.value < 0.7 and same.low < 0.5 < same.high and 0.3 < same.author < 0.7
    other = reading.measure_likeness(pages_of(chapters_of(3, high=300)), author)
    assert other.value > 0.99 and other.low > 0.97


def test_pages_of_a_book_are_spread_over_it_and_share_no_group_with_others():
    pages = reading.pick_pages(["甲乙丙丁", "戊己庚辛", "壬"], 3, 2)
    assert pages == [Page("甲乙", -1), Page("丙丁", -1), Page("戊己", -2)]
    assert reading.pick_pages(["甲乙丙丁"], 5, 3) == [Page("甲乙丙", -1)] and reading.pick_pages(["甲"], 5, 3) == []
    assert [page.text for page in reading.pick_pages(["甲乙丙"], 5, 1)] == ["甲", "乙", "丙"]


def test_the_classifier_never_sees_the_chapter_it_judges():
    # the label goes with the chapter alone: every chapter has a character of its own, half of each is of either label
    texts = [(CHARACTERS[group] * 500, group) for group in range(8) for _ in range(4)]
    first, second = ([Page(text, group) for text, group in texts[place::2]] for place in (0, 1))
    scores, labels = reading.classify(first, second)
    assert abs(reading.area_under_curve(scores, labels) - 0.5) < 0.05


def test_the_area_is_the_share_of_pairs_in_order():
    generator = np.random.default_rng(0)
    scores, labels = generator.integers(0, 9, 60).astype(float), generator.integers(0, 2, 60)
    pairs = [(one > zero) + (one == zero) / 2 for one in scores[labels == 1] for zero in scores[labels == 0]]
    assert reading.area_under_curve(scores, labels) == pytest.approx(np.mean(pairs))


def test_the_classifier_is_where_the_gradient_of_its_loss_vanishes():
    generator = np.random.default_rng(0)
    rows, labels = generator.normal(size=(40, 6)), generator.integers(0, 2, 40)
    weights, constant = reading.fit_classifier(rows @ rows.T, labels)
    slopes = rows.T @ weights  # the regression in the rows' own space

    def loss(slopes: np.ndarray, constant: float) -> float:
        scores = rows @ slopes + constant
        return float(np.logaddexp(0, np.where(labels, -scores, scores)).sum() + reading.RIDGE / 2 * slopes @ slopes)

    best = loss(slopes, constant)
    for step in np.vstack([np.eye(7), -np.eye(7)]) * 1e-3:
        assert loss(slopes + step[:6], constant + step[6]) > best


def test_a_narrow_model_lacks_what_the_author_has_and_the_author_lacks_nothing():
    learned, held_out = chapters_of(1, 20), pages_of(chapters_of(2))
    same = reading.measure_spread(pages_of(chapters_of(3)), held_out, learned)
    assert abs(same["forward"].value) < 0.05 and abs(same["reverse"].value) < 0.05
    narrow = reading.measure_spread(pages_of(chapters_of(3, high=100)), held_out, learned)
    assert narrow["reverse"].value > 0.3 and abs(narrow["forward"].value) < 0.1
    strange = reading.measure_spread(
        pages_of(chapters_of(3)), pages_of(chapters_of(2, high=100)), chapters_of(1, high=100)
    )
    assert strange["forward"].value > 1 and strange["reverse"].value > 0.3


def test_losses_by_counting_are_those_of_the_yardstick():
    from novelgpt.evaluation import count_texts

    counted, text = chapters_of(1, 1, 3000, high=20)[0], chapters_of(2, 1, 100, high=20)[0]
    ids = [np.array([ord(char) - 0x4E00 for char in each]) for each in (counted, text)]
    expected = count_texts(ids[0], [ids[1]], vocab_size=20).nats()["kn4"]  # of all characters but the first
    (loss,) = reading.counted_losses([counted], [text], 20)
    assert (100 * loss - expected.sum()) == pytest.approx(np.log(20), abs=0.5)


def test_an_interval_covers_the_mean_of_its_texts_and_narrows_with_their_number():
    values = np.random.default_rng(5).normal(3, 1, 400)
    low, high = reading.interval(values)
    # 1.96 standard errors of 1 / 20 on either side
    assert low == pytest.approx(values.mean() - 0.098, abs=0.02) and high == pytest.approx(
        values.mean() + 0.098, abs=0.02
    )
    wide = reading.interval(values[:25])
    assert wide[1] - wide[0] > 3 * (high - low)
    assert reading.interval([1.0, float("nan"), 1.0]) == (1.0, 1.0) and np.isnan(reading.interval([])).all()


def test_copied_runs_are_counted_by_their_characters():
    meter = CopyMeter(["天地玄黄宇宙洪荒日月盈昃辰宿列张"])
    text = "天地玄黄宇宙洪荒日月" + "甲乙丙丁戊己庚辛壬癸"
    assert reading.copied_share(meter, text, 10) == 0.5 and reading.copied_share(meter, text, 11) == 0.0
    assert reading.copied_share(meter, "", 10) == 0.0


def test_figures_of_all_texts_stand_beside_the_authors():
    learned, held_out = chapters_of(1), chapters_of(2)
    pages = pages_of(held_out, 1000)
    texts = [Page("甲乙丙丁戊己庚辛" * 125, page.group) for page in pages]
    figures = reading.measure_texts(texts, pages, learned, CopyMeter(learned))
    # 993 runs of eight, eight of them different
    assert figures["loops"].value == pytest.approx(1 - 8 / 993) and figures["loops"].author == 0.0
    assert figures["within_usual_loops"].value == 0.0 and figures["within_usual_loops"].author == 1.0
    assert figures["copied_10"].value == 0.0 and figures["likeness_auc"].value == 1.0
    assert 0.3 < figures["likeness_learned"].value < 0.7  # of the same source as the pages
    assert figures["spread"].value in (figures["forward"].value, figures["reverse"].value)
    assert json.dumps({name: figure.as_json() for name, figure in figures.items()}, allow_nan=False)


# ---- names and long texts


def test_a_name_that_always_comes_again_is_kept_and_one_that_never_does_is_not():
    scene = "宝玉笑道：“好。”" + "走" * 91
    chapters = [scene * 60]

    def write(name: str):
        return lambda prompts, count, length: [[(scene.replace("宝玉", name) * 30)[:length]] * count for _ in prompts]

    kept = remembering.measure_names(write("林惊羽"), chapters, 10, None)
    assert kept["names"]["person"] == "宝玉" and kept["names"]["new"] == "林惊羽" and kept["names"]["pages"] == 2
    assert kept["names_kept"].value == pytest.approx(1, abs=0.05)
    assert remembering.measure_names(write("黛玉"), chapters, 10, None)["names_kept"].value == 0


def test_the_prompts_have_the_new_name_in_the_persons_place():
    seen = []

    def write(prompts, count, length):
        seen.extend(prompts)
        return [["走" * length] * count for _ in prompts]

    remembering.measure_names(write, [("宝玉笑道：“好。”" + "走" * 91) * 60], 5, "宝玉")
    assert len(seen) == 1 and "宝玉" not in seen[0] and "林惊羽" in seen[0]


def test_a_person_whom_no_page_names_is_refused():
    problem = refusal_of(remembering.measure_names, None, ["宝玉笑道：“好。”" * 900], 5, "黛玉")
    assert problem.message == "--person 黛玉: found on no held-out page 2 times with 2,000 characters behind"
    assert problem.hint == "--person 宝玉"
    problem = refusal_of(remembering.measure_names, None, ["无人。" * 900], 5, None)
    assert problem.message == "--names: found nobody who speaks in the held-out chapters"


def test_texts_that_fall_into_a_loop_drift_and_others_do_not():
    learned, texts = chapters_of(1), chapters_of(2, 6, 5000)
    meter = CopyMeter(learned)
    assert all(figure["steady"] for figure in remembering.measure_drift(texts, learned, meter).values())
    looping = [text[:3000] + "甲乙丙丁" * 500 for text in texts]
    drift = remembering.measure_drift(looping, learned, meter)
    assert not drift["loops"]["steady"] and not drift["said_before"]["steady"]
    assert drift["loops"]["means"][0] == 0 and drift["loops"]["means"][2] > 0.99


# ---- the bench


def options_of(*words: str) -> argparse.Namespace:
    return bench_reading.build_parser().parse_args(words)


def test_a_setting_is_read_as_generate_reads_its_flags(tmp_path):
    novel = bench_reading.Novel(tmp_path, [], [], None)
    options = bench_reading.read_setting("preset=seed topp=0.9 adapt=1 best_of=3", novel, 4)
    assert (options.topk, options.topp, options.adapt, options.best_of, options.seed) == (8, 0.9, True, 3, 4)
    assert options.model_path == str(tmp_path / "model/final_model") and not options.cut_loops
    assert bench_reading.read_setting("adapt=0", novel, 4).adapt is False
    with pytest.raises(UserError, match=r"--settings: found 'topp', expected name=value"):
        bench_reading.read_setting("topp", novel, 4)
    with pytest.raises(UserError, match="unknown setting top_p"):
        bench_reading.read_setting("top_p=0.9", novel, 4)


def test_a_folder_that_is_no_run_is_refused_with_the_command_that_makes_one(tmp_path):
    problem = refusal_of(bench_reading.read_novel, tmp_path)
    assert problem.message == f"--folder {tmp_path}: no pieces in it, expected a run of bench_learning.py"
    assert problem.hint.startswith("python bench/bench_learning.py --hours 1 --novel ")


def test_a_prompt_begins_with_a_paragraph_where_one_begins_soon():
    assert bench_reading.begin_paragraph("尾巴。\n" + "头" * 40, 10) == "头" * 10
    assert bench_reading.begin_paragraph("尾" * 40 + "\n头", 10) == "尾" * 10


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """A run folder of the bundled novel with a network of seconds."""
    folder = tmp_path_factory.mktemp("run")
    bench_reading.make_quick_run(folder)
    return folder


@pytest.mark.sweep
def test_the_bench_measures_every_setting_and_ends_with_the_figures(quick_run, capsys):
    words = ("--texts", "4", "--prompts", "2", "--length", "120", "--names", "2", "--long", "2000", "--long_texts", "2")
    words += (
        "--second",
        str(quick_run),
        "--chapters",
        "1",
        "--settings",
        "preset=seed",
        "topp=0.9 best_of=2",
        "adapt=1",
    )
    figures = bench_reading.run(options_of("--folder", str(quick_run), *words), quick_run)
    output = capsys.readouterr()
    assert "characters are held out, and at least 20,000 are needed: the figures mean nothing" in output.err
    names = {"likeness_auc", "spread", "loops", "copied_10", "quotes", "names_known", "names_kept", "coherence"}
    for setting in figures["settings"]:
        assert names <= setting.keys() and all(
            setting[name].keys() == {"value", "interval", "author"} for name in names
        )
        assert set(setting["long"]) >= {"loops", "said_before", "nats_by_counting"}
    assert "next_chapter" in figures["settings"][2] and "next_chapter" not in figures["settings"][0]
    assert output.out.startswith(" ") and "likeness_auc" in output.out
    json.dumps(figures, allow_nan=False)


@pytest.mark.sweep
def test_without_chapters_held_out_there_is_nothing_to_compare_with(quick_run, tmp_path):
    import shutil
    import subprocess

    shutil.copytree(quick_run, tmp_path / "run")
    place = tmp_path / "run"
    command = ["tokenize_corpus.py", "--raw_data_path", place / "train.json", "--tokenized_data_path", place / "pieces"]
    command += ["--tokenizer_path", place / "vocab.txt", "--valid_fraction", "0"]
    subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    problem = refusal_of(bench_reading.read_novel, place)
    assert problem.message == f"--folder {place}: no chapters are held out, so there is nothing to compare with"
    assert "--valid_fraction 0.1" in problem.hint
