"""convert.py without optional packages: folders in three precisions, old weights, names of MindSpore, refusals."""

import json
import shutil
import sys

import pytest
import torch
from conftest import STORY, TINY
from transformers import GPT2Config, GPT2LMHeadModel

import convert
from novelgpt import NovelTokenizer, UserError, load_model
from novelgpt.cli import run
from novelgpt.conversion import check_output, models, open_source
from novelgpt.conversion.mindspore import from_mindspore, to_mindspore
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.files import find_damage, read_json, sha256_of
from novelgpt.network import build_model, check_weights, expected_shapes, save_model

CORPUS = {"path": "data/train.json", "sha256": "0" * 64}
# by hand from mindformers: the names of a network of one layer
MINDSPORE_NAMES = """
    backbone.embedding.word_embedding.embedding_table backbone.embedding.position_embedding.embedding_table
    backbone.layernorm.gamma backbone.layernorm.beta
    backbone.blocks.0.layernorm1.gamma backbone.blocks.0.layernorm1.beta
    backbone.blocks.0.layernorm2.gamma backbone.blocks.0.layernorm2.beta
    backbone.blocks.0.attention.dense1.weight backbone.blocks.0.attention.dense1.bias
    backbone.blocks.0.attention.dense2.weight backbone.blocks.0.attention.dense2.bias
    backbone.blocks.0.attention.dense3.weight backbone.blocks.0.attention.dense3.bias
    backbone.blocks.0.attention.projection.weight backbone.blocks.0.attention.projection.bias
    backbone.blocks.0.output.mapping.weight backbone.blocks.0.output.mapping.bias
    backbone.blocks.0.output.projection.weight backbone.blocks.0.output.projection.bias
""".split()


@pytest.fixture
def folder(tmp_path):
    """A model folder of ours whose norms and biases are not trivial."""
    tokenizer = NovelTokenizer.from_texts(STORY)
    model = build_model({**TINY, "attn_pdrop": 0.1, "n_inner": 48}, tokenizer, seed=1)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)), alpha=0.1)
    save_model(model, tokenizer, tmp_path / "saved", step=7, corpus=CORPUS)
    return tmp_path / "saved"


def logits_of(folder, dtype=None) -> torch.Tensor:
    """Return what transformers alone computes of a folder for some tokens."""
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(torch.arange(250, 266)[None]).logits.float()


def refusal(capsys, *words: object) -> tuple[int, str]:
    """Return exit status and message of a refused call."""
    status = run(convert.main, list(map(str, words)))
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    return status, said.err


def test_fp32_is_the_same_model_in_transformers(folder, tmp_path, capsys):
    assert run(convert.main, [str(folder), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert torch.equal(logits_of(tmp_path / "out"), logits_of(folder))


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"), [("bf16", torch.bfloat16, 0.05), ("fp16", torch.float16, 0.006)]
)
def test_16_bits_are_half_the_size_and_close(folder, tmp_path, name, dtype, tolerance):
    assert run(convert.main, [str(folder), str(tmp_path / "out"), "--dtype", name]) == 0
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "out").dtype == dtype
    sizes = [(place / "model.safetensors").stat().st_size for place in (tmp_path / "out", folder)]
    assert sizes[0] < 0.6 * sizes[1]
    exact = logits_of(folder)
    difference = (logits_of(tmp_path / "out", torch.float32) - exact).abs().max() / exact.abs().max()
    assert 0 < difference < tolerance
    assert read_json(tmp_path / "out/config.json")["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_back_in_fp32_the_numbers_are_those_of_the_16_bits(folder, tmp_path):
    assert run(convert.main, [str(folder), str(tmp_path / "half"), "--dtype=bf16"]) == 0
    assert run(convert.main, [str(tmp_path / "half"), str(tmp_path / "whole")]) == 0
    exact, half, whole = (
        load_model(place)[0].state_dict() for place in (folder, tmp_path / "half", tmp_path / "whole")
    )
    for name, weight in whole.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, half[name]) and torch.equal(weight, exact[name].bfloat16().float())


def test_the_manifest_names_hashes_source_and_corpus(folder, tmp_path):
    assert run(convert.main, [str(folder), str(tmp_path / "out"), "--dtype=fp16"]) == 0
    manifest = read_json(tmp_path / "out/manifest.json")
    weights = folder / "model.safetensors"
    assert manifest["source"] == {str(weights): sha256_of(weights)}
    assert (manifest["step"], manifest["corpus"], manifest["dtype"]) == (7, CORPUS, "fp16")
    assert find_damage(tmp_path / "out") is None
    (tmp_path / "out/vocab.txt").write_text("x", encoding="utf-8")
    assert "vocab.txt" in find_damage(tmp_path / "out")


def test_a_model_of_another_tool_with_old_weights_is_read(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4F00))]
    save_vocabulary(tmp_path / "vocab.txt", tokens)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokens), n_layer=2, n_embd=16, n_head=2, n_positions=32, initializer_range=0.5)
    model = GPT2LMHeadModel(config).eval()
    state = {f"module.{name}": weight for name, weight in model.state_dict().items()}
    state |= {f"module.transformer.h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(2)}
    state |= {f"module.transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({**config.to_diff_dict(), "model_type": "gpt2"}), encoding="utf-8")
    assert run(convert.main, [str(tmp_path), str(tmp_path / "out")]) == 0
    with torch.no_grad():
        expected = model(torch.arange(250, 261)[None]).logits
    converted = GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(converted(torch.arange(250, 261)[None]).logits, expected, rtol=0, atol=0)


def test_a_number_that_fp16_cannot_hold_is_refused(folder, tmp_path, capsys):
    model, tokenizer = load_model(folder)
    with torch.no_grad():
        model.transformer.wpe.weight[3, 4] = -70_000
    save_model(model, tokenizer, tmp_path / "large")
    assert refusal(capsys, tmp_path / "large", tmp_path / "out", "--dtype=fp16") == (
        5,
        "error: --dtype fp16: cannot hold 7e+04 of transformer.wpe.weight\n\nhint: --dtype bf16 or fp32\n",
    )
    assert not (tmp_path / "out").exists()
    assert run(convert.main, [str(tmp_path / "large"), str(tmp_path / "out"), "--dtype=bf16"]) == 0


def test_nothing_but_a_model_folder_is_ever_replaced(folder, tmp_path, capsys):
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary/page.txt").write_text("dear diary", encoding="utf-8")
    message = f"error: {tmp_path / 'diary'}: exists and is not a model folder of ours, so it is not replaced"
    assert refusal(capsys, folder, tmp_path / "diary") == (2, f"{message}\n\nhint: give the name of a new folder\n")
    assert (tmp_path / "diary/page.txt").exists()
    same = folder.parent / "." / "saved"
    message = f"error: {same}: source and output are the same\n\nhint: give another output\n"
    assert refusal(capsys, folder, same) == (2, message)
    message = f"error: {folder}: is a folder, expected a file\n\nhint: {folder / 'model.gguf'}\n"
    assert refusal(capsys, tmp_path / "diary", folder, "--to=gguf") == (2, message)


def test_a_gguf_file_replaces_no_other_file(folder, tmp_path, capsys):
    weights = folder / "model.safetensors"
    before = sha256_of(weights)
    message = f"error: {weights}: exists and is no GGUF file, so it is not replaced"
    said = refusal(capsys, folder, weights, "--to=gguf")
    assert said == (2, f"{message}\n\nhint: give the name of a new file\n")
    assert sha256_of(weights) == before
    for name, content in (("old.gguf", b"GGUF and more"), ("empty", b"")):
        (folder / name).write_bytes(content)
        check_output(str(folder), str(folder / name), "gguf")


def test_a_folder_that_holds_the_source_is_not_replaced(folder, capsys):
    (folder / "model.ckpt").write_bytes(b"weights")
    (folder / "link").symlink_to(folder / "model.ckpt")
    message = f"error: {folder}: holds the source, so it is not replaced\n\nhint: give the name of a new folder\n"
    for source in (folder / "model.ckpt", folder / "link"):
        assert refusal(capsys, source, folder) == (2, message)
    assert (folder / "model.ckpt").read_bytes() == b"weights"


@pytest.fixture
def checkpoint(folder, tmp_path, monkeypatch):
    """A MindSpore folder; torch writes and reads its values in place of the package."""
    monkeypatch.setattr(models, "write_mindspore", lambda path, weights: torch.save(to_mindspore(weights), path))
    monkeypatch.setattr(models, "read_mindspore", lambda path: from_mindspore(torch.load(path)))
    assert run(convert.main, [str(folder), str(tmp_path / "mind"), "--to=mindspore"]) == 0
    said = json.loads((tmp_path / "mind/tokenizer_config.json").read_text(encoding="utf-8"))
    assert said["model_max_length"] == load_model(folder)[0].config.n_positions
    return tmp_path / "mind/model.ckpt"


def test_a_mindspore_folder_comes_back_as_the_same_model(folder, checkpoint, tmp_path):
    assert run(convert.main, [str(checkpoint.parent), str(tmp_path / "back")]) == 0
    assert torch.equal(logits_of(tmp_path / "back"), logits_of(folder))


def test_a_lone_mindspore_checkpoint_comes_back_by_its_config_and_vocabulary(folder, checkpoint, tmp_path):
    (tmp_path / "alone").mkdir()
    lone = shutil.copy(checkpoint, tmp_path / "alone/weights.ckpt")
    files = [f"--model_config={folder / 'config.json'}", f"--tokenizer_path={folder / 'vocab.txt'}"]
    assert run(convert.main, [str(lone), str(tmp_path / "back"), *files]) == 0
    assert torch.equal(logits_of(tmp_path / "back"), logits_of(folder))


@pytest.mark.parametrize("kind", ["hf", "mindspore"])
def test_blocks_of_eight_bits_are_for_gguf_only(folder, tmp_path, capsys, kind):
    message = f"error: --dtype q8_0: --to {kind} does not know it, only GGUF does"
    hint = "hint: --to gguf; or --dtype bf16, fp16 or fp32"
    said = refusal(capsys, folder, tmp_path / "out", f"--to={kind}", "--dtype=q8_0")
    assert said == (2, f"{message}\n\n{hint}\n")


def test_a_call_without_places_says_what_is_missing(capsys):
    hint = "python convert.py model/final_model build/model"
    for count, words in enumerate(([], ["a"])):
        message = f"error: found {count} places, expected two: the source and the output\n\nhint: {hint}\n"
        assert refusal(capsys, *words) == (2, message)


def test_a_config_for_a_folder_that_has_one_is_refused(folder, tmp_path, capsys):
    said = refusal(capsys, folder, tmp_path / "out", "--model_config=config/model_config_small.json")
    assert said == (2, f"error: --model_config: {folder} has its own\n\nhint: leave it out\n")


def weights_of(layers: int = 1) -> dict[str, torch.Tensor]:
    """Return the weights of a small network by transformers' names."""
    config = GPT2Config(n_layer=layers, n_embd=8, n_head=2, n_positions=16, vocab_size=11)
    torch.manual_seed(0)
    return {name: torch.randn(weight.shape) for name, weight in GPT2LMHeadModel(config).named_parameters()}


def test_the_names_for_mindspore_are_those_of_mindformers():
    assert sorted(to_mindspore(weights_of())) == sorted(MINDSPORE_NAMES)


def test_query_key_and_value_are_the_three_dense_layers_of_mindspore():
    weights = weights_of()
    values, states = to_mindspore(weights), torch.randn(5, 8)
    prefix = "transformer.h.0.attn.c_attn."
    joint = states @ weights[f"{prefix}weight"] + weights[f"{prefix}bias"]  # (5, 24): query, key, value
    for number, part in enumerate(joint.split(8, dim=1), 1):
        dense = f"backbone.blocks.0.attention.dense{number}."
        computed = torch.nn.functional.linear(states, values[f"{dense}weight"], values[f"{dense}bias"])
        torch.testing.assert_close(computed, part)


@pytest.mark.parametrize("layers", [1, 12])
def test_names_and_values_survive_the_way_to_mindspore_and_back(layers):
    weights = weights_of(layers)
    back = from_mindspore(to_mindspore(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_a_head_of_its_own_has_no_place_in_mindspore():
    with pytest.raises(UserError) as refused:
        to_mindspore({**weights_of(), "lm_head.weight": torch.ones(11, 8)})
    message = "--to mindspore: the head is not the embedding, and mindformers' GPT-2 knows no other"
    assert refused.value.message == message


def test_masks_and_what_belongs_to_the_optimizer_are_left_out_of_a_checkpoint():
    values = to_mindspore(weights_of())
    values |= {"adam_m.backbone.layernorm.gamma": torch.ones(8), "global_step": torch.ones(1)}
    values |= {f"backbone.blocks.0.attention.{name}": torch.ones(1) for name in ("beta", "masked_beta")}
    assert from_mindspore(values).keys() == weights_of().keys()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("backbone.blocks.0.attention.dense2.bias", None), "transformer.h.0.attn.c_attn.bias is [16], expected [24]"),
        (("backbone.blocks.0.output.gate.weight", torch.ones(1)), "backbone.blocks.0.output.gate.weight is unknown"),
        (("backbone.layernorm.beta", None), "transformer.ln_f.bias is missing"),
    ],
)
def test_a_checkpoint_of_another_network_does_not_fit(change, problem, tmp_path):
    name, value = change
    values = to_mindspore(weights_of())
    values = {key: entry for key, entry in values.items() if key != name} | ({} if value is None else {name: value})
    expected = expected_shapes({"n_layer": 1, "n_embd": 8, "n_positions": 16}, 11)
    with pytest.raises(UserError) as refused:
        check_weights(from_mindspore(values), expected, place=tmp_path)
    assert refused.value.message == f"{tmp_path}: weights do not fit config.json: {problem}"


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("gguf", "--to gguf: the package gguf is not installed", "pip install gguf"),
        (
            "mindspore",
            "mindspore: the package is not installed, and only it writes and reads MindSpore checkpoints",
            "pip install mindspore",
        ),
    ],
)
def test_an_absent_package_is_named_and_nothing_is_left_behind(
    folder, tmp_path, capsys, monkeypatch, kind, message, hint
):
    monkeypatch.setitem(sys.modules, kind, None)
    assert refusal(capsys, folder, tmp_path / "out", f"--to={kind}") == (4, f"error: {message}\n\nhint: {hint}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]


def test_a_lone_checkpoint_needs_its_config(tmp_path, capsys):
    (tmp_path / "a.ckpt").write_bytes(b"")
    hint = "give a .ckpt file, with --model_config and --tokenizer_path if it stands alone"
    message = f"error: {tmp_path / 'config.json'}: no such file\n\nhint: {hint}\n"
    assert refusal(capsys, tmp_path / "a.ckpt", tmp_path / "out") == (5, message)


def test_a_vocabulary_or_network_that_llama_cpp_reads_otherwise_is_refused(folder, tmp_path, capsys):
    source = open_source(folder)
    bpe = NovelTokenizer.from_texts(STORY, kind="bpe", vocab_size=400)
    config = {**TINY, "attn_pdrop": 0.1}
    save_model(build_model(config, bpe), bpe, tmp_path / "bpe")
    words = "a bpe vocabulary, which llama.cpp would not read token for token as it is"
    hint = "only models with a character vocabulary can be written as GGUF"
    said = refusal(capsys, tmp_path / "bpe", tmp_path / "out.gguf", "--to=gguf")
    assert said == (5, f"error: --to gguf: {words}\n\nhint: {hint}\n")
    relu = build_model({**config, "activation_function": "relu"}, source.tokenizer)
    save_model(relu, source.tokenizer, tmp_path / "relu")
    said = refusal(capsys, tmp_path / "relu", tmp_path / "out.gguf", "--to=gguf")
    words = "activation_function relu, llama.cpp computes gelu_new"
    assert said == (5, f"error: --to gguf: {words}\n\nhint: --to hf\n")
    assert not (tmp_path / "out.gguf").exists()


def test_a_folder_without_a_vocabulary_takes_the_one_that_is_given(folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare / name)
    vocabulary = tmp_path / "vocab.txt"
    shutil.copy(folder / "vocab.txt", vocabulary)
    assert run(convert.main, [str(bare), str(tmp_path / "out"), f"--tokenizer_path={vocabulary}"]) == 0
    assert torch.equal(logits_of(tmp_path / "out"), logits_of(folder))
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == vocabulary.read_bytes()
