"""Windows leave no token out, an epoch's order is a function of (seed, epoch), padding is never scored."""

from types import SimpleNamespace

import numpy as np
import pytest

from novelgpt.corpus.pieces import TokenStream
from novelgpt.training.windows import (
    WindowData,
    count_steps,
    count_windows,
    epoch_batches,
    epoch_phase,
    epoch_starts,
    make_batch,
    window_starts,
)

WINDOW = 1024


def covered_tokens(starts: np.ndarray, window: int, num_tokens: int) -> np.ndarray:
    """Mark token by token what lies in a window: the brute force."""
    covered = np.zeros(num_tokens, dtype=bool)
    for start in starts:
        for place in range(start, start + window):
            if place < num_tokens:
                covered[place] = True
    return covered


def stream_of(num_tokens: int) -> TokenStream:
    """Return a stream whose token at place i is i, in three arrays."""
    return TokenStream(np.array_split(np.arange(num_tokens, dtype=np.uint16), 3))


@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_every_token_of_a_small_stream_lies_in_a_window_marked_one_by_one(window):
    for num_tokens in range(24):
        for stride in range(1, window + 1):
            for phase in range(stride):
                starts = window_starts(num_tokens, window, stride, phase)
                assert covered_tokens(starts, window, num_tokens).all(), (num_tokens, stride, phase)
                assert len(starts) == count_windows(num_tokens, window, stride, phase)


@pytest.mark.parametrize("stride", [1, 128, 512, 768, 1024])
def test_no_token_is_left_out_at_any_length_up_to_5000(stride):
    # ascending starts leave no gap exactly if the first is 0, none is more than a window after the one before, and the
    # last window reaches the end
    for phase in sorted({0, 1 % stride, stride // 3, stride - 1}):
        for num_tokens in range(5001):
            starts = window_starts(num_tokens, WINDOW, stride, phase)
            assert len(starts) == count_windows(num_tokens, WINDOW, stride, phase), (num_tokens, phase)
            if num_tokens <= WINDOW:
                assert starts.tolist() == [0][: min(num_tokens, 1)]
                continue
            steps = starts[1:] - starts[:-1]
            whole = starts[0] == 0 and starts[-1] == num_tokens - WINDOW and steps.min() > 0 and steps.max() <= stride
            assert whole, (num_tokens, phase)


def test_starts_are_the_strides_and_a_last_window_that_ends_on_the_last_token():
    assert window_starts(10, 4, 4).tolist() == [0, 4, 6]  # 4 would leave out tokens 8 and 9
    assert window_starts(12, 4, 4).tolist() == [0, 4, 8]
    assert window_starts(12, 4, 4, phase=1).tolist() == [0, 3, 7, 8]


@pytest.mark.parametrize("epoch", [1, 2, 3, 9])
def test_the_order_of_an_epoch_is_a_permutation_of_its_windows(epoch):
    starts = epoch_starts(5000, 64, 16, seed=3, epoch=epoch)
    phase = epoch_phase(3, epoch, 16)
    assert 0 <= phase < 16
    assert sorted(starts.tolist()) == window_starts(5000, 64, 16, phase).tolist()
    assert starts.tolist() != sorted(starts.tolist())


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return epoch_starts(3000, 64, 32, seed=seed, epoch=epoch).tolist()

    first = order(0, 2)
    np.random.seed(1)  # the global generator has no part in it
    assert order(0, 2) == first
    assert order(1, 2) != first
    assert order(0, 3) != first


def test_the_first_epoch_has_the_plain_grid_and_a_fixed_phase_repeats_it():
    grid = window_starts(3000, 64, 32).tolist()
    assert sorted(epoch_starts(3000, 64, 32, seed=5, epoch=1).tolist()) == grid
    assert sorted(epoch_starts(3000, 64, 32, seed=5, epoch=7, random_phase=False).tolist()) == grid
    assert len({epoch_phase(5, epoch, 512) for epoch in range(2, 12)}) > 5


def test_a_short_stream_is_one_padded_window_whose_padding_is_not_scored():
    batch = make_batch(stream_of(3), np.array([0]), 6)
    assert batch.input_ids.tolist() == [[0, 1, 2, 0, 0, 0]]
    assert batch.labels.tolist() == [[0, 1, 2, -100, -100, -100]]
    assert batch.input_ids.dtype == batch.labels.dtype == np.int64


def test_a_full_window_is_scored_whole_across_piece_borders():
    batch = make_batch(stream_of(10), np.array([1, 6]), 4)  # borders at 4 and 7
    assert batch.input_ids.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert batch.labels.tolist() == batch.input_ids.tolist()


@pytest.mark.parametrize("num_windows", range(1, 21))
def test_no_batch_size_drops_a_window(num_windows):
    stream = stream_of(3 + num_windows)  # window 4, stride 1
    for batch_size in range(1, 33):
        batches = list(epoch_batches(stream, 4, 1, batch_size, seed=0, epoch=1))
        assert sorted(start for batch in batches for start in batch.starts) == list(range(num_windows))
        assert len(batches) == count_steps(num_windows, batch_size)
        assert [len(batch.starts) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_skipping_batches_gives_exactly_the_rest():
    whole = list(epoch_batches(stream_of(200), 16, 5, 4, seed=1, epoch=2))
    for skip in range(len(whole) + 1):
        rest = list(epoch_batches(stream_of(200), 16, 5, 4, seed=1, epoch=2, skip=skip))
        assert [batch.starts.tolist() for batch in rest] == [batch.starts.tolist() for batch in whole[skip:]]
        assert all((one.input_ids == two.input_ids).all() for one, two in zip(rest, whole[skip:], strict=True))


def test_an_empty_stream_has_no_windows():
    assert list(epoch_batches(stream_of(0), 16, 5, 4, seed=0, epoch=1)) == []


@pytest.mark.parametrize(("count", "words"), [(1, "1 document, 1,200 tokens"), (2, "2 documents, 1,200 tokens")])
def test_one_document_is_not_many(count, words):
    part = {"documents": count, "tokens": 1200}
    data = WindowData(SimpleNamespace(manifest={"train": part, "valid": part}), 16, 8, 2, 0, False)
    assert data.describe_counts() == (words, words)


@pytest.mark.parametrize(
    ("documents", "opening"),
    [
        (["内容简介：少年出山。", "第一章 山村\n他走了。"], "第一章 山村"),  # a blurb is no chapter
        (["作者的话", "一 山村\n他走了。"], "一 山村"),
        (["第一章 山村\n他走了。", "第二章 城"], "第一章 山村"),
        (["他走了。\n她来了。", "后来呢"], "他走了。"),
    ],
)
def test_the_sample_of_an_epoch_begins_as_the_first_chapter_does(documents, opening):
    text = "".join(f"\0{document}" for document in documents)  # each code point is a token, 0 the mark
    stream = TokenStream([np.frombuffer(text.encode("utf-32-le"), np.uint32)])
    data = WindowData(SimpleNamespace(train=stream), 8, 8, 1, 0, False)
    assert data.opening(lambda ids: "".join(map(chr, ids))).rstrip("\0") == opening


@pytest.mark.parametrize(
    ("stride", "starts"), [(8, [0, 4, 8, 12]), (4, [0, 4, 8, 12]), (3, [0, 3, 6, 9, 12]), (1, range(13))]
)
def test_held_out_text_is_scored_as_eval_scores_it_by_half_a_window_at_most(stride, starts):
    pieces = SimpleNamespace(valid=np.arange(20), manifest={})
    data = WindowData(pieces, 8, stride, 2, 0, False)
    assert [int(start) for batch in data.valid_batches() for start in batch.starts] == list(starts)
