"""Archives, made here, to the files in them; what is not read is refused in words, and the others go on."""

import gzip
import struct
import tarfile
import time
import zipfile

import pytest
from containers_made import make_docx, make_epub, make_tar, make_zip, page

from novelgpt.corpus import archives as module
from novelgpt.corpus.archives import Archive, file_kind
from novelgpt.messages import EXIT_INPUT, UserError

FIRST, SECOND = "第一章 他走了。", "第二章 她来了。"
FILES = {"书/1.txt": FIRST, "书/2.txt": SECOND}
DAMAGED = ("damaged, or not whole", "fetch or pack it again")


def contents(data: bytes) -> dict[str, str]:
    """Return the names and texts of all files of an archive."""
    with Archive(data, "a.zip") as archive:
        return {name: archive.read(name).decode() for name in archive.names}


def refusal(data: bytes, name: str | None = None) -> tuple[str, str]:
    """Return what is wrong with an archive, or with a file in it, and the hint."""
    with pytest.raises(UserError) as caught, Archive(data, "a.zip") as archive:
        archive.read(name)
    assert caught.value.code == EXIT_INPUT
    place = "a.zip: " if name is None else f"a.zip/{name}: "
    assert caught.value.message.startswith(place)
    return caught.value.message.removeprefix(place), caught.value.hint


def patched(data: bytes, mark: bytes, place: int, value: bytes) -> bytes:
    """Put bytes at a place behind every such mark."""
    changed, start = bytearray(data), data.find(mark)
    while start >= 0:
        changed[start + place : start + place + len(value)] = value
        start = data.find(mark, start + 1)
    return bytes(changed)


PACKED = {
    "zip": make_zip(FILES),
    "stored zip": make_zip(FILES, zipfile.ZIP_STORED),
    "lzma zip": make_zip(FILES, zipfile.ZIP_LZMA),
    **{mode: make_tar(FILES, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")},
}


@pytest.mark.parametrize("kind", PACKED)
def test_the_files_of_an_archive_are_read_by_name(kind, tmp_path):
    assert contents(PACKED[kind]) == FILES
    assert file_kind(PACKED[kind]) == ("zip" if "zip" in kind else "tar")
    path = tmp_path / "书.x"
    path.write_bytes(PACKED[kind])
    with Archive(path) as archive:
        assert (archive.name, archive.read("书/2.txt").decode()) == (str(path), SECOND)
    assert file_kind(path) == file_kind(PACKED[kind])


def test_hidden_files_folders_and_what_systems_leave_behind_are_no_books():
    others = {"__MACOSX/书/._1.txt": "x", ".DS_Store": "x", "书/.git/a.txt": "x", "Thumbs.db": "x", "空/": ""}
    assert contents(make_zip({**others, **FILES})) == FILES
    folder = tarfile.TarInfo()
    folder.type = tarfile.DIRTYPE
    assert contents(make_tar({"./书": folder, **{f"./{name}": text for name, text in FILES.items()}})) == {
        f"./{name}": text for name, text in FILES.items()
    }


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_names_that_chinese_windows_wrote_are_read(encoding):
    name = "第一章.txt".encode(encoding)
    data = make_zip({"x" * len(name): FIRST}).replace(b"x" * len(name), name)
    assert contents(data) == {"第一章.txt": FIRST}
    tar = make_tar({"x" * len(name): FIRST}, "w").replace(b"x" * len(name), name)
    with Archive(repaired(tar), "a.tar") as archive:
        assert archive.names == ["第一章.txt"]


def repaired(tar: bytes) -> bytes:
    """Put the right checksum into the first header of a tar."""
    header = tar[:148] + b" " * 8 + tar[156:512]
    return tar[:148] + b"%06o\0 " % sum(header) + tar[156:]


def test_a_zip_whose_writer_knew_no_checksums_is_read():
    data = patched(PACKED["zip"], b"PK\x01\x02", 16, b"\0" * 4)
    assert contents(data) == FILES


def test_an_archive_in_an_archive_is_opened_and_one_more_is_refused():
    inner = make_zip({"a.txt": FIRST, "深.zip": make_zip(FILES)})
    data = make_tar({"里/inner.zip": inner, "bad.zip": b"PK\x03\x04x", "b.txt": SECOND}, "w:gz")
    with Archive(data, "a.zip") as archive:
        assert archive.names == ["里/inner.zip/a.txt", "里/inner.zip/深.zip", "bad.zip", "b.txt"]
        assert archive.read("b.txt").decode() == SECOND
        assert archive.read("里/inner.zip/a.txt").decode() == FIRST
    message = "an archive in an archive in an archive, expected at most one in another"
    assert refusal(data, "里/inner.zip/深.zip") == (message, "unpack the outer one yourself")
    assert refusal(data, "bad.zip") == DAMAGED


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return the header of a link."""
    header = tarfile.TarInfo()
    header.type, header.linkname = kind, target
    return header


LINK = ("a link or a device, expected a file", "give the file that it means")
OUTSIDE = ("a path that leads out of the archive, expected one below it", "unpack it yourself if you trust it")
REFUSED = {
    "symbolic link": (make_tar({**FILES, "x.txt": link("/etc/passwd")}), "x.txt", *LINK),
    "hard link": (make_tar({**FILES, "x.txt": link("书/1.txt", tarfile.LNKTYPE)}), "x.txt", *LINK),
    "device": (make_tar({**FILES, "x.txt": link("", tarfile.CHRTYPE)}), "x.txt", *LINK),
    "pipe": (make_tar({**FILES, "x.txt": link("", tarfile.FIFOTYPE)}), "x.txt", *LINK),
    "above": (make_zip({**FILES, "../x.txt": "x"}), "../x.txt", *OUTSIDE),
    "absolute": (make_tar({**FILES, "/etc/x.txt": "x"}), "/etc/x.txt", *OUTSIDE),
    "Windows": (make_zip({**FILES, "C:\\x.txt": "x"}), "C:/x.txt", *OUTSIDE),
    "UNC": (make_zip({**FILES, "\\\\host\\share\\x.txt": "x"}), "//host/share/x.txt", *OUTSIDE),
    "encrypted": (
        patched(
            patched(make_zip({**FILES, "书/x.txt": "x"}), b"PK\x01\x02", 8, b"\x01\x08"), b"PK\x03\x04", 6, b"\x01\x08"
        ),
        "书/x.txt",
        "encrypted, the archive has a password",
        "unpack it yourself with the password",
    ),
    "method": (
        patched(make_zip({"x.txt": "x"}), b"PK\x01\x02", 10, b"\x63\0"),
        "x.txt",
        "packed in a way that is not read",
        "pack it again as an ordinary zip",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_read_is_refused_in_words_and_the_others_go_on(case):
    data, name, *expected = REFUSED[case]
    assert refusal(data, name) == tuple(expected)
    if case not in ("encrypted", "method"):
        with Archive(data, "a.zip") as archive:
            assert {own: archive.read(own).decode() for own in archive.names if own != name} == FILES


def test_a_symbolic_link_in_a_zip_is_refused():
    info = zipfile.ZipInfo("x.txt")
    info.external_attr = 0o120777 << 16
    packed = make_zip({"a.txt": FIRST})
    with open_for_more(packed) as (file, archive):
        archive.writestr(info, "/etc/passwd")
        archive.close()
        assert refusal(file.getvalue(), "x.txt") == LINK


def open_for_more(data: bytes):
    """Open a zip for writing behind what it has."""
    import contextlib
    import io

    @contextlib.contextmanager
    def opened():
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as archive:
            yield file, archive

    return opened()


def test_a_file_that_is_damaged_is_refused_and_the_others_go_on():
    data = make_zip(FILES, zipfile.ZIP_STORED).replace(FIRST.encode(), FIRST.replace("他", "她").encode())
    assert refusal(data, "书/1.txt") == DAMAGED
    with Archive(data, "a.zip") as archive:
        assert archive.read("书/2.txt").decode() == SECOND


@pytest.mark.parametrize("kind", PACKED)
def test_a_truncated_archive_is_refused_in_words(kind):
    for size in (10, 200, len(PACKED[kind]) * 2 // 3):
        data = PACKED[kind][:size]
        try:
            with Archive(data, "a.zip") as archive:  # a plain tar may end between its files
                for name in archive.names:
                    archive.read(name)
        except UserError as problem:
            assert (problem.message, problem.hint) in [
                (f"a.zip{place}: {DAMAGED[0]}", DAMAGED[1]) for place in ("", "/书/1.txt", "/书/2.txt")
            ]


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(module, "FREE_BYTES", 1 << 20)
    zeros = b"\0" * (2 << 20)
    message = ("unpacks to more than 1,048,576 bytes, 100 times its size", "unpack it yourself if it really is a book")
    assert refusal(make_zip({"a.txt": zeros})) == message
    assert refusal(make_tar({"a.txt": zeros}, "w:bz2")) == message
    assert refusal(make_zip({f"{number}.txt": zeros[: 1 << 18] for number in range(8)})) == message


def test_a_file_of_four_gigabytes_is_refused(monkeypatch):
    # the table says 4 GB less one byte; the archive itself is taken for as large as it would have to be
    data = patched(make_zip({"a.txt": FIRST}), b"PK\x01\x02", 24, struct.pack("<I", (4 << 30) - 2))
    assert refusal(data)[0] == "unpacks to more than 67,108,864 bytes, 100 times its size"
    monkeypatch.setattr(module, "MAX_RATIO", 10**9)
    message = "a file of 4,294,967,294 bytes, expected at most 536,870,912"
    assert refusal(data, "a.txt") == (message, "unpack it yourself if it really is a book")


def test_an_archive_of_too_many_files_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_NAMES", 3)
    assert contents(make_zip({f"{number}.txt": FIRST for number in range(3)}))
    message = ("more than 3 files", "unpack it yourself if it really is a book")
    assert refusal(make_zip({f"{number}.txt": FIRST for number in range(4)})) == message


def test_a_tar_that_leads_back_to_itself_ends():
    # a size of -512 in base 256: the next file would be this one again
    tar = make_tar(FILES)
    looped = repaired(tar[:124] + (-1024 & ((1 << 95) - 1) | 0xFF << 88).to_bytes(12, "big") + tar[136:])
    began = time.process_time()
    assert refusal(looped)[0] == DAMAGED[0]
    assert time.process_time() - began < 1


def test_a_zip_is_told_by_what_is_in_it():
    assert file_kind(make_epub({"1.xhtml": page("<p>字</p>")})) == "epub"
    assert file_kind(make_zip({"book/content.OPF": "", "1.html": ""})) == "epub"
    assert file_kind(make_docx("")) == "docx"
    assert file_kind(make_zip(FILES)) == "zip"
    assert file_kind(make_epub({"1.xhtml": page("<p>字</p>")})[:-50]) == "epub"  # truncated
    assert file_kind(gzip.compress(FIRST.encode())) == "gzip"
    assert file_kind(gzip.compress(FIRST.encode())[:9]) == "gzip"
    assert file_kind(FIRST.encode()) is None
