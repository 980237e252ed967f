"""What all dialects share: what is neutral in a request and what is named, and clients that leave."""

import asyncio
import json

import pytest
from fake_engine import FakeEngine
from helpers import refusal_of
from starlette.applications import Starlette
from starlette.testclient import TestClient

from novelgpt.studio.dialects import routes
from novelgpt.studio.dialects.settings import NEUTRAL, SWITCHES, Reader


def read(body: dict, *first: str) -> tuple[dict, list[str]]:
    """Return the samplers of a body, and what is ignored in it."""
    reader = Reader(body, context=1024, most=10_000, first=first)
    wish = reader.wish()
    return wish["settings"], reader.finish()


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_sampler_that_we_have_not_is_passed_over_where_it_is_off_and_named_where_it_is_on(name):
    for value in NEUTRAL[name]:
        assert read({name: value}) == ({}, [])
    assert read({name: None}) == ({}, [])
    assert read({name: 0.123, "rep_pen": 1.5})[1] == [name]


@pytest.mark.parametrize("name", sorted(SWITCHES))
def test_what_hangs_on_a_switch_counts_only_where_it_is_on(name):
    assert read({name: 0.7}) == ({}, [])
    for switch in SWITCHES[name]:
        off = NEUTRAL[switch][0]
        assert read({name: 0.7, switch: off})[1] == []
        assert read({name: 0.7, switch: 5})[1] == sorted([name, switch])


def test_a_name_that_nobody_knows_is_named():
    assert read({"wizardry": 0}) == ({}, ["wizardry"])
    assert read({"wizardry": None}) == ({}, [])


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        ({"temperature": 0.7, "top_k": 40.0, "top_p": 0.9, "min_p": 0.05},
         {"temperature": 0.7, "topk": 40, "topp": 0.9, "min_p": 0.05}),
        ({"top_k": -1}, {"topk": 0}),  # vLLM's "all"
        ({"top_k": 40, "top_p": 0}, {"topk": 1}),  # nothing but the best; our 0 would be no filter
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0}),
        ({"repeat_penalty": 1.2, "repeat_last_n": -1}, {"repetition_penalty": 1.2, "penalty_window": 0}),
        ({"repeat_penalty": 1.2, "repeat_last_n": 0}, {"repetition_penalty": 1.0}),
        ({"rep_pen": 1.2, "rep_pen_range": 0}, {"repetition_penalty": 1.2, "penalty_window": 0}),
        ({"no_repeat_ngram_size": 4}, {"no_repeat_ngram_size": 4}),
        ({"typical_p": 0.9}, {"typical": 0.9}),
        ({"dry_multiplier": 0.8, "dry_base": 2, "dry_allowed_length": 3},
         {"dry_multiplier": 0.8, "dry_base": 2.0, "dry_allowed_length": 3}),
        ({"dry_multiplier": 0, "dry_base": 0, "dry_allowed_length": 0, "dry_penalty_last_n": 64},
         {"dry_multiplier": 0.0}),
        ({"banned_tokens": ["井", ""], "banned_strings": ["剑"]}, {"bad_words": ("井", "剑")}),
        ({"banned_tokens": []}, {}),
    ],
)  # fmt: skip
def test_samplers_of_others_mean_the_same_under_our_names(body, settings):
    assert read(body) == (settings, [])


def test_of_two_names_of_one_setting_the_dialects_own_counts_and_another_value_is_named():
    body = {"rep_pen": 1.1, "repetition_penalty": 1.3}
    assert read(body) == ({"repetition_penalty": 1.3}, ["rep_pen"])
    assert read(body, "rep_pen") == ({"repetition_penalty": 1.1}, ["repetition_penalty"])
    assert read({"rep_pen": 1.1, "repetition_penalty": 1.1}) == ({"repetition_penalty": 1.1}, [])


@pytest.mark.parametrize(("value", "ignored"), [(1024, []), (8192, []), (1023, ["num_ctx"]), (0, [])])
def test_a_context_counts_where_it_is_less_than_the_models(value, ignored):
    assert read({"num_ctx": value}) == ({}, ignored)


def test_an_order_of_samplers_counts_where_they_do_not_commute():
    assert read({"sampler_order": [6, 0], "temperature": 0.7, "top_k": 5, "top_p": 1})[1] == []
    assert read({"sampler_order": [6, 0], "top_k": 5})[1] == ["sampler_order"]  # our default cuts by probability
    for cut in ({"top_p": 0.9}, {"top_p": 1, "typical_p": 0.9}, {"top_p": 1, "min_p": 0.1}):
        assert read({"sampler_order": [6, 0], **cut})[1] == ["sampler_order"]


def test_breakers_of_dry_are_our_own():
    assert read({"dry_sequence_breakers": ["，"], "dry_multiplier": 0.8})[1] == ["dry_sequence_breakers"]
    assert read({"dry_sequence_breakers": ["，"], "dry_multiplier": 0})[1] == []


def test_numbers_that_are_none_are_refused():
    for value in (float("nan"), float("inf"), 10**400, -(10**400), "1", [], True):
        assert "temperature: found" in refusal_of(read, {"temperature": value}).message
    for value in (float("nan"), float("inf"), -float("inf"), 1.5, "1"):
        assert "seed: found" in refusal_of(read, {"seed": value}).message


def test_a_long_value_is_not_repeated_whole():
    assert len(refusal_of(read, {"temperature": "长" * 10_000}).message) < 120


def test_an_ignored_setting_is_told_once_in_the_log_and_in_every_answer(capsys):
    client = TestClient(Starlette(routes=routes(FakeEngine())))
    for path, body in (("/v1/completions", {"top_a": 0.3}), ("/completion", {"top_a": 0.3, "n_predict": 1}),
                       ("/api/v1/generate", {"top_a": 0.3, "nsigma": 2})):  # fmt: skip
        assert "top_a" in client.post(path, json=body).headers["x-ignored-settings"]
    assert capsys.readouterr().err == (
        "warning: front ends send settings that have no effect here: top_a\n"
        "warning: front ends send settings that have no effect here: nsigma\n"
    )


def test_hostile_names_break_neither_header_nor_log(capsys):
    client = TestClient(Starlette(routes=routes(FakeEngine())))
    names = {"a\r\nSet-Cookie: x": 1, "名\x1b[31m": 1} | {f"name{number}": 1 for number in range(2000)}
    answer = client.post("/v1/completions", json=names)
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert answer.headers["x-ignored-settings"].startswith("a%0D%0ASet-Cookie%3A%20x, name0, ")
    assert len(answer.headers["x-ignored-settings"]) < 2000
    told = capsys.readouterr().err
    assert "\x1b" not in told and "\r" not in told
    assert "name1999" not in told  # no more than a thousand names are kept


@pytest.mark.parametrize("version", ["2.3", "2.4"])  # of ASGI: in the former the server's answer is cancelled
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"stream": True, "echo": True}),
        ("/v1/completions", {}),
        ("/v1/chat/completions", {"stream": True, "messages": [{"role": "user", "content": "井"}]}),
        ("/completion", {"stream": True}),
        ("/completion", {}),
        ("/api/extra/generate/stream", {}),
        ("/api/v1/generate", {}),
    ],
)
def test_a_client_that_has_left_before_the_first_event_leaves_no_job(path, body, version):
    engine = FakeEngine(pace=60.0)
    sent = [{"type": "http.request", "body": json.dumps({"max_tokens": 10_000, **body}).encode(), "more_body": False}]

    async def receive() -> dict:
        return sent.pop() if sent else {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        await asyncio.sleep(0)  # a server writes: others have their turn

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    scope |= {"asgi": {"version": "3.0", "spec_version": version}}
    asyncio.run(asyncio.wait_for(Starlette(routes=routes(engine))(scope, receive, send), 20))
    assert [job.state for job in engine.jobs] == ["stopped"]
