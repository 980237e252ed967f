"""The measurements beside others: at the smallest size on a CPU, and what they would do on a GPU."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT


def load(name: str) -> ModuleType:
    """Load a bench as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"bench/{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bench = load("bench_train")


def setups_of(*words: str) -> list:
    return bench.make_setups(bench.build_parser().parse_args(words))


def test_the_defaults_of_a_cpu_are_two_networks_and_few_steps():
    assert [(setup.network, setup.rows, setup.steps, setup.warm) for setup in setups_of("--device", "cpu")] == [
        ("tiny", 8, 12, 1),
        ("82M", 2, 3, 1),
    ]
    assert bench.DEFAULT["cpu"] == ["ancestor", "hf_fp32", "hf_bf16", "ours", "ours_without_dropout"]


@pytest.mark.parametrize(("given", "name"), [("1", "cuda:1"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_a_gpu_trains_the_large_network_at_8_and_32_windows_for_40_counted_steps(given, name):
    found = setups_of("--device", given)
    assert [(setup.network, setup.device, setup.rows) for setup in found] == [("82M", name, 8), ("82M", name, 32)]
    assert all(setup.steps - setup.warm == 40 for setup in found)
    assert {"hf_bf16", "ours", "ours_muon"} <= set(bench.DEFAULT["gpu"])


def test_without_device_the_first_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert bench.full_name(None) == "cuda:0"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert bench.full_name(None) == "cpu"


@pytest.mark.parametrize(("visible", "number"), [(None, "1"), ("4,6", "6")])
def test_a_worker_sees_its_gpu_alone(monkeypatch, visible, number):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    command, environment = bench.worker_call("hf_bf16", setups_of("--device", "1")[0])
    assert environment["CUDA_VISIBLE_DEVICES"] == number
    assert json.loads(command[command.index("--setup") + 1])["device"] == "cuda:0"


def test_a_gpu_is_waited_for_twice_in_a_whole_run(monkeypatch):
    waits, now = [], iter(range(100))
    monkeypatch.setattr("torch.cuda.synchronize", lambda: waits.append(clock.ticks if waits else 20))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(now))
    clock = bench.Clock(setups_of("--device", "0")[0])
    for _ in range(60):
        clock.tick()
    assert waits == [20, 60] and clock.seconds() == 1 / 40


def test_on_a_gpu_ours_believes_in_a_run_long_enough_to_compile(monkeypatch):
    from novelgpt.training import engine

    setup = replace(bench.Setup("smallest", "cpu", 4, 3, 1), device="cuda:0")
    monkeypatch.setattr("novelgpt.network.choose_devices", lambda name: [torch.device("cpu")] * (name == "cuda:0"))
    seen = []
    monkeypatch.setattr(engine, "Engine", lambda run: seen.append(run))
    bench.make_engine(setup, dropout=0.1, optimizer="muon")
    assert seen[0].total_steps == 500 and seen[0].options.optimizer == "muon"


@pytest.mark.parametrize("competitor", ["ancestor", "ours", "ours_muon"])
def test_a_competitor_trains_on_the_cpu_and_tells_its_rate(competitor, monkeypatch):
    monkeypatch.setattr(bench, "matmul_peak", lambda device: 1e12)  # takes seconds
    facts = bench.work(competitor, bench.Setup("smallest", "cpu", 4, 3, 1))
    assert facts["tokens_per_second"] > 0 and ("predicted_gib" in facts) == (competitor != "ancestor")


def test_a_worker_that_fails_is_left_out_of_the_race(monkeypatch, capsys):
    answers = {"ours": (0, json.dumps({"tokens_per_second": 20, "memory_gib": 1, "peak_flops": None}), "")}
    answers |= {
        "hf_bf16": (0, json.dumps({"tokens_per_second": 10, "memory_gib": 2}), ""),
        "hf_fp32": (1, "", "no room"),
    }

    def run(command, **_settings):
        return subprocess.CompletedProcess(command, *answers[command[command.index("--worker") + 1]])

    monkeypatch.setattr(bench.subprocess, "run", run)
    setup = bench.Setup("smallest", "cpu", 4, 3, 1)
    summary = bench.summarise("smallest", bench.measure(setup, list(answers), 2))
    assert summary["ratio_to_hf_bf16"] == 2 and summary["medians"] == {"ours": 20, "hf_bf16": 10}
    assert "smallest x 4 hf_fp32: failed\nno room" in capsys.readouterr().err


@pytest.mark.sweep
def test_texts_are_written_in_turn_and_absent_engines_are_named(warm_python, tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps({"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64}))
    words = ["--device", "cpu", "--model_config", str(tmp_path / "tiny.json"), "--length", "5", "--rounds", "1"]
    words += ["--batches", "1", "--threads", "1"]
    code = "import sys, runpy\nfor name in ('xllamacpp', 'gguf', 'ctranslate2'): sys.modules[name] = None\n"
    code += "import importlib.util as util\nfind = util.find_spec\n"
    code += "util.find_spec = lambda name, *rest: None if sys.modules.get(name, 0) is None else find(name, *rest)\n"
    code += f"sys.argv, sys.path[0] = ['bench', *{words}], {str(ROOT / 'bench')!r}\n"
    code += f"runpy.run_path({str(ROOT / 'bench/bench_generate.py')!r}, run_name='__main__')"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [warm_python, "-c", code], capture_output=True, encoding="utf-8", env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    rates = json.loads(done.stdout.splitlines()[-1])["tokens_per_second_batch1"]
    assert {"rereading", "transformers fp32 dynamic cache", "ours fp32", "ours int8"} <= set(rates)
    assert "  llama.cpp q8_0: left out, not installed (pip install xllamacpp gguf)" in done.stderr
    assert "  CTranslate2 int8: left out, not installed (pip install ctranslate2)" in done.stderr


@pytest.mark.extras
@pytest.mark.parametrize("engine", ["llama.cpp q8_0", "CTranslate2 int8"])
def test_an_engine_writes_as_many_tokens_as_are_asked_for(engine, tmp_path, tiny_config, tiny_tokenizer):
    for package in ("xllamacpp", "gguf") if engine.startswith("llama") else ("ctranslate2",):
        pytest.importorskip(package)
    from novelgpt.network import build_model

    others, options = load("others"), bench.argparse.Namespace(device="cpu", length=5, threads=1)
    model = build_model({**tiny_config, "n_embd": 64, "n_positions": 32}, tiny_tokenizer)
    with others.competitors(model, tiny_tokenizer, tmp_path, [2, 300, 301], options, 2) as engines:
        engines[engine]()  # checks the number itself


# ---- the large recipe

sys.path.insert(0, str(ROOT / "bench"))


def test_the_minutes_are_shared_out_and_the_best_cell_teaches(monkeypatch, tmp_path, capsys):
    large, runs = load("large"), []
    costs = {"decay 1 dropout 0.1": [2.0, 4.0], "decay 2 dropout 0.1": [1.0, 1.0], "member 1": [3.0, 1.0]}

    def train_one(options, folder, minutes, seed, words):
        runs.append((folder.name, round(minutes, 3), seed, words))
        return np.array(costs.get(folder.name, [0.5, 0.5]))

    monkeypatch.setattr(large, "train_one", train_one)
    monkeypatch.setattr(large, "tokens_per_character", lambda folder: 2.0)
    words = ["--decays", "1", "2", "--dropouts", "0.1", "--minutes", "9", "--members", "2"]
    figures = large.measure(large.build_parser().parse_args(words), tmp_path)
    # two cells, one more member, and a network whose steps take one and a half times as long: 9 / 4.5
    best = ["--weight_decay", "2", "--dropout", "0.1"]
    teachers = f"{tmp_path}/decay 2 dropout 0.1/model/final_model,{tmp_path}/member 1/model/final_model"
    assert runs == [
        ("decay 1 dropout 0.1", 2.0, 0, ["--weight_decay", "1", "--dropout", "0.1"]),
        ("decay 2 dropout 0.1", 2.0, 0, best),
        ("member 1", 2.0, 1, best),
        ("taught", 3.0, 2, [*best, "--teacher", teachers]),
    ]
    # the mean probability of 1 and 3 nats, and of 1 and 1 nats; two tokens a character
    mean = -np.log((np.exp(-1) + np.exp([-3, -1])) / 2).mean()
    assert figures == {
        "decay 1 dropout 0.1": 6.0, "decay 2 dropout 0.1": 2.0, "member 1": 4.0, "taught": 1.0,
        "mean of the members": round(2 * mean, 4), "best cell": "decay 2 dropout 0.1",
    }  # fmt: skip


def test_a_tab_of_the_studios_bench_notes_each_growth_once_and_when_it_ends():
    studio, seen = load("bench_studio").Studio, []
    answers = [("queued", 0), ("running", 5), ("running", 5), ("running", 9), ("done", 12)]
    ends = [studio.note({"state": state, "candidates": [{"characters": n}]}, seen) for state, n in answers]
    assert ends == [False, False, False, False, True] and [count for _, count in seen] == [0, 5, 9, 12]
    assert [moment for moment, _ in seen] == sorted(moment for moment, _ in seen)
