"""GPT-2 folders made elsewhere: every common form is read exactly, fine-tuned, evaluated, sampled and handed back."""

import json
from pathlib import Path

import pytest
import torch
from conftest import NOVELS, ROOT, read_novel
from helpers import reference_ids
from published import BERT_SIZE, bert_tokens, old_state, publish_new, publish_old, tiny_gpt2
from safetensors.torch import save_file
from transformers import GPT2LMHeadModel

import eval as eval_script
import generate as generate_script
import train as train_script
from novelgpt.cli import run
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.files import write_json
from novelgpt.messages import UserError
from novelgpt.network import load_model, save_model

PREFIX = "那天夜里"


pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture(scope="module")
def theirs():
    """The network that somebody publishes."""
    return tiny_gpt2()


@pytest.fixture
def folder(theirs, tmp_path) -> Path:
    """Its folder as of 2021."""
    return publish_old(tmp_path / "theirs", theirs)


def logits_of(model, ids=(101, 900, 901, 902)) -> torch.Tensor:
    """Return the logits (4, V) of a short text."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def replace_weights(folder: Path, state: dict, name: str = "pytorch_model.bin", **options) -> None:
    """Write other weights into a folder."""
    (folder / "pytorch_model.bin").unlink()
    save_file(state, folder / name) if name.endswith("safetensors") else torch.save(state, folder / name, **options)


def test_the_vocabulary_of_these_tests_is_shaped_like_that_of_bert_base_chinese():
    tokens = bert_tokens()
    assert len(tokens) == len(set(tokens)) == BERT_SIZE
    assert tokens[:2] == ["[PAD]", "[unused1]"] and tokens[99:106] == [
        "[unused99]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>",
    ]  # fmt: skip
    assert sum(token.startswith("##") for token in tokens) > 7_000


@pytest.mark.parametrize(
    "form", ["as published", "no prefix", "module prefix", "half precision", "not zipped", "safetensors", "two files"]
)
def test_weights_of_every_age_are_the_same_network(theirs, folder, form):
    state = old_state(theirs)
    if form == "no prefix":
        replace_weights(folder, old_state(theirs, ""))
    elif form == "module prefix":
        replace_weights(folder, old_state(theirs, "module.transformer."))
    elif form == "half precision":
        halves = {name: weight.half() if weight.is_floating_point() else weight for name, weight in state.items()}
        replace_weights(folder, halves)
        theirs = tiny_gpt2()
        theirs.load_state_dict({name: weight.half().float() for name, weight in theirs.state_dict().items()})
    elif form == "not zipped":
        replace_weights(folder, state, _use_new_zipfile_serialization=False)
    elif form == "safetensors":
        replace_weights(folder, {name: weight.contiguous() for name, weight in state.items()}, "model.safetensors")
    elif form == "two files":
        parts = [dict(list(state.items())[start::2]) for start in (0, 1)]
        replace_weights(folder, parts[0], "pytorch_model-00001-of-00002.bin")
        torch.save(parts[1], folder / "pytorch_model-00002-of-00002.bin")
        places = {name: f"pytorch_model-0000{part + 1}-of-00002.bin" for part in (0, 1) for name in parts[part]}
        write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})
    model, tokenizer = load_model(folder)
    assert torch.equal(logits_of(model), logits_of(theirs))
    assert model.lm_head.weight is model.transformer.wte.weight
    assert (tokenizer.kind, tokenizer.vocab_size, tokenizer.cls_id) == ("wordpiece", BERT_SIZE, 101)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (101, 101)  # not the 50256 of the config


def test_an_index_that_names_files_elsewhere_is_refused(theirs, folder):
    (folder / "pytorch_model.bin").unlink()
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": {"wte.weight": "../evil.bin"}})
    with pytest.raises(UserError) as caught:
        load_model(folder)
    message = f"{folder / 'pytorch_model.bin.index.json'}: names no weight files beside it"
    assert str(caught.value) == f"error: {message}\n\nhint: download the model again"


def test_what_transformers_saves_today_is_read(theirs, tmp_path):
    folder = publish_new(tmp_path / "new", theirs)
    assert not (folder / "vocab.txt").exists()
    model, tokenizer = load_model(folder)
    assert torch.equal(logits_of(model), logits_of(theirs))
    assert tokenizer.tokens == bert_tokens()


def test_a_head_of_its_own_stays_its_own(tmp_path, capsys):
    theirs = tiny_gpt2(tie_word_embeddings=False)
    folder = publish_old(tmp_path / "theirs", theirs, tie_word_embeddings=False)
    model, tokenizer = load_model(folder)
    assert torch.equal(logits_of(model), logits_of(theirs))
    assert model.lm_head.weight is not model.transformer.wte.weight
    save_model(model, tokenizer, tmp_path / "ours")
    for again in (GPT2LMHeadModel.from_pretrained(tmp_path / "ours"), load_model(tmp_path / "ours")[0]):
        torch.testing.assert_close(logits_of(again), logits_of(theirs))
    capsys.readouterr()
    edit = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    edit.pop("tie_word_embeddings")  # transformers, too, then goes by the weights
    write_json(folder / "config.json", edit)
    assert torch.equal(logits_of(load_model(folder)[0]), logits_of(theirs))
    words = "lm_head.weight is not the embedding, so it stays a matrix of its own"
    assert capsys.readouterr().err == f"warning: {folder}: {words}\n"


def test_rows_beyond_the_vocabulary_are_kept_as_reserved_tokens(tmp_path, capsys):
    theirs = tiny_gpt2(vocab_size=BERT_SIZE + 2)
    folder = publish_old(tmp_path / "theirs", theirs, vocab_size=BERT_SIZE + 2)
    model, tokenizer = load_model(folder)
    assert torch.equal(logits_of(model), logits_of(theirs))
    assert tokenizer.tokens[-2:] == ["[unused100]", "[unused101]"]
    assert capsys.readouterr().err == (
        f"warning: {folder}: config.json has vocab_size {BERT_SIZE + 2}, its vocabulary {BERT_SIZE} tokens; "
        "the 2 rows beyond them are kept as reserved tokens\n"
    )


def test_tokens_that_somebody_added_are_read_from_the_file_beside_the_list(tmp_path):
    folder = publish_old(tmp_path / "theirs", tiny_gpt2(vocab_size=BERT_SIZE + 2), vocab_size=BERT_SIZE + 2)
    write_json(folder / "added_tokens.json", {"[HL]": BERT_SIZE + 1, "[EOS]": BERT_SIZE})
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokens[BERT_SIZE:] == ["[EOS]", "[HL]"]
    assert tokenizer.encode_prefix("[HL]").tolist() == [101, BERT_SIZE + 1]
    write_json(folder / "added_tokens.json", {"[HL]": BERT_SIZE + 7})
    with pytest.raises(UserError) as caught:
        load_tokenizer(folder)
    assert str(caught.value) == (
        f"error: {folder / 'added_tokens.json'}: "
        f"its ids do not continue after the {BERT_SIZE:,} tokens of vocab.txt\n\n"
        "hint: put back the vocab.txt that belongs to it"
    )


@pytest.fixture(scope="module", params=[publish_old, publish_new])
def tokenizers(request, theirs, tmp_path_factory):
    """Our tokenizer of a published folder, and the BertTokenizer that transformers makes of it."""
    from transformers import BertTokenizer

    folder = request.param(tmp_path_factory.mktemp("published") / "theirs", theirs)
    reference = BertTokenizer.from_pretrained(folder, split_special_tokens=True)
    assert len(reference) == BERT_SIZE
    return load_tokenizer(folder), reference


@pytest.mark.parametrize("name", NOVELS)
def test_parts_of_novels_have_the_ids_of_bert(tokenizers, name):
    check_ids(*tokenizers, read_novel(name)[-30_000:])


@pytest.mark.slow
@pytest.mark.parametrize("name", NOVELS)
def test_whole_novels_have_the_ids_of_bert(tokenizers, name):
    check_ids(*tokenizers, read_novel(name))


def check_ids(tokenizer, reference, text: str) -> None:
    """Compare our ids of a text with those of transformers."""
    ids = tokenizer.encode(text).tolist()
    assert ids == reference_ids(reference, text)
    assert len(ids) > len(text) // 2


def options_of(tmp_path: Path, folder: Path) -> list[str]:
    """Write a corpus and return the command line of a fine-tuning that takes seconds."""
    story = json.loads((ROOT / "data" / "sample" / "clean.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "train.json", [chapter[:500] for chapter in story[:6]])
    paths = {"raw_data_path": "train.json", "tokenized_data_path": "pieces", "output_dir": "run"}
    words = [f"--{name}={tmp_path / path}" for name, path in paths.items()]
    words += [f"--pretrained_model={folder}", "--raw", "--device=cpu", "--precision=fp32", "--sample_length=0"]
    return [*words, *"--epochs 2 --stride 32 --batch_size 8 --lr 3e-3 --num_pieces 3 --valid_fraction 0.2".split()]


def greedy_of_transformers(folder: Path, prefix: str, length: int) -> str:
    """Let transformers alone write a greedy continuation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    inputs = tokenizer(f"[CLS]{prefix}", return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=length, do_sample=False)[0]
    return tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.sweep
@pytest.mark.parametrize("writer", [publish_old, publish_new])
def test_a_published_model_is_fine_tuned_evaluated_and_sampled(theirs, tmp_path, capsys, writer):
    folder = writer(tmp_path / "theirs", theirs)
    assert run(train_script.main, options_of(tmp_path, folder)) == 0
    capsys.readouterr()
    final = tmp_path / "run" / "final_model"
    assert load_tokenizer(final).tokens == bert_tokens()

    text = "那天夜里没有月亮，一斗坐在井沿上。"
    assert run(eval_script.main, [f"--model_path={final}", f"--text={text}", "--device=cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    model, tokenizer = load_model(final)
    ids = torch.tensor([[tokenizer.cls_id, *tokenizer.encode(text).tolist(), tokenizer.cls_id]])
    with torch.no_grad():
        assert result["loss"] == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)  # transformers' own
    with torch.no_grad():
        assert result["loss"] < theirs(ids, labels=ids).loss.item() - 1  # it has learned

    words = ["--temperature=0", "--nsamples=1", "--length=20", "--stop=never", "--no-cut_loops", "--precision=fp32"]
    words += [f"--model_path={final}", f"--prefix={PREFIX}", "--device=cpu", f"--corpus={tmp_path / 'train.json'}"]
    assert run(generate_script.main, words) == 0
    shown = capsys.readouterr().out
    expected = greedy_of_transformers(final, PREFIX, 20)
    assert len(expected) > 20
    assert expected in shown


def test_a_folder_without_vocabulary_takes_the_one_that_is_given(theirs, folder, tmp_path, capsys):
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    argv = options_of(tmp_path, folder)
    assert run(train_script.main, argv) == 2
    assert capsys.readouterr().err == (
        f"error: {folder}: holds no vocabulary, neither tokenizer.json nor vocab.txt\n\n"
        "hint: give the one that it was trained with: --tokenizer_path vocab.txt\n"
    )
    save_vocabulary(tmp_path / "vocab.txt", bert_tokens())
    assert run(train_script.main, [*argv, f"--tokenizer_path={tmp_path / 'vocab.txt'}", "--epochs=1", "--lr=0"]) == 0
    model, _ = load_model(tmp_path / "run" / "final_model")
    assert torch.equal(logits_of(model), logits_of(theirs))
