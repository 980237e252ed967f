"""Requests and jobs: what is refused, and how a job grows, ends and is waited for."""

import sys
import threading

import pytest

from novelgpt.messages import UserError
from novelgpt.studio import Job, Piece, Request, Token


def piece(index: int, *characters: str) -> Piece:
    tokens = tuple(Token(each, ord(each), -1.5, 1) for each in characters)
    return Piece(index, "".join(characters), tokens)


def grow(job: Job, index: int, text: str) -> None:
    job.grow(piece(index, *text), [1.5] * len(text))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length: found 0, expected a whole number from 1 to 10,000"),
        ({"length": -1}, "length: found -1, expected a whole number from 1 to 10,000"),
        ({"length": 10_001}, "length: found 10001, expected a whole number from 1 to 10,000"),
        ({"length": "9"}, "length: found '9', expected a whole number from 1 to 10,000"),
        ({"length": True}, "length: found True, expected a whole number from 1 to 10,000"),
        ({"candidates": 9}, "candidates: found 9, expected a whole number from 1 to 8"),
        ({"top": 21}, "top: found 21, expected a whole number from 0 to 20"),
        ({"seed": -1}, "seed: found -1, expected a whole number from 0 to 18,446,744,073,709,551,615"),
        ({"ending": "never"}, "ending: found 'never', expected length, sentence, paragraph, chapter"),
        ({"stops": ("",)}, "stops: found an empty text, expected characters"),
        ({"forced": "字" * 201}, "forced: found 201 characters, expected at most 200"),
    ],
)
def test_a_request_out_of_range_is_refused_in_words(changes, message):
    with pytest.raises(UserError) as refused:
        Request(**{"prompt": "萧炎", "length": 9, **changes})
    assert refused.value.message == message


def test_the_face_of_the_studio_and_its_jobs_load_no_torch():
    import subprocess

    code = "import sys, novelgpt.studio as s; s.Request('', 1); s.Busy(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_job_keeps_text_nats_and_pieces_of_each_candidate():
    job = Job(Request("萧炎", 9, candidates=2, seed=4))
    job.begin()
    grow(job, 0, "大喝")
    grow(job, 1, "走")
    grow(job, 0, "一声")
    assert (job.seed, job.state, job.text(0), job.text(1)) == (4, "running", "大喝一声", "走")
    assert job.nats(0) == [1.5] * 4 and job.num_characters == 5
    assert [each.text for each in job.pieces()] == ["大喝", "走", "一声"]


def test_a_job_is_done_when_its_last_candidate_has_ended_and_grows_no_more():
    job = Job(Request("萧炎", 9, candidates=2))
    job.begin()
    job.end(0, "sentence")
    grow(job, 0, "late")
    assert (job.state, job.text(0), job.reason(0), job.reason(1)) == ("running", "", "sentence", None)
    job.end(1, "length")
    job.stop()
    assert (job.state, job.reason(1), job.error) == ("done", "length", None)


def test_after_a_stop_not_one_character_is_added():
    job = Job(Request("萧炎", 9, candidates=2))
    job.begin()
    job.end(0, "length")
    job.stop()
    grow(job, 1, "late")
    job.fail(UserError("too late", ""))
    assert (job.state, job.reason(0), job.reason(1), job.text(1)) == ("stopped", "length", "stopped", "")


def test_a_job_that_failed_says_why():
    job = Job(Request("萧炎", 9))
    job.fail(UserError("what was found", "what repairs it"))
    assert (job.state, job.error, job.problem.hint) == ("failed", "what was found", "what repairs it")


def test_who_waits_is_woken_by_more_characters_and_by_the_end_only():
    job = Job(Request("萧炎", 9, candidates=2))
    assert not job.wait([0, 0], 0)
    grow(job, 1, "走")
    assert job.wait([0, 0], 0) and not job.wait([0, 1], 0)
    woken = []
    threads = [threading.Thread(target=lambda seen=seen: woken.append(job.wait(seen, 60))) for seen in ([0, 1], [5, 5])]
    for thread in threads:
        thread.start()
    grow(job, 0, "大")
    threads[0].join()
    assert woken == [True] and threads[1].is_alive()
    job.stop()
    threads[1].join()
    assert woken == [True, True]


def test_listeners_are_called_after_each_change():
    job, heard = Job(Request("萧炎", 9)), []
    job.listeners.append(lambda: heard.append((job.state, job.text(0))))
    job.begin()
    grow(job, 0, "大")
    job.end(0, "length")
    assert heard == [("running", ""), ("running", "大"), ("done", "大")]


def test_it_is_asked_again_when_it_will_have_grown(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("novelgpt.studio.jobs.time.monotonic", lambda: now[0])
    job = Job(Request("萧炎", 9, candidates=2, seed=4))
    job.begin()
    assert job.ask_again() == 0.05  # nothing is known: soon
    for moment in (100.2, 100.7):
        for index in (0, 1):  # both in one turn
            now[0] = moment + 0.002 * index
            grow(job, index, "大喝")
    assert job.ask_again() == pytest.approx(0.498 + 0.02)  # turns are half a second apart
    now[0] = 101.15
    assert job.ask_again() == pytest.approx(0.07)
    now[0] = 101.21
    assert job.ask_again() == pytest.approx(0.05)
    now[0] = 103.0
    assert job.ask_again() == pytest.approx(0.15)  # it is late
    now[0] = 110.0
    grow(job, 0, "一")
    assert job.ask_again() == 1.0
