"""What people read while a run goes on: a line now and then, and on the bar what is under way."""

import io
import re
from dataclasses import replace

import pytest
from helpers import StopAfter, fit, result_of
from tqdm import tqdm

from novelgpt.training.log import RunLog
from novelgpt.training.run import prepare_run
from novelgpt.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_flushing")


def test_a_slow_run_says_how_it_goes_between_its_log_lines_and_its_log_stays_the_same(tiny_options, tmp_path, capsys):
    options = tiny_options(epochs=1, log_step=100)
    assert fit(options)
    capsys.readouterr()
    slow = replace(options, output_dir=str(tmp_path / "slow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("novelgpt.training.log.LINE_SECONDS", -1)
        assert fit(slow)
    steps = re.findall(
        r"^step (\d)/6 epoch 1 loss [\d.]+ lr \S+ [\d,]+ tokens/s", capsys.readouterr().err, re.MULTILINE
    )
    assert steps == ["1", "2", "3", "4", "5", "6"]  # the first and the last are of the log
    assert result_of(slow.output_path) == result_of(options.output_path)


def test_the_bar_is_told_what_is_under_way(tiny_options, monkeypatch):
    shown = []
    monkeypatch.setattr("tqdm.tqdm.set_description_str", lambda bar, words, **how: shown.append(words))
    options = tiny_options(epochs=1)
    options.output_path.mkdir()
    Trainer(prepare_run(options), StopAfter(), sample=lambda model: "井").fit(None)
    evaluating = [words for words in shown if words.startswith("evaluating")]
    assert evaluating == ["evaluating: batch 1", "evaluating: batch 2", "evaluating: batch 3"] * 2  # 96 tokens held out
    assert shown[-1] == "writing a sample"
    steps = [words for words in shown if words.startswith("epoch")]
    assert len(steps) == 6 and all(re.fullmatch(r"epoch 1/1, loss \d\.\d{4}", words) for words in steps)


def test_what_is_left_on_the_bar_of_a_resumed_run_goes_by_this_sessions_steps(tmp_path, monkeypatch):
    def bar_without_terminal(total, **_settings):
        return tqdm(total=total, file=io.StringIO())

    monkeypatch.setattr("novelgpt.training.log.progress_bar", bar_without_terminal)
    now = [0.0]
    with RunLog(tmp_path, 1000) as log:
        log.bar._time, log.bar.start_t, log.bar.last_print_t = (lambda: now[0]), 0.0, 0.0
        now[0] = 50.0  # the checkpoint was read
        log.resume(place=900, length=0)
        for _ in range(3):
            now[0] += 2.0
            log.move_bar(log.bar.n + 1, 2, 3, None)
            assert log.bar.format_dict["rate"] == pytest.approx(0.5)
