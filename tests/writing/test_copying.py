"""The copy meter against plain search."""

import random
import time

import numpy as np
import pytest

from novelgpt.writing.copying import LONG_RUN, CopyMeter, build_suffix_array, utf32_codes


def longest_by_search(text: str, documents: list[str]) -> int:
    best = 0
    for start in range(len(text)):
        while start + best < len(text) and any(text[start : start + best + 1] in document for document in documents):
            best += 1
    return best


def share_by_search(text: str, documents: list[str]) -> float:
    covered = set()
    for start in range(len(text) - LONG_RUN + 1):
        if any(text[start : start + LONG_RUN] in document for document in documents):
            covered |= set(range(start, start + LONG_RUN))
    return len(covered) / len(text)


def test_200_random_cases_are_as_a_plain_search_finds_them():
    chance = random.Random(0)
    for _ in range(200):
        letters = "天地玄黄宇宙"[: chance.randint(1, 6)]
        documents = ["".join(chance.choices(letters, k=chance.randint(1, 120))) for _ in range(chance.randint(1, 4))]
        text = "".join(chance.choices(letters + "洪", k=chance.randint(1, 80)))
        source = chance.choice(documents)
        place = chance.randrange(len(source))
        text += source[place : place + chance.randint(0, 60)] + "".join(chance.choices(letters, k=5))
        copied = CopyMeter(documents).measure(text)
        assert copied.longest == longest_by_search(text, documents)
        assert copied.share == pytest.approx(share_by_search(text, documents))
        if copied.longest:
            run = text[copied.start : copied.start + copied.longest]
            assert documents[copied.document][copied.offset : copied.offset + copied.longest] == run


@pytest.mark.parametrize("text", ["a", "aaaaaaaaaaaaaaaa", "banana", "abcabcabcabcab", "天地天地天", ""])
def test_suffix_arrays_are_sorted_suffixes(text):
    assert build_suffix_array(utf32_codes(text)).tolist() == sorted(range(len(text)), key=lambda place: text[place:])


def test_a_sample_made_of_the_book_is_reported_as_such():
    chance = random.Random(1)
    book = ["第一回\n" + "".join(chance.choices("春夏秋冬风花雪月", k=500)), "第二回 归来\n" + "山" * 30 + "水" * 40]
    meter = CopyMeter(book)
    copied = meter.measure(book[0][100:300])
    assert (copied.longest, copied.start, copied.document, copied.offset, copied.share) == (200, 0, 0, 100, 1.0)
    copied = meter.measure("xyz" + book[1][2:50])
    assert copied.longest == 48 and copied.start == 3 and copied.share == 48 / 51
    assert meter.describe_copied(copied) == (
        f"longest passage shared with the book: 48 characters, “回 归来 {'山' * 25}…”, in the chapter “第二回 归来”; "
        "94% in runs of 20 or more"
    )
    short = meter.describe_copied(meter.measure("xyz山水xyz"))
    assert short.startswith(
        "longest passage shared with the book: 2 characters, “山水”, in the chapter “第二回 归来”; 0%"
    )
    assert meter.describe_copied(meter.measure("xyz")) == "shares no character with the book"
    assert meter.measure("").longest == 0


def test_runs_do_not_go_over_the_border_of_two_chapters():
    assert CopyMeter(["天地玄黄", "宇宙洪荒"]).measure("玄黄宇宙").longest == 2


def test_the_index_is_kept_and_a_broken_one_is_built_anew(tmp_path):
    path, documents = tmp_path / "index.npy", ["天地玄黄宇宙洪荒"]
    first = CopyMeter(documents, path).order
    assert np.array_equal(np.load(path), first)
    path.write_bytes(path.read_bytes()[:20])
    assert np.array_equal(CopyMeter(documents, path).order, first)
    assert np.array_equal(np.load(path), first)
    assert CopyMeter(["另一本"], path).measure("另一").longest == 2  # of another length


@pytest.mark.slow
def test_five_million_characters_take_less_than_ten_seconds():
    generator = np.random.default_rng(0)
    words = ["".join(map(chr, generator.integers(0x4E00, 0x5000, size))) for size in generator.integers(1, 9, 3000)]
    book = "".join(words[i] for i in (generator.zipf(1.3, 1_300_000) - 1) % 3000)[:5_000_000]
    book += book[1000:9000]  # a doubled chapter
    start = time.process_time()
    meter = CopyMeter([book])
    assert time.process_time() - start < 10
    copied = meter.measure(book[70_000:71_000])
    assert copied.longest >= 1000 and copied.share == 1
