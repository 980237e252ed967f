"""eval.py against transformers: the same perplexity by a sliding window written here, for any stride and any folder."""

import json
import math

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import eval as eval_script
from novelgpt.cli import run
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary

CONTEXT = 1024
NOVEL = "".join(
    f"第{i}夜，井里的水又少了{i * i % 97}寸。她数着星星：{'一二三四五六七八九十'[i % 10]}颗！\n" for i in range(120)
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A narrow GPT-2 with a context of 1,024 as transformers saves it, whose losses differ widely between tokens."""
    folder = tmp_path_factory.mktemp("published")
    save_vocabulary(folder / "vocab.txt", build_vocabulary([NOVEL]))
    tokenizer = load_tokenizer(folder / "vocab.txt")
    tokenizer.export(folder)
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": CONTEXT, "initializer_range": 0.3}
    config = GPT2Config(vocab_size=tokenizer.vocab_size, bos_token_id=2, eos_token_id=2, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def figures(published):
    """Return a function from (text, stride) to nats, scored tokens and right tokens, computed by transformers alone."""
    model = GPT2LMHeadModel.from_pretrained(published).eval()
    tokenizer = AutoTokenizer.from_pretrained(published)

    def compute(text: str, stride: int) -> tuple[float, int, int]:
        ids = tokenizer(f"[CLS]{text}[CLS]", add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        nats, scored, right, done = 0.0, 0, 0, 1  # `done` tokens are dealt with: the first is never predicted
        for begin in range(0, len(ids), stride):
            window = ids[begin : begin + CONTEXT]
            with torch.no_grad():
                chances = model(window[None]).logits[0].double().log_softmax(-1)
            for place in range(max(done - begin, 1), len(window)):
                nats -= chances[place - 1, window[place]].item()
                right += int(chances[place - 1].argmax() == window[place])
                scored += 1
            done = begin + len(window)
            if done == len(ids):
                return nats, scored, right
        raise AssertionError("the windows never reach the end")

    return compute


@pytest.mark.parametrize("stride", [CONTEXT, 512, 300])
def test_perplexity_and_accuracy_equal_an_independent_sliding_window_of_transformers(
    published, figures, tmp_path, capsys, stride
):
    (tmp_path / "novel.json").write_text(json.dumps([NOVEL]), encoding="utf-8")
    words = [f"--model_path={published}", f"--text_path={tmp_path / 'novel.json'}", f"--stride={stride}"]
    assert run(eval_script.main, [*words, "--device=cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    nats, scored, right = figures(NOVEL, stride)
    assert report["tokens"] > 2 * CONTEXT
    assert (report["window"], report["stride"], report["scored_tokens"]) == (CONTEXT, stride, scored)
    assert report["perplexity"] == pytest.approx(math.exp(nats / scored), rel=1e-4)
    assert report["loss"] == pytest.approx(nats / scored, rel=1e-5)
    assert report["accuracy"] == pytest.approx(right / scored, abs=1.5 / scored)  # a tie may fall either way


def test_a_model_with_a_bert_vocabulary_is_scored_as_transformers_scores_it(tmp_path, capsys):
    characters = sorted(set("水又少了一寸他说星井里的"))
    tokens = [
        "[PAD]",
        *(f"[unused{i}]" for i in range(1, 5)),
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        "，",
        "。",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokens), n_layer=1, n_embd=16, n_head=2, n_positions=32, initializer_range=0.5)
    model = GPT2LMHeadModel(config).eval()
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert run(eval_script.main, [f"--model_path={tmp_path}", "--text=水又少了，龘。\n井里的星", "--device=cpu"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    ids = [tokens.index(token) for token in "[CLS] 水 又 少 了 ， [UNK] 。 [SEP] 井 里 的 星 [CLS]".split()]
    with torch.no_grad():
        loss = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    assert report["loss"] == pytest.approx(loss, rel=1e-5)
    assert report["unknown_tokens"] == 1
    assert "warning: --text: 1 of 14 tokens are [UNK]: not in the model's vocabulary\n" in said.err


def test_every_file_of_a_folder_has_its_own_result_and_the_whole_is_their_sum(published, figures, tmp_path, capsys):
    texts = {"a.txt": NOVEL[:300], "b.txt": NOVEL[400:2400]}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert run(eval_script.main, [f"--model_path={published}", f"--text_path={tmp_path}", "--device=cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    parts = [figures(text, CONTEXT // 2) for text in texts.values()]
    assert [entry["name"] for entry in report["texts"]] == [str(tmp_path / name) for name in texts]
    for entry, (nats, scored, _) in zip(report["texts"], parts, strict=True):
        assert (entry["loss"], entry["scored_tokens"]) == (pytest.approx(nats / scored, rel=1e-5), scored)
    total, count = sum(part[0] for part in parts), sum(part[1] for part in parts)
    assert (report["loss"], report["scored_tokens"]) == (pytest.approx(total / count, rel=1e-5), count)
    assert report["characters"] == 2300
