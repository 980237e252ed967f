"""Steps of the network of 82 million parameters on fake GPUs: no tensor elsewhere, no look, memory as predicted."""

import pytest

LIBRARIES = 600 << 20  # bytes of predict_bytes that stand for the libraries, which no fake tensor shows
SETUPS = {
    "muon": {},
    "adamw": {"optimizer": "adamw"},
    "fp32": {"dtype": "float32", "steps": 1},
    "again": {"gradient_checkpointing": True},
    "parts": {"gradient_accumulation": 2, "steps": 1},
    "uneven": {"devices": 2, "rows": 3, "steps": 1},
    "one row for two": {"devices": 2, "rows": 1, "steps": 1},
}


@pytest.fixture(scope="module")
def take_steps(pretended):
    """Return a function like take_steps of fakes.py that takes the same steps only once."""
    known = {}

    def take(**settings) -> dict:
        key = repr(sorted(settings.items()))
        if key not in known:
            known[key] = pretended.run("take_steps", **settings)
        return known[key]

    return take


@pytest.mark.parametrize("name", SETUPS)
def test_no_tensor_lies_elsewhere_and_the_host_looks_at_none(take_steps, name):
    assert take_steps(**{"rows": 8, **SETUPS[name]})["looks"] == {}


def test_in_fp16_the_host_looks_only_at_what_the_scaler_decides(take_steps):
    done = take_steps(rows=8, dtype="float16", steps=1)
    # at most, in a step of two optimizers: once whether all is finite, once for each by the scaler
    assert {place.partition(":")[0] for place in done["looks"]} <= {"engine.py"}
    assert sum(done["looks"].values()) <= 1 + 2


@pytest.mark.parametrize("rows", [8, 32])
def test_a_step_takes_the_memory_that_was_predicted(take_steps, rows):
    # of AdamW, whose two moments are what the prediction counts
    done = take_steps(rows=rows, optimizer="adamw")
    assert done["parts"] == 1
    assert done["peak"] == pytest.approx(done["predicted"] - LIBRARIES, rel=0.1)


@pytest.mark.parametrize("name", ["muon", "again"])
def test_muon_and_activations_computed_again_take_less_than_was_predicted(take_steps, name):
    done = take_steps(**{"rows": 8, **SETUPS[name]})
    assert done["peak"] <= done["predicted"] - LIBRARIES


def test_a_pass_does_no_more_than_the_network_asks_for(take_steps):
    # forward and backward of 8 windows by a network of torch's own modules, with one kernel for GELU: 606 launches that
    # touch 28 GB, counted once; GELU in eight operators would be 836 and 75 GB
    done = take_steps(rows=8)
    assert done["launches"] <= 640
    assert done["touched"] <= 30e9
