"""GGUF and MindSpore files, read back by the packages they are for. `make test-extras` installs those and runs this."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import STORY, TINY
from hypothesis import given, settings
from hypothesis import strategies as st

import convert
from novelgpt import NovelTokenizer, load_model
from novelgpt.cli import run
from novelgpt.files import find_damage
from novelgpt.messages import UserError
from novelgpt.network import build_model, save_model

pytestmark = pytest.mark.extras
HARD = [
    "水又少了一寸。",
    "  两个空格\n\n换行\t制表 ",
    "a b C龘𠮷😀👨\u200d👩\u200d👧",
    "[CLS][SEP][UNK][unused1]<0x0A>",
    "﷽\u3000……——“”",
    "\r\n \x07\x1b\ufeff\ue000\u2028",
    "é e\u0301 ﬁ Ａ１ ½",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of ours whose norms and biases are not trivial, with a vocabulary that lacks most characters."""
    place = tmp_path_factory.mktemp("source") / "saved"
    tokenizer = NovelTokenizer.from_texts([*STORY, "▁"])
    config = {**TINY, "attn_pdrop": 0.1, "n_embd": 64, "n_inner": 96, "n_positions": 64, "initializer_range": 0.2}
    model = build_model(config, tokenizer, seed=1)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)), alpha=0.05)
    save_model(model, tokenizer, place)
    return place


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """Return a function from a precision to the GGUF file of the model."""
    pytest.importorskip("gguf", reason="the package gguf is not installed")
    place = tmp_path_factory.mktemp("gguf")

    def write(dtype: str = "fp32"):
        path = place / f"{dtype}.gguf"
        if not path.exists():
            assert run(convert.main, [str(folder), str(path), "--to=gguf", f"--dtype={dtype}"]) == 0
        return path

    return write


def fields_of(path) -> dict:
    """Return the metadata of a GGUF file."""
    import gguf

    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_the_metadata_is_what_llama_cpp_asks_for(written, folder):
    fields, (model, tokenizer) = fields_of(written()), load_model(folder)
    expected = {
        "general.architecture": "gpt2",
        "gpt2.context_length": 64,
        "gpt2.embedding_length": 64,
        "gpt2.block_count": TINY["n_layer"],
        "gpt2.feed_forward_length": 96,
        "gpt2.attention.head_count": TINY["n_head"],
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.bos_token_id": tokenizer.cls_id,
        "tokenizer.ggml.eos_token_id": tokenizer.cls_id,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": True,
    }
    assert {name: fields[name] for name in expected} == expected
    assert fields["gpt2.attention.layer_norm_epsilon"] == pytest.approx(model.config.layer_norm_epsilon)
    assert len(set(fields["tokenizer.ggml.tokens"])) == tokenizer.vocab_size


@pytest.mark.parametrize(("dtype", "kind"), [("fp32", "F32"), ("fp16", "F16"), ("bf16", "BF16")])
def test_the_tensors_are_the_weights_with_the_matrices_of_the_layers_turned(written, folder, dtype, kind):
    import gguf

    model = load_model(folder)[0]
    found = {}
    for tensor in gguf.GGUFReader(written(dtype)).tensors:
        is_exact = len(tensor.shape) == 1 or tensor.name == "position_embd.weight"
        assert tensor.tensor_type.name == ("F32" if is_exact else kind)
        found[tensor.name] = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
    body = model.transformer
    round_to = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    expected = {"token_embd.weight": body.wte.weight.to(round_to), "position_embd.weight": body.wpe.weight}
    expected |= {"output_norm.weight": body.ln_f.weight, "output_norm.bias": body.ln_f.bias}
    for index, block in enumerate(body.h):
        layers = {
            "attn_norm": block.ln_1, "attn_qkv": block.attn.c_attn, "attn_output": block.attn.c_proj,
            "ffn_norm": block.ln_2, "ffn_up": block.mlp.c_fc, "ffn_down": block.mlp.c_proj,
        }  # fmt: skip
        for name, layer in layers.items():
            weight = layer.weight.t().to(round_to) if layer.weight.dim() == 2 else layer.weight
            expected |= {f"blk.{index}.{name}.weight": weight, f"blk.{index}.{name}.bias": layer.bias}
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name].view(weight.shape), weight.float()), name


def quantize_by_hand(values: np.ndarray) -> np.ndarray:
    """Return what blocks of 32 with a scale of max / 127 keep of a matrix, by the definition of Q8_0."""
    blocks = values.reshape(-1, 32)
    scales = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    whole = np.rint(blocks / np.where(scales == 0, 1, scales))
    return (whole * scales.astype(np.float16).astype(np.float32)).reshape(values.shape)


def test_a_block_of_eight_bits_has_the_bytes_worked_by_hand(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    from novelgpt.conversion.gguf import add_tensor

    row = [254.0, -254.0, 2.0, -2.0, 2.9, 3.1, 0.0, *[100.0] * 25]  # largest 254, so the scale is 2
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "gpt2")
    add_tensor(writer, gguf, "token_embd.weight", torch.tensor([row, [0.0] * 32]), "q8_0")
    add_tensor(writer, gguf, "output.weight", torch.ones(2, 33), "q8_0")  # 33 is no multiple of 32
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    table, head = gguf.GGUFReader(tmp_path / "a.gguf").tensors
    assert (table.tensor_type.name, head.tensor_type.name) == ("Q8_0", "F32")
    expected = np.array([127, -127, 1, -1, 1, 2, 0, *[50] * 25], np.int8)  # 2.9 / 2 = 1.45, 3.1 / 2 = 1.55
    assert table.data[0].tobytes() == np.float16(2).tobytes() + expected.tobytes()
    assert table.data[1].tobytes() == bytes(34)
    with pytest.raises(UserError, match=r"--dtype q8_0: cannot hold 9e\+06 of token_embd\.weight"):
        add_tensor(writer, gguf, "token_embd.weight", torch.full((1, 32), 9e6), "q8_0")


def test_eight_bits_are_read_back_as_the_definition_has_them(written, folder):
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    exact = {tensor.name: tensor.data for tensor in gguf.GGUFReader(written()).tensors}
    kinds = {}
    for tensor in gguf.GGUFReader(written("q8_0")).tensors:
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        is_exact = len(tensor.shape) == 1 or tensor.name == "position_embd.weight"
        kinds[tensor.name] = tensor.tensor_type.name
        assert kinds[tensor.name] == ("F32" if is_exact else "Q8_0")
        expected = exact[tensor.name] if is_exact else quantize_by_hand(exact[tensor.name])
        np.testing.assert_allclose(found, expected, rtol=0, atol=0 if is_exact else 1e-6)
        # at most half a step of 1/127, and what the scale loses in fp16
        assert np.abs(found - exact[tensor.name]).max() <= np.abs(exact[tensor.name]).max() * (0.5 / 127 + 2**-11)
    assert fields_of(written("q8_0"))["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert 0.25 < written("q8_0").stat().st_size / written().stat().st_size < 0.5  # positions, norms and names stay


def read_as_sentencepiece(text: str, tokens: list[str], kinds: list[int]) -> list[int]:
    """Turn text into ids as llama.cpp's tokenizer "llama" does: join the best pairs, look up, else bytes.

    All scores of our files are equal, so the leftmost pair that is a token is joined first.
    """
    ids = {token: index for index, token in enumerate(tokens)}
    symbols = list(text.replace(" ", "▁"))
    joined = True
    while joined:
        joined = False
        for place in range(len(symbols) - 1):
            if symbols[place] + symbols[place + 1] in ids:
                symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
                joined = True
                break
    found: list[int] = []
    for symbol in symbols:
        if symbol in ids:
            found.append(ids[symbol])
        else:
            spelled = [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
            assert all(kinds[index] == 6 for index in spelled)  # BYTE
            found += spelled
    return found


def test_the_rule_of_the_named_tokenizer_gives_the_ids_of_ours(written, folder):
    fields, tokenizer = fields_of(written()), load_model(folder)[1]
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert set(fields["tokenizer.ggml.scores"]) == {0.0}

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=20))
    def is_equal(text):
        assert read_as_sentencepiece(text, tokens, kinds) == tokenizer.encode(text).tolist()

    is_equal()
    for text in HARD:
        assert read_as_sentencepiece(text, tokens, kinds) == tokenizer.encode(text).tolist(), text


LLAMA_CPP = """
import json, os, sys, urllib.request
import xllamacpp

settings, questions = xllamacpp.CommonParams(), json.load(sys.stdin)
settings.model.path, settings.n_ctx, settings.n_gpu_layers = sys.argv[1], 64, 0
settings.warmup, settings.verbosity, settings.n_parallel, settings.cpuparams.n_threads = False, -1, 1, 1
server = xllamacpp.Server(settings)
answers = []
for path, question in questions:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, json.dumps(question).encode(), headers)
    answers.append(json.loads(urllib.request.urlopen(request, timeout=60).read()))
print(json.dumps(answers), flush=True)
os._exit(0)
"""


def ask_llama_cpp(path, questions: list) -> list:
    """Return llama.cpp's answers to requests about a GGUF file."""
    pytest.importorskip("xllamacpp", reason="the package xllamacpp, which brings llama.cpp, is not installed")
    done = subprocess.run(
        [sys.executable, "-c", LLAMA_CPP, str(path)], input=json.dumps(questions), capture_output=True,
        encoding="utf-8", check=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def test_llama_cpp_computes_blocks_of_eight_bits_nearly_as_exactly(written, folder):
    model, tokenizer = load_model(folder)
    prompt = tokenizer.encode_prefix("水里的星星").tolist()
    question = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 3}
    (answer,) = ask_llama_cpp(written("q8_0"), [("/completion", question)])
    first = answer["completion_probabilities"][0]["top_logprobs"]
    with torch.no_grad():
        chances = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    np.testing.assert_allclose(
        [entry["logprob"] for entry in first], [chances[entry["id"]] for entry in first], atol=0.1
    )
    assert first[0]["id"] == int(chances.argmax())


def test_llama_cpp_itself_reads_the_same_ids_and_writes_the_same_text(written, folder):
    model, tokenizer = load_model(folder)
    prompt = tokenizer.encode_prefix("水里的星星").tolist()
    plain = {"add_special": False, "parse_special": False}
    questions = [("/tokenize", {"content": text, **plain}) for text in HARD]
    questions += [("/tokenize", {"content": "水里的星星", "add_special": True})]
    questions += [("/detokenize", {"tokens": tokenizer.encode(text).tolist()}) for text in HARD]
    greedy = {"prompt": prompt, "n_predict": 8, "temperature": 0, "n_probs": 3, "return_tokens": True}
    answers = ask_llama_cpp(written(), [*questions, ("/completion", {**greedy, "ignore_eos": True})])
    assert [answer["tokens"] for answer in answers[: len(HARD)]] == [tokenizer.encode(text).tolist() for text in HARD]
    assert answers[len(HARD)]["tokens"] == prompt
    assert [answer["content"] for answer in answers[len(HARD) + 1 : -1]] == HARD
    with torch.no_grad():
        chances = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    first = answers[-1]["completion_probabilities"][0]["top_logprobs"]
    assert [entry["id"] for entry in first] == chances.topk(3).indices.tolist()
    np.testing.assert_allclose([entry["logprob"] for entry in first], chances.topk(3).values, atol=5e-3)
    chances_of_end = torch.full((tokenizer.vocab_size,), 0.0).index_fill(0, torch.tensor(tokenizer.cls_id), -torch.inf)
    ids = list(prompt)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int((model(torch.tensor([ids])).logits[0, -1] + chances_of_end).argmax()))
    assert answers[-1]["tokens"] == ids[len(prompt) :]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_mindspore_checkpoint_holds_the_values_and_comes_back_as_it_was(folder, tmp_path, dtype):
    mindspore = pytest.importorskip("mindspore", reason="the package mindspore is not installed")
    assert run(convert.main, [str(folder), str(tmp_path / "there"), "--to=mindspore", f"--dtype={dtype}"]) == 0
    values = mindspore.load_checkpoint(str(tmp_path / "there/model.ckpt"))
    model = load_model(folder)[0]
    round_to = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    key = values["backbone.blocks.1.attention.dense2.weight"].astype(mindspore.float32).asnumpy()
    expected = model.transformer.h[1].attn.c_attn.weight[:, 64:128].t().to(round_to).float()
    assert np.array_equal(key, expected.detach().numpy())
    assert find_damage(tmp_path / "there") is None
    assert run(convert.main, [str(tmp_path / "there"), str(tmp_path / "back"), "--from=mindspore"]) == 0
    back = load_model(tmp_path / "back")[0].state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(back[name], weight.to(round_to).float()), name


def test_a_lone_mindspore_checkpoint_takes_config_and_vocabulary_from_elsewhere(folder, tmp_path):
    pytest.importorskip("mindspore", reason="the package mindspore is not installed")
    assert run(convert.main, [str(folder), str(tmp_path / "there"), "--to=mindspore"]) == 0
    (tmp_path / "alone").mkdir()
    (tmp_path / "there/model.ckpt").rename(tmp_path / "alone/gpt2.ckpt")
    places = [f"--model_config={folder / 'config.json'}", f"--tokenizer_path={folder}"]
    assert run(convert.main, [str(tmp_path / "alone/gpt2.ckpt"), str(tmp_path / "back"), *places]) == 0
    expected, back = (load_model(place)[0].state_dict() for place in (folder, tmp_path / "back"))
    assert all(torch.equal(back[name], weight) for name, weight in expected.items())


def test_what_is_no_mindspore_checkpoint_is_refused(folder, tmp_path, capsys):
    pytest.importorskip("mindspore", reason="the package mindspore is not installed")
    (tmp_path / "a.ckpt").write_bytes(b"no checkpoint")
    places = [f"--model_config={folder / 'config.json'}", f"--tokenizer_path={folder}"]
    assert run(convert.main, [str(tmp_path / "a.ckpt"), str(tmp_path / "back"), *places]) == 5
    assert f"error: {tmp_path / 'a.ckpt'}: not a MindSpore checkpoint: " in capsys.readouterr().err
