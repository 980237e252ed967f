"""torch.compile has a way back: a compiler that fails costs one line, never the run, unless it was asked for."""

from dataclasses import replace

import pytest
import torch
from helpers import step_losses

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE
from novelgpt.training import compilation
from novelgpt.training.compilation import should_compile
from novelgpt.training.engine import Engine
from novelgpt.training.parallel import LossModule, World
from novelgpt.training.run import prepare_run
from novelgpt.training.session import train

GPU = [torch.device("cuda", 0)]
BROKEN = "fatal error: Python.h: No such file or directory"


def failing_backend(graph, inputs):
    """Fail as a machine without the headers of Python does."""
    raise RuntimeError(BROKEN)


def use_backend(monkeypatch, backend) -> None:
    """Let every run compile, on the CPU and by a backend of the test."""
    compile_module = LossModule.compile
    monkeypatch.setattr(compilation, "should_compile", lambda *arguments: True)
    monkeypatch.setattr(LossModule, "compile", lambda self, **settings: compile_module(self, backend=backend))


@pytest.fixture
def gpu_that_compiles(monkeypatch):
    """Answer what the compiler asks of a machine: a GPU of capability 9.0, Triton and a C compiler."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(compilation, "has_triton", lambda: True)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: "/usr/bin/cc")


def test_a_compiler_that_fails_costs_one_line_and_changes_no_loss(tiny_options, monkeypatch, capsys, tmp_path):
    options = tiny_options(epochs=1, log_step=1)
    assert train(options) == 0
    use_backend(monkeypatch, failing_backend)
    other = replace(options, output_dir=str(tmp_path / "other"))
    capsys.readouterr()
    assert train(other) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("torch.compile")]
    assert said == [f"torch.compile: backend='failing_backend' raised: RuntimeError: {BROKEN}; running without it"]
    assert step_losses(other.output_path) == step_losses(options.output_path)


def test_a_compiler_that_fails_is_an_error_where_it_was_asked_for(tiny_options, monkeypatch):
    use_backend(monkeypatch, failing_backend)
    run = prepare_run(tiny_options(compile="on"))
    with pytest.raises(compilation.UserError) as caught:
        Engine(run)
    message = f"--compile on: backend='failing_backend' raised: RuntimeError: {BROKEN}"
    assert str(caught.value) == f"error: {message}\n\nhint: --compile auto"
    assert caught.value.code == EXIT_ENVIRONMENT


@pytest.mark.sweep
def test_the_trial_of_a_compiler_leaves_no_gradient_and_no_other_random_number(tiny_options, monkeypatch):
    use_backend(monkeypatch, "eager")
    run = prepare_run(tiny_options())
    before, state = [value.clone() for value in run.model.parameters()], torch.get_rng_state()
    Engine(run)
    assert all(torch.equal(one, other) for one, other in zip(before, run.model.parameters(), strict=True))
    assert all(value.grad is None for value in run.model.parameters())
    assert torch.equal(state, torch.get_rng_state()) and run.model.training


def test_memory_that_runs_out_is_no_fault_of_the_compiler(tiny_options, monkeypatch):
    def run_out(self, *tensors, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    use_backend(monkeypatch, "eager")
    monkeypatch.setattr(LossModule, "forward", run_out)
    engine = Engine(prepare_run(tiny_options()))
    assert engine.loss_module._compiled_call_impl is not None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda patch: None, None),
        (lambda patch: patch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1)), "old"),
        (lambda patch: patch.setattr(compilation, "has_triton", lambda: False), "Triton is not installed"),
        (lambda patch: patch.setattr(compilation.shutil, "which", lambda name: None), "no C compiler here"),
    ],
)
def test_where_it_cannot_work_it_is_not_tried(gpu_that_compiles, monkeypatch, capsys, spoil, reason):
    spoil(monkeypatch)
    assert should_compile("auto", GPU, 500) == (reason is None)
    words = "the GPU is too old for it (capability 6.1, at least 7.0)" if reason == "old" else reason
    assert capsys.readouterr().err == (f"torch.compile: {words}; running without it\n" if reason else "")


@pytest.mark.parametrize(("steps", "devices"), [(499, GPU), (500, [*GPU, torch.device("cuda", 1)])])
def test_short_runs_and_several_gpus_of_a_process_are_not_compiled(gpu_that_compiles, steps, devices):
    assert not should_compile("auto", devices, steps)
    assert not should_compile("off", GPU, 500)


def test_compiling_on_a_cpu_is_refused(tiny_options):
    run = prepare_run(tiny_options(compile="on"))
    with pytest.raises(compilation.UserError) as caught:
        Engine(run)
    assert str(caught.value) == (
        "error: --compile on: cpu trains with parts of its own, not compiled ones\n\nhint: --compile auto"
    )
    assert caught.value.code == EXIT_USAGE


def test_compiling_for_several_gpus_of_one_process_is_refused():
    with pytest.raises(compilation.UserError) as caught:
        should_compile("on", [*GPU, torch.device("cuda", 1)], 500)
    assert str(caught.value) == (
        "error: --compile on: found 2 GPUs in one process, expected one process per GPU\n\n"
        "hint: --parallel processes, or --compile auto"
    )
    assert caught.value.code == EXIT_USAGE


@pytest.mark.parametrize("rank", [0, 1])
def test_nobody_compiles_where_one_process_cannot(tiny_options, monkeypatch, capsys, rank):
    use_backend(monkeypatch, "eager")
    run = prepare_run(tiny_options())
    asked = []
    monkeypatch.setattr(compilation, "any_process", lambda flag, world: asked.append(flag) or True)
    module = LossModule(run.model, run.dtype, 32)
    settings = {"mode": "auto", "world": World(rank, 2), "dynamic": False}
    capsys.readouterr()
    for wanted in (True, False):  # this one can and another cannot, or the other way round
        compilation.compile_if_possible(module, lambda: 1 / 0, wanted=wanted, **settings)
    assert (asked, module._compiled_call_impl) == ([False, True], None)
    assert all(block._compiled_call_impl is None for block in module.model.transformer.h)
    said = "torch.compile: not possible in another process; running without it\n"
    assert capsys.readouterr().err == (said if rank == 0 else "")


def test_a_trial_that_fails_in_another_process_gives_every_block_back(tiny_options, monkeypatch, capsys):
    run = prepare_run(tiny_options())
    module, answers = LossModule(run.model, run.dtype, 32), iter([False, True])
    monkeypatch.setattr(compilation, "any_process", lambda flag, world: next(answers))
    tried = []
    capsys.readouterr()
    compilation.compile_if_possible(
        module,
        lambda: tried.extend(block._compiled_call_impl is not None for block in run.model.transformer.h),
        wanted=True, mode="auto", world=World(0, 2), dynamic=False,
    )  # fmt: skip
    assert tried == [True, True] and module._compiled_call_impl is None
    assert all(block._compiled_call_impl is None for block in run.model.transformer.h)
    assert capsys.readouterr().err == "torch.compile: it failed in another process; running without it\n"
