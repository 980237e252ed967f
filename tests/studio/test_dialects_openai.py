"""OpenAI's dialect: recorded requests of its clients, and the openai package itself."""

import http.client
import json
import threading

import httpx
import openai
import pytest
from fake_engine import BOS, FakeEngine
from recorded import LM_EVAL_SCORE, LM_EVAL_WRITE, MIKUPAD_OPENAI, PROMPT, RWKV_RUNNER, SILLYTAVERN, SILLYTAVERN_KOBOLD
from serving import serving
from starlette.applications import Starlette
from starlette.testclient import TestClient

from novelgpt.studio.dialects import routes


@pytest.fixture
def engine():
    """An engine that writes at once."""
    return FakeEngine()


@pytest.fixture
def client(engine):
    """A client of its dialects."""
    return TestClient(Starlette(routes=routes(engine)))


def data_of(response) -> list:
    """Return the data of the events of a stream, its form checked line by line."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    *events, end = response.text.split("\n\n")
    assert end == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_completion_has_openais_form_with_probabilities_and_usage(client):
    body = {"model": "fake", "prompt": PROMPT, "max_tokens": 3, "logprobs": 2}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200 and "x-ignored-settings" not in answer.headers
    told = answer.json()
    assert told.pop("id").startswith("cmpl-") and told.pop("created") > 1_700_000_000
    # tokens 0 to 2 of the fake have -0.1, -0.2 and -0.3; the second-best one nat less
    assert told == {
        "object": "text_completion",
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "text": "水又少",
                "finish_reason": "length",
                "logprobs": {
                    "tokens": ["水", "又", "少"],
                    "token_logprobs": [pytest.approx(-0.1), pytest.approx(-0.2), pytest.approx(-0.3)],
                    "top_logprobs": [
                        {"水": pytest.approx(-0.1), "药": pytest.approx(-1.1)},
                        {"又": pytest.approx(-0.2), "药": pytest.approx(-1.2)},
                        {"少": pytest.approx(-0.3), "药": pytest.approx(-1.3)},
                    ],
                    "text_offset": [0, 1, 2],
                },
            }
        ],
        "usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
    }


def test_n_texts_of_several_prompts_are_numbered_prompt_by_prompt(client, engine):
    told = client.post("/v1/completions", json={"prompt": ["井", "剑"], "n": 2, "max_tokens": 1, "seed": 5}).json()
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
    assert [(job.request.prompt, job.request.candidates, job.seed) for job in engine.jobs] == [
        ("井", 2, 5),
        ("剑", 2, 5),
    ]
    assert told["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


def test_an_echo_begins_with_the_prompts_own_probabilities_the_first_one_null(client):
    told = client.post("/v1/completions", json={"prompt": "井边", "max_tokens": 1, "echo": True, "logprobs": 1}).json()
    (choice,) = told["choices"]
    assert choice["text"] == "井边水"
    assert choice["logprobs"] == {
        "tokens": ["井", "边", "水"],
        "token_logprobs": [None, pytest.approx(-0.2), pytest.approx(-0.1)],
        "top_logprobs": [None, {"边": pytest.approx(-0.2)}, {"水": pytest.approx(-0.1)}],
        "text_offset": [0, 1, 2],
    }


def test_an_echo_without_new_tokens_only_scores(client, engine):
    body = {"prompt": "井边", "max_tokens": 0, "echo": True, "logprobs": 0}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    assert (choice["text"], choice["finish_reason"], engine.jobs) == ("井边", "length", [])
    assert choice["logprobs"]["token_logprobs"] == [None, pytest.approx(-0.2)]


@pytest.mark.parametrize("stream", [False, True])
def test_the_harness_finds_a_probability_for_every_token_it_has_sent(client, stream):
    body = LM_EVAL_SCORE | {"prompt": [[BOS, *LM_EVAL_SCORE["prompt"][0]], LM_EVAL_SCORE["prompt"][0]]}
    answer = client.post("/v1/completions", json=body | {"stream": stream})
    if stream:
        parts = [choice for event in data_of(answer) for choice in event["choices"] if choice["logprobs"]]
        lists = [[value for part in parts if part["index"] == i for value in part["logprobs"]["token_logprobs"]]
                 for i in (0, 1)]  # fmt: skip
    else:
        lists = [choice["logprobs"]["token_logprobs"] for choice in answer.json()["choices"]]
        # as parse_logprobs reads them: a sum, and whether each token is the best one
        for choice, ids in zip(answer.json()["choices"], body["prompt"], strict=True):
            known = choice["logprobs"]["token_logprobs"][1:-1]
            best = choice["logprobs"]["top_logprobs"][1:-1]
            assert len(known) == len(ids) - 1
            assert all(value == max(top.values()) for value, top in zip(known, best, strict=True))
    # with the mark in front the first character has a probability, too
    marked = [None, -0.1, -0.2, -0.3, -0.4, -0.1]
    plain = [None, -0.2, -0.3, -0.4, -0.1]
    assert lists == [[value and pytest.approx(value) for value in row] for row in (marked, plain)]
    assert answer.headers["x-ignored-settings"] == "model"


def test_the_harness_writes_until_one_of_its_words(client, engine):
    told = client.post("/v1/completions", json=LM_EVAL_WRITE).json()
    assert (told["choices"][0]["text"], told["choices"][0]["finish_reason"]) == ("水又少了一寸", "stop")
    assert engine.jobs[0].request.settings == {"temperature": 0}
    assert engine.jobs[0].request.stops == ("。", "\n\n") and engine.jobs[0].seed == 1234


def test_mikupad_gets_an_event_a_character_with_what_else_might_stand_there(client, engine):
    answer = client.post("/v1/completions", json=MIKUPAD_OPENAI | {"max_tokens": 11})
    events = data_of(answer)
    # what its page joins: 7 characters of one token and one of four bytes
    texts = [event["choices"][0]["text"] for event in events]
    assert texts == [*"水又少了一寸。𠮷", ""]
    assert events[0]["choices"][0]["logprobs"]["top_logprobs"][0] == {
        "水": pytest.approx(-0.1),
        "药": pytest.approx(-1.1),
    }
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 8 + ["length"]
    assert engine.jobs[0].request.settings == {
        "temperature": 0.7, "topk": 40, "topp": 0.95, "min_p": 0.0, "repetition_penalty": 1.1, "penalty_window": 256,
    }  # fmt: skip
    # our penalty looks at line breaks, too
    assert answer.headers["x-ignored-settings"] == "penalize_nl"


@pytest.mark.parametrize("body", [SILLYTAVERN, SILLYTAVERN_KOBOLD])
def test_sillytavern_is_answered_and_nothing_it_sends_is_ignored(client, engine, body):
    answer = client.post("/v1/completions", json=body)
    assert "".join(event["choices"][0]["text"] for event in data_of(answer)).startswith("水又少了一寸。𠮷说。水又")
    assert "x-ignored-settings" not in answer.headers
    request = engine.jobs[0].request
    assert (request.length, request.stops, request.seed) == (300, ("\nUser:",), None)


def test_rwkv_runner_is_told_what_has_no_effect(client):
    answer = client.post("/v1/completions", json=RWKV_RUNNER)
    assert len(data_of(answer)[-1]["choices"]) == 1
    assert answer.headers["x-ignored-settings"] == "model, frequency_penalty"


def test_a_chat_is_joined_to_one_text_and_written_on(client, engine):
    messages = [
        {"role": "system", "content": "第一章 井"},
        {"role": "user", "content": [{"type": "text", "text": "风"}]},
    ]
    body = {"messages": messages, "max_completion_tokens": 2, "logprobs": True, "top_logprobs": 1}
    told = client.post("/v1/chat/completions", json=body).json()
    assert engine.jobs[0].request.prompt == "第一章 井\n风"
    assert told["object"] == "chat.completion"
    (choice,) = told["choices"]
    assert choice["message"] == {"role": "assistant", "content": "水又"}
    assert choice["logprobs"]["content"][0] == {
        "token": "水",
        "logprob": pytest.approx(-0.1),
        "bytes": [0xE6, 0xB0, 0xB4],
        "top_logprobs": [{"token": "水", "logprob": pytest.approx(-0.1), "bytes": [0xE6, 0xB0, 0xB4]}],
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"best_of": 3}, "best_of: found 3, expected the same as n, here 1: every text that is written is returned"),
        ({"n": 9}, "n: found 9, expected a whole number from 1 to 8"),
        ({"max_tokens": -1}, "max_tokens: found -1, expected a whole number from 0 to 10000"),
        ({"max_tokens": 1e9}, "max_tokens: found 1000000000.0, expected a whole number from 0 to 10000"),
        ({"max_tokens": "ten"}, "max_tokens: found 'ten', expected a whole number"),
        ({"temperature": -1}, "temperature: found '-1', expected a number from 0 up"),
        ({"temperature": "warm"}, "temperature: found 'warm', expected a number"),
        ({"temperature": True}, "temperature: found True, expected a number"),
        ({"top_p": 1.5}, "top_p: found '1.5', expected a number from 0 to 1"),
        ({"top_k": 2.5}, "top_k: found '2.5', expected a whole number from 0 up"),
        ({"seed": 2**64}, f"seed: found {2**64}, expected a whole number from -1 to {2**64 - 1}"),
        ({"logprobs": 21}, "logprobs: found 21, expected a whole number from -1 to 20"),
        ({"stop": [1]}, "stop: found [1], expected a list of at most 64 texts"),
        ({"stream": "yes"}, "stream: found 'yes', expected true or false"),
        ({"prompt": {}}, "prompt: found {}, expected a text or token ids"),
        ({"prompt": []}, "prompt: found [], expected 1 to 32 prompts"),
        (
            {"prompt": "井" * 10_001, "echo": True, "logprobs": 1},
            "echo: found True, expected a prompt of at most 10000 tokens where its probabilities are wanted",
        ),
        ({"prompt": [[1, "x"]]}, "prompt: found [1, 'x'], expected a text or token ids"),
    ],
)
def test_what_is_out_of_range_is_refused_in_openais_form(client, engine, body, message):
    answer = client.post("/v1/completions", json={"prompt": "井"} | body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.pop("message").split("; ")[0] == message
    assert error == {"type": "invalid_request_error", "param": None, "code": 400}
    assert engine.jobs == []


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(client, content):
    answer = client.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the body is no JSON object; ")


def test_a_full_queue_is_429_and_stops_the_prompts_that_were_taken_already(client, engine):
    engine.waiting, engine.pace = 1, 60.0  # the first job waits before its first token
    answer = client.post("/v1/completions", json={"prompt": ["井", "剑"], "max_tokens": 5})
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert [job.state for job in engine.jobs] == ["stopped"]


def test_a_model_that_loads_or_has_failed_is_said(client, engine):
    engine.facts |= {"ready": False}
    answer = client.post("/v1/completions", json={"prompt": "井"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        503,
        "the model is still being loaded; ask again in a moment",
    )
    engine.facts |= {"error": {"message": "model/x: damaged", "hint": "use another"}}
    answer = client.post("/v1/completions", json={"prompt": "井"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "model/x: damaged; use another")


def test_models_are_listed_and_found_by_name(client):
    (card,) = client.get("/v1/models").json()["data"]
    assert (card["id"], card["object"]) == ("fake", "model")
    assert client.get("/v1/models/fake").json() == card
    answer = client.get("/v1/models/gpt-4")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "no model 'gpt-4' here")


def test_mikupad_may_count_tokens(client):
    assert client.post("/v1/internal/token-count", json={"text": PROMPT}).json() == {"length": 8}


# --- the package itself, on a port of this machine ---


@pytest.fixture
def server(engine):
    """A server on a port of its own; the address of it."""
    with serving(engine) as address:
        yield address
    # nothing of an answer is left at its job
    assert not [listener for job in engine.jobs for listener in job.listeners if listener.__name__ == "wake"]


@pytest.fixture
def package(server):
    """The package's client."""
    with openai.OpenAI(base_url=f"{server}/v1", api_key="token", max_retries=0) as package:
        yield package


def test_the_openai_package_writes_streams_and_chats(package):
    assert [model.id for model in package.models.list()] == ["fake"]
    told = package.completions.create(model="fake", prompt=PROMPT, max_tokens=3, logprobs=2, n=2, echo=True)
    assert [choice.text for choice in told.choices] == [f"{PROMPT}水又少"] * 2
    assert told.choices[1].logprobs.token_logprobs[0] is None
    assert told.usage.total_tokens == 8 + 2 * 3
    parts = package.completions.create(
        model="fake", prompt=PROMPT, max_tokens=11, stream=True, stream_options={"include_usage": True}
    )
    *parts, last = parts
    assert "".join(part.choices[0].text for part in parts) == "水又少了一寸。𠮷"
    assert (last.choices, last.usage.completion_tokens) == ([], 11)
    chat = package.chat.completions.create(model="fake", messages=[{"role": "user", "content": "井"}], max_tokens=2)
    assert chat.choices[0].message.content == "水又"
    deltas = [
        part.choices[0].delta
        for part in package.chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "井"}], max_tokens=2, stream=True
        )
    ]
    assert deltas[0].role == "assistant" and "".join(delta.content for delta in deltas) == "水又"


def test_the_openai_package_raises_its_own_errors(package, engine):
    with pytest.raises(openai.BadRequestError, match="top_p: found '2', expected a number from 0 to 1"):
        package.completions.create(model="fake", prompt="井", top_p=2)
    engine.waiting = 0
    with pytest.raises(openai.RateLimitError, match="jobs are waiting"):
        package.completions.create(model="fake", prompt="井")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_job(server, engine, stream):
    engine.pace = 0.005  # 10,000 tokens would take 50 s
    body = {"prompt": "井", "max_tokens": 10_000, "stream": stream}
    began = threading.Event()
    submit = engine.submit

    def submit_and_tell(request):
        job = submit(request)
        job.listeners.append(lambda: job.written and began.set())
        return job

    engine.submit = submit_and_tell
    if stream:
        with httpx.stream("POST", f"{server}/v1/completions", json=body) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
    else:  # it leaves before the answer, and only when a text has begun
        connection = http.client.HTTPConnection(server.removeprefix("http://"))
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        assert began.wait(10)
        connection.close()
    (job,) = engine.jobs
    assert job.wait([10**9], 10)  # a number of characters that never comes: only an end wakes it
    assert job.state == "stopped"
    assert len(job.text(0)) < 5000


def test_streams_hold_no_thread(server, engine):
    engine.pace = 0.01
    body = {"prompt": "井", "max_tokens": 10_000, "stream": True}
    with httpx.Client(base_url=server) as client:
        before = threading.active_count()
        asked = client.build_request("POST", "/v1/completions", json=body)
        streams = [client.send(asked, stream=True) for _ in range(20)]
        lines = [answer.iter_lines() for answer in streams]
        assert all(next(of_one).startswith("data: ") for of_one in lines)
        writing = sum(not job.is_ended for job in engine.jobs)  # the fake has a thread for each of them
        assert writing == 20
        assert threading.active_count() - before <= writing
        for answer in streams:
            answer.close()
    assert all(job.wait([10**9], 10) for job in engine.jobs)
