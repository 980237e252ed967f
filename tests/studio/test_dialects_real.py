"""The dialects on the engine itself with a tiny model, against the model computed by transformers."""

import json
import re
import threading

import openai
import pytest
import torch
from helpers import NASTY, save_model_and_book
from serving import serving
from starlette.applications import Starlette
from starlette.testclient import TestClient

from novelgpt.studio import Engine, Request
from novelgpt.studio.dialects import routes

TEXT = "月落乌啼，𠮷人抬起头来。\n"  # 𠮷 is not in the vocabulary: four byte tokens

MIDDLE = re.compile("<0x[89AB].>")  # bytes that begin no character


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder."""
    return save_model_and_book(tmp_path_factory.mktemp("real")) / "model"


@pytest.fixture(scope="module")
def engine(folder):
    """The engine, its model loaded."""
    ready = threading.Event()
    engine = Engine(folder, device="cpu", precision="fp32", on_progress=lambda progress: progress == 1 and ready.set())
    engine.start()
    assert ready.wait(120)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def client(engine):
    """A client of its dialects."""
    return TestClient(Starlette(routes=routes(engine)))


@pytest.fixture(scope="module")
def reference(folder):
    """Tokenizer and model of transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()


def test_an_echo_of_token_ids_has_the_probabilities_of_transformers(client, reference):
    tokenizer, model = reference
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    body = {"prompt": [tokenizer.bos_token_id, *ids], "max_tokens": 1, "echo": True, "logprobs": 5, "temperature": 0}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    with torch.no_grad():
        logits = model(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0]
    expected = logits.log_softmax(-1)
    own = expected[:-1].gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1).tolist()
    told = choice["logprobs"]
    assert told["token_logprobs"][0] is None
    assert told["token_logprobs"][1:-1] == pytest.approx(own, abs=1e-3)
    begins = [
        i for i, name in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) if not MIDDLE.fullmatch(name)
    ]
    assert told["token_logprobs"][-1] == pytest.approx(float(expected[-1][begins].max()), abs=1e-3)
    # the best five of every place, of which the tokens with texts of their own are told apart
    for top, row in zip(told["top_logprobs"][1:-1], expected, strict=False):
        assert max(top.values()) == pytest.approx(float(row.max()), abs=1e-3)
    assert "".join(told["tokens"]) == choice["text"] and choice["text"].startswith(TEXT)


def test_a_text_written_by_request_is_the_one_that_the_engine_writes(client, engine):
    settings = {"temperature": 0.8, "topk": 20, "topp": 0.9, "repetition_penalty": 1.1}
    job = engine.submit(Request(TEXT, 40, candidates=2, settings=settings, seed=7))
    assert job.wait([10**9] * 2, 60)
    body = {"prompt": TEXT, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 7}
    choices = client.post("/v1/completions", json=body | {"max_tokens": 40, "n": 2}).json()["choices"]
    assert [choice["text"] for choice in choices] == [job.text(0), job.text(1)]
    kobold = {"prompt": TEXT[2:], "memory": TEXT[:2], "top_k": 20, "top_p": 0.9, "rep_pen": 1.1, "temperature": 0.8}
    results = client.post("/api/v1/generate", json=kobold | {"sampler_seed": 7, "max_length": 40, "n": 2}).json()
    assert [result["text"] for result in results["results"]] == [job.text(0), job.text(1)]


def test_streams_have_whole_characters_only(client):
    body = {"prompt": TEXT, "temperature": 5, "top_k": 0, "seed": 3, "stream": True}  # many bytes
    texts = []
    for path, more in (
        ("/v1/completions", {"max_tokens": 200, "logprobs": 5}),
        ("/completion", {"n_predict": 200, "n_probs": 5, "post_sampling_probs": True}),
        ("/api/extra/generate/stream", {"max_length": 200, "logprobs": 5}),
    ):
        lines = client.post(path, json=body | more).text.splitlines()
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "\ufffd" not in "".join(map(str, events))
        choices = [event["choices"][0] if "choices" in event else event for event in events]
        texts.append("".join(part.get("text") or part.get("content") or part.get("token") or "" for part in choices))
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) > 20


def test_pieces_are_characters_or_the_bytes_that_spell_one_together(client, reference):
    told = client.post("/tokenize", json={"content": TEXT, "add_special": True, "with_pieces": True}).json()["tokens"]
    tokenizer, _ = reference
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert [row["id"] for row in told] == [tokenizer.bos_token_id, *ids]
    expected = ["", *"月落乌啼，", *([byte] for byte in "𠮷".encode()), *"人抬起头来。\n"]
    assert [row["piece"] for row in told] == expected


def test_the_best_token_is_certain_and_drawn_ones_share_what_the_filters_leave(client):
    body = {"prompt": TEXT, "n_predict": 5, "n_probs": 3, "post_sampling_probs": True}
    greedy = client.post("/completion", json=body | {"temperature": 0}).json()["completion_probabilities"]
    assert [entry["prob"] for entry in greedy] == [1.0] * 5
    drawn = client.post("/completion", json=body | {"top_k": 3, "seed": 1}).json()["completion_probabilities"]
    for entry in drawn:  # three are left of which one was drawn
        assert sum(best["prob"] for best in entry["top_probs"]) == pytest.approx(1, abs=1e-4)
        assert entry["prob"] in [best["prob"] for best in entry["top_probs"]]


@pytest.mark.parametrize("text", NASTY)
def test_every_text_comes_back_from_its_tokens(client, text):
    ids = client.post("/tokenize", json={"content": text}).json()
    assert client.post("/detokenize", json=ids).json() == {"content": text}


def test_ids_that_there_are_not_are_refused(client):
    for ids in ([10**6], [-1]):
        answer = client.post("/v1/completions", json={"prompt": ids})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"].startswith("token")


def test_a_prompt_longer_than_the_context_is_written_on_and_scored(client, engine):
    text = TEXT * 20
    body = {"prompt": text, "max_tokens": 3, "echo": True, "logprobs": 0}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    assert engine.state()["model"]["context"] == 64 < len(text)
    assert len(choice["logprobs"]["token_logprobs"]) == len(engine.tokenize(text)) + 3


def test_the_openai_package_streams_from_the_engine_and_stops_it_by_leaving(engine):
    submitted, submit = [], engine.submit
    engine.submit = lambda request: submitted.append(submit(request)) or submitted[-1]
    with serving(engine) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="token") as package:
        whole = package.completions.create(model="", prompt=TEXT, max_tokens=30, seed=5, stream=True)
        assert "".join(part.choices[0].text for part in whole) == submitted[0].text(0)
        with package.completions.create(model="", prompt=TEXT, max_tokens=10_000, stream=True) as stream:
            assert next(iter(stream)).choices[0].text
        assert submitted[1].wait([10**9], 20)
    assert (submitted[0].state, submitted[1].state) == ("done", "stopped")
    del engine.submit
