"""What fails beside or within a step costs as little as it can: the sample, the memory, the scale of fp16."""

import math

import pytest
import torch
from helpers import StopAfter, fit, refusal_of, result_of, spoil_steps, step_losses

from novelgpt.training import trainer as trainer_module
from novelgpt.training.checkpoint import list_checkpoints, read_progress
from novelgpt.training.memory import is_out_of_memory
from novelgpt.training.parallel import LossModule
from novelgpt.training.run import prepare_run
from novelgpt.training.stopping import Stopped
from novelgpt.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_flushing")


def fit_with_sample(options, sample) -> None:
    """Train from the beginning with a function that writes the samples."""
    options.output_path.mkdir(exist_ok=True)
    Trainer(prepare_run(options), StopAfter(), sample=sample).fit(None)


# --- the sample ---


def test_a_sample_that_fails_is_a_warning_and_changes_nothing_else(tiny_options, finished, capsys):
    def fail(model):
        raise TypeError("Cannot convert a MPS Tensor to float64\nas MPS does not support it")

    options = tiny_options()
    fit_with_sample(options, fail)
    said = [line for line in capsys.readouterr().err.splitlines() if "no sample" in line]
    words = "no sample: TypeError: Cannot convert a MPS Tensor to float64"
    assert said == [f"warning: epoch {epoch}: {words}" for epoch in (1, 2, 3)]
    assert result_of(options.output_path) == result_of(finished().output_path)


def test_a_sample_that_breaks_the_device_costs_no_epoch(tiny_options, monkeypatch):
    # after an illegal access every look at a GPU raises; what is saved must be on the host by then
    gather, broken = trainer_module.training_weights, []

    def look(model, **settings):
        if broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return gather(model, **settings)

    def fail(model):
        broken.append(True)
        look(model)

    monkeypatch.setattr(trainer_module, "training_weights", look)
    options = tiny_options()
    with pytest.raises(RuntimeError):
        fit_with_sample(options, fail)
    (saved,) = list_checkpoints(options.output_path)
    assert (read_progress(saved).epoch, read_progress(saved).batch) == (2, 0)


@pytest.mark.parametrize("request_to_stop", [Stopped, KeyboardInterrupt])
def test_a_request_to_stop_passes_through_the_sample(tiny_options, request_to_stop):
    def stop(model):
        raise request_to_stop

    options = tiny_options()
    with pytest.raises(request_to_stop):
        fit_with_sample(options, stop)
    assert len(list_checkpoints(options.output_path)) == (request_to_stop is Stopped)


def test_the_network_trains_on_after_a_sample_that_failed(tiny_options):
    modes = []

    def fail(model):
        modes.append(model.training)
        raise RuntimeError("no")

    run = prepare_run(tiny_options())
    run.options.output_path.mkdir()
    trainer = Trainer(run, StopAfter(), sample=fail)
    run.model.train()
    trainer.write_sample()
    assert (modes, run.model.training) == ([False], True)


def test_the_sample_stands_in_the_checkpoint_of_its_epoch(tiny_options):
    options = tiny_options(epochs=1)
    fit_with_sample(options, lambda model: "井里")
    assert read_progress(list_checkpoints(options.output_path)[-1]).history[-1]["sample"] == "井里"


# --- the scale of fp16 ---


def scale_losses(monkeypatch, scale: float) -> None:
    """Give every engine a loss scaler that begins with a scale, as if it computed in fp16."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, init_scale=scale))


def test_the_search_of_a_scale_is_no_bad_step_and_says_nothing(tiny_options, monkeypatch, capsys):
    # the gradients of five steps in a row overflow, their losses do not: 2^16 becomes 2^11
    scale_losses(monkeypatch, 2.0**16)
    spoil_steps(monkeypatch, {2, 3, 4, 5, 6}, math.inf, gradient=True)
    options = tiny_options(epochs=1, log_step=1, save_steps=1, save_total_limit=9)
    assert fit(options)
    assert "finite" not in capsys.readouterr().err
    saved = [read_progress(path) for path in list_checkpoints(options.output_path)]
    assert [progress.scaler["scale"] for progress in saved] == [2.0**16, 2.0**15, 2.0**14, 2.0**13, 2.0**12, 2.0**11]
    assert (saved[-1].skipped, saved[-1].bad_in_a_row) == (0, 0)
    weights = [(path / "model.safetensors").read_bytes() for path in list_checkpoints(options.output_path)]
    assert weights[0] == weights[-1]  # none of them has moved the weights
    assert len(step_losses(options.output_path)) == 6  # their losses are losses all the same


def test_a_scale_below_one_is_as_bad_as_a_loss_that_is_not_finite(tiny_options, monkeypatch):
    # 4 -> 2 -> 1 are no bad steps, 1/2, 1/4 and 1/8 are three in a row
    scale_losses(monkeypatch, 4.0)
    spoil_steps(monkeypatch, {1, 2, 3, 4, 5}, math.inf, gradient=True)
    assert refusal_of(fit, tiny_options()).message.startswith("step 5: loss not finite 3 steps in a row")


def test_a_loss_that_is_not_finite_is_a_bad_step_at_any_scale(tiny_options, monkeypatch):
    scale_losses(monkeypatch, 2.0**16)
    spoil_steps(monkeypatch, {3, 4, 5}, math.nan, gradient=False)
    assert refusal_of(fit, tiny_options()).message.startswith("step 5: loss not finite 3 steps in a row")


# --- the memory ---


def test_memory_that_ran_out_is_known_by_the_words_of_every_system():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)  # a true allocation: 4 PB
    assert is_out_of_memory(caught.value)
    for words in (
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4",
        "[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough memory: you tried to allocate 4",
        "MPS backend out of memory (MPS allocated: 17.87 GB, other allocations: 384.00 KB, max allowed: 18.13 GB)",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ):
        assert is_out_of_memory(RuntimeError(words)), words
    assert is_out_of_memory(torch.OutOfMemoryError("")) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_memory_that_is_taken_for_good_in_a_later_step_costs_no_step(tiny_options, monkeypatch):
    options, forward, passes = tiny_options(), LossModule.forward, []

    def run_out(self, *tensors, **settings):
        passes.append(settings)
        if len([each for each in passes if not each]) > 4:  # passes of steps, not of evaluations
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, *tensors, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(LossModule, "forward", run_out)
        assert "does not fit into the memory of cpu, even split" in refusal_of(fit, options).message
    (saved,) = list_checkpoints(options.output_path)
    assert read_progress(saved).step == 4


def test_memory_that_is_too_little_for_the_first_step_leaves_no_checkpoint(tiny_options, monkeypatch):
    def run_out(self, *tensors, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LossModule, "forward", run_out)
    options = tiny_options()
    assert refusal_of(fit, options).code == 4
    assert list_checkpoints(options.output_path) == []
