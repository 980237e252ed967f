"""Another vocabulary for a trained network: the same token keeps its row, and counts say what became of the rest."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import STORY
from helpers import StopAfter, fit, load_network_of, result_of
from published import BERT_SIZE, publish_old, tiny_gpt2

from novelgpt.cli import run
from novelgpt.corpus.pieces import open_pieces
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import write_json
from novelgpt.messages import UserError
from novelgpt.network import build_model, load_model
from novelgpt.training.adapting import Adaptation, adapt_embeddings, match_rows, new_table
from novelgpt.training.run import prepare_run
from novelgpt.training.session import train
from tokenize_corpus import main as tokenize_main

BERT = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "!", "乔", "斗"]


pytestmark = pytest.mark.usefixtures("no_flushing")


def rows_by_token(model, tokenizer) -> dict[str, list[float]]:
    """Return every token's row."""
    return dict(zip(tokenizer.tokens, model.transformer.wte.weight.tolist(), strict=True))


def test_rows_follow_their_tokens_wherever_they_move(tmp_path):
    save_vocabulary(tmp_path / "old.txt", BERT)
    save_vocabulary(tmp_path / "new.txt", [*BERT[2:6], "斗", "井", "乔", "[PAD]", "[对话]"])
    old, new = load_tokenizer(tmp_path / "old.txt"), load_tokenizer(tmp_path / "new.txt")
    plan = match_rows(old, new)
    assert plan.sources.tolist() == [2, 3, 4, 5, 10, -1, 9, 0, -1]
    assert plan.dropped == 4  # [unused1] a ##a !
    assert plan.describe() == "7 rows of the embedding kept, 2 new, 4 dropped"


def test_ascii_and_newline_are_the_same_in_bert_and_in_ours(tmp_path):
    save_vocabulary(tmp_path / "old.txt", BERT)
    save_vocabulary(tmp_path / "new.txt", build_vocabulary(["乔井"], reserved=1))
    old, new = load_tokenizer(tmp_path / "old.txt"), load_tokenizer(tmp_path / "new.txt")
    there = {new.tokens[place]: old.tokens[row] for place, row in enumerate(match_rows(old, new).sources) if row >= 0}
    marks = {name: name for name in BERT[:6]}
    assert there == {**marks, "<0x61>": "a", "<0x21>": "!", "<0x0A>": "[SEP]", "乔": "乔"}
    back = {old.tokens[place]: new.tokens[row] for place, row in enumerate(match_rows(new, old).sources) if row >= 0}
    assert back == {**marks, "[SEP]": "<0x0A>", "a": "<0x61>", "!": "<0x21>", "乔": "乔"}


def test_new_rows_lie_about_the_mean_and_are_a_function_of_the_seed():
    old = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    plan = Adaptation(np.array([3, -1, *[-1] * 999, 0]), 498)
    table = new_table(old, plan, seed=1)
    assert torch.equal(table[0], old[3]) and torch.equal(table[-1], old[0])
    fresh = table[1:-1]
    assert torch.allclose(fresh.mean(0), old.mean(0), atol=0.1)
    assert torch.allclose(fresh.std(0), old.std(0) / 10, rtol=0.15)
    assert torch.equal(new_table(old, plan, seed=1), table)
    assert not torch.equal(new_table(old, plan, seed=2)[1], table[1])


def test_added_tokens_take_hardly_any_probability_from_the_others(tmp_path):
    """Where all logits are far below 0, rows at the mean change little; small random ones would take nearly all."""
    save_vocabulary(tmp_path / "v.txt", build_vocabulary(STORY, reserved=0))
    old = load_tokenizer(tmp_path / "v.txt")
    new = old.add_tokens(["[TIL]", "[WS]"])
    model = build_model({"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 16}, old, seed=0).eval()

    def probabilities() -> torch.Tensor:
        return model(torch.tensor([[2, 260, 261]])).logits[0].softmax(-1)

    with torch.no_grad():
        model.transformer.ln_f.bias.fill_(1)
        model.transformer.wte.weight.mul_(20).sub_(1)  # every logit falls by about 16
        before = probabilities()
        adapt_embeddings(model, new, match_rows(old, new), seed=0)
        after = probabilities()
        model.transformer.wte.weight[-2:] = torch.randn(2, 16) * 0.02
        careless = probabilities()
    assert after[:, old.vocab_size :].sum(-1).max() < 0.02
    assert torch.allclose(after[:, : old.vocab_size], before, atol=0.01)
    assert careless[:, old.vocab_size :].sum(-1).min() > 0.9


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_follows_the_embedding(tied):
    model = tiny_gpt2(vocab_size=4, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied)
    heads, rows = model.lm_head.weight.clone(), model.transformer.wte.weight.clone()
    adapt_embeddings(model, FakeVocabulary(), Adaptation(np.array([3, -1, 0]), 2), seed=0)
    assert (model.lm_head.weight is model.transformer.wte.weight) == tied
    assert torch.equal(model.lm_head.weight[[0, 2]], heads[[3, 0]])
    assert torch.equal(model.transformer.wte.weight[[0, 2]], rows[[3, 0]])
    assert model(torch.tensor([[0, 1]])).logits.shape == (1, 2, 3)
    assert (model.config.vocab_size, model.config.eos_token_id) == (3, 1)


class FakeVocabulary:
    """Three tokens."""

    vocab_size, cls_id = 3, 1


def test_another_vocabulary_keeps_what_it_shares_and_says_so(
    tiny_options, tiny_tokenizer, pretrained, tmp_path, capsys
):
    save_vocabulary(tmp_path / "grown.txt", build_vocabulary([*STORY, "龘龘"]))
    options = tiny_options(pretrained_model=str(pretrained), tokenizer_path=str(tmp_path / "grown.txt"))
    model, config, tokenizer = load_network_of(options)
    assert f"{pretrained}: {tiny_tokenizer.vocab_size:,} rows of the embedding kept, 1 new, 0 dropped\n" in (
        capsys.readouterr().err
    )
    before = rows_by_token(*load_model(pretrained))
    after = rows_by_token(model, tokenizer)
    assert {token: row for token, row in after.items() if token != "龘"} == before
    assert config["tie_word_embeddings"] and model.lm_head.weight is model.transformer.wte.weight


def test_added_tokens_take_reserved_places_first_and_their_ids_are_said(
    tiny_options, pretrained, tiny_tokenizer, capsys
):
    names = [f"[新{number}]" for number in range(25)]  # the tiny vocabulary reserves 20
    options = tiny_options(pretrained_model=str(pretrained), tokenizer_path=None, add_tokens=",".join(names))
    model, _, tokenizer = load_network_of(options)
    size = tiny_tokenizer.vocab_size
    ids = [tokenizer.marks[name] for name in names]
    assert ids == [*range(5, 25), *range(size, size + 5)]
    said = capsys.readouterr().err
    assert said.startswith("--add_tokens: [新0] is 5, [新1] is 6, ")
    assert said.endswith(f"{pretrained}: {size - 20:,} rows of the embedding kept, 25 new, 20 dropped\n")
    assert len(model.transformer.wte.weight) == size + 5


def test_a_token_that_is_no_name_in_brackets_is_refused(tiny_options):
    with pytest.raises(UserError) as caught:
        prepare_run(tiny_options(add_tokens="[TIL],WS"))
    assert str(caught.value) == (
        "error: added token 'WS': expected two or more characters in [brackets] or <brackets>\n\n"
        "hint: write it like [对话] or <end>"
    )
    assert caught.value.code == 2


@pytest.mark.parametrize("start", ["scratch", "pretrained", pytest.param("published", marks=pytest.mark.sweep)])
def test_added_tokens_are_in_pieces_and_model_folder_and_the_run_goes_on_bit_for_bit(
    tiny_options, pretrained, tmp_path, start
):
    write_json(tmp_path / "train.json", [f"{text}[TIL]{text[:5]}" for text in STORY * 3])
    options = tiny_options(raw=True, raw_data_path=str(tmp_path / "train.json"), add_tokens="[TIL],[WS]", epochs=2)
    if start == "pretrained":
        options = replace(options, pretrained_model=str(pretrained), tokenizer_path=None)
    elif start == "published":
        theirs = publish_old(tmp_path / "theirs", tiny_gpt2(n_positions=16), n_positions=16, n_ctx=16)
        options = replace(options, pretrained_model=str(theirs), tokenizer_path=None)
    assert fit(options)
    final = load_tokenizer(options.output_path / "final_model")
    mark = final.marks["[TIL]"]
    assert mark == {"published": 1}.get(start, 5)
    pieces = open_pieces(options.tokenized_data_path, expect={"vocabulary_sha256": final.fingerprint})
    assert int((np.asarray(pieces.train[:]) == mark).sum() + (np.asarray(pieces.valid[:]) == mark).sum()) == 9
    if start == "published":
        assert final.vocab_size == BERT_SIZE
    broken = replace(options, output_dir=str(tmp_path / "broken"))
    stops = 0
    while not fit(broken, StopAfter(7)):
        stops += 1
    assert stops >= 2
    assert result_of(broken.output_path) == result_of(options.output_path)


def test_a_run_does_not_go_on_with_other_added_tokens(tiny_options, tmp_path):
    write_json(tmp_path / "train.json", STORY * 3)
    options = tiny_options(raw=True, raw_data_path=str(tmp_path / "train.json"), add_tokens="[TIL]", epochs=1)
    train(options)
    with pytest.raises(UserError) as caught:
        train(replace(options, add_tokens="[TIL],[WS]"))
    assert caught.value.message.startswith(
        f"{tmp_path / 'run'}: holds a finished run with other settings\n  vocabulary: was "
    )


def test_pieces_are_made_with_added_tokens_by_either_script_and_else_called_stale(tiny_options, tmp_path):
    write_json(tmp_path / "train.json", STORY * 3)
    options = tiny_options(raw_data_path=str(tmp_path / "train.json"), add_tokens="[TIL]", epochs=1)
    names = ("raw_data_path", "tokenized_data_path", "tokenizer_path")
    words = [f"--{name}={getattr(options, name)}" for name in names]
    assert run(tokenize_main, words) == 0
    with pytest.raises(UserError) as caught:
        prepare_run(options)
    assert "\n  add_tokens: made with None, now [TIL]" in caught.value.message
    assert caught.value.hint == "novelgpt.train(…, raw=True)"
    assert run(tokenize_main, [*words, "--add_tokens", " [TIL] "]) == 0
    manifest = json.loads((Path(options.tokenized_data_path) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["options"]["add_tokens"] == "[TIL]"
    prepare_run(options)
    prepare_run(replace(options, raw=True))
    again = json.loads((Path(options.tokenized_data_path) / "manifest.json").read_text(encoding="utf-8"))
    assert again == manifest  # up to date, not written again


def test_the_five_marks_stay_text_in_a_corpus_with_added_tokens(tiny_options, tmp_path):
    write_json(tmp_path / "train.json", ["[CLS]乔[TIL]斗[SEP]"] * 40)
    options = tiny_options(raw=True, raw_data_path=str(tmp_path / "train.json"), add_tokens="[TIL]", epochs=1)
    prepared = prepare_run(options)
    marks, ids = prepared.tokenizer.marks, np.asarray(prepared.data.pieces.train[:14]).tolist()
    written = [*prepared.tokenizer.encode("[CLS]乔"), marks["[TIL]"], *prepared.tokenizer.encode("斗[SEP]")]
    assert ids[:14] == [marks["[CLS]"], *written][:14]
    assert prepared.tokenizer.decode(written) == "[CLS]乔[TIL]斗[SEP]"
