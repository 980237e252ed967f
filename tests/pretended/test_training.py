"""train() on pretended GPUs: without dropout every way over devices gives the losses of the CPU, and resumes."""

from dataclasses import asdict, replace

import pytest
from helpers import fit, result_of

from pretended.beside import SAME, hold_nothing_out, losses_of, samples_of, train_beside_cpu

# bytes of the largest tensor: the logits of 4 rows, 60 x 384 x 4 = 92,160, do not fit; those of 2 rows, 46,080, and the
# head's weights, 384 x 32 x 4 = 49,152, do
ROOM = 60_000


@pytest.mark.parametrize("device", ["0", "1", "0,1", "1,0"])
def test_the_losses_and_samples_are_those_of_the_cpu_on_any_devices(pretended, quiet_options, device):
    options = quiet_options(sample_length=12)
    train_beside_cpu(pretended, options, device)
    assert len(samples_of(options.output_path)) == 2  # one an epoch
    assert samples_of(f"{options.output_dir}-there") == samples_of(options.output_path)


@pytest.mark.parametrize(
    ("device", "parts", "again"), [("1", 2, True), ("0,1", 2, False), ("1,0", 1, True)], ids=["one", "parts", "again"]
)
def test_batches_in_parts_and_activations_computed_again_give_the_same_losses(
    pretended, quiet_options, device, parts, again
):
    options = quiet_options(gradient_accumulation=parts)
    train_beside_cpu(pretended, options, device, gradient_checkpointing=again)


def test_muon_gives_the_same_losses(pretended, quiet_options):
    train_beside_cpu(pretended, quiet_options(optimizer="muon", precision="fp32"), "1")


def test_exchanged_inputs_give_the_same_losses(pretended, quiet_options):
    train_beside_cpu(pretended, quiet_options(replace_inputs=0.15), "0")


@pytest.mark.parametrize("device", ["1", "0,1"])
def test_a_teacher_lies_on_every_device_and_gives_the_same_losses(pretended, quiet_options, pretrained, device):
    train_beside_cpu(pretended, quiet_options(teacher=str(pretrained), replace_inputs=0.15), device)


@pytest.mark.parametrize("has_held_out", [False, True])
@pytest.mark.parametrize("device", ["1", "0,1"])
def test_a_batch_too_large_for_the_memory_is_split_and_gives_the_same_losses(
    pretended, quiet_options, device, has_held_out
):
    rows = 8 if "," in device else 4  # 4 on each device
    options = quiet_options(batch_size=rows)
    if not has_held_out:
        hold_nothing_out(options)
    elsewhere = replace(options, device=device, output_dir=f"{options.output_dir}-there")
    assert fit(options)
    answer = pretended.ask("train", options=asdict(elsewhere), room=ROOM)
    assert answer["problem"] is None, answer["problem"][2]
    warning = f"--batch_size {rows}: too large for the memory; computed in 2 parts, same update"
    assert has_held_out or answer["said"].count(warning) == 1
    assert losses_of(elsewhere.output_path) == pytest.approx(losses_of(options.output_path), rel=SAME)


@pytest.mark.parametrize(("device", "precision"), [("1", "bf16"), ("0,1", "fp32")])
def test_the_host_looks_at_no_number_within_a_step(pretended, quiet_options, device, precision):
    options = quiet_options(device=device, precision=precision, gradient_accumulation=2, optimizer="muon", epochs=1)
    assert pretended.run("train", options=asdict(options))["step_looks"] == {}


def test_in_fp16_the_host_looks_only_where_the_scaler_asks(pretended, quiet_options):
    options = quiet_options(device="1", precision="fp16", epochs=1)
    done = pretended.run("train", options=asdict(options))
    places = {place.rpartition(":")[0]: count for place, count in done["step_looks"].items()}
    # 6 steps: whether all is finite, asked by us, and by the scaler of its optimizer
    assert sum(places.values()) <= 3 * 6
    assert set(places) <= {"training/engine.py"}


SETUPS = {
    "two": {"device": "0,1", "optimizer": "muon"},
    "parts": {"device": "1", "gradient_accumulation": 2, "gradient_checkpointing": True},
    "fp16": {"device": "1", "precision": "fp16"},
}


@pytest.mark.parametrize("name", SETUPS)
def test_a_run_stopped_and_resumed_ends_in_the_same_bytes(pretended, quiet_options, name):
    # with dropout: its masks are a function of (seed, step, row)
    whole = quiet_options(**{"dropout": 0.1, **SETUPS[name]})
    broken = replace(whole, output_dir=f"{whole.output_dir}-broken")
    pretended.run("train", options=asdict(whole))
    stopped = pretended.run("train", options=asdict(broken), questions=9)
    assert 0 < stopped["step"] < 12 and not stopped["finished"]
    assert pretended.run("train", options=asdict(broken))["finished"]
    assert result_of(broken.output_path) == result_of(whole.output_path)
