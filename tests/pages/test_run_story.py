"""A log is read as it is: old, torn, resumed, full of what is no number, or of any size."""

import json
import math
import random
import subprocess
import sys

import pytest
from conftest import ROOT
from runs import BEGAN, SECONDS, STEPS, make_records, start_record, training_records, write_run

from novelgpt.pages.story import LONGEST_LINE, MOST_FRAMES, Story, judge, read_story, seconds_left, take


def read(folder, records) -> Story:
    """Return the story of a run folder with these records."""
    return read_story(write_run(folder / "run", records))


def test_figures_and_events_come_to_their_places(tmp_path):
    story = read(tmp_path, make_records(epochs=15))
    assert len(story.curve) == 15 * STEPS / 20 and list(story.held_out.steps) == [
        STEPS * epoch for epoch in range(1, 16)
    ]
    assert [frame.step for frame in story.frames] == list(story.held_out.steps)
    assert all(
        set(frame.samples) == {"opening", "own", "held_out"} and len(frame.nats) == 300 for frame in story.frames
    )
    assert story.facts["yardsticks"] == {"kn4": 5.21, "kn5_cache": 5.05} and story.facts["book"] == "井沿上的一斗"
    assert story.seconds == 15 * STEPS * SECONDS + 2  # the run ends two seconds after its last step
    assert (story.end, story.is_live, story.share_done, story.steps_an_epoch) == ("finish", False, 1.0, STEPS)


def test_an_epoch_of_a_run_by_hours_ends_with_a_short_batch():
    story = Story("run", {"hours": 1.0, "windows": 1783, "batch_size": 16})
    assert story.steps_an_epoch == 112  # 111 batches of 16, and one of 7


def test_a_run_on_its_way_is_live_until_it_says_that_it_stopped(tmp_path):
    records = make_records(done=3)
    assert read(tmp_path, records).is_live
    stopped = read(
        tmp_path, [*records, {"event": "stop", "reason": "--max_hours 1 is over", "step": 600, "time": BEGAN}]
    )
    assert (stopped.is_live, stopped.end, stopped.reason) == (False, "stop", "--max_hours 1 is over")
    assert read(tmp_path, [*records, {"event": "stop", "step": 600}, {"event": "resume", "step": 600}]).is_live


def test_a_log_without_clock_and_events_is_that_of_a_former_version():
    story = read_story(ROOT / "tests/fixtures/former_run/run")
    assert list(story.held_out.steps) == [0, 4, 6] and list(story.curve.steps) == [1, 3, 6]
    assert not story.is_live and math.isnan(story.seconds) and seconds_left(story) is None
    assert story.steps_an_epoch == 6  # 18 steps in 3 epochs, from its run.json
    # 8.7343 bits a character are 5.8019 nats a token / 0.6931 * tokens a character
    assert story.facts["tokens_per_character"] == pytest.approx(
        8.734282670394464 * 0.693147 / 5.801887431897615, rel=1e-5
    )


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_torn_last_line_costs_only_itself(tmp_path, cut):
    folder = write_run(tmp_path / "run", make_records(done=2))
    whole = (folder / "log.jsonl").read_bytes()
    (folder / "log.jsonl").write_bytes(whole[: -cut - 1])
    story = read_story(folder)
    assert story.unreadable == 1 and len(story.frames) == 2 and "held_out" not in story.frames[-1].samples


def test_lines_that_are_no_records_are_counted_and_left_out(tmp_path):
    folder = write_run(tmp_path / "run", make_records(done=1))
    bad = [
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"{" * 100_000,
        b'{"step": ' + b"9" * 6000 + b"}",
        b"x" * (LONGEST_LINE + 5),
        b"",
        b"  ",
    ]
    with open(folder / "log.jsonl", "ab") as log:
        log.write(b"\n".join(bad) + b"\n" + json.dumps({"step": 220, "epoch": 2, "loss": 5.5}).encode())
    story = read_story(folder)
    assert story.unreadable == 6 and story.curve.steps[-1] == 220  # blank lines are nothing


def test_a_loss_that_is_no_number_is_counted_and_no_point(tmp_path):
    losses = [7.0, "nan", "inf", None, True, [1], 6.0]
    story = read(tmp_path, [{"step": step, "epoch": 1, "loss": loss} for step, loss in enumerate(losses, 1)])
    assert list(story.curve.losses) == [7.0, 6.0] and story.not_finite == 5
    assert judge(read(tmp_path, [{"step": 1, "epoch": 1, "loss": "nan"}])) == "broken"


def test_an_empty_log_is_a_run_of_which_nothing_is_known(tmp_path):
    story = read(tmp_path, [])
    assert (len(story.curve), story.frames, story.is_live, judge(story)) == (0, [], False, "none")


def test_without_a_log_there_is_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_story(tmp_path)


def test_a_log_that_was_cut_back_is_read_as_it_is_now(tmp_path):
    folder = write_run(tmp_path / "run", make_records(done=4))
    assert len(read_story(folder).held_out) == 4
    write_run(folder, make_records(done=2))
    assert list(read_story(folder).held_out.steps) == [200, 400]


def test_what_is_done_again_after_a_resumption_stands_once_and_the_pause_is_no_work(tmp_path):
    first = [start_record(), *training_records(0, 100, 10, random.Random(1))]
    # killed at step 100, an hour later resumed from the checkpoint of step 60
    later = [{**record, "time": record["time"] + 3600} for record in training_records(60, 120, 10, random.Random(2))]
    resume = {"event": "resume", "step": 60, "time": BEGAN + 100 * SECONDS + 3600}
    story = read(tmp_path, [*first, resume, *later])
    assert list(story.curve.steps) == [10 * place for place in range(1, 13)]
    assert (story.resumed, story.paused) == (1, 3600)


def test_a_second_start_is_another_run(tmp_path):
    story = read(tmp_path, [*make_records(done=5), *make_records(done=1, book="另一本")])
    assert (list(story.held_out.steps), story.facts["book"]) == ([200], "另一本")


def test_of_many_frames_first_best_and_last_stay(tmp_path):
    # step 777 is the best of 1,000
    records = [{"step": step, "epoch": 1, "valid_loss": 4 + abs(step - 777) / 100} for step in range(1000)]
    story = read(tmp_path, records)
    steps = [frame.step for frame in story.frames]
    assert len(steps) <= 2 * MOST_FRAMES and steps[0] == 0 and steps[-1] == 999 and steps == sorted(steps)
    assert 777 in steps and len(story.held_out) == 1000


def test_the_time_left_is_that_of_the_last_records_with_its_range(tmp_path):
    # 100 steps of 1 s, then 20 records of 10 steps: first ten of them at 2 s, last ten at 4 s a step
    times, now = [], BEGAN + 100
    for place in range(20):
        now += 20 if place < 10 else 40
        times.append({"step": 110 + 10 * place, "epoch": 1, "time": now, "loss": 5.0})
    start = {"event": "start", "time": BEGAN, "step": 0, "total_steps": 400}
    story = read(tmp_path, [start, {"step": 100, "epoch": 1, "time": BEGAN + 100, "loss": 6.0}, *times])
    least, likely, most = seconds_left(story)  # 100 steps are left; 20 intervals: 600 s for 200 steps
    assert (least, likely, most) == pytest.approx((200, 300, 400))


def test_a_run_of_hours_ends_with_its_hours(tmp_path):
    story = read(tmp_path, make_records(done=3, total_steps=None, hours=0.5))
    assert seconds_left(story) == (1800 - 300,) * 3  # 600 steps of half a second
    assert story.share_done == pytest.approx(300 / 1800)


@pytest.mark.parametrize(
    ("losses", "done", "expected"),
    [
        ([], 0.1, "starting"),
        ([7.0], 0.1, "starting"),
        ([7.0, 6.0, 5.5], 0.2, "learning"),
        ([7.0, 5.2, 5.19, 5.185], 0.2, "converged"),
        ([7.0, 4.0, 4.1, 4.2], 0.3, "memorising"),
        ([7.0, 6.0, 4.5, 4.51], 0.3, "learning"),  # one evaluation that is no better says little
        ([7.0, 6.0, 5.5], 0.6, "below_counting"),  # counting costs 5.05
        ([7.0, 6.0, 5.02], 0.6, "learning"),
    ],
)
def test_a_run_on_its_way_is_judged_by_its_held_out_losses(losses, done, expected):
    story = Story("run", {"total_steps": 1000, "yardsticks": {"kn5_cache": 5.05}})
    steps = [round(1000 * done * place / len(losses)) for place in range(1, len(losses) + 1)]
    take(story, {"event": "start", "step": 0})
    for step, loss in zip(steps, losses, strict=True):
        take(story, {"step": step, "epoch": 1, "valid_loss": loss})
    assert judge(story) == expected


@pytest.mark.parametrize(("end", "expected"), [("stop", "starting"), ("finish", "none")])
def test_a_run_that_has_stopped_after_one_evaluation_has_only_begun(end, expected):
    story = Story("run", {"total_steps": 1000})
    for record in ({"event": "start"}, {"epoch": 1, "valid_loss": 7.0}, {"event": end, "reason": "SIGTERM"}):
        take(story, {"step": 100, **record})
    assert judge(story) == expected


def test_what_the_run_says_itself_at_its_end_counts(tmp_path):
    assert judge(read(tmp_path, make_records(turn=1200))) == "memorising"
    odd = [*make_records(done=8), {"event": "verdict", "kind": "of another version", "text": "…", "model": 7}]
    assert judge(read(tmp_path, odd)) == "learning"


def test_a_log_of_any_values_is_never_an_error(tmp_path):
    noise = random.Random(3)
    values = [
        None,
        True,
        -1,
        0,
        10**400,
        1e308,
        -1e308,
        2.5,
        "",
        "nan",
        "x" * 3000,
        "\ud800",
        [],
        [[]],
        {},
        {"a": [1]},
        "井",
    ]
    events = ["start", "resume", "save", "sample", "passage", "verdict", "stop", "finish", "else", 7, None]
    names = sorted({name for record in make_records(done=1) for name in record} | {"valid_loss", "reason", "model"})
    from novelgpt.pages import write_training_page

    for number in range(40):
        records = make_records(done=2)
        for _ in range(30):
            records[noise.randrange(len(records))][noise.choice(names)] = noise.choice(values)
            records.insert(noise.randrange(len(records)), {"event": noise.choice(events), "step": noise.choice(values)})
        folder = write_run(tmp_path / str(number), [])
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        (folder / "run.json").write_text(
            json.dumps(noise.choice([{"options": noise.choice(values)}, [], {"command": ["a", 1]}]))
        )
        write_training_page(folder)


@pytest.mark.sweep
def test_200_megabytes_are_read_line_by_line(tmp_path):
    folder = write_run(tmp_path / "run", make_records(done=1))
    record = json.dumps({"step": 201, "epoch": 2, "loss": 5.0, "lr": 0.001, "tokens_per_second": 4000.0, "time": BEGAN})
    lines = (record + "\n").encode() * 10_000
    with open(folder / "log.jsonl", "ab") as log:
        for _ in range(200_000_000 // len(lines) + 1):
            log.write(lines)
    # VmHWM is of this program alone; ru_maxrss begins with what its parent had when it started it
    code = "import sys\nfrom pathlib import Path\nfrom novelgpt.pages import write_training_page\n"
    code += "write_training_page(Path(sys.argv[1]))\nstatus = Path('/proc/self/status').read_text()\n"
    code += "print(status.split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500_000  # kB
    assert (folder / "training.html").stat().st_size < 1_000_000


def test_a_resumed_run_may_have_been_given_more_epochs(tmp_path):
    finish = {"event": "finish", "step": 400, "seconds": 9}
    more = {"event": "resume", "step": 400, "epoch": 2, "epochs": 4, "total_steps": 800}
    story = read(tmp_path, [*make_records(2, done=2), finish, more])
    assert (story.is_live, story.share_done) == (True, 0.5)
