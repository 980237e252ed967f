"""Every spelling of --device gives devices that exist, or says what is wrong; precision; floors of the libraries."""

import os
import re
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from conftest import ROOT

from novelgpt.messages import UserError
from novelgpt.network import (
    check_versions,
    choose_devices,
    choose_precision,
    compute_deterministically,
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

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return pretend


@pytest.mark.parametrize("count", [0, 1, 2, 4])
@pytest.mark.parametrize("text", ["0", "1", "0,1", "1,0", "cuda:0", "cuda:1,cuda:0", " 0 , 1 ", "3,0", "7", "0,1,2,3"])
def test_numbers_give_the_gpus_that_are_there_in_their_order(with_gpus, capsys, text, count):
    with_gpus(count)
    numbers = [int(word.strip().removeprefix("cuda:")) for word in text.split(",")]
    there = [number for number in numbers if number < count]
    assert choose_devices(text) == (gpu(*there) or [CPU])
    assert (capsys.readouterr().err == "") == (there == numbers)


def test_two_gpus_asked_for_without_any_is_the_cpu_said_aloud(with_gpus, capsys):
    with_gpus(0)
    assert choose_devices("0,1") == [CPU]
    assert capsys.readouterr().err == "warning: --device 0,1: no GPU 0, 1 (there is no GPU); using the CPU\n"


def test_an_absent_gpu_beside_a_present_one_is_left_out(with_gpus, capsys):
    with_gpus(2)
    assert choose_devices("0,7") == gpu(0)
    assert capsys.readouterr().err == "warning: --device 0,7: no GPU 7 (GPUs 0 to 1 are there)\n"


@pytest.mark.parametrize(
    "text", ["abc", "", ",", "0,", ",0", "-1", "1.5", "0;1", "0 1", "cpu,0", "mps,0", "gpu", "cuda", "cuda:", "²", "１"]
)
@pytest.mark.parametrize("count", [0, 2])
def test_anything_else_is_refused(with_gpus, text, count):
    with_gpus(count)
    with pytest.raises(UserError) as caught:
        choose_devices(text)
    assert str(caught.value) == f"error: --device: found {text!r}, expected GPU numbers, mps or cpu\n\nhint: {HINT}"
    assert caught.value.code == 2


@pytest.mark.parametrize("text", ["0,0", "1,cuda:1", "0,00"])
def test_a_gpu_given_twice_is_refused(with_gpus, text):
    with_gpus(2)
    with pytest.raises(UserError) as caught:
        choose_devices(text)
    assert caught.value.message == f"--device: found {text!r}, expected every GPU once"


@pytest.mark.parametrize(("count", "expected"), [(0, [CPU]), (1, gpu(0)), (4, gpu(0, 1, 2, 3))])
def test_without_an_option_every_gpu_is_used_else_the_cpu(with_gpus, count, expected):
    with_gpus(count)
    assert choose_devices(None) == expected


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
        assert str(caught.value) == f"error: --fp16: {device} does not train in fp16\n\nhint: --precision bf16 or fp32"
    assert choose_precision("fp16", torch.device("cuda", 0)) == torch.float16


@pytest.mark.parametrize("fast", [True, False])
def test_automatic_precision_follows_the_hardware(monkeypatch, fast):
    monkeypatch.setattr("novelgpt.network.devices.has_fast_bf16", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: fast or including_emulation)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("auto", torch.device("cuda", 0)) == (torch.bfloat16 if fast else torch.float16)
    assert choose_precision("auto", torch.device("mps")) == torch.float32


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
    for name in ("README.md", "README_zh.md"):
        readme = (ROOT / name).read_text(encoding="utf-8")
        assert f"torch {pinned} CPU" in readme and ".".join(map(str, least)) in readme
    assert "torch" not in re.findall(r"^(\w+)==", text, re.M)  # nobody's driver is forbidden


def test_a_torch_without_the_private_questions_is_not_asked(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert has_fast_bf16() is False
