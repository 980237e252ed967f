"""The options of generate.py as they will be used: what one of them means for another, in an object of their own."""

import pytest

from novelgpt.cli import GenerateOptions
from novelgpt.messages import UserError
from novelgpt.writing.prompts import resolve_options


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"mark": "[TIL]"}, {"stop": "chapter", "copies": False}),
        ({"titles": ("井",), "articles_per_title": 3}, {"nsamples": 3}),
        ({"titles_file": "titles.txt"}, {"nsamples": 5}),
        ({"stream": True}, {"batch_size": 1}),
        ({}, {}),
    ],
)
def test_one_option_decides_over_another(given, expected):
    chosen = {"temperature": 0.5, "topk": 3, "topp": 0.9, "min_p": 0.1, "typical": 0.8, "dry_multiplier": 0.7}
    options = GenerateOptions(seed=7, **chosen, **given)
    resolved = resolve_options(options)
    different = {name for name in vars(options) if getattr(options, name) != getattr(resolved, name)}
    assert different == set(expected)
    assert {name: getattr(resolved, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # temperature, top-k, top-p, min-p, typical, DRY
        ({"preset": "seed"}, (1.0, 8, 1.0, 0.0, 1.0, 0.0)),  # of GPT2-Chinese
        ({"preset": "bold"}, (1.0, 0, 1.0, 0.0, 1.0, 0.0)),
        ({"preset": "steady"}, (0.9, 0, 0.9, 0.0, 1.0, 0.0)),
        ({}, (1.0, 0, 0.98, 0.0, 1.0, 0.0)),
        ({"preset": "seed", "topk": 20, "dry_multiplier": 0.8}, (1.0, 20, 1.0, 0.0, 1.0, 0.8)),
        ({"topp": 0.0, "temperature": 0.0}, (0.0, 0, 0.0, 0.0, 1.0, 0.0)),  # 0 is a value too
    ],
)
def test_what_is_not_given_is_the_presets(given, expected):
    resolved = resolve_options(GenerateOptions(**given))
    names = ("temperature", "topk", "topp", "min_p", "typical", "dry_multiplier")
    assert tuple(getattr(resolved, name) for name in names) == expected


def test_a_seed_is_chosen_once_and_only_where_none_is_given():
    seeds = {resolve_options(GenerateOptions()).seed for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**32 for seed in seeds)
    resolved = resolve_options(GenerateOptions(stream=True))
    assert resolve_options(resolved) == resolved


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"length": 0}, "--length: found 0, expected at least 1, or -1 to fill the context"),
        ({"mark": "[TIL]", "stop": "never"}, "--stop never: what --mark asks for ends where its document ends"),
        ({"mark": "[TIL]", "max_copy": 9}, "--mark and --max_copy: found both, expected one of them"),
        ({"mark": "[TIL]", "adapt": True}, "--mark and --adapt: found both, expected one of them"),
        ({"mark": "[TIL]", "best_of": 3}, "--mark and --best_of: found both, expected one of them"),
        ({"stream": True, "best_of": 3}, "--stream and --best_of: found both, expected one of them"),
        ({"interactive": True, "titles": ("井",)}, "--interactive and --titles: found both, expected one of them"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given, message):
    with pytest.raises(UserError) as refusal:
        resolve_options(GenerateOptions(**given))
    assert (refusal.value.message, refusal.value.code) == (message, 2)
