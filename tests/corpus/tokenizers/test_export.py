"""Exported tokenizers: what AutoTokenizer makes of the folder is what we make of the text."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import NOVELS, ROOT, read_novel
from helpers import ALL_CHARACTERS, NASTY, TRAINING_TEXT

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.subword import BpeTokenizer
from novelgpt.messages import UserError


@pytest.fixture(scope="module")
def small():
    return load_tokenizer(ROOT / "cache" / "vocab_small.txt")


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export")
    small.export(path, model_max_length=1024)
    return path


def load_reference(folder: Path, **options):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)


def test_the_folder_holds_three_files_and_loads_back(small, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    for path in (folder, folder / "tokenizer.json", folder / "vocab.txt"):
        loaded = load_tokenizer(path)
        assert (loaded.kind, loaded.fingerprint, loaded.marks) == ("character", small.fingerprint, small.marks)


def test_the_config_names_what_transformers_4_and_5_need(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    assert config["bos_token"] == config["eos_token"] == "[CLS]"
    assert config["clean_up_tokenization_spaces"] is False
    assert config["model_max_length"] == 1024
    assert json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["post_processor"] is None


def test_auto_tokenizer_has_our_marks_and_adds_none(small, folder):
    reference = load_reference(folder)
    assert len(reference) == reference.vocab_size == 13_317
    assert reference.bos_token_id == reference.eos_token_id == small.cls_id
    assert (reference.pad_token_id, reference.unk_token_id) == (small.pad_id, small.unk_id)
    assert set(reference("萧炎")) == {"input_ids", "attention_mask"}
    prefix = "[CLS]萧炎大喝一声"
    assert reference(prefix)["input_ids"] == small.encode_prefix(prefix).tolist()


@pytest.mark.parametrize("text", NASTY)
def test_ids_and_text_equal_those_of_the_exported_tokenizer(small, folder, text):
    reference = load_reference(folder, split_special_tokens=True)
    ids = small.encode(text).tolist()
    assert reference(text)["input_ids"] == ids
    assert reference.decode(ids) == text


def backend_ids(folder: Path, text: str) -> list[int]:
    """Ask the Rust tokenizer of a folder, special tokens taken as text."""
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    reference.encode_special_tokens = True
    return reference.encode(text).ids


def test_ids_of_sampled_code_points_equal_those_of_the_exported_tokenizer(small, folder):
    sample = "".join(random.Random(0).sample(ALL_CHARACTERS, 50_000))
    assert backend_ids(folder, sample) == small.encode(sample).tolist()


@pytest.mark.slow
def test_ids_of_every_code_point_equal_those_of_the_exported_tokenizer(small, folder):
    assert backend_ids(folder, ALL_CHARACTERS) == small.encode(ALL_CHARACTERS).tolist()


@pytest.mark.parametrize("name", NOVELS)
def test_ids_of_the_novels_equal_those_of_the_exported_tokenizer(small, folder, name):
    text = read_novel(name)
    assert backend_ids(folder, text) == small.encode(text).tolist()


def test_subwords_export_the_same_ids(tmp_path):
    tokenizer = BpeTokenizer.fit([TRAINING_TEXT], vocab_size=400).add_tokens(["[对话]"])
    tokenizer.export(tmp_path)
    reference = load_reference(tmp_path, split_special_tokens=True)
    for text in (*NASTY, TRAINING_TEXT):
        ids = tokenizer.encode(text).tolist()
        assert reference(text)["input_ids"] == ids
        assert reference.decode(ids) == text
    prefix = "[CLS]萧炎[对话]大喝"
    assert load_reference(tmp_path)(prefix)["input_ids"] == tokenizer.encode_prefix(prefix).tolist()


def test_added_tokens_are_marks_for_transformers_too(small, tmp_path):
    tokenizer = small.add_tokens(["[对话]"])
    tokenizer.export(tmp_path)
    reference = load_reference(tmp_path)
    assert reference("[CLS]你[对话]好")["input_ids"] == tokenizer.encode_prefix("你[对话]好").tolist()
    assert reference.decode(tokenizer.encode_prefix("你[对话]好"), skip_special_tokens=True) == "你好"


def test_a_folder_whose_two_lists_differ_is_refused(small, tmp_path):
    small.export(tmp_path)
    save_vocabulary(tmp_path / "vocab.txt", [*small.tokens[:-1], "\U00020bb7"])
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value) == (
        f"error: {tmp_path}: tokenizer.json and vocab.txt do not hold the same tokens\n\nhint: delete the wrong one"
    )


def test_loading_and_encoding_characters_imports_neither_torch_nor_tokenizers():
    code = (
        "import sys; from novelgpt.corpus.tokenizer import load_tokenizer;"
        "from novelgpt.corpus.pieces import tokenize_corpus;"
        "load_tokenizer('cache/vocab_small.txt').encode('炎');"
        "print([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_saved_model_tells_its_context_and_a_folder_of_before_still_loads(pretrained, tiny_tokenizer, recwarn, capfd):
    path = pretrained / "tokenizer_config.json"
    assert json.loads(path.read_text(encoding="utf-8"))["model_max_length"] == 16  # n_positions of the tiny network
    assert load_reference(pretrained).model_max_length == 16
    # folders of before lack the line
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["model_max_length"]
    path.write_text(json.dumps(config), encoding="utf-8")
    text = "井边的星星。\n"
    assert load_reference(pretrained)(text)["input_ids"] == load_tokenizer(pretrained).encode(text).tolist()
    assert [str(warning.message) for warning in recwarn] == [] and capfd.readouterr().err == ""
