"""generate() and evaluate() on pretended GPUs: the CPU's texts and figures, and nothing that the host waits for."""

import pytest

from novelgpt import api

PREFIX = "闻人雀的剑"
# top-k, top-p, penalties and bans, greedy
SAMPLERS = {
    "topk": {"topk": 8, "temperature": 0.9},
    "topp": {"topk": 0, "topp": 0.9, "min_p": 0.01},
    "bans": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "bad_words": ["水里"]},
    "greedy": {"temperature": 0.0},
}


def write_beside_cpu(pretended, finished, device: str, sampler: dict) -> dict:
    """Write on the CPU and on a pretended device, compare the texts, and return what was counted."""
    model = str(finished(dropout=0.0, log_step=1).output_path / "final_model")
    # 40 tokens in a context of 16: rows are read again from a shorter window many times
    options = {"length": 40, "nsamples": 2, "seed": 5, "precision": "fp32", **sampler}
    expected = api.generate(model, PREFIX, **options, device="cpu")
    done = pretended.run("generate", model=model, prefix=PREFIX, options={**options, "device": device})
    assert [each["text"] for each in done["texts"]] == [each.text for each in expected]
    assert [each["ids"] for each in done["texts"]] == [each.ids for each in expected]
    return done


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("device", ["0", "1"])
def test_the_texts_are_those_of_the_cpu(pretended, finished, device, name):
    write_beside_cpu(pretended, finished, device, SAMPLERS[name])


@pytest.mark.parametrize("device", ["0", "1"])
def test_the_report_is_that_of_the_cpu(pretended, finished, device):
    model = str(finished(dropout=0.0, log_step=1).output_path / "final_model")
    text = "乔一斗坐在井边，数着水里的星星。\n“半截也够用。”"
    expected = api.evaluate(model, text, device="cpu", precision="fp32")
    report = pretended.run("evaluate", model=model, text=text, options={"device": device, "precision": "fp32"})
    assert report["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert report["scored_tokens"] == expected["scored_tokens"]
    assert report["accuracy"] == expected["accuracy"]
