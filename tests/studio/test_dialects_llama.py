"""llama.cpp's dialect: recorded requests of mikupad and SillyTavern, and what lm-evaluation-harness does not ask."""

import json

import pytest
from fake_engine import BOS, FakeEngine
from recorded import MIKUPAD_LLAMA, PROMPT, SILLYTAVERN_LLAMA
from starlette.applications import Starlette
from starlette.testclient import TestClient

from novelgpt.studio.dialects import routes
from novelgpt.studio.jobs import MAX_LENGTH


@pytest.fixture
def engine():
    """An engine that writes at once."""
    return FakeEngine()


@pytest.fixture
def client(engine):
    """A client of its dialects."""
    return TestClient(Starlette(routes=routes(engine)))


def data_of(response) -> list[dict]:
    """Return the data of the events of a stream."""
    assert response.status_code == 200, response.text
    *events, end = response.text.split("\n\n")
    assert end == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_mikupad_writes_without_an_end_and_sees_what_could_be_drawn(client, engine):
    answer = client.post("/completion", json=MIKUPAD_LLAMA)
    *events, last = data_of(answer)
    assert engine.jobs[0].request.length == MAX_LENGTH == last["tokens_predicted"]
    assert "".join(event["content"] for event in events) == engine.jobs[0].text(0)
    # -0.25 and -1.5 nats behind the filters: e to these
    water = {"token": "水", "id": ord("水"), "bytes": [0xE6, 0xB0, 0xB4]}
    medicine = {"token": "药", "id": ord("药"), "bytes": [0xE8, 0x8D, 0xAF]}
    assert events[0] == {
        "index": 0,
        "content": "水",
        "tokens": [ord("水")],
        "stop": False,
        "tokens_predicted": 1,
        "completion_probabilities": [
            {
                **water,
                "prob": pytest.approx(0.778801),
                "top_probs": [
                    {**water, "prob": pytest.approx(0.778801)},
                    {**medicine, "prob": pytest.approx(0.223130)},
                ],
            }
        ],
    }
    assert (last["stop"], last["stop_type"], last["content"]) == (True, "limit", "")
    assert last["tokens_evaluated"] == 8 and last["generation_settings"]["seed"] == engine.jobs[0].seed
    assert answer.headers["x-ignored-settings"] == "penalize_nl"


def test_without_post_sampling_probs_it_is_the_models_opinion(client):
    body = MIKUPAD_LLAMA | {"post_sampling_probs": False, "stream": False, "n_predict": 2}
    told = client.post("/completion", json=body).json()
    first, second = told["completion_probabilities"]
    assert (first["token"], first["logprob"], first["id"]) == ("水", pytest.approx(-0.1), ord("水"))
    assert [(entry["token"], entry["logprob"]) for entry in second["top_logprobs"]] == [
        ("又", pytest.approx(-0.2)),
        ("药", pytest.approx(-1.2)),
    ]
    assert (told["content"], told["stop_type"], told["prompt"]) == ("水又", "limit", PROMPT)


def test_a_character_of_four_bytes_is_one_event(client):
    *events, last = data_of(client.post("/completion", json={"prompt": "井", "n_predict": 11, "stream": True}))
    assert [event["content"] for event in events] == [*"水又少了一寸。𠮷"]
    assert events[-1]["tokens"] == [7, 7, 7, ord("𠮷")] and last["tokens_predicted"] == 11


def test_sillytaverns_request_is_read_by_this_dialects_names(client, engine):
    answer = client.post("/completion", json=SILLYTAVERN_LLAMA | {"repeat_penalty": 1.2, "repetition_penalty": 1.2,
                                                                  "rep_pen": 1.2})  # fmt: skip
    *_, last = data_of(answer)
    assert last["tokens_predicted"] == 300
    # a look-back of no token is no penalty
    assert engine.jobs[0].request.settings["repetition_penalty"] == 1
    assert "x-ignored-settings" not in answer.headers


def test_a_word_that_ends_the_text_is_named(client):
    told = client.post("/completion", json={"prompt": "井", "n_predict": 50, "stop": ["了"]}).json()
    assert (told["content"], told["stop_type"], told["stopping_word"]) == ("水又少", "word", "了")


def test_texts_and_tokens_turn_into_each_other(client):
    ids = client.post("/tokenize", json={"content": "井𠮷"}).json()
    assert ids == {"tokens": [ord("井"), 7, 7, 7, ord("𠮷")]}
    assert client.post("/detokenize", json=ids).json() == {"content": "井𠮷"}
    told = client.post("/tokenize", json={"content": "井", "add_special": True, "with_pieces": True}).json()
    assert told == {"tokens": [{"id": BOS, "piece": ""}, {"id": ord("井"), "piece": "井"}]}
    assert client.post("/completion", json={"prompt": [BOS, ord("井")], "n_predict": 1}).json()["prompt"] == "井"


def test_the_whole_prompt_may_stay_in_every_window(client, engine):
    client.post("/completion", json={"prompt": PROMPT, "n_predict": 1, "n_keep": -1})
    client.post("/completion", json={"prompt": PROMPT, "n_predict": 1, "n_keep": 3})
    assert [job.request.keep_head for job in engine.jobs] == [8, 3]


def test_no_token_is_written_where_none_is_wanted(client, engine):
    told = client.post("/completion", json={"prompt": "井", "n_predict": 0}).json()
    assert (told["content"], told["tokens_predicted"], told["stop_type"]) == ("", 0, "limit")
    assert engine.jobs == []


def test_health_and_props_tell_the_state_of_the_model(client, engine):
    assert client.get("/health").json() == {"status": "ok"}
    props = client.get("/props").json()
    assert (props["default_generation_settings"]["n_ctx"], props["chat_template"]) == (1024, "")
    engine.facts |= {"ready": False}
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["error"] == {
        "code": 503,
        "message": "the model is still being loaded; ask again in a moment",
        "type": "unavailable_error",
    }


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/completion", {"n_predict": -2}, "n_predict: found -2, expected a whole number from -1 to 10000"),
        ("/completion", {"n_probs": 99}, "n_probs: found 99, expected a whole number from -1 to 20"),
        ("/completion", {"min_p": -0.5}, "min_p: found '-0.5', expected a number from 0 to 1"),
        ("/completion", {"repeat_penalty": 0}, "repeat_penalty: found '0', expected a number above 0"),
        ("/tokenize", {"content": 3}, "content: found 3, expected a text"),
        ("/detokenize", {"tokens": "井"}, None),
    ],
)
def test_what_is_out_of_range_is_refused_in_llamas_form(client, path, body, message):
    answer = client.post(path, json=body)
    if message is None:  # a text stands for itself
        assert answer.json() == {"content": "井"}
        return
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, 400, "invalid_request_error")
    assert error["message"].split("; ")[0] == message
