"""Rows: padding and what stands before the mark count nothing, however a batch is split and wherever a run stopped."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conftest import BLOCK, RECORDS, WORDS
from helpers import StopAfter, assert_survives_stops, fit, read_log, refusal_of, step_losses
from processes import assert_same_losses, run_cases
from transformers import AutoModelForCausalLM

from novelgpt.commands.train import build_parser
from novelgpt.corpus.records import encode_records
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.network import sum_loss
from novelgpt.training.checkpoint import list_checkpoints
from novelgpt.training.checks import check_options
from novelgpt.training.engine import Engine
from novelgpt.training.rows import make_rows
from novelgpt.training.run import prepare_run, write_run_file
from novelgpt.training.session import train
from novelgpt.training.windows import Batch

pytestmark = pytest.mark.usefixtures("no_flushing")
NO_DROPOUT = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture(autouse=True)
def many_widths(monkeypatch):
    """Let short rows differ in their width, as those of a real block do."""
    monkeypatch.setattr("novelgpt.training.rows.WIDTH", 4)


def row_of(tokenizer, record: str) -> tuple[list[int], int]:
    """Return the ids of a record and the place of its first title token, worked out without the code under test."""
    text, title = (tokenizer.encode(part).tolist() for part in record.split("[TIL]"))
    text = text[max(0, len(text) + len(title) + 3 - BLOCK) :]
    mark = tokenizer.tokens.index("[TIL]")
    return [tokenizer.cls_id, *text, mark, *title, tokenizer.cls_id], len(text) + 2


def title_nll(model, tokenizer, record: str) -> tuple[torch.Tensor, int]:
    """Return the nats of a title and how many tokens it has, by transformers alone on the record alone."""
    ids, first = row_of(tokenizer, record)
    logits = model(torch.tensor([ids])).logits[0]  # (T, V)
    scores = logits.log_softmax(dim=-1)
    return -sum(scores[place - 1, ids[place]] for place in range(first, len(ids))), len(ids) - first


def brute_loss(model, tokenizer, records: list[str]) -> torch.Tensor:
    """Return the mean loss over the title tokens of some records, one record after the other."""
    parts = [title_nll(model, tokenizer, record) for record in records]
    return sum(nll for nll, _ in parts) / sum(count for _, count in parts)


def test_loss_and_gradient_of_a_padded_batch_are_those_of_its_records_one_by_one(row_options):
    run = prepare_run(row_options(config=NO_DROPOUT, batch_size=9))
    batch = next(run.data.epoch_batches(1))
    assert batch.input_ids.shape == (9, BLOCK)
    assert len({part.input_ids.shape[1] for part in prepare_run(row_options(batch_size=2)).data.epoch_batches(1)}) > 1
    records = [RECORDS[number] for number in batch.starts]
    expected = brute_loss(run.model, run.tokenizer, records)
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in run.model.named_parameters()}
    run.model.zero_grad()
    scored = int((batch.labels[:, 1:] >= 0).sum())
    loss = sum_loss(run.model, torch.from_numpy(batch.input_ids), torch.from_numpy(batch.labels)) / scored
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, weight in run.model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-6, msg=name)


def test_what_stands_in_the_padding_changes_no_loss(row_options):
    run = prepare_run(row_options(config=NO_DROPOUT))
    batch = next(run.data.epoch_batches(1))
    padding = np.arange(batch.input_ids.shape[1]) >= run.data.train.lengths(batch.starts)[:, None]  # (B, T)
    assert padding.any()
    other = np.where(padding, 17, batch.input_ids)
    labels = torch.from_numpy(batch.labels)
    one, two = (sum_loss(run.model, torch.from_numpy(ids), labels).item() for ids in (batch.input_ids, other))
    assert one == two


@pytest.mark.parametrize("mark", ["[TIL]", None])
def test_logged_and_held_out_losses_are_those_of_transformers_record_by_record(row_options, mark):
    options = row_options(config=NO_DROPOUT, loss_after=mark, epochs=1, valid_fraction=0.3)
    run = prepare_run(options)
    order = [number for batch in run.data.epoch_batches(1) for number in batch.starts]
    assert sorted(order) == list(range(9))  # 30 % of 13 are held out: the last 4
    assert fit(options)
    tokenizer, held = run.tokenizer, RECORDS[9:]

    def loss_of(model, records: list[str]) -> float:
        if mark:
            return brute_loss(model, tokenizer, records).item()
        losses, counts = [], []
        for record in records:
            text, title = (tokenizer.encode(part).tolist() for part in record.split("[TIL]"))
            whole = [tokenizer.cls_id, *text, tokenizer.marks["[TIL]"], *title, tokenizer.cls_id]
            ids = torch.tensor([whole[:BLOCK]])
            losses.append(model(ids, labels=ids).loss.item() * (ids.shape[1] - 1))
            counts.append(ids.shape[1] - 1)
        return sum(losses) / sum(counts)

    start = run.model.eval()
    expected = loss_of(start, [RECORDS[number] for number in order[:4]])
    assert step_losses(options.output_path)[0] == pytest.approx(expected, rel=1e-5)
    end = AutoModelForCausalLM.from_pretrained(options.output_path / "final_model")
    scores = [record["valid_loss"] for record in read_log(options.output_path) if "valid_loss" in record]
    assert scores == pytest.approx([loss_of(start, held), loss_of(end, held)], rel=1e-5)


def test_bits_per_character_of_titles_count_their_characters(row_options):
    options = row_options(config=NO_DROPOUT, epochs=1)
    run = prepare_run(options)
    assert fit(options)
    nats = sum(title_nll(run.model.eval(), run.tokenizer, record)[0].item() for record in RECORDS[9:])
    characters = sum(len(record.split("[TIL]")[1]) for record in RECORDS[9:])
    first = next(record for record in read_log(options.output_path) if "bits_per_character" in record)
    assert first["bits_per_character"] == pytest.approx(nats / characters / math.log(2), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_batch_without_a_mark_does_not_change_the_weights(row_options, optimizer):
    run = prepare_run(row_options(optimizer=optimizer, weight_decay=0.5))
    engine = Engine(run)
    run.model.train()
    engine.step(next(run.data.epoch_batches(1)), step=1, lr_share=1.0)  # momentum that would go on
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    plain = encode_records(["井里有水", "剑只有半截"], run.tokenizer, block_size=BLOCK)
    rows = make_rows(plain, np.arange(2), BLOCK)
    unscored = Batch(rows.input_ids, np.full_like(rows.labels, -100), rows.starts)
    result = engine.step(unscored, step=2, lr_share=1.0)
    assert (float(result.loss), float(result.tokens), bool(result.finite)) == (0.0, 0.0, True)
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    engine.step(next(run.data.epoch_batches(1)), step=3, lr_share=1.0)
    assert not torch.equal(run.model.transformer.wte.weight, before["transformer.wte.weight"])


def test_records_without_a_mark_are_skipped_counted_and_never_a_nan(row_options, capsys):
    records = [*RECORDS[:6], "井里没有标题", "半截也够用[TIL]", "水从井里涨上来[TIL] \n", *RECORDS[6:8]]
    options = row_options(records=records, valid_fraction=0.1)  # the last 2 are held out
    assert train(options) == 0
    said = capsys.readouterr().err
    assert "train: 6 records, " in said
    assert "; 3 without [TIL] and text after it skipped\n" in said
    assert all(isinstance(loss, float) for loss in step_losses(options.output_path))
    without = row_options(records=RECORDS[:8], valid_fraction=0.25, output_dir=options.output_dir + "2")
    assert fit(without)
    assert read_log(options.output_path) == read_log(without.output_path)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_a_batch_of_8_and_4_times_2_have_the_same_losses_and_weights(row_options, tmp_path, accumulation):
    options = row_options(batch_size=8, epochs=6, valid_fraction=0.0)  # dropout 0.1
    assert fit(options)
    split = replace(options, gradient_accumulation=accumulation, output_dir=str(tmp_path / "split"))
    assert fit(split)
    losses = step_losses(options.output_path)
    assert len(losses) == 12 and losses[-1] < losses[0] - 0.5
    assert step_losses(split.output_path) == pytest.approx(losses, rel=1e-5)
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(folder / "final_model").state_dict()
        for folder in (split.output_path, options.output_path)
    )
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(("accumulation", "questions"), [(1, 6), (2, 9)])
def test_a_run_over_records_stopped_again_and_again_ends_bit_for_bit_the_same(
    row_options, tmp_path, accumulation, questions
):
    options = row_options(gradient_accumulation=accumulation, batch_size=2)
    assert_survives_stops(options, tmp_path, questions, least=2)


def test_every_epoch_has_another_order_and_every_record_once(row_options):
    data = prepare_run(row_options()).data
    orders = [[int(number) for batch in data.epoch_batches(epoch) for number in batch.starts] for epoch in (1, 2)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(9))
    skipped = [batch.starts.tolist() for batch in data.epoch_batches(2, skip=1)]
    assert skipped == [orders[1][4:8], orders[1][8:]]


@pytest.mark.sweep
def test_2_processes_and_shared_weights_have_the_losses_of_one(row_options, tmp_path, warm_python):
    records = [f"{WORDS[n : n + 9 * (n % 6)]}[TIL]{WORDS[n : n + 1 + n % 4]}" for n in range(13)]
    options = row_options(records=records, config={"n_positions": 64}, block_size=64, batch_size=3, epochs=2)
    widths = {batch.input_ids.shape[1] for batch in prepare_run(options).data.epoch_batches(1)}
    assert min(widths) <= 32 < max(widths)  # the processes round up to multiples of 32

    def case(name: str, world: int, **changes) -> dict:
        changed = replace(options, output_dir=str(tmp_path / name), **changes)
        return {"world": world, "options": asdict(changed), "stop_at": None, "save_at": None}

    cases = [case("one", 1), case("split", 2, gradient_accumulation=2), case("shared", 2, shard=True)]
    run_cases(warm_python, cases)
    for other in cases[1:]:
        assert_same_losses(other, cases[0])


def test_records_of_another_file_are_held_out_and_the_first_ones_taken(row_options, tmp_path):
    (tmp_path / "held.txt").write_text("井里[TIL]潮\n\n星星[TIL]井边\n", encoding="utf-8")
    options = row_options(validation_file=str(tmp_path / "held.txt"), max_train_samples=5, valid_fraction=0.05)
    data = prepare_run(options).data
    assert (len(data.train), len(data.valid)) == (5, 2)
    assert data.valid_characters == 3 and data.num_valid == 5  # with a [CLS] after each


def test_the_plan_speaks_of_records(row_options, tmp_path, capsys):
    assert train(row_options(plan=True, output_dir=str(tmp_path / "planned"))) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("data:        9 records, ")
    assert out[2] == "batches:     records of up to 20 tokens, scored after [TIL], 4 a step"
    assert out[3].startswith("steps:       9 in 3 epochs of about 3")
    assert not (tmp_path / "planned").exists()


def test_the_sample_of_an_epoch_is_the_title_of_a_record_held_out(row_options, capsys):
    assert train(row_options(sample_length=4, epochs=1)) == 0
    sample = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("sample: "))
    text = RECORDS[9].split("[TIL]")[0]
    assert text not in sample and len(sample) > len("sample: ")


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"train_file": None}, "--rows: no file to train on", "--train_file data/lines.txt"),
        ({"stride": 8}, "--stride: has no meaning with --rows, which reads one text a record", "leave --stride out"),
        ({"raw": True}, "--raw: has no meaning with --rows, which reads one text a record", "leave --raw out"),
        ({"rows": False}, "--train_file: has no meaning without --rows", "add --rows"),
        (
            {"replace_inputs": 0.15},
            "--replace_inputs: has no meaning with --rows, which reads one text a record",
            "leave --replace_inputs out",
        ),
        (
            {"validation_file": "x.txt"},
            "--validation_file and --valid_fraction: found both, expected one of them",
            "leave --valid_fraction out",
        ),
        ({"block_size": 25}, "--block_size 25: longer than the context of 24 tokens", "--block_size 24"),
        ({"add_tokens": ""}, "--loss_after [TIL]: not a token of the vocabulary", '--add_tokens "[TIL]"'),
    ],
)
def test_options_that_do_not_fit_are_refused(row_options, changes, message, hint):
    problem = refusal_of(train, row_options(**changes))
    assert (problem.message, problem.hint, problem.code) == (message, hint, 2)


@pytest.mark.parametrize("rows", [None, True])
def test_a_file_of_records_implies_rows_and_it_is_said(row_options, capsys, rows):
    options = row_options(rows=rows)
    run = prepare_run(options)
    assert run.options.rows is True and len(run.data.train) == 9
    line = f"--train_file {options.train_file}: one text a record, the same as with --rows\n"
    assert (line in capsys.readouterr().err) == (rows is None)


def test_options_of_records_without_any_records_are_refused(row_options):
    problem = refusal_of(train, row_options(rows=None, train_file=None, loss_after=None))
    assert (problem.message, problem.hint) == ("--block_size: has no meaning without --rows", "add --rows")


def test_records_that_all_lack_the_mark_are_an_error(row_options):
    options = row_options(records=["井", "水", "剑"])
    problem = refusal_of(train, options)
    words = "none of 2 records has [TIL] with text after it, so nothing would be trained"
    assert problem.message == f"{options.train_file}: {words}"
    assert problem.code == 3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"block_size": 18}, "block_size: was 20, now 18"),
        ({"loss_after": None}, 'loss_after: was "[TIL]", now null'),
        ({"max_train_samples": 3}, "max_train_samples: was 0, now 3"),
        ({"records": RECORDS[::-1]}, ""),
        ({"add_tokens": "[TIL],[WS]"}, "vocabulary: was "),
    ],
)
def test_an_unfinished_run_over_records_goes_on_under_the_same_settings_only(row_options, changes, line):
    options = row_options()
    run = prepare_run(options)
    options.output_path.mkdir()
    write_run_file(run)
    assert not fit(options, StopAfter(7))
    assert list_checkpoints(options.output_path)
    problem = refusal_of(train, row_options(**changes))
    kind = "an unfinished run with other settings" if line else "a run of another book"
    assert problem.message.startswith(f"{options.output_path}: holds {kind}\n  {line}")
    assert "allow_change" not in problem.hint
    assert train(row_options(preprocessing_num_workers=2)) == 0  # which changes nothing


def test_records_go_together_with_a_book_whose_places_of_windows_they_leave_alone():
    words = ["--book=井", "--train_file=lines.txt"]
    check_options(build_parser().parse_options(words))
    problem = refusal_of(check_options, build_parser().parse_options([*words, "--raw_data_path=data/other.json"]))
    assert problem.message == "--raw_data_path: has no meaning with --rows, which reads one text a record"


def test_the_model_folder_loads_with_its_mark(row_options):
    options = row_options(epochs=1)
    assert fit(options)
    tokenizer = load_tokenizer(options.output_path / "final_model")
    assert tokenizer.tokens[tokenizer.marks["[TIL]"]] == "[TIL]"
    facts = json.loads((options.output_path / "final_model" / "manifest.json").read_text(encoding="utf-8"))["corpus"]
    assert facts["path"] == options.train_file and facts["block_size"] == BLOCK
