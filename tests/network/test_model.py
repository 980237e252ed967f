"""A model folder is whole or refused, and every Hugging Face tool reads it offline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, STORY
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.compute import tune_for_cpu
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import MANIFEST
from novelgpt.messages import UserError
from novelgpt.network import (
    build_model,
    check_model_folder,
    count_parameters,
    describe_model,
    load_model,
    read_model_config,
    save_model,
)

PREFIX = "[CLS]乔一斗"
FRESH_PROCESS = """
import json, sys
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
folder, prefix = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer(prefix, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]
piped = pipeline("text-generation", model=folder)(prefix, max_new_tokens=8, do_sample=False)
shown = tokenizer.decode(ids, skip_special_tokens=True)
print(json.dumps({"prefix": inputs["input_ids"][0].tolist(), "ids": ids.tolist(), "text": shown,
                  "piped": piped[0]["generated_text"], "class": type(model).__name__}))
"""


@pytest.fixture
def model(tiny_config, tiny_tokenizer):
    """An untrained tiny network."""
    return build_model(tiny_config, tiny_tokenizer, seed=3)


@pytest.fixture
def folder(model, tiny_tokenizer, tmp_path) -> Path:
    """A saved model folder."""
    save_model(model, tiny_tokenizer, tmp_path / "saved", step=7)
    return tmp_path / "saved"


def refusal_of(folder: Path) -> UserError:
    """Return the error of loading a folder."""
    with pytest.raises(UserError) as caught:
        load_model(folder)
    return caught.value


def edit_json(path: Path, **changes) -> None:
    """Change entries of a JSON object on the disk."""
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def edit_weights(folder: Path, change) -> None:
    """Rewrite the weights as a foreign tool would, without a manifest."""
    (folder / MANIFEST).unlink()
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def test_the_small_config_has_exactly_81894144_parameters():
    config = read_model_config(ROOT / "config" / "model_config_small.json")
    tokenizer = load_tokenizer(ROOT / "cache" / "vocab_small.txt")
    assert tokenizer.vocab_size == 13317
    assert count_parameters(build_model(config, tokenizer)) == 81894144
    assert describe_model(config, tokenizer.vocab_size) == (
        "n_layer=10 n_embd=768 n_head=12 n_positions=1024 vocab_size=13317\nnumber of parameters: 81894144"
    )


def test_initial_weights_are_a_function_of_the_seed(tiny_config, tiny_tokenizer):
    def weights(seed):
        return build_model(tiny_config, tiny_tokenizer, seed=seed).transformer.wte.weight

    torch.manual_seed(99)
    first = weights(1)
    state = torch.get_rng_state()
    assert torch.equal(weights(1), first)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers go on undisturbed
    assert not torch.equal(weights(2), first)


def test_a_saved_model_comes_back_equal(model, folder, tiny_tokenizer):
    loaded, tokenizer = load_model(folder)
    assert tokenizer.tokens == tiny_tokenizer.tokens
    assert list(loaded.state_dict()) == list(model.state_dict())
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert not loaded.training
    input_ids = torch.tensor([[2, 300, 301, 302]])
    with torch.no_grad():
        assert torch.equal(loaded(input_ids).logits, model.eval()(input_ids).logits)


def test_a_folder_holds_what_the_design_says_and_is_named_by_its_manifest(folder):
    names = {path.name for path in folder.iterdir()}
    files = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
             "vocab.txt", "README.md"}  # fmt: skip
    assert names == files | {MANIFEST}
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert set(manifest["files"]) == files
    assert manifest["step"] == 7
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}


def test_saving_a_tuned_or_half_precision_model_writes_the_same_plain_folder(model, folder, tiny_tokenizer, tmp_path):
    rounded = {name: weight.bfloat16().float() for name, weight in model.state_dict().items()}
    tune_for_cpu(model, seed=0)
    save_model(model.bfloat16(), tiny_tokenizer, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    for name, weight in load_model(tmp_path / "again")[0].state_dict().items():
        assert torch.equal(weight, rounded[name])


@pytest.mark.sweep
def test_hugging_face_reads_the_folder_offline_in_a_fresh_process_and_writes_the_same(folder, tiny_tokenizer):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FRESH_PROCESS, str(folder), PREFIX]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder.parent, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.strip().split("\n")[-1])
    loaded, tokenizer = load_model(folder)
    prefix = [tokenizer.cls_id, *tokenizer.encode("乔一斗").tolist()]
    ids = loaded.generate(
        torch.tensor([prefix]), attention_mask=torch.ones(1, len(prefix)), max_new_tokens=8, do_sample=False,
        pad_token_id=tokenizer.pad_id,
    )[0]  # fmt: skip
    assert theirs["class"] == "GPT2LMHeadModel"
    assert theirs["prefix"] == prefix
    assert theirs["ids"] == ids.tolist()
    assert theirs["piped"].removeprefix("[CLS]") == theirs["text"]


def test_a_weight_that_is_not_finite_is_not_saved_and_the_former_folder_stays(model, folder, tiny_tokenizer):
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] = torch.nan
    for target in (folder, folder.parent / "new"):
        with pytest.raises(UserError) as caught:
            save_model(model, tiny_tokenizer, target)
        assert str(caught.value) == (
            f"error: {target}: not saved: 1 weights are not finite, the first is transformer.h.1.mlp.c_fc.bias\n\n"
            "hint: resume from the last good checkpoint with a lower --lr"
        )
        assert caught.value.code == 5
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["saved", "vocab.txt"]


def test_a_flipped_byte_is_noticed(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    problem = refusal_of(folder)
    assert str(problem) == (
        f"error: {folder}: damaged: model.safetensors has changed: its sha256 differs from the manifest\n\n"
        "hint: use another model folder of the run, or train again"
    )
    assert problem.code == 5


def test_a_cut_file_is_noticed_with_or_without_manifest(folder):
    path = folder / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal_of(folder).message == (
        f"{folder}: damaged: model.safetensors has {size - 100:,} bytes, expected {size:,}"
    )
    (folder / MANIFEST).unlink()
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert refusal_of(folder).message == (
        f"{path}: not a whole safetensors file: {size - 100 - header:,} bytes of data, "
        f"the header says {size - header:,}"
    )


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"[]", b"\x80\x04K\x01."])
def test_a_file_that_is_no_safetensors_is_refused(folder, content):
    (folder / MANIFEST).unlink()
    (folder / "model.safetensors").write_bytes(content)
    problem = refusal_of(folder)
    assert problem.message.startswith(f"{folder / 'model.safetensors'}: not a whole safetensors file: ")
    assert (problem.hint, problem.code) == ("download or save the weights again", 5)


def test_another_number_of_layers_in_the_config_is_refused(folder):
    (folder / MANIFEST).unlink()
    edit_json(folder / "config.json", n_layer=3)
    assert str(refusal_of(folder)) == (
        f"error: {folder}: weights do not fit config.json: transformer.h.2.ln_1.weight is missing and 11 more\n\n"
        "hint: put back the config.json that belongs to these weights"
    )
    edit_json(folder / "config.json", n_layer=1)
    assert refusal_of(folder).message == (
        f"{folder}: weights do not fit config.json: transformer.h.1.attn.c_attn.bias is unknown and 11 more"
    )


def test_a_missing_tensor_is_refused(folder):
    edit_weights(folder, lambda weights: weights.pop("transformer.ln_f.bias"))
    assert refusal_of(folder).message == f"{folder}: weights do not fit config.json: transformer.ln_f.bias is missing"


def test_a_foreign_tensor_is_refused(folder):
    edit_weights(folder, lambda weights: weights.update({"transformer.extra": torch.zeros(1)}))
    assert refusal_of(folder).message == f"{folder}: weights do not fit config.json: transformer.extra is unknown"


def test_a_misshapen_tensor_is_refused(folder):
    edit_weights(folder, lambda weights: weights.update({"transformer.wpe.weight": torch.zeros(8, 32)}))
    assert refusal_of(folder).message == (
        f"{folder}: weights do not fit config.json: transformer.wpe.weight is [8, 32], expected [16, 32]"
    )


def test_the_vocabulary_of_another_model_is_refused(folder, tiny_tokenizer):
    (folder / MANIFEST).unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    save_vocabulary(folder / "vocab.txt", build_vocabulary([*STORY, "龘龘龘"]))
    ours = tiny_tokenizer.vocab_size
    problem = refusal_of(folder)
    assert str(problem) == (
        f"error: {folder}: config.json has vocab_size {ours}, its vocabulary {ours + 1} tokens\n\n"
        "hint: put back the vocab.txt that the model was trained with"
    )
    assert problem.code == 5


def test_a_file_instead_of_a_folder_is_refused_with_the_folder_to_give(folder):
    path = folder / "model.safetensors"
    problem = refusal_of(path)
    assert str(problem) == f"error: {path}: is a file, expected a model folder\n\nhint: --model_path {folder}"
    assert problem.code == 5


def test_a_missing_folder_is_refused(tmp_path):
    assert str(refusal_of(tmp_path / "no")) == (
        f"error: {tmp_path / 'no'}: no such folder, expected a model folder\n\n"
        "hint: give a folder such as model/final_model"
    )


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        (["best_model", "model_epoch2"], "--model_path {run}/best_model"),
        (["model_epoch2", "model_epoch10"], "--model_path {run}/model_epoch10"),
        ([], "python train.py --raw"),
    ],
)
def test_the_missing_final_model_of_a_run_that_goes_on_names_the_model_to_take(tmp_path, there, hint):
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    missing = tmp_path / "final_model"
    assert str(refusal_of(missing)) == (
        f"error: {missing}: no such folder, expected a model folder\n\nhint: {hint.format(run=tmp_path)}"
    )


def test_the_missing_model_of_a_book_is_trained_with_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal_of("books/红 楼/model/final_model").hint == "python train.py --raw --book '红 楼'"


def test_a_name_of_the_hub_is_refused_with_the_commands_that_load_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = find_refusal("uer/gpt2-chinese-cluecorpussmall", flag="--pretrained_model")
    assert str(problem) == (
        "error: uer/gpt2-chinese-cluecorpussmall: no such folder, and models are not downloaded by their names\n\n"
        "hint: pip install huggingface_hub\n"
        "hf download uer/gpt2-chinese-cluecorpussmall --local-dir gpt2-chinese-cluecorpussmall\n"
        "and then: --pretrained_model gpt2-chinese-cluecorpussmall"
    )
    (tmp_path / "uer").mkdir()  # then it is a place here
    assert "downloaded" not in find_refusal("uer/gpt2-chinese-cluecorpussmall", flag="").message
    assert "downloaded" not in find_refusal("model/final_model", flag="").message


def find_refusal(folder, **settings) -> UserError:
    with pytest.raises(UserError) as caught:
        check_model_folder(folder, **settings)
    return caught.value


def test_a_quick_look_at_a_folder_reads_names_and_sizes_only(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    check_model_folder(folder, hashes=False)
    assert "damaged: model.safetensors has changed" in find_refusal(folder).message
    path.write_bytes(data[:-1])
    assert f"damaged: model.safetensors has {len(data) - 1:,} bytes" in find_refusal(folder, hashes=False).message


def test_the_folder_of_a_run_is_refused_with_the_model_folder_to_give(folder):
    run_dir = folder.parent
    problem = refusal_of(run_dir)
    assert str(problem) == (
        f"error: {run_dir}: no config.json in it, so not a model folder\n\nhint: --model_path {folder}"
    )


def test_a_folder_without_weights_is_refused(folder):
    (folder / MANIFEST).unlink()
    (folder / "model.safetensors").unlink()
    assert str(refusal_of(folder)) == (
        f"error: {folder}: neither model.safetensors nor pytorch_model.bin in it\n\n"
        "hint: give a folder with the weights of a GPT-2"
    )


def test_an_edited_config_beside_a_manifest_is_noticed(folder):
    edit_json(folder / "config.json", n_layer=2, auto_map={"AutoModel": "evil.Model"})
    assert refusal_of(folder).message.startswith(f"{folder}: damaged: config.json has ")
    (folder / MANIFEST).unlink()
    problem = refusal_of(folder)
    assert problem.message == f"{folder / 'config.json'}: unknown key auto_map"
    assert problem.code == 5


def test_an_old_pytorch_file_is_read_by_the_loader_that_runs_no_code(model, folder):
    (folder / MANIFEST).unlink()
    (folder / "model.safetensors").unlink()
    old = {name.removeprefix("transformer."): weight for name, weight in model.state_dict().items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 16, 16), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    torch.save(old, folder / "pytorch_model.bin")
    loaded, _ = load_model(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_an_old_pytorch_file_with_code_in_it_is_refused_and_the_code_not_run(folder, tmp_path):
    (folder / MANIFEST).unlink()
    (folder / "model.safetensors").unlink()
    torch.save({"wte.weight": Canary(tmp_path / "fired")}, folder / "pytorch_model.bin")
    problem = refusal_of(folder)
    assert problem.message.startswith(f"{folder / 'pytorch_model.bin'}: not a plain state dict of tensors: ")
    assert (problem.hint, problem.code) == ("ask its author for model.safetensors", 5)
    assert not (tmp_path / "fired").exists()


def test_a_folder_that_transformers_saved_is_read(model, tiny_tokenizer, tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=tiny_tokenizer.vocab_size, n_layer=1, n_embd=16, n_head=2, n_positions=16)
    config.bos_token_id = config.eos_token_id = tiny_tokenizer.cls_id
    theirs = GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tiny_tokenizer.export(tmp_path / "theirs")
    loaded, _ = load_model(tmp_path / "theirs")
    input_ids = torch.tensor([[2, 300, 301]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids).logits, theirs(input_ids).logits)


def test_transformers_own_generate_chooses_as_generate_py_does_by_default(tiny_config, tiny_tokenizer, tmp_path):
    from novelgpt.cli import PRESET, PRESETS

    save_model(build_model(tiny_config, tiny_tokenizer), tiny_tokenizer, tmp_path / "model")
    written = json.loads((tmp_path / "model/generation_config.json").read_text(encoding="utf-8"))
    ours = PRESETS[PRESET]
    assert {name: written[name] for name in ("temperature", "top_k", "top_p")} == {
        "temperature": ours["temperature"], "top_k": ours["topk"], "top_p": ours["topp"],
    }  # fmt: skip
