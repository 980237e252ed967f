"""Which byte may follow which, against Python's own decoder; what a network writes that knows nothing."""

import itertools
import math

import pytest
import torch

from novelgpt.compute import MAX_ROWS
from novelgpt.corpus.tokenizers import NovelTokenizer, WordPieceTokenizer
from novelgpt.network import build_model
from novelgpt.writing.generation import generate_text, make_controls
from novelgpt.writing.sampling import Controls, choose_tokens
from novelgpt.writing.spelling import find_state, find_states, make_spelling, refuse_pieces

EDGES = (0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF)
EDGES += (0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF)


@pytest.fixture(scope="module")
def tokenizer():
    return NovelTokenizer.from_texts(["萧炎大喝一声"])


def spelling_of(tokenizer):
    return make_spelling(tokenizer.byte_ids, tokenizer.vocab_size, torch.device("cpu"))


def is_text(data: bytes) -> bool:
    """Tell whether bytes are whole characters, by Python's decoder, that may stand in a text."""
    try:
        text = data.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return not any(0x80 <= ord(sign) < 0xA0 or ord(sign) >= 0x40000 for sign in text)


def may_follow(before: bytes, byte: int) -> bool:
    """Tell whether there are characters that begin with some bytes and this one."""
    tails = (bytes(tail) for size in range(4) for tail in itertools.product((0x80, 0xBF), repeat=size))
    return any(is_text(before + bytes([byte]) + tail) for tail in tails)


def beginnings() -> list[bytes]:
    """Return nothing, and all ways in which a character may begin, by the edges of the ranges."""
    found = [b""]
    for each in found:  # it grows meanwhile
        found += [
            each + bytes([byte]) for byte in EDGES if may_follow(each, byte) and not is_text(each + bytes([byte]))
        ]
    return found


def test_behind_every_beginning_of_a_character_go_on_what_python_s_decoder_takes(tokenizer):
    byte, mark = tokenizer.byte_ids.astype(int), tokenizer.encode("炎")[0]
    spelling, cases = spelling_of(tokenizer), beginnings()
    assert len(cases) > 60
    for before in cases:
        history = torch.tensor([[tokenizer.cls_id, int(mark), *(int(byte[each]) for each in before)]])
        left = refuse_pieces(torch.zeros(1, tokenizer.vocab_size), history, history.shape[1], spelling)[0]
        free = {each for each in range(256) if left[byte[each]] > -math.inf}
        assert free == {each for each in range(256) if may_follow(before, each)}, before
        others = left[[index for index in range(tokenizer.vocab_size) if index not in byte]]
        assert (others == (-math.inf if before else 0)).all()


def test_what_lies_behind_the_written_columns_counts_as_little_as_a_piece_that_owes_nothing(tokenizer):
    byte, spelling = tokenizer.byte_ids.astype(int), spelling_of(tokenizer)
    yan = int(tokenizer.encode("炎")[0])
    rows = torch.tensor([[yan, yan, int(byte[0xE7]), 0], [int(byte[0x82]), yan, yan, int(byte[0xE7])]])
    logits = torch.zeros(2, tokenizer.vocab_size)
    for count in (3, torch.tensor([3])):
        left = refuse_pieces(logits, rows, count, spelling)
        assert left[0, byte[0x82]] == 0 and left[0, yan] == -math.inf
        assert left[1, byte[0x82]] == -math.inf and left[1, yan] == 0
    # a text of one token
    left = refuse_pieces(logits[:1], torch.tensor([[int(byte[0xE7])]]), 1, spelling)
    assert left[0, byte[0x82]] == 0 and left[0, yan] == -math.inf
    assert (logits == 0).all()


@pytest.mark.parametrize("is_tensor", [False, True])
def test_a_gpu_finds_the_states_that_a_cpu_finds(tokenizer, is_tensor):
    byte, spelling = tokenizer.byte_ids.astype(int), spelling_of(tokenizer)
    rows = [[*(int(byte[each]) for each in before), *[0] * (3 - len(before))] for before in beginnings() if before]
    seen = set()
    for width in (1, 2, 3):
        states = find_states(torch.tensor(rows), torch.tensor([width]) if is_tensor else width, spelling)
        assert states.tolist() == [find_state([spelling.kind_of[index] for index in row[:width]]) for row in rows]
        seen |= set(states.tolist())
    assert seen == set(range(7))


def test_a_vocabulary_without_bytes_needs_no_spelling():
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "大"])
    assert make_controls(tokenizer, torch.device("cpu")).spelling is None


def test_the_best_token_is_the_best_one_that_keeps_characters_whole(tokenizer):
    byte = tokenizer.byte_ids.astype(int)
    controls = Controls(temperature=0, spelling=spelling_of(tokenizer))
    logits = torch.zeros(1, tokenizer.vocab_size)
    logits[0, byte[0x82]], logits[0, byte[0xE7]], logits[0, byte[0x83]] = 3.0, 2.0, 1.0
    history = torch.full((1, 3), int(tokenizer.encode("炎")[0]))
    assert choose_tokens(logits.clone(), history, 3, torch.zeros(1), controls).tolist() == [byte[0xE7]]
    history[0, 2] = int(byte[0xE7])
    logits[0, byte[0x82]] = 0.0
    assert choose_tokens(logits.clone(), history, 3, torch.zeros(1), controls).tolist() == [byte[0x83]]


@pytest.mark.parametrize("chosen", [{}, {"temperature": 2.0, "topp": 1.0}, {"topk": 3}])
def test_a_network_that_knows_nothing_writes_whole_characters_only(tokenizer, tiny_config, chosen):
    model = build_model(tiny_config, tokenizer, seed=0)
    texts = generate_text(model, tokenizer, "萧炎", length=400, num_samples=MAX_ROWS, seed=1, **chosen)
    assert len(texts) == MAX_ROWS and not any("\ufffd" in text for text in texts)
    assert any(ord(sign) > 0x2000 and sign not in "萧炎大喝一声" for text in texts for sign in text)  # spelled ones
