"""The tables of options: each training option says what a resumed run must keep of it; each role names its options."""

import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import pytest
from cli.options_pages import PAGES, write_page
from conftest import ROOT

from novelgpt.cli import (
    CleanOptions,
    ConvertOptions,
    EvaluateOptions,
    GenerateOptions,
    TokenizeOptions,
    TrainOptions,
    VocabularyOptions,
    names_with,
)
from novelgpt.cli.table import check_value

TABLES = (
    TrainOptions, CleanOptions, VocabularyOptions, TokenizeOptions, EvaluateOptions, GenerateOptions, ConvertOptions,
)  # fmt: skip
# by hand, as they stood in lists of their own before there were roles: (table, roles) -> names
ROLES = [
    (
        TrainOptions,
        {"resume": "changeable"},
        "epochs hours lr lr_end warmup_steps lr_scheduler weight_decay beta1 beta2 max_grad_norm dropout "
        "replace_inputs replacement precision log_step eval_steps early_stopping_patience load_best_model_at_end "
        "deterministic",
    ),
    (TrainOptions, {"resume": "fixed"}, "stride random_phase batch_size optimizer seed"),
    (
        TrainOptions,
        {"only": "rows"},
        "train_file validation_file text_column block_size loss_after max_train_samples preprocessing_num_workers",
    ),
    (
        TrainOptions,
        {"only": "windows"},
        "raw raw_data_path tokenized_data_path num_pieces min_length stride random_phase replace_inputs replacement",
    ),
    (TrainOptions, {"needs": "held out"}, "eval_steps early_stopping_patience load_best_model_at_end"),
    (
        GenerateOptions,
        {"python": True},
        "length nsamples batch_size preset temperature topk topp min_p typical dry_multiplier dry_base "
        "dry_allowed_length repetition_penalty penalty_window no_repeat_ngram_size "
        "bad_words stop adapt best_of cut_loops keep_head seed precision quantize device corpus max_copy",
    ),
    (
        GenerateOptions,
        {"recorded": True},
        "length stop preset temperature topk topp min_p typical dry_multiplier dry_base dry_allowed_length "
        "repetition_penalty penalty_window no_repeat_ngram_size bad_words adapt best_of cut_loops keep_head",
    ),
    (
        GenerateOptions,
        {"sampling": True},
        "temperature topk topp min_p typical dry_multiplier dry_base dry_allowed_length "
        "repetition_penalty penalty_window no_repeat_ngram_size bad_words keep_head",
    ),
    (
        EvaluateOptions,
        {"python": True},
        "encoding force_encoding stride batch_size precision device per_chapter adapt baseline html",
    ),
]


def test_every_training_option_says_what_a_resumed_run_must_keep_of_it():
    kinds = {entry.name: entry.metadata.get("resume") for entry in fields(TrainOptions)}
    assert {name: kind for name, kind in kinds.items() if kind not in ("fixed", "changeable", "content", "free")} == {}


@pytest.mark.parametrize(("table", "roles", "names"), ROLES, ids=lambda value: value if type(value) is str else None)
def test_each_role_belongs_to_these_options(table, roles, names):
    assert sorted(names_with(table, **roles)) == sorted(names.split())


def test_the_settings_in_samples_jsonl_keep_their_order():
    assert " ".join(names_with(GenerateOptions, recorded=True)) == ROLES[6][2]


def test_nothing_but_the_known_roles_stands_in_a_table():
    facts = {"help", "read", "choices", "many", "positional", "metavar", "flag"}
    roles = {role for table in TABLES for entry in fields(table) for role in entry.metadata} - facts
    assert roles == {"resume", "only", "needs", "python", "recorded", "sampling", "in_book", "if_there"}
    values = {
        entry.metadata[role] for entry in fields(TrainOptions) for role in ("only", "needs") if role in entry.metadata
    }
    assert values == {"rows", "windows", "held out"}


@pytest.mark.parametrize("table", TABLES)
def test_every_default_is_a_value_that_the_option_takes(table):
    for entry in fields(table):
        assert check_value(entry, entry.default) == entry.default


@pytest.mark.parametrize("table", TABLES)
def test_options_cannot_be_changed_under_way(table):
    options = table()
    with pytest.raises(FrozenInstanceError):
        setattr(options, fields(table)[0].name, "other")


def test_the_command_line_loads_neither_torch_nor_the_corpus():
    code = "import sys, novelgpt.cli\nprint(*sorted(name for name in sys.modules if name.startswith('novelgpt')))\n"
    code += "assert not {'torch', 'transformers', 'numpy', 'yaml'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(re.match(r"novelgpt(\.cli.*|\.messages|\.languages)?$", name) for name in done.stdout.split())


def test_the_real_command_line_is_read_in_one_place():
    files = [*(ROOT / "novelgpt").rglob("*.py"), *ROOT.glob("*.py")]
    readers = {path.name for path in files if "sys.argv" in path.read_text(encoding="utf-8")}
    assert readers == {"messages.py"}


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_of_all_options_are_those_of_the_tables(page):
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == write_page(PAGES[page]), "make options"
