"""Malformed inputs: whatever is handed in, the answer is a result or a message, at once, and no half file."""

import contextlib
import io
import json
import random
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import STORY
from containers_made import make_docx, make_epub, make_tar, make_zip, page

import clr_ctrl
from novelgpt.cli import run
from novelgpt.corpus.archives import Archive, file_kind
from novelgpt.corpus.containers import read_docx, read_epub, read_html
from novelgpt.corpus.documents import decode_page
from novelgpt.corpus.headings import Section
from novelgpt.corpus.pieces import open_pieces, write_pieces
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.messages import UserError

SECONDS = 2.0  # of processor time, after which an answer counts as a hang
TEXT = "\n".join(STORY)
SEEDS = {
    "json": [json.dumps(STORY, ensure_ascii=False), json.dumps(STORY), json.dumps([{"text": text} for text in STORY])],
    "jsonl": ["\n".join(json.dumps({"content": text}, ensure_ascii=False) for text in STORY)],
    "csv": ["text,title\n" + "\n".join(f'"{text}",甲' for text in STORY)],
    "txt": [TEXT, TEXT.replace("\n", "\r\n　　"), TEXT * 5],
}
CODECS = ("utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-32")
INSERTS = [b"\x00", b"\xff", b"\\", b'"', b"[", b"{", b"]", b"\n", b"\r", b"\xef\xbb\xbf", b"\\ud83d", b"1e999", b"NaN"]
INSERTS += [b"[" * 2000, b"9" * 5000, b'{"a":', b"\x1b[2J", "第一章 ".encode(), b"\xe3\x80", b"\x81\x30"]


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Damage bytes one to four times: cut, flip, insert, delete, double."""
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(damaged) + 1)
        kind = draw.randrange(5)
        if kind == 0:
            del damaged[place:]
        elif kind == 1 and place < len(damaged):
            damaged[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            damaged[place:place] = draw.choice(INSERTS)
        elif kind == 3:
            del damaged[place : place + draw.randint(1, 40)]
        else:
            damaged[place:place] = damaged[place : place + draw.randint(1, 60)]
    return bytes(damaged)


def clean_one(kind: str, data: bytes, folder: Path) -> None:
    """Send one file through clr_ctrl.py and check status, files and time."""
    source, output = folder / f"in.{kind}", folder / "out.json"
    source.write_bytes(data)
    began = time.process_time()
    status = run(clr_ctrl.main, [str(source), "--output", str(output)])
    assert time.process_time() - began < SECONDS
    names = {path.name for path in folder.iterdir()}
    if status == 0:
        documents = json.loads(output.read_text(encoding="utf-8"))
        assert documents and all(isinstance(document, str) and document for document in documents)
        assert names == {source.name, "out.json", "out.report.json"}
    else:
        assert status == 3
        assert names == {source.name}
    for name in names:
        (folder / name).unlink()


def fuzz_clean(count: int, folder: Path, capsys) -> None:
    """Clean that many malformed files."""
    draw = random.Random(1)
    for _ in range(count):
        kind = draw.choice(list(SEEDS))
        data = draw.choice(SEEDS[kind]).encode(draw.choice(CODECS))
        clean_one(kind, mutate(data, draw), folder)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "\x1b" not in said


def container_seeds() -> list[bytes]:
    """Return containers of every kind, packed and bare, so that damage reaches what is in them."""
    body = "".join(f"<h2 id='a'>{text[:9]}</h2><p class=b>{text}<br/>&nbsp;&#x4e00;</p>" for text in STORY)
    epub = make_epub(
        {"1.xhtml": page(body), "2.xhtml": page(body)}, [(STORY[0][:9], "1.xhtml#a", [("二", "2.xhtml", [])])]
    )
    docx = make_docx("".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in STORY))
    files = {"一.txt": TEXT, "二/三.html": page(body), "四.epub": epub, "五.zip": make_zip({"a.txt": TEXT})}
    bare = [make_zip(read_zip(data), 0) for data in (epub, docx)]
    tars = [make_tar(files, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")]
    return [
        epub,
        docx,
        *bare,
        make_zip(files),
        make_zip(files, 0),
        *tars,
        page(body).encode(),
        page(body).encode("gbk"),
    ]


def read_zip(data: bytes) -> dict[str, bytes]:
    """Return the files of a zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_container(data: bytes) -> None:
    """Read all there is in a container, as whatever it may be; a file that is refused leaves the others."""
    kind = file_kind(data)
    if kind in ("zip", "tar"):
        with Archive(data, "in.zip") as archive:
            for name in archive.names:
                with contextlib.suppress(UserError):
                    assert isinstance(archive.read(name), bytes)
        return
    reader = {"epub": read_epub, "docx": read_docx}.get(kind)
    sections = reader(data, "in", decode_page) if reader else read_html(decode_page(data, "in"), "in")
    assert sections and all(isinstance(section, Section) and section.text for section in sections)


def fuzz_containers(count: int) -> None:
    """Read that many malformed containers: damaged, cut, or the beginning of one and the end of another."""
    draw = random.Random(4)
    seeds = container_seeds()
    for _ in range(count):
        data = draw.choice(seeds)
        if draw.random() < 0.2:
            other = draw.choice(seeds)
            data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
        data = mutate(data, draw)
        began = time.process_time()
        try:
            read_container(data)
        except UserError as problem:
            assert problem.code == 3
        assert time.process_time() - began < SECONDS


def fuzz_vocabularies(count: int, folder: Path) -> None:
    """Load that many malformed vocabularies; one that loads must still round-trip."""
    draw = random.Random(2)
    path = folder / "vocab.txt"
    save_vocabulary(path, build_vocabulary(STORY))
    data = path.read_bytes()
    for _ in range(count):
        path.write_bytes(mutate(data, draw))
        began = time.process_time()
        try:
            tokenizer = load_tokenizer(path)
        except UserError as problem:
            assert problem.code == 3
        else:
            if tokenizer.kind == "character":
                assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
        assert time.process_time() - began < SECONDS


def fuzz_pieces(count: int, folder: Path) -> None:
    """Open that many sets with one damaged file; all are refused."""
    draw = random.Random(3)
    save_vocabulary(folder / "vocab.txt", build_vocabulary(STORY))
    facts = {"path": "x", "sha256": "0" * 64}
    whole = folder / "whole"
    write_pieces(
        STORY,
        load_tokenizer(folder / "vocab.txt"),
        whole,
        num_pieces=3,
        source=facts,
        vocabulary=facts,
        valid_fraction=0.3,
    )
    names = sorted(path.name for path in whole.iterdir() if path.name[0] != ".")
    expected = open_pieces(whole).train.read()
    for _ in range(count):
        name = draw.choice(names)
        data = (whole / name).read_bytes()
        (whole / name).write_bytes(mutate(data, draw))
        began = time.process_time()
        try:
            assert np.array_equal(open_pieces(whole).train.read(), expected)  # a mutation may undo itself
            assert (whole / name).read_bytes() == data
        except UserError as problem:
            assert problem.code == 5
        assert time.process_time() - began < SECONDS
        (whole / name).write_bytes(data)
    shutil.rmtree(whole)


def fuzz(share: float, tmp_path: Path, monkeypatch, capsys) -> None:
    """Try that share of 20,000 malformed inputs; files need not reach the disk for this."""
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    for name in ("clean", "vocabularies", "pieces"):
        (tmp_path / name).mkdir()
    fuzz_clean(int(7_000 * share), tmp_path / "clean", capsys)
    fuzz_containers(int(3_000 * share))
    fuzz_vocabularies(int(6_000 * share), tmp_path / "vocabularies")
    fuzz_pieces(int(4_000 * share), tmp_path / "pieces")


def test_malformed_inputs_give_a_message_or_a_result(tmp_path, monkeypatch, capsys):
    fuzz(0.02, tmp_path, monkeypatch, capsys)


@pytest.mark.sweep
def test_20000_malformed_inputs_give_a_message_or_a_result(tmp_path, monkeypatch, capsys):
    fuzz(1, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_200000_malformed_inputs_give_a_message_or_a_result(tmp_path, monkeypatch, capsys):
    fuzz(10, tmp_path, monkeypatch, capsys)
