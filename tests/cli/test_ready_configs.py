"""The files in config/: the networks have the sizes they are called after, the recipes say what they claim."""

import json

import pytest
import torch
import yaml
from conftest import ROOT
from transformers import GPT2Config, GPT2LMHeadModel

import train as train_script
from novelgpt.cli import TrainOptions
from novelgpt.cli.config_file import read_options
from novelgpt.network import read_model_config
from novelgpt.training.optim import default_lr, default_optimizer
from novelgpt.training.run import BATCH_SIZE, EPOCHS

PUBLISHED = {  # parameters of gpt2, gpt2-medium, gpt2-large and gpt2-xl, 50,257 tokens, as published: 124M to 1.5B
    "gpt2_small": 124_439_808,
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
}


def parameters_of(name: str, vocab_size: int) -> int:
    """Return the parameters that transformers gives a network of a config file."""
    config = read_model_config(ROOT / "config" / f"model_config_{name}.json")
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(**{**config, "vocab_size": vocab_size})).num_parameters()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_of_gpt2_are_the_published_ones(name):
    assert parameters_of(name, 50_257) == PUBLISHED[name]
    config = json.loads((ROOT / "config" / f"model_config_{name}.json").read_text(encoding="utf-8"))
    assert "vocab_size" not in config  # which follows the vocabulary
    assert config["n_embd"] // config["n_head"] == 64


def test_the_small_network_has_the_parameters_of_the_readme():
    assert parameters_of("small", 13_317) == 81_894_144


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_a_recipe_is_a_file_of_sections_that_train_py_takes(path):
    assert read_options(str(path), TrainOptions, section="train")


def options_of(name: str) -> TrainOptions:
    """Return the options that a recipe gives."""
    return train_script.build_parser().parse_options([f"--config={ROOT / 'config' / name}"])


def test_our_recipe_is_what_the_defaults_come_to():
    given = yaml.safe_load((ROOT / "config/train_novel.yaml").read_text(encoding="utf-8"))["train"]
    assert given.pop("optimizer") == default_optimizer(pretrained=False, shard=False)
    small = read_model_config(ROOT / "config/model_config_small.json")
    assert given.pop("dropout") == small["embd_pdrop"] == small["resid_pdrop"] == small["attn_pdrop"]
    assert given.pop("stride") == small["n_positions"] // 2
    assert (given.pop("epochs"), given.pop("batch_size")) == (EPOCHS, BATCH_SIZE)
    defaults = TrainOptions()
    assert given == {name: getattr(defaults, name) for name in given}
    assert default_lr("muon", 768, pretrained=False) == 2e-3  # as its comment says


def test_the_laptop_recipe_has_12_million_parameters_and_reads_a_text_ten_times():
    options, config = options_of("laptop.yaml"), read_model_config(ROOT / "config/model_config_laptop.json")
    assert 12e6 < parameters_of("laptop", 4000) < 12.5e6
    assert (options.stride, options.epochs) == (config["n_positions"], 10)  # windows side by side


def test_the_ancestors_recipe_is_that_of_gpt2_chinese():
    options = options_of("train_seed.yaml")
    theirs = {
        "epochs": 15, "batch_size": 8, "stride": 512, "optimizer": "adamw", "lr": 1.5e-4, "warmup_steps": 2000,
        "lr_scheduler": "linear", "lr_end": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0, "dropout": 0.1,
        "beta1": 0.9, "beta2": 0.999, "replace_inputs": 0.0, "random_phase": False, "gradient_accumulation": 1,
    }  # fmt: skip
    assert {name: getattr(options, name) for name in theirs} == theirs
