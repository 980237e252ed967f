"""Cuts of real novels in every encoding, whole and damaged: never silently wrong, nearly always decided."""

import random
from collections import Counter

import pytest
from conftest import CORPORA, NOVELS, needs_novels, read_novel

from novelgpt.corpus.encodings import decode_bytes
from novelgpt.messages import UserError

ENCODINGS = {  # what a file is written in -> what has to be reported, and the bytes of its mark
    "utf-8": ("utf-8", 0),
    "utf-8-sig": ("utf-8-sig", 3),
    "gbk": ("gb18030", 0),
    "gb18030": ("gb18030", 0),
    "big5": ("big5", 0),
    "cp950": ("big5", 0),
    "big5hkscs": ("big5", 0),
    "utf-16-le": ("utf-16-le", 0),
    "utf-16-be": ("utf-16-be", 0),
    "utf-16": ("utf-16-le", 2),
    "utf-32": ("utf-32-le", 4),
}
REPAIRED = {"hongloumeng.gbk.txt": (1, 2)}  # lines, bytes: a lost byte has garbled 40 characters of one sentence there
DAMAGES = ("none", "cut", "bad", "both")
NEAR = 8  # characters; damage may blur its neighbours so far, because double-byte text has no landmarks
OWN_DAMAGE = 8  # private-use characters in one cut: a stretch that the novel itself has garbled, and that gets repaired

pytestmark = needs_novels


def damage(text, data, encoding, kind, rng):
    """Cut the last character, change one byte, or both; returns the bytes and the text that is left to expect."""
    if kind in ("cut", "both"):
        plain = ENCODINGS[encoding][0].removesuffix("-sig")
        last = len(text[-1].encode(encoding if plain == "big5" else plain))
        if last > 1:
            data, text = data[: len(data) - rng.randrange(1, last)], text[:-1]
    if kind in ("bad", "both"):
        place = rng.randrange(ENCODINGS[encoding][1], len(data))
        data = data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    return data, text


def changed_span(expected, found):
    """Count the characters between the common beginning and the common end of two texts."""
    short = min(len(expected), len(found))
    head = next((index for index in range(short) if expected[index] != found[index]), short)
    tail = next((index for index in range(short - head) if expected[-1 - index] != found[-1 - index]), short - head)
    return max(len(expected), len(found)) - head - tail


def sweep(num_places, lengths):
    """Decode every cut in every encoding and damage; returns counts of outcomes and the faults."""
    outcomes, faults = Counter(), []
    for novel in NOVELS:
        novel_text = read_novel(novel)
        for length in lengths:
            rng = random.Random(f"{novel} {length}")
            for _ in range(num_places):
                start = rng.randrange(len(novel_text) - length)
                text = novel_text[start : start + length]
                if sum("\ue000" <= char <= "\uf8ff" for char in text) >= OWN_DAMAGE:
                    continue
                for encoding in ENCODINGS:
                    try:
                        data = text.encode(encoding)
                    except UnicodeEncodeError:
                        continue
                    for kind in DAMAGES:
                        judge(text, data, encoding, kind, rng, length, outcomes, faults)
    return outcomes, faults


def judge(text, data, encoding, kind, rng, length, outcomes, faults):
    """Decode one damaged cut and enter how it went."""
    broken, expected = damage(text, data, encoding, kind, rng)
    try:
        decoded = decode_bytes(broken)
    except UserError:
        outcomes[length, "undecided"] += 1
        return
    outcomes[length, "decided"] += 1
    allowed = 0 if kind in ("none", "cut") else NEAR
    wrong_name = kind == "none" and decoded.encoding != ENCODINGS[encoding][0] and not text.isascii()
    if wrong_name or changed_span(expected, decoded.text) > allowed:
        faults.append((encoding, kind, length, decoded.bad_bytes, decoded.encoding, expected[:20], decoded.text[:20]))


@pytest.mark.parametrize("novel", NOVELS)
def test_real_novels_are_read_as_they_are_written(novel):
    data = (CORPORA / novel).read_bytes()
    decoded = decode_bytes(data)
    lines, expected = decoded.text.split("\n"), data.decode(NOVELS[novel]).split("\n")
    repaired = [number for number, (ours, theirs) in enumerate(zip(lines, expected, strict=True)) if ours != theirs]
    assert decoded.encoding == {"utf-16": "utf-16-le", "cp950": "big5"}.get(NOVELS[novel], NOVELS[novel])
    assert (len(repaired), decoded.bad_bytes) == REPAIRED.get(novel, (0, 0))


@pytest.mark.sweep
def test_cuts_of_novels_are_never_silently_wrong():
    outcomes, faults = sweep(4, (50, 100, 200, 1000))
    assert faults == []
    assert outcomes[50, "undecided"] <= 0.005 * outcomes[50, "decided"]
    assert outcomes[200, "undecided"] == outcomes[1000, "undecided"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cuts_from_200_places_of_each_novel_are_never_silently_wrong():
    outcomes, faults = sweep(200, (50, 100, 200, 1000))
    print(outcomes, faults)
    num_decided = sum(count for (_, outcome), count in outcomes.items() if outcome == "decided")
    assert [fault for fault in faults if fault[1] in ("none", "cut")] == []
    assert [fault for fault in faults if fault[3] == 0] == []  # without a word
    assert len(faults) <= 2e-5 * num_decided  # where a garbled stretch of the novel itself was repaired as well
    assert outcomes[50, "undecided"] <= 0.005 * outcomes[50, "decided"]
    assert outcomes[200, "undecided"] == outcomes[1000, "undecided"] == 0
