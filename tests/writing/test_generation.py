"""Decoding against transformers, against plain rereading, and against itself in other batches."""

import itertools

import pytest
import torch
from helpers import counting_launches
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from novelgpt.cli import GenerateOptions
from novelgpt.compute.cache import MaskedCache
from novelgpt.compute.packed import can_pack, gpu_product, least_rows, new_product
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.messages import EXIT_STATE, UserError
from novelgpt.writing.batch import SampleBatch, fit_window
from novelgpt.writing.decoder import Decoder, Weights, decoding_device
from novelgpt.writing.generation import (
    Session,
    banned_ids,
    generate_text,
    make_controls,
    open_session,
)
from novelgpt.writing.sampling import Controls
from novelgpt.writing.text import CHECK_EVERY, Endings, Sample, StopRule

TEXT = "萧炎大喝一声，那人抬起头来。“走！”她说道：风起了……山中无人？月落乌啼霜满天江枫渔火对愁眠"
CONTEXT = 48
KINDS = ("fp32", "bf16", "int8")


@pytest.fixture(scope="module")
def tokenizer():
    return CharacterTokenizer(build_vocabulary([TEXT], reserved=3))


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_layer=2, n_embd=64, n_head=2, n_positions=CONTEXT, initializer_range=0.3,
        bos_token_id=tokenizer.cls_id, eos_token_id=tokenizer.cls_id, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def weights(model):
    return {kind: Weights(model, kind=kind) for kind in KINDS}


def write_samples(weights, tokenizer, prefix, indices, *, rule, controls, seed):
    return Session(weights, tokenizer, controls, seed).write_batch(prefix, rule, indices)


def write(weights, tokenizer, indices, *, rule, seed=5, prefix="萧炎", controls=None, **values):
    controls = controls or make_controls(tokenizer, torch.device("cpu"), **values)
    ids = tokenizer.encode_prefix(prefix)
    return write_samples(weights, tokenizer, ids, indices, rule=rule, controls=controls, seed=seed)


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03), ("int8", 0.05)])
def test_logits_are_those_of_transformers(model, weights, tokenizer, kind, tolerance):
    ids = torch.randint(0, tokenizer.vocab_size, (CONTEXT,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(ids[None]).logits[0]
    decoder = Decoder(weights[kind], rows=3, slots=CONTEXT)
    found = [*decoder.prefill(0, ids[:20], every=True)]
    decoder.copy_first()
    found += [decoder.step(token.expand(3))[2] for token in ids[20:]]
    error = (torch.stack(found) - expected).norm() / expected.norm()
    assert error < tolerance


def test_greedy_text_is_that_of_transformers_and_of_plain_rereading(model, weights, tokenizer):
    prefix = tokenizer.encode_prefix("萧炎大喝")
    controls = Controls(temperature=0)
    (sample,) = write_samples(
        weights["fp32"], tokenizer, prefix, [0], rule=StopRule(CONTEXT - len(prefix)), controls=controls, seed=0
    )
    start = torch.from_numpy(prefix.astype("int64"))[None]
    expected = model.generate(
        start, attention_mask=torch.ones_like(start), max_length=CONTEXT, min_length=CONTEXT, do_sample=False
    )  # fmt: skip
    assert sample.prefix + sample.ids == reread(model, prefix.tolist(), CONTEXT - len(prefix), tokenizer)
    without_end = expected[0].tolist()
    assert sample.prefix + sample.ids == without_end or tokenizer.cls_id in sample.ids


@torch.no_grad()
def reread(model, ids: list[int], length: int, tokenizer, *, keep_head: int = 0) -> list[int]:
    """Continue greedily, the whole window through transformers for every token."""
    endings, window, text = Endings(tokenizer), list(ids), list(ids)
    for _ in range(length):
        token = int(model(torch.tensor([window])).logits[0, -1].argmax())
        if len(window) == CONTEXT:
            window = fit_window(text, CONTEXT, keep_head, endings)
        window.append(token)
        text.append(token)
    return text


@pytest.mark.parametrize("keep_head", [0, 7])
def test_beyond_the_context_the_text_is_that_of_rereading_the_same_windows(model, weights, tokenizer, keep_head):
    prefix = tokenizer.encode_prefix("萧炎大喝一声").tolist()
    batch = SampleBatch(
        weights["fp32"], Endings(tokenizer), Controls(temperature=0, keep_head=keep_head), StopRule(5 * CONTEXT),
        [Sample(index, prefix) for index in range(2)], seed=0,
    )  # fmt: skip
    while batch.count < 5 * CONTEXT:
        batch.decode_many(CHECK_EVERY)
    expected = reread(model, prefix, batch.count - len(prefix), tokenizer, keep_head=keep_head)
    assert batch.history[:, : batch.count].tolist() == [expected, expected]


@pytest.mark.slow
def test_five_thousand_characters_of_a_1024_token_model_are_those_of_rereading(tokenizer):
    torch.manual_seed(2)
    config = GPT2Config(vocab_size=tokenizer.vocab_size, n_layer=2, n_embd=64, n_head=2, initializer_range=0.3)
    config.bos_token_id = config.eos_token_id = 2
    model = GPT2LMHeadModel(config).eval()
    prefix = tokenizer.encode_prefix("萧炎").tolist()
    weights = Weights(model)
    (sample,) = write_samples(
        weights, tokenizer, prefix, [0], rule=StopRule(5000), controls=Controls(temperature=0), seed=0
    )
    endings, window, text = Endings(tokenizer), list(prefix), list(prefix)
    with torch.no_grad():
        for _ in range(5000):
            token = int(model(torch.tensor([window])).logits[0, -1].argmax())
            window = fit_window(text, 1024, 0, endings) if len(window) == 1024 else window
            window.append(token)
            text.append(token)
    assert text == prefix + sample.ids


def assert_every_batch_writes_the_same(weights, tokenizer, rule, sizes):
    alone = [write(weights, tokenizer, [index], rule=rule)[0] for index in range(12)]
    assert len({tuple(sample.ids) for sample in alone}) == 12
    for size in sizes:
        for first in range(0, 12, size):
            for sample in write(weights, tokenizer, range(first, min(first + size, 12)), rule=rule):
                assert (sample.ids, sample.ended) == (alone[sample.index].ids, alone[sample.index].ended)


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.sweep) for kind in KINDS[1:])])
def test_samples_are_the_same_in_every_batch_and_all_different(weights, tokenizer, kind):
    assert_every_batch_writes_the_same(weights[kind], tokenizer, StopRule(60, "sentence", cut_loops=True), (5, 12))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_long_samples_are_the_same_in_every_batch(weights, tokenizer, kind):
    assert_every_batch_writes_the_same(weights[kind], tokenizer, StopRule(4 * CONTEXT), range(2, 13))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_the_full_size_are_the_same_in_every_batch(tokenizer, kind):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=13_317, n_layer=2, n_positions=256, bos_token_id=2, eos_token_id=2)
    weights = Weights(GPT2LMHeadModel(config).eval(), kind=kind)
    assert_every_batch_writes_the_same_ids(weights, tokenizer)


def assert_every_batch_writes_the_same_ids(weights, tokenizer):
    settings = {"rule": StopRule(300), "controls": Controls(topk=0), "seed": 3}
    alone = [write_samples(weights, tokenizer, [2, 5], [index], **settings)[0].ids for index in range(10)]
    together = [sample.ids for sample in write_samples(weights, tokenizer, [2, 5], range(10), **settings)]
    assert alone == together


def test_the_step_for_gpus_writes_what_the_step_for_cpus_writes(weights, tokenizer, monkeypatch):
    controls = make_controls(
        tokenizer, torch.device("cpu"), repetition_penalty=1.2, penalty_window=9, no_repeat_ngram_size=3, topp=0.9,
        min_p=0.01, bad_words=["走", "大喝"], keep_head=4, typical=0.95, dry_multiplier=0.8, dry_allowed_length=2,
        names=["萧炎"],
    )  # fmt: skip
    texts = []
    for on_device in (False, True):
        samples = [Sample(index, tokenizer.encode_prefix("萧炎").tolist()) for index in range(3)]
        if on_device:
            monkeypatch.setattr("novelgpt.writing.decoder.cache_for", lambda device: MaskedCache)
        rule = StopRule(3 * CONTEXT)
        batch = SampleBatch(weights["fp32"], Endings(tokenizer), controls, rule, samples, seed=1)
        if on_device:
            batch.replay = batch.decode_token_on_device
        while batch.count < 3 * CONTEXT:
            batch.decode_many(CHECK_EVERY)
        texts.append(batch.history[:, : batch.count].tolist())
    assert texts[0] == texts[1]


def network_of(num_layers: int) -> GPT2LMHeadModel:
    """Return a network whose weights are large enough to matter."""
    torch.manual_seed(2)
    sizes = {"vocab_size": 80, "n_layer": num_layers, "n_embd": 64, "n_head": 4, "n_positions": CONTEXT}
    return GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2, bos_token_id=0, eos_token_id=0)).eval()


@pytest.mark.parametrize(("kind", "most"), [("fp32", 168), ("bf16", 190)])
def test_a_step_of_ten_layers_takes_few_launches_on_a_gpu(kind, most):
    device = torch.device("meta")  # no CPU, and the shapes are computed
    decoder = Decoder(Weights(network_of(10), kind=kind, device=device), rows=16, slots=CONTEXT)
    tokens = torch.zeros(16, dtype=torch.int64, device=device)
    with counting_launches() as launches:
        logits = decoder.read(tokens)
    assert logits.dtype == torch.float32
    assert len(launches) <= most, launches


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_logits_of_the_form_for_gpus_are_those_of_transformers(monkeypatch, kind, tolerance):
    monkeypatch.setattr("novelgpt.writing.decoder.cache_for", lambda device: MaskedCache)
    monkeypatch.setattr("novelgpt.compute.packed.choose_form", lambda device, kind: gpu_product)
    monkeypatch.setattr("novelgpt.compute.packed.least_rows", lambda *shape: 1)
    model, ids = network_of(2), torch.arange(1, 21) * 3
    with torch.no_grad():
        expected = model(ids[None]).logits[0, 9:]  # (11, V), after tokens 10 to 20
    decoder = Decoder(Weights(model, kind=kind), rows=2, slots=CONTEXT)
    logits = [decoder.prefill(0, ids[:10])]
    decoder.copy_first()
    logits += [decoder.step(token.repeat(2))[1:] for token in ids[10:]]
    assert (torch.cat(logits) - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (64, 200), (33, 31)])
def test_products_are_row_stable(kind, outputs, inputs):
    product = new_product(torch.randn(outputs, inputs), torch.randn(outputs), kind)
    least = least_rows(kind, outputs, inputs, True)
    for _ in range(20):
        x = torch.randn(12, inputs)
        expected = product(x)
        for rows in range(least, 12):
            assert torch.equal(product(x[:rows]), expected[:rows])


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-6), ("bf16", 0.01), ("int8", 0.02)])
def test_products_multiply(kind, tolerance):
    weight, bias, x = torch.randn(96, 64), torch.randn(96), torch.randn(5, 64)
    expected = x @ weight.T + bias
    assert (new_product(weight, bias, kind)(x) - expected).norm() / expected.norm() < tolerance


def test_missing_operators_are_said_aloud(monkeypatch, capsys):
    def broken(*arguments):
        raise RuntimeError("no such operator\nlong story")

    monkeypatch.setattr("novelgpt.compute.packed.packed_product", broken)
    assert can_pack.__wrapped__("bf16") is False
    assert capsys.readouterr().err == (
        "warning: bf16: this PyTorch has no packed product here (no such operator); "
        "using the slower plain one in bf16\n"
    )


def test_marks_unused_tokens_and_bad_words_are_never_written(weights, tokenizer):
    never = {tokenizer.unk_id, tokenizer.pad_id, tokenizer.mask_id}
    never |= {i for i, token in enumerate(tokenizer.tokens) if token.startswith("[unused")}
    never |= {tokenizer.encode(chr(code)).item() for code in (*range(9), *range(11, 32), 127)}
    assert set(banned_ids(tokenizer)) == never and len(never) == 6 + 31
    samples = write(
        weights["fp32"], tokenizer, range(8), rule=StopRule(200), topk=0, temperature=5.0, bad_words=["萧", "大喝"]
    )
    written = [tokenizer.decode(sample.ids) for sample in samples]
    assert not never & set(itertools.chain.from_iterable(sample.ids for sample in samples))
    assert not any("萧" in text or "大喝" in text for text in written)


def test_no_ngram_is_written_twice(weights, tokenizer):
    for sample in write(weights["fp32"], tokenizer, range(3), rule=StopRule(150), no_repeat_ngram_size=2, topk=3):
        ids = sample.prefix + sample.ids
        pairs = list(itertools.pairwise(ids))
        assert len(pairs) == len(set(pairs))


def test_windows_begin_at_a_sentence_with_the_head_before_it(tokenizer):
    endings = Endings(tokenizer)
    ids = tokenizer.encode("月落乌啼。" + "山中无人" * 3 + "风起。她说走").tolist()
    assert tokenizer.decode(fit_window(ids, 20, 0, endings)) == "她说走"
    assert tokenizer.decode(fit_window(ids, 20, 5, endings)) == "月落乌啼。她说走"
    ids = tokenizer.encode("山中无人" * 6).tolist()
    assert tokenizer.decode(fit_window(ids, 20, 0, endings)) == "无人山中无人山中无人"


def test_a_prefix_longer_than_the_context_is_read_from_a_sentence_start(weights, tokenizer):
    long = "山中无人。" * 30
    (sample,) = write(weights["fp32"], tokenizer, [0], rule=StopRule(10), prefix=long)
    assert len(sample.prefix) == 151 and len(sample.ids) == 10


def test_a_broken_model_is_refused(model, tokenizer):
    broken = GPT2LMHeadModel(model.config).eval()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(UserError) as caught:
        write(Weights(broken), tokenizer, [0], rule=StopRule(5))
    assert str(caught.value) == (
        "error: the model's output is not a number\n\nhint: use an earlier checkpoint, such as model/best_model"
    )
    assert caught.value.code == EXIT_STATE


def test_a_cpu_writes_at_most_sixteen_samples_together(weights, tokenizer):
    session = Session(weights["fp32"], tokenizer, Controls(), seed=0, batch_size=30)
    assert session.batches(20, 20) == [range(20, 36), range(36, 40)]


def test_generate_text_leaves_the_model_alone(model, tokenizer):
    model.train()
    texts = generate_text(model, tokenizer, "[CLS]萧炎", length=20, num_samples=3, seed=4)
    assert model.training and len(set(texts)) == 3 and all(text.startswith("萧炎") for text in texts)
    model.eval()
    assert texts == generate_text(model, tokenizer, "萧炎", length=20, num_samples=3, seed=4)


class NoTensorOnMps(TorchDispatchMode):
    """Refuse what a Mac's GPU refuses, float64; this PyTorch has no such GPU at all, so any tensor there is refused."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            assert not (isinstance(value, torch.Tensor) and value.device.type == "mps"), func
        return result


@pytest.mark.parametrize("device", [None, "mps"])
@pytest.mark.parametrize("controls", [{"topk": 8}, {"topk": 0, "topp": 0.9}, {"topk": 0, "min_p": 0.1}])
def test_on_a_mac_texts_are_written_on_the_cpu(model, tokenizer, monkeypatch, capsys, device, controls):
    options = {"model_path": "", "seed": 3, **controls}
    expected = open_session(GenerateOptions(device="cpu", **options), loaded=(model, tokenizer))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    capsys.readouterr()
    session = open_session(GenerateOptions(device=device, **options), loaded=(model, tokenizer))
    said = "--device mps: texts are written on the CPU; tokens are drawn in float64, which mps lacks\n"
    assert (said in capsys.readouterr().err) == (device == "mps")  # only what was asked for
    rule, prefix = StopRule(20), tokenizer.encode_prefix("萧炎")
    with NoTensorOnMps():
        samples = session.write_batch(prefix, rule, [0, 1])
    assert [sample.ids for sample in samples] == [sample.ids for sample in expected.write_batch(prefix, rule, [0, 1])]


def test_the_weights_of_a_model_on_a_macs_gpu_are_decoded_on_the_cpu():
    assert decoding_device(torch.device("mps")) == torch.device("cpu")
    assert decoding_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
