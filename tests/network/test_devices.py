"""Every spelling of --device gives devices that exist, or says what is wrong; precision; floors of the libraries."""

import os
import re
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from conftest import ROOT
from helpers import refusal_of

from novelgpt.messages import UserError
from novelgpt.network import (
    check_versions,
    choose_devices,
    choose_precision,
    compute_deterministically,
    describe_devices,
    has_fast_bf16,
)
from novelgpt.network.devices import FLOORS

CPU = torch.device("cpu")
HINT = "--device 0 or --device 0,1 for GPUs, --device mps, --device cpu"
GOOD = {"torch": "2.13.0+cpu", "transformers": "5.17.0", "safetensors": "0.8.0", "numba": "0.68.1"}


def gpu(*numbers: int) -> list[torch.device]:
    """Return CUDA devices."""
    return [torch.device("cuda", number) for number in numbers]


@pytest.fixture
def with_gpus(monkeypatch):
    """Return a function that makes torch see a number of GPUs and no MPS."""

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def pretend(count: int) -> list[torch.device]:
        current = []  # what torch was told to use, one after the other
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        return current

    return pretend


def as_process(monkeypatch, rank: int, *, local: int, here: int, of: int) -> None:
    """Set what torchrun tells a process: its rank, its rank on this machine, processes here and in all."""
    names = {"RANK": rank, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": here, "WORLD_SIZE": of}
    for name, number in names.items():
        monkeypatch.setenv(name, str(number))


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@pytest.mark.parametrize("text", ["0", "1", "0,1", "1,0", "cuda:0", "cuda:1,cuda:0", " 0 , 1 ", "3,0", "7", "0,1,2,3"])
def test_numbers_give_just_those_gpus_in_their_order(with_gpus, capsys, text, count):
    with_gpus(count)
    numbers = [int(word.strip().removeprefix("cuda:")) for word in text.split(",")]
    if count and max(numbers) >= count:
        assert refusal_of(choose_devices, text).code == 4
        return
    assert choose_devices(text) == (gpu(*numbers) if count else [CPU])
    assert (capsys.readouterr().err == "") == (count > 0)


def test_two_gpus_asked_for_without_any_is_the_cpu_said_aloud(with_gpus, capsys):
    with_gpus(0)
    assert choose_devices("0,1") == [CPU]
    assert choose_devices("cuda") == [CPU]
    assert capsys.readouterr().err == (
        "warning: --device 0,1: no GPU 0, 1 (there is no GPU); using the CPU\n"
        "warning: --device cuda: no GPU 0 (there is no GPU); using the CPU\n"
    )


@pytest.mark.parametrize(
    ("text", "count", "found", "use"),
    [
        ("0,7", 2, "no GPU 7; GPUs 0 to 1 are there", "--device 0,1"),
        ("2,3", 2, "no GPU 2, 3; GPUs 0 to 1 are there", "--device 0,1"),
        ("7", 1, "no GPU 7; GPU 0 is there", "--device 0"),
    ],
)
def test_an_absent_gpu_where_there_are_others_is_an_error(with_gpus, monkeypatch, text, count, found, use):
    with_gpus(count)
    problem = refusal_of(choose_devices, text)
    assert (str(problem), problem.code) == (f"error: --device {text}: {found}\n\nhint: {use}", 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    renumbered = f"{use}; CUDA_VISIBLE_DEVICES=2,3 hides the others and numbers what is left from 0"
    assert refusal_of(choose_devices, text).hint == renumbered


def test_a_driver_that_is_too_old_is_named(with_gpus, monkeypatch, capsys):
    def complain():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update")

    with_gpus(0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", complain)
    assert choose_devices("0") == choose_devices(None) == [CPU]
    reason = "the NVIDIA driver is too old for this torch, built for CUDA 13.0"
    assert capsys.readouterr().err == (
        f"warning: --device 0: no GPU 0 ({reason}); using the CPU\n"
        f"warning: no GPU can be used: {reason}; using the CPU\n"
    )


def test_without_the_driver_torch_for_gpus_says_nothing_where_none_was_asked_for(with_gpus, monkeypatch, capsys):
    def complain():
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU")

    with_gpus(0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", complain)
    assert choose_devices(None) == [CPU]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    ["abc", "", ",", "0,", ",0", "-1", "1.5", "0;1", "0 1", "cpu,0", "mps,0", "gpu", "cuda,1", "cuda:", "²", "１"],
)
@pytest.mark.parametrize("count", [0, 2])
def test_anything_else_is_refused(with_gpus, text, count):
    with_gpus(count)
    with pytest.raises(UserError) as caught:
        choose_devices(text)
    assert str(caught.value) == (
        f"error: --device: found {text!r}, expected GPU numbers, cuda, mps or cpu\n\nhint: {HINT}"
    )
    assert caught.value.code == 2


@pytest.mark.parametrize("text", ["0,0", "1,cuda:1", "0,00"])
def test_a_gpu_given_twice_is_refused(with_gpus, text):
    with_gpus(2)
    with pytest.raises(UserError) as caught:
        choose_devices(text)
    assert caught.value.message == f"--device: found {text!r}, expected every GPU once"


@pytest.mark.parametrize(
    ("count", "expected", "said"),
    [
        (0, [CPU], ""),
        (1, gpu(0), ""),
        (2, gpu(0), "taking GPU 0; there are 2: --device 0,1 uses both\n"),
        (4, gpu(0), "taking GPU 0; there are 4: --device 0,1,2,3 uses all\n"),
    ],
)
def test_without_an_option_one_gpu_is_taken_and_the_others_are_named_to_who_can_use_them(
    with_gpus, capsys, count, expected, said
):
    with_gpus(count)
    assert choose_devices(None) == expected
    assert capsys.readouterr().err == ""
    assert choose_devices(None, takes_several=True) == expected
    assert capsys.readouterr().err == said


def test_the_word_cuda_is_the_first_gpu(with_gpus):
    with_gpus(2)
    assert choose_devices("cuda") == choose_devices(" CUDA ") == gpu(0)


@pytest.mark.parametrize(("text", "first"), [("1", 1), ("1,0", 1), ("0,1", 0), (None, 0), ("cuda", 0)])
def test_the_first_device_becomes_the_current_one_of_torch(with_gpus, text, first):
    current = with_gpus(2)
    choose_devices(text)
    assert current == gpu(first)


def test_a_cpu_changes_no_current_device(with_gpus):
    current = with_gpus(2)
    choose_devices("cpu")
    assert current == []


@pytest.mark.parametrize("text", [None, "0,1"])
def test_every_process_takes_the_gpu_of_its_number_on_this_machine(with_gpus, monkeypatch, text, capsys):
    for rank in range(4):  # two machines of two GPUs
        current = with_gpus(2)
        as_process(monkeypatch, rank, local=rank % 2, here=2, of=4)
        assert choose_devices(text, takes_several=True) == current == gpu(rank % 2)
    assert capsys.readouterr().err == ""


def test_processes_share_a_cpu_and_the_first_one_alone_speaks(with_gpus, monkeypatch, capsys):
    for rank in range(4):
        with_gpus(0)
        as_process(monkeypatch, rank, local=rank, here=4, of=4)
        assert choose_devices("0,1") == [CPU]
    assert capsys.readouterr().err == "warning: --device 0,1: no GPU 0, 1 (there is no GPU); using the CPU\n"


@pytest.mark.parametrize(("text", "found", "most"), [(None, "2 GPUs", 2), ("0", "1 GPU of --device 0", 1)])
def test_more_processes_than_gpus_are_refused_with_the_counts(with_gpus, monkeypatch, text, found, most):
    for rank in range(3):  # all of them, also those that would have got one
        with_gpus(2)
        as_process(monkeypatch, rank, local=rank, here=3, of=3)
        problem = refusal_of(choose_devices, text)
        assert str(problem) == (
            f"error: torchrun: 3 processes on this machine for {found}, expected one each\n\n"
            f"hint: torchrun --nproc_per_node={most} train.py …"
        )
        assert problem.code == 4


@pytest.mark.parametrize("text", ["cpu", "CPU", " cpu "])
def test_the_cpu_is_always_there(with_gpus, text):
    with_gpus(2)
    assert choose_devices(text) == [CPU]


def test_mps_is_used_where_it_is_and_warned_about_where_not(with_gpus, monkeypatch, capsys):
    with_gpus(0)
    assert choose_devices("mps") == [CPU]
    assert capsys.readouterr().err == "warning: --device mps: no Apple GPU here; using the CPU\n"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_devices("mps") == choose_devices(None) == [torch.device("mps")]


def test_half_precision_is_refused_where_nothing_scales_the_loss():
    for device in ("cpu", "mps"):
        with pytest.raises(UserError) as caught:
            choose_precision("fp16", torch.device(device))
        assert (
            str(caught.value)
            == f"error: --precision fp16: {device} does not compute in fp16\n\nhint: --precision bf16 or fp32"
        )
    assert choose_precision("fp16", torch.device("cuda", 0)) == torch.float16


@pytest.mark.parametrize("fast", [True, False])
def test_automatic_precision_follows_the_hardware(monkeypatch, fast):
    monkeypatch.setattr("novelgpt.network.devices.has_fast_bf16", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: fast or including_emulation)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("auto", torch.device("cuda", 0)) == (torch.bfloat16 if fast else torch.float16)
    assert choose_precision("auto", torch.device("mps")) == torch.float32


def test_bf16_asked_for_on_a_gpu_that_only_emulates_it_is_warned_about(monkeypatch, capsys):
    gpu_0 = torch.device("cuda", 0)
    for fast, said in (
        (True, ""),
        (False, "warning: --precision bf16: cuda:0 only emulates it, slowly; --precision fp16 is fast there\n"),
    ):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, fast=fast: fast or including_emulation
        )
        assert choose_precision("bf16", gpu_0) == torch.bfloat16
        assert capsys.readouterr().err == said
        assert choose_precision("fp16", gpu_0) == torch.float16
    assert capsys.readouterr().err == ""


def test_the_number_format_is_that_of_the_chosen_gpu(with_gpus, monkeypatch):
    # an old card and a new one: torch answers for its current device
    current = with_gpus(2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1].index == 1)
    for text, dtype in (("1", torch.bfloat16), ("0", torch.float16)):
        assert choose_precision("auto", choose_devices(text)[0]) == dtype


def test_a_named_precision_is_that_one():
    assert choose_precision("fp32", CPU) == torch.float32
    assert choose_precision("bf16", CPU) == torch.bfloat16


@pytest.fixture
def deterministic_afterwards():
    """Give torch its former mode back."""
    former = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(former)


def test_deterministic_on_a_gpu_takes_only_reproducible_operations(monkeypatch, deterministic_afterwards):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's own stays
    compute_deterministically(torch.device("cuda", 0))
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    compute_deterministically(torch.device("cuda", 0))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        torch.zeros(2, 2).put_(torch.tensor([0]), torch.ones(1), accumulate=False)


def test_deterministic_on_the_cpu_says_that_it_changes_nothing(capsys, deterministic_afterwards):
    compute_deterministically(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert capsys.readouterr().err == "--deterministic: the CPU gives the same bits in every run anyway\n"


def test_the_versions_here_are_new_enough():
    check_versions()


@pytest.mark.parametrize(
    ("package", "found", "needed"),
    [
        ("torch", "2.9.1", "2.10"),
        ("transformers", "4.57.6", "5.3"),
        ("safetensors", "0.7.9rc1", "0.8"),
        ("numba", "0.67.0", "0.68"),
    ],
)
def test_an_old_library_is_refused_with_the_command_that_repairs_it(package, found, needed):
    with pytest.raises(UserError) as caught:
        check_versions({**GOOD, package: found}.__getitem__)
    expected = f"error: {package}: found {found}, expected {needed} or newer\n\nhint: pip install -r requirements.txt"
    assert (str(caught.value), caught.value.code) == (expected, 4)


def test_a_missing_library_is_named():
    def find(package):
        raise PackageNotFoundError(package)

    with pytest.raises(UserError, match=r"torch: found no version, expected 2\.10 or newer"):
        check_versions(find)


def numbers(text: str) -> tuple[int, ...]:
    """Return the parts of a version."""
    return tuple(map(int, text.split(".")))


def test_requirements_the_check_at_the_start_and_the_pinned_torch_agree():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    ranges = {name: (least, end) for name, least, end in re.findall(r"^(\w+)>=([\d.]+)(?:,<([\d.]+))?", text, re.M)}
    assert {name: numbers(ranges[name][0]) for name in FLOORS} == FLOORS
    least, end = map(numbers, ranges["torch"])
    # the Makefile pins what is measured, before it installs the rest
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"pip install .*\btorch==([\d.]+)", makefile)
    assert least <= numbers(pinned) < end
    assert makefile.index("torch==") < makefile.index("-r requirements-dev.txt")
    for readme, figures in (("README.md", "measurements.md"), ("README_zh.md", "measurements_zh.md")):
        assert ".".join(map(str, least)) in (ROOT / readme).read_text(encoding="utf-8")
        assert f"torch {pinned} CPU" in (ROOT / "docs" / figures).read_text(encoding="utf-8")
    assert "torch" not in re.findall(r"^(\w+)==", text, re.M)  # nobody's driver is forbidden


def test_a_torch_without_the_private_questions_is_not_asked(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert has_fast_bf16() is False


@pytest.mark.parametrize(("count", "words"), [(1, "1 thread of 8 processors"), (2, "2 threads of 8 processors")])
def test_one_thread_is_not_many(monkeypatch, count, words):
    monkeypatch.setattr("torch.get_num_threads", lambda: count)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert describe_devices([CPU]) == f"cpu ({words})"
