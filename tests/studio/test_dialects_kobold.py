"""KoboldAI's dialect: recorded requests of KoboldAI Lite and mikupad."""

import json
import re
import threading

import pytest
from fake_engine import BOS, FakeEngine
from recorded import LITE, MIKUPAD_KOBOLD, PROMPT
from starlette.applications import Starlette
from starlette.testclient import TestClient

from novelgpt.studio.dialects import routes

EVENT = re.compile(r"^event: (.*)\ndata: (.*)\n\n", re.MULTILINE)


@pytest.fixture
def engine():
    """An engine that writes at once."""
    return FakeEngine()


@pytest.fixture
def client(engine):
    """A client of its dialects."""
    return TestClient(Starlette(routes=routes(engine)))


def data_of(response) -> list[dict]:
    """Return the data of the events of a stream; every byte belongs to one."""
    assert response.status_code == 200, response.text
    events = EVENT.findall(response.text)
    assert EVENT.sub("", response.text) == ""
    assert {name for name, _ in events} == {"message"}
    return [json.loads(data) for _, data in events]


def test_lite_finds_what_it_asks_for_when_it_connects(client):
    assert client.get("/api/v1/model").json() == {"result": "novelgpt/fake"}
    assert client.get("/api/v1/info/version").json() == {"result": "1.2.5"}
    assert client.get("/api/v1/config/max_context_length").json() == {"value": 1024}
    assert client.get("/api/extra/true_max_context_length").json() == {"value": 1024}
    assert client.get("/api/v1/config/max_length").json() == {"value": 80}
    version = client.get("/api/extra/version").json()
    assert (version["result"], version["protected"], version["txt2img"]) == ("KoboldCpp", True, False)
    # it compares part by part, and reads streams from 1.40 on
    assert [int(part) for part in version["version"].split(".")] >= [1, 40]


def test_lite_reads_a_stream(client, engine):
    answer = client.post("/api/extra/generate/stream", json=LITE | {"max_length": 12})
    events = data_of(answer)
    assert events[0] == {"token": "水", "finish_reason": None}
    assert events[-1] == {"token": "", "finish_reason": "length"}
    assert "".join(event["token"] for event in events) == "水又少了一寸。𠮷说"
    request = engine.jobs[0].request
    assert (request.prompt, request.seed, request.stops) == (PROMPT, None, ("{{[INPUT]}}", "{{[OUTPUT]}}"))
    assert request.settings == {
        "temperature": 0.75, "topk": 100, "topp": 0.92, "min_p": 0.0, "typical": 1.0,
        "repetition_penalty": 1.05, "penalty_window": 360,
    }  # fmt: skip
    # our order of samplers is another one, and so is the slope of our penalty
    assert answer.headers["x-ignored-settings"] == "rep_pen_slope, replace_instruct_placeholders, sampler_order"


def test_with_neutral_settings_nothing_is_ignored(client):
    neutral = {"top_p": 1, "rep_pen": 1, "replace_instruct_placeholders": False}
    answer = client.post("/api/extra/generate/stream", json=LITE | neutral)
    assert "x-ignored-settings" not in answer.headers


def test_lite_asks_for_whole_texts_then_for_their_probabilities(client):
    body = LITE | {"max_length": 2, "logprobs": True, "memory": "序。", "n": 2}
    first, second = client.post("/api/v1/generate", json=body).json()["results"]
    assert (first["text"], first["finish_reason"], first["completion_tokens"]) == ("水又", "length", 2)
    assert first["prompt_tokens"] == 2 + 8 and second["text"] == "水又"
    told = client.post("/api/extra/last_logprobs", json={"genkey": "KCPP1234"}).json()
    assert told["logprobs"] == first["logprobs"]
    entry = told["logprobs"]["content"][1]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("又", pytest.approx(-0.2), [0xE5, 0x8F, 0x88])
    assert [(best["token"], best["logprob"]) for best in entry["top_logprobs"]] == [
        ("又", pytest.approx(-0.2)),
        ("药", pytest.approx(-1.2)),
    ]
    assert client.post("/api/extra/last_logprobs", json={"genkey": "another"}).json() == {"logprobs": None}


def test_mikupad_sees_what_else_might_stand_there_while_it_reads(client):
    *events, last = data_of(client.post("/api/extra/generate/stream", json=MIKUPAD_KOBOLD | {"max_length": 11}))
    assert [event["token"] for event in events] == [*"水又少了一寸。𠮷"]
    assert all(event["top_logprobs"][0]["token"] == event["token"] for event in events)
    assert len(events[0]["top_logprobs"]) == 2 and last["finish_reason"] == "length"


def test_mikupad_drops_the_first_of_the_tokens(client):
    told = client.post("/api/extra/tokencount", json={"prompt": "井边"}).json()
    assert told == {"value": 3, "ids": [BOS, ord("井"), ord("边")]}
    assert client.post("/api/extra/detokenize", json={"ids": told["ids"]}).json() == {"result": "井边", "success": True}


def test_what_is_being_written_can_be_read_and_stopped_by_its_key(client, engine):
    engine.pace = 0.002
    grown, submit = threading.Event(), engine.submit

    def submit_and_tell(request):
        job = submit(request)
        job.listeners.append(lambda: job.written and grown.set())
        return job

    engine.submit = submit_and_tell
    body = {"prompt": "井", "max_length": 10_000, "genkey": "KCPP9"}
    answers = []
    writer = threading.Thread(target=lambda: answers.append(client.post("/api/v1/generate", json=body)))
    writer.start()
    assert grown.wait(20)
    (result,) = client.post("/api/extra/generate/check", json={"genkey": "KCPP9"}).json()["results"]
    assert result["text"].startswith("水")
    assert client.get("/api/extra/perf").json()["idle"] == 0
    assert client.post("/api/extra/abort", json={"genkey": "other"}).json() == {"success": False}
    assert client.post("/api/extra/abort", json={"genkey": "KCPP9"}).json() == {"success": True}
    writer.join(20)
    (whole,) = answers[0].json()["results"]
    assert (whole["finish_reason"], whole["text"]) == ("stop", engine.jobs[0].text(0))
    assert whole["text"].startswith(result["text"]) and len(whole["text"]) < 9000


def test_an_abort_without_a_body_stops_what_has_no_key(client, engine):
    engine.pace = 60.0
    answers = []
    body = {"prompt": "井", "max_length": 5}
    writer = threading.Thread(target=lambda: answers.append(client.post("/api/v1/generate", json=body)))
    submitted, submit = threading.Event(), engine.submit
    engine.submit = lambda request: [submit(request), submitted.set()][0]
    writer.start()
    assert submitted.wait(20)
    while client.post("/api/extra/abort").json() != {"success": True}:
        pass  # between the submitting and the keeping of the key there are some lines of code
    writer.join(20)
    assert answers[0].json()["results"][0]["text"] == ""


def test_perf_tells_of_the_last_request(client):
    before = client.get("/api/extra/perf").json()
    assert (before["total_gens"], before["idle"], before["last_token_count"], before["stop_reason"]) == (0, 1, 0, -1)
    client.post("/api/v1/generate", json={"prompt": "井", "max_length": 50, "stop_sequence": ["了"], "sampler_seed": 7})
    after = client.get("/api/extra/perf").json()
    # 水又少 before 了: three tokens; 2 is "one of the words"
    assert [after[name] for name in ("total_gens", "last_token_count", "last_seed", "stop_reason")] == [1, 3, 7, 2]
    assert 0 <= after["last_process"] < 20 and 0 <= after["last_eval"] < 20


def test_only_the_last_keys_are_remembered(client):
    for number in range(65):
        client.post("/api/v1/generate", json={"prompt": "井", "max_length": 1, "genkey": f"key{number}"})
    told = [client.post("/api/extra/generate/check", json={"genkey": f"key{n}"}).json()["results"] for n in (0, 1, 64)]
    assert told == [[{"text": ""}], [{"text": "水"}], [{"text": "水"}]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_length": 0}, "max_length: found 0, expected a whole number from 1 to 10000"),
        ({"rep_pen": -1}, "rep_pen: found '-1', expected a number above 0"),
        ({"top_p": 2}, "top_p: found '2', expected a number from 0 to 1"),
        ({"sampler_seed": 1.5}, "sampler_seed: found 1.5, expected a whole number"),
        ({"memory": ["x"]}, "memory: found ['x'], expected a text"),
        ({"banned_tokens": [3]}, "banned_tokens: found [3], expected a list of at most 64 texts"),
        ({"n": 2}, "n: found 2, expected 1 in a stream"),
    ],
)
def test_what_is_out_of_range_is_refused_in_kobolds_form(client, engine, body, message):
    answer = client.post("/api/extra/generate/stream", json={"prompt": "井"} | body)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["type"], detail["msg"].split("; ")[0]) == (400, "bad_input", message)
    assert engine.jobs == []


def test_a_full_queue_is_busy_as_lite_knows_it(client, engine):
    engine.waiting = 0
    answer = client.post("/api/v1/generate", json=LITE)
    assert answer.status_code == 503
    assert answer.json()["detail"]["type"] == "service_unavailable"


def test_a_job_that_fails_ends_a_stream_with_its_error(client, engine):
    from novelgpt.messages import EXIT_STATE, UserError

    def write(job):
        job.begin()
        job.fail(UserError("the model's output is not a number", "use an earlier checkpoint", EXIT_STATE))

    engine.write = write
    (event,) = data_of(client.post("/api/extra/generate/stream", json={"prompt": "井"}))
    assert event["detail"] == {
        "msg": "the model's output is not a number; use an earlier checkpoint",
        "type": "server_error",
    }
    answer = client.post("/api/v1/generate", json={"prompt": "井"})
    assert (answer.status_code, answer.json()["detail"]["type"]) == (500, "server_error")
