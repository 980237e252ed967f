"""A config is read key by key: ours, GPT2-Chinese's old one and Hugging Face's pass, everything else is named."""

import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.messages import UserError
from novelgpt.network import check_model_config, count_config_parameters, read_folder_config, read_model_config

GOOD = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 32}
RATE = "a number from 0.0 to 0.99"
OLD_CONFIG = {  # the 24 keys that GPT-2 configs of transformers 2 and GPT2-Chinese have
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "finetuning_task": None,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 10,
    "n_positions": 1024,
    "num_labels": 1,
    "output_past": True,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "vocab_size": 13317,
}

# (changes to a good config, message, hint)
REFUSED = [
    ({"n_layers": 2}, "unknown key n_layers", "did you mean n_layer?"),
    ({"n_heads": 2}, "unknown key n_heads", "did you mean n_head?"),
    ({"n_embed": 8}, "unknown key n_embed", "did you mean n_embd?"),
    ({"n_position": 8}, "unknown key n_position", "did you mean n_positions?"),
    ({"vocabsize": 8}, "unknown key vocabsize", "did you mean vocab_size?"),
    ({"attn_drop": 0.1}, "unknown key attn_drop", "did you mean attn_pdrop?"),
    ({"activation": "relu"}, "unknown key activation", "did you mean summary_activation?"),
    ({"N_LAYER": 2}, "unknown key N_LAYER", None),
    ({"": 2}, "unknown key ", None),
    ({"auto_map": {"AutoModel": "evil.Model"}}, "unknown key auto_map", None),
    ({"trust_remote_code": True}, "unknown key trust_remote_code", None),
    ({"_attn_implementation_internal": "x"}, "unknown key _attn_implementation_internal", None),
    ({"_attn_implementation": "x"}, "unknown key _attn_implementation", None),
    ({"custom_pipelines": {}}, "unknown key custom_pipelines", None),
    ({"quantization_config": {}}, "unknown key quantization_config", None),
    ({"n_layer": "2"}, "n_layer: found '2', expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": 2.0}, "n_layer: found 2.0, expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": True}, "n_layer: found True, expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": [2]}, "n_layer: found [2], expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": {}}, "n_layer: found {}, expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": 0}, "n_layer: found 0, expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": -3}, "n_layer: found -3, expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": 201}, "n_layer: found 201, expected a whole number from 1 to 200", '"n_layer": 200'),
    ({"n_layer": 10**12}, f"n_layer: found {10**12}, expected a whole number from 1 to 200", '"n_layer": 200'),
    ({"n_layer": 10**400}, f"n_layer: found {10**400}, expected a whole number from 1 to 200", '"n_layer": 200'),
    ({"n_layer": float("inf")}, "n_layer: found inf, expected a whole number from 1 to 200", '"n_layer": 1'),
    ({"n_layer": None}, "n_layer is missing", '"n_layer": 10'),
    ({"n_embd": None}, "n_embd is missing", '"n_embd": 768'),
    ({"n_head": None}, "n_head is missing", '"n_head": 12'),
    ({"n_positions": None}, "n_positions is missing", '"n_positions": 1024'),
    ({"n_embd": 0}, "n_embd: found 0, expected a whole number from 1 to 16384", '"n_embd": 1'),
    ({"n_embd": 16385}, "n_embd: found 16385, expected a whole number from 1 to 16384", '"n_embd": 16384'),
    ({"n_head": 0}, "n_head: found 0, expected a whole number from 1 to 256", '"n_head": 1'),
    ({"n_head": 257}, "n_head: found 257, expected a whole number from 1 to 256", '"n_head": 256'),
    ({"n_positions": 1}, "n_positions: found 1, expected a whole number from 2 to 65536", '"n_positions": 2'),
    (
        {"n_positions": 65537},
        "n_positions: found 65537, expected a whole number from 2 to 65536",
        '"n_positions": 65536',
    ),
    ({"n_ctx": "32"}, "n_ctx: found '32', expected a whole number from 2 to 65536", '"n_ctx": 2'),
    ({"n_ctx": 1}, "n_ctx: found 1, expected a whole number from 2 to 65536", '"n_ctx": 2'),
    ({"n_ctx": 64}, "n_ctx is 64 and n_positions is 32, expected the same number", '"n_ctx": 64, "n_positions": 64'),
    ({"n_inner": 0}, "n_inner: found 0, expected a whole number from 1 to 65536", '"n_inner": 1'),
    ({"vocab_size": 0}, "vocab_size: found 0, expected a whole number from 1 to 10000000", '"vocab_size": 1'),
    ({"vocab_size": "x"}, "vocab_size: found 'x', expected a whole number from 1 to 10000000", '"vocab_size": 1'),
    ({"embd_pdrop": -0.1}, f"embd_pdrop: found -0.1, expected {RATE}", '"embd_pdrop": 0.0'),
    ({"resid_pdrop": 1.0}, f"resid_pdrop: found 1.0, expected {RATE}", '"resid_pdrop": 0.99'),
    ({"attn_pdrop": "0.1"}, f"attn_pdrop: found '0.1', expected {RATE}", '"attn_pdrop": 0.0'),
    ({"attn_pdrop": float("nan")}, f"attn_pdrop: found nan, expected {RATE}", '"attn_pdrop": 0.0'),
    ({"attn_pdrop": False}, f"attn_pdrop: found False, expected {RATE}", '"attn_pdrop": 0.0'),
    (
        {"layer_norm_epsilon": 0},
        "layer_norm_epsilon: found 0, expected a number from 1e-12 to 0.1",
        '"layer_norm_epsilon": 1e-12',
    ),
    (
        {"initializer_range": 2},
        "initializer_range: found 2, expected a number from 1e-06 to 1.0",
        '"initializer_range": 1.0',
    ),
    ({"n_embd": 66}, "n_embd 66 is not divisible by n_head 4", '"n_head": 3'),
    ({"n_embd": 61}, "n_embd 61 is not divisible by n_head 4", '"n_head": 1'),
    ({"n_head": 12, "n_embd": 100}, "n_embd 100 is not divisible by n_head 12", '"n_head": 10'),
    ({"model_type": "bert"}, "model_type: found 'bert', expected 'gpt2'", "set it to gpt2 or leave it out"),
    ({"model_type": 1}, "model_type: found 1, expected 'gpt2'", "set it to gpt2 or leave it out"),
    ({"scale_attn_weights": False}, "scale_attn_weights: found False, expected True", "set it to true or leave it out"),
    (
        {"add_cross_attention": True},
        "add_cross_attention: found True, expected False",
        "set it to false or leave it out",
    ),
    (
        {"tie_word_embeddings": "no"},
        "tie_word_embeddings: found 'no', expected true or false",
        '"tie_word_embeddings": true',
    ),
    (
        {"reorder_and_upcast_attn": True},
        "reorder_and_upcast_attn: found True, expected False",
        "set it to false or leave it out",
    ),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads: found {'0': [1]}, expected {}", "set it to {} or leave it out"),
]


@pytest.mark.parametrize(("changes", "message", "hint"), REFUSED)
def test_a_wrong_value_is_refused_by_key_value_and_rule(changes, message, hint):
    with pytest.raises(UserError) as caught:
        check_model_config({**GOOD, **changes}, name="config/my.json")
    assert caught.value.message == f"config/my.json: {message}"
    assert caught.value.code == 2
    if hint is None:
        assert re.match(r"did you mean \w+\?|known: ", caught.value.hint)
    else:
        assert caught.value.hint == hint


def test_wrong_activation_is_refused_with_the_known_ones():
    for wrong in ("gelu2", "", 3, ["relu"], {"relu": 1}):
        with pytest.raises(UserError) as caught:
            check_model_config({**GOOD, "activation_function": wrong}, name="c")
        known = "gelu_new, gelu, gelu_pytorch_tanh, gelu_fast, relu, silu, swish, tanh"
        assert caught.value.message == f"c: activation_function: found {wrong!r}, expected one of {known}"


def test_a_suggested_number_of_heads_divides_the_width():
    for width in (60, 61, 64, 100, 768):
        for heads in range(1, 30):
            config = {**GOOD, "n_embd": width, "n_head": heads}
            try:
                check_model_config(config, name="c")
                assert width % heads == 0
            except UserError as problem:
                proposed = json.loads("{" + problem.hint + "}")
                assert check_model_config({**config, **proposed}, name="c")["n_head"] < heads


def test_the_old_gpt2_config_of_24_keys_is_accepted_and_its_idle_keys_are_named(tmp_path, capsys):
    assert len(OLD_CONFIG) == 24
    path = tmp_path / "config.json"
    path.write_text(json.dumps(OLD_CONFIG), encoding="utf-8")
    assert read_model_config(path) == {
        "n_layer": 10, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 13317,
        "embd_pdrop": 0.1, "resid_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-05,
        "initializer_range": 0.02, "activation_function": "gelu_new",
    }  # fmt: skip
    idle = (
        "bos_token_id, eos_token_id, finetuning_task, num_labels, output_past, summary_activation, "
        "summary_first_dropout, summary_proj_to_labels, summary_type, summary_use_proj"
    )
    assert capsys.readouterr().err == f"{path}: without effect here: {idle}\n"


def test_n_ctx_alone_gives_the_context():
    config = check_model_config({"n_layer": 1, "n_embd": 8, "n_head": 2, "n_ctx": 16}, name="c")
    assert config["n_positions"] == 16 and "n_ctx" not in config


def test_the_config_that_transformers_writes_is_accepted(tmp_path, capsys):
    GPT2Config(**GOOD, vocab_size=300, bos_token_id=1, eos_token_id=1).save_pretrained(tmp_path)
    config = read_folder_config(tmp_path)
    assert {name: config[name] for name in GOOD} == GOOD
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{", "not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"n_layer": 2,\n "n_head": }', "not valid JSON: Expecting value: line 2 column 12 (char 26)"),
        ("[1]", "found a list, expected a JSON object"),
        ("3", "found a int, expected a JSON object"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused_with_the_place(tmp_path, text, message):
    path = tmp_path / "c.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_model_config(path)
    assert (caught.value.message, caught.value.code) == (f"{path}: {message}", 2)


def test_a_missing_config_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        read_model_config(tmp_path / "no.json")
    assert str(caught.value) == (
        f"error: {tmp_path / 'no.json'}: cannot be read: No such file or directory\n\n"
        "hint: restore no.json or write it again with the command that made it"
    )


def test_deeply_nested_json_is_refused_without_a_traceback(tmp_path):
    path = tmp_path / "c.json"
    path.write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(UserError, match="not valid JSON"):
        read_model_config(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_inner": 40},
        {"n_layer": 1, "n_head": 1},
        {"n_positions": 7},
        {"activation_function": "relu"},
        {"tie_word_embeddings": False},
    ],
)
def test_the_counted_parameters_are_those_that_transformers_allocates(changes):
    config = check_model_config({**GOOD, **changes}, name="c")
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(**config, vocab_size=321, bos_token_id=0, eos_token_id=0))
    assert count_config_parameters(config, 321) == sum(parameter.numel() for parameter in model.parameters())


def test_a_config_is_read_without_torch():
    code = "import sys\nfrom novelgpt.network import read_model_config\n"
    code += "read_model_config('config/model_config_small.json')\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
