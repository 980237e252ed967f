"""The engine around a step: what does not fit is split, the corpus on the device, the plan."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import refusal_of

from novelgpt.corpus.pieces import TokenStream
from novelgpt.messages import UserError
from novelgpt.network import check_model_config
from novelgpt.training import engine as engine_module
from novelgpt.training.engine import Engine, Run
from novelgpt.training.memory import choose_parts, predict_bytes
from novelgpt.training.parallel import World
from novelgpt.training.preflight import describe_memory, list_advice
from novelgpt.training.regularize import Exchange
from novelgpt.training.run import prepare_run
from novelgpt.training.session import train
from novelgpt.training.windows import (
    WindowData,
    cut_windows,
    epoch_batches,
    make_batch,
    rows_to_device,
    to_signed,
)

SMALL = {"n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024}


def first_batch(run):
    """Return the first batch of a run."""
    options = run.options
    return next(epoch_batches(run.data.pieces.train, run.window, options.stride, options.batch_size, seed=0, epoch=1))


def all_weights(run) -> torch.Tensor:
    """Return a copy of all weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def weights_after_a_step(run, engine) -> torch.Tensor:
    """Take one step and return all weights in one row."""
    engine.step(first_batch(run), step=1, lr_share=1.0)
    return all_weights(run)


def refuse_more_than(rows: int, monkeypatch) -> None:
    """Let the memory run out for micro-batches of more rows than that."""
    forward = engine_module.LossModule.forward

    def limited(self, input_ids, labels, **settings):
        if len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, input_ids, labels, **settings)

    monkeypatch.setattr(engine_module.LossModule, "forward", limited)


def test_a_batch_that_does_not_fit_is_split_and_gives_the_same_update(tiny_options, monkeypatch, capsys):
    run = prepare_run(tiny_options(precision="fp32"))
    first = all_weights(run)
    whole = weights_after_a_step(run, Engine(run))
    refuse_more_than(1, monkeypatch)
    run = prepare_run(tiny_options(precision="fp32"))
    engine = Engine(run)
    split = weights_after_a_step(run, engine)
    assert engine.micro_batches == 4
    assert (split - whole).norm() < 1e-5 * (whole - first).norm()  # Adam magnifies what rounding is left of a zero
    assert "--batch_size 4: too large for the memory; computed in 4 parts, same update" in capsys.readouterr().err


def test_a_single_row_that_does_not_fit_is_an_error(tiny_options, monkeypatch):
    refuse_more_than(0, monkeypatch)
    run = prepare_run(tiny_options())
    with pytest.raises(UserError) as caught:
        Engine(run).step(first_batch(run), step=1, lr_share=1.0)
    assert str(caught.value) == (
        "error: --batch_size 4: does not fit into the memory of cpu, even split\n\n"
        "hint: --gradient_checkpointing, or a smaller --model_config"
    )
    assert caught.value.code == 4


def test_memory_running_out_in_a_later_step_splits_it_too(tiny_options, monkeypatch, capsys):
    # the moments lie in memory from the second step on, and another program may take some at any time
    whole = prepare_run(tiny_options())
    engine = Engine(whole)
    for step in (1, 2):
        engine.step(first_batch(whole), step=step, lr_share=1.0)
    run = prepare_run(tiny_options())
    engine = Engine(run)
    engine.step(first_batch(run), step=1, lr_share=1.0)
    refuse_more_than(2, monkeypatch)
    engine.step(first_batch(run), step=2, lr_share=1.0)
    assert engine.micro_batches == 2
    assert (
        capsys.readouterr().err
        == "warning: --batch_size 4: too large for the memory; computed in 2 parts, same update\n"
    )
    torch.testing.assert_close(all_weights(run), all_weights(whole), rtol=1e-5, atol=1e-6)
    refuse_more_than(0, monkeypatch)
    with pytest.raises(UserError, match="does not fit into the memory of cpu, even split"):
        engine.step(first_batch(run), step=3, lr_share=1.0)


@pytest.mark.parametrize("step", [1, 2])
def test_memory_running_out_in_the_optimizer_is_an_error_that_names_it(tiny_options, monkeypatch, step):
    run = prepare_run(tiny_options())
    engine = Engine(run)
    for number in range(1, step):
        engine.step(first_batch(run), step=number, lr_share=1.0)

    def run_out():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(engine.optimizers[0], "step", run_out)
    problem = refusal_of(engine.step, first_batch(run), step=step, lr_share=1.0)
    assert str(problem) == (
        "error: weights, gradients and moments of 36,672 parameters do not fit into the memory of cpu\n\n"
        "hint: a smaller --model_config, or --pretrained_model with --lora_rank 16"
    )
    assert problem.code == 4


def test_an_evaluation_that_does_not_fit_is_scored_in_parts(tiny_options, monkeypatch):
    run = prepare_run(tiny_options())
    engine = Engine(run)
    batch = first_batch(run)
    tensors = (torch.from_numpy(batch.input_ids), torch.from_numpy(batch.labels))
    run.model.eval()
    whole = engine.score(*tensors)
    refuse_more_than(1, monkeypatch)
    for ours, theirs in zip(engine.score(*tensors), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    refuse_more_than(0, monkeypatch)
    assert "does not fit into the memory of cpu, even split" in refusal_of(engine.score, *tensors).message


def test_an_evaluation_is_scored_in_as_many_parts_as_a_step(tiny_options, monkeypatch):
    options = tiny_options(gradient_accumulation=2, epochs=1)
    refuse_more_than(2, monkeypatch)
    assert train(options) == 0


def test_checkpointing_of_activations_changes_no_update(tiny_options):
    plain = weights_after_a_step(run := prepare_run(tiny_options()), Engine(run))
    run = prepare_run(tiny_options(gradient_checkpointing=True))
    torch.testing.assert_close(weights_after_a_step(run, Engine(run)), plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("dtype", "high"), [(np.uint16, 65_535), (np.uint32, 4_000_000_000)])
def test_windows_cut_on_the_device_are_those_of_the_stream(dtype, high):
    tokens = np.random.default_rng(0).integers(0, high, 500).astype(dtype)
    tokens[7] = high
    starts = np.array([0, 5, 484])
    cut = cut_windows(to_signed(tokens), torch.from_numpy(starts), 16)
    expected = np.stack([tokens[start : start + 16] for start in starts]).astype(np.int64)
    assert torch.equal(cut, torch.from_numpy(expected))


@pytest.mark.parametrize("rows", [range(0, 4), range(1, 3), range(3, 4)])
@pytest.mark.parametrize("share", [0.0, 0.15, 1.0])
def test_windows_with_replaced_inputs_come_from_the_corpus_on_the_device(rows, share):
    tokens = np.random.default_rng(0).integers(0, 60_000, 500).astype(np.uint16)
    batch = make_batch(TokenStream([tokens]), np.array([0, 5, 90, 484]), 16)
    if share:
        batch = Exchange(np.unique(tokens), share, vocab_size=60_000, seed=3)(batch, step=7)
    expected = [part[rows.start : rows.stop].tolist() for part in (batch.input_ids, batch.labels)]
    assert (batch.input_ids != batch.labels).any() == bool(share)
    # labels, and inputs that are as they were, are not looked up in the batch of the host
    kept = batch.input_ids == batch.labels
    hollow = replace(batch, input_ids=np.where(kept, -1, batch.input_ids), labels=np.full_like(batch.labels, -1))
    sent = rows_to_device(hollow, rows, torch.device("cpu"), to_signed(tokens))
    assert [part.tolist() for part in sent] == expected


def test_a_process_without_rows_computes_a_row_that_counts_nothing():
    batch = make_batch(TokenStream([np.arange(40, dtype=np.uint16)]), np.array([0, 8]), 16)
    input_ids, labels = rows_to_device(batch, range(0), torch.device("cpu"), None)
    assert input_ids.shape == labels.shape == (1, 16)
    assert labels.eq(-100).all()


@pytest.mark.parametrize("on_device", [False, True])
def test_a_part_of_fewer_rows_is_filled_up_with_rows_that_count_nothing(on_device):
    stream = TokenStream([np.arange(40, dtype=np.uint16)])
    batch = make_batch(stream, np.array([0, 8, 16]), 16)
    corpus = to_signed(stream.read()) if on_device else None
    input_ids, labels = rows_to_device(batch, range(1, 3), torch.device("cpu"), corpus, least=4)
    assert input_ids.tolist() == [list(range(start, start + 16)) for start in (8, 16, 8, 8)]
    assert labels.tolist() == [list(range(start, start + 16)) for start in (8, 16)] + [[-100] * 16] * 2
    assert batch.labels[:, 0].tolist() == [0, 8, 16]  # the batch is left as it is
    whole = rows_to_device(batch, range(3), torch.device("cpu"), corpus)
    assert whole[0] is not whole[1] and torch.equal(*whole)  # one object would be one more shape to compile


@pytest.mark.parametrize(("batch_size", "parts"), [(8, 1), (8, 3), (5, 2)])
def test_on_a_gpu_every_part_of_every_batch_has_one_shape_and_the_update_is_the_same(
    tiny_options, monkeypatch, batch_size, parts
):
    options = tiny_options(batch_size=batch_size, gradient_accumulation=parts)
    plain, shapes = prepare_run(options), []
    engine = Engine(plain)
    for step, batch in enumerate(plain.data.epoch_batches(1), 1):
        engine.step(batch, step=step, lr_share=1.0)
    assert len(batch.starts) < batch_size  # the last batch of an epoch is short
    forward = engine_module.LossModule.forward

    def record(self, input_ids, labels):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids, labels)

    monkeypatch.setattr(engine_module.LossModule, "forward", record)
    run = prepare_run(options)
    engine = Engine(run)
    engine.fills_up = True  # as on a GPU
    for step, batch in enumerate(run.data.epoch_batches(1), 1):
        engine.step(batch, step=step, lr_share=1.0)
    assert set(shapes) == {(-(-batch_size // parts), 16)}
    torch.testing.assert_close(all_weights(run), all_weights(plain), rtol=1e-4, atol=1e-5)


def test_parts_double_until_they_fit():
    assert choose_parts(lambda parts: 8, 8, 100) == 1
    assert choose_parts(lambda parts: 240 // parts, 8, 100) == 4  # 60 of 85 usable
    assert choose_parts(lambda parts: 10**9, 8, 100) == 8
    assert choose_parts(lambda parts: 8, 8, 100, least=3) == 3


def test_predicted_memory_grows_with_rows_and_shrinks_with_checkpointing():
    config = check_model_config(SMALL, name="small")
    activations = 38 * 768 * 10 * 1024 + 24 * 768 * 1024  # a row
    probabilities = {"cuda": 0, "cpu": 2 * 12 * 10 * 1024 * 640}  # 4 blocks of 256 queries see 256 to 1,024 keys
    for device, more in probabilities.items():
        settings = {"device": device, "dtype": torch.bfloat16}
        # from 8 rows on, the chunk of logits is full: 1,024 positions on a CPU, 8,192 on a GPU
        eight, twelve = (predict_bytes(config, 13_317, rows, **settings) for rows in (8, 12))
        assert twelve - eight == 4 * (activations + more)
        assert predict_bytes(config, 13_317, 8, **settings, checkpointing=True) < eight


def test_with_checkpointing_the_gradients_come_when_the_logits_are_gone_but_for_later_parts():
    config = check_model_config(SMALL, name="small")
    settings = {"device": "cuda", "dtype": torch.bfloat16, "checkpointing": True}
    tokens, parameters = 8 * 1024, 81_894_144
    weights = (600 << 20) + (12 + 2) * parameters  # without gradients; and a copy in bf16
    kept = 4 * 10 * 768 * tokens + 24 * 768 * tokens  # the inputs of the blocks, both ends
    logits, block, gradients = 10 * 8192 * 13_317, 38 * 768 * tokens, 4 * parameters
    assert logits > block + gradients
    assert predict_bytes(config, 13_317, 8, **settings) == weights + kept + logits
    # the gradients of an earlier part are there when the logits of the next one are
    assert predict_bytes(config, 13_317, 8, **settings, accumulates=True) == weights + kept + gradients + logits
    small = predict_bytes(config, 1_000, 8, **settings)  # few logits: the block and the gradients count
    fewer = 81_894_144 - 12_317 * 768
    assert small == (600 << 20) + 14 * fewer + kept + block + 4 * fewer


@pytest.mark.parametrize(
    ("device", "devices", "processes", "parts", "rows", "chunk"),
    [
        ("cpu", 1, 1, 1, 16, 32),
        ("cpu", 1, 1, 3, 6, 32),
        ("cuda", 1, 1, 1, 16, 64),
        ("cuda", 1, 1, 8, 2, 32),
        ("cuda", 2, 1, 1, 8, 64),
        ("cuda", 1, 3, 2, 3, 48),
        ("cuda", 1, 16, 1, 1, 16),
    ],
)
def test_the_predicted_memory_is_that_of_one_device_and_its_share_of_the_batch(
    tiny_options, monkeypatch, device, devices, processes, parts, rows, chunk
):
    engine = Engine(prepare_run(tiny_options(batch_size=16)))
    places = [torch.device(device, number) for number in range(devices)] if device == "cuda" else [torch.device("cpu")]
    engine.run = replace(engine.run, devices=places, world=World(0, processes))
    engine.device = places[0]
    monkeypatch.setattr("novelgpt.training.memory.HEAD_CHUNK", {"cpu": 32, "cuda": 64})
    tokens = 16 * rows
    # 2 layers, 32 wide, in fp32; on a CPU the probabilities of 2 heads over 16 keys and a block of 16 queries, halved
    probabilities = 4 * 2 * tokens * 32 // 2 if device == "cpu" else 0
    activations = 2 * (72 * 32 * tokens + probabilities) + 24 * 32 * tokens
    assert engine.predict_bytes(parts) == (600 << 20) + 16 * 36_672 + activations + 10 * chunk * 334


def test_the_plan_prints_the_memory_that_the_engine_splits_a_batch_by(tiny_options, monkeypatch):
    monkeypatch.setattr(Engine, "predict_bytes", lambda engine, parts: 8_000_000_000 // parts)
    monkeypatch.setattr(engine_module, "available_bytes", lambda device: 5_000_000_000)
    engine = Engine(prepare_run(tiny_options()))
    assert engine.micro_batches == 2  # 4 GB of 4.25 GB that may be used
    assert describe_memory(engine) == "about 4.0 GB of 5.0 GB free; a batch in 2 parts"


def test_the_plan_is_printed_and_nothing_is_written(tiny_options, capsys, tmp_path):
    options = replace(tiny_options(), plan=True, output_dir=str(tmp_path / "planned"))
    assert train(options) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["data", "parameters", "batches", "steps", "warm-up", "memory", "time", "disk", "advice"]
    assert [line.split(":")[0] for line in lines[:9]] == names
    assert f"steps:       {prepare_run(options).total_steps} in 3 epochs" in lines[3]
    assert not (tmp_path / "planned").exists()


@pytest.mark.parametrize(("warmup_steps", "is_long"), [(0.02, False), (0.5, False), (0.51, True), (2000, True)])
def test_plan_and_run_warn_of_a_warm_up_longer_than_half_of_the_run(tiny_options, capsys, warmup_steps, is_long):
    options = tiny_options(warmup_steps=warmup_steps, max_hours=1e-9)
    words = f"--warmup_steps {warmup_steps}: the learning rate rises for more than half of the run, 18 steps; "
    words += "--warmup_steps 0.02 is a share of them"
    assert (words in list_advice(prepare_run(options), 1.0)) == is_long
    assert train(options) == 0
    assert (f"\nwarning: {words}\n" in capsys.readouterr().err) == is_long


def test_the_plan_advises_a_network_of_ours_that_fits_the_book_by_a_whole_command(tiny_options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the networks come with the program, wherever it is started
    command = ["train.py", "--raw", "--plan", "--stride=300", "--model_config", "config/model_config_small.json"]
    run = replace(prepare_run(tiny_options(stride=8)), command=command)
    counts = {"laptop": 10_972_416, "demo": 3_310_592}  # with the 334 tokens of the story
    advice = (
        "the book is small for this network; one of {:.1f} million parameters learns it sooner: python train.py --raw "
    )
    cases = [
        (81_000_000, 10**6, "laptop", "--stride=300 "),
        (81_000_000, 10**5, "demo", ""),
        (9_000_000, 10**5, "demo", ""),
    ]
    for size, tokens, name, kept in cases:
        monkeypatch.setattr(Run, "num_parameters", size)
        monkeypatch.setattr(WindowData, "num_tokens", tokens)
        (words,) = [
            line for line in list_advice(replace(run, asked=replace(run.options, stride=300)), 0.01) if "small" in line
        ]
        changed = "" if kept else " --stride 128"  # 300 is longer than a window of 256 tokens
        config = f"--model_config config/model_config_{name}.json"
        assert words == f"{advice.format(counts[name] / 1e6)}{kept}{config}{changed}"
    monkeypatch.setattr(Run, "num_parameters", 10**6)
    assert "a smaller --model_config" in list_advice(run, 0.01)[0]


@pytest.mark.parametrize(("config", "stride"), [({}, 8), ({"n_positions": 11}, 5), ({"n_positions": 2}, 1)])
def test_the_stride_is_half_of_the_context_where_none_is_given(tiny_options, config, stride):
    run = prepare_run(tiny_options(stride=None, config=config))
    assert (run.options.stride, run.data.stride, run.asked.stride) == (stride, stride, None)


def test_the_device_with_the_least_memory_decides_for_plan_and_engine(tiny_options, monkeypatch, capsys):
    monkeypatch.setattr(Engine, "predict_bytes", lambda engine, parts: 8_000_000_000 // parts)
    engine = Engine(prepare_run(tiny_options()))
    engine.run = replace(engine.run, devices=[torch.device("cuda", number) for number in range(2)])
    # half of the second GPU is taken
    monkeypatch.setattr(engine_module, "available_bytes", lambda device: [10_000_000_000, 5_000_000_000][device.index])
    engine.device = engine.run.devices[0]
    engine.micro_batches = engine.choose_micro_batches()
    assert describe_memory(engine) == "about 4.0 GB of 5.0 GB free; a batch in 2 parts"


def seeds_of(engine, monkeypatch, devices: int, step: int, first: int) -> list[int]:
    """Return the seeds that a micro-batch gives to its GPUs."""
    current, seeds = [0], {}
    places = [torch.device("cuda", number) for number in range(devices)]
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.update(dict.fromkeys(range(devices), seed)))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(device.index))
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeds.update({current[-1]: seed}))
    engine.noise, engine.run = None, replace(engine.run, devices=places)
    engine.seed_step(step, range(first, first + 2))
    assert current[-1] == 0
    return list(seeds.values())


def test_every_gpu_and_every_row_of_every_step_has_a_seed_of_its_own(tiny_options, monkeypatch):
    engine = Engine(prepare_run(tiny_options(seed=7)))
    found = [seeds_of(engine, monkeypatch, 2, step, first) for step in (1, 2, 257) for first in (0, 1, 256)]
    assert len({seed for pair in found for seed in pair}) == 18
    assert found[0] == seeds_of(engine, monkeypatch, 2, 1, 0)
    assert found[0][0] == seeds_of(engine, monkeypatch, 1, 1, 0)[0]
    other = Engine(prepare_run(tiny_options(seed=8)))
    assert seeds_of(other, monkeypatch, 1, 1, 0)[0] != found[0][0]
    assert all(0 <= seed < 2**64 for pair in found for seed in pair)
