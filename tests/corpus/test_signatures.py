"""Files that are no text, told by their first bytes and answered with the command that makes text of them."""

import bz2
import gzip
import lzma

import pytest
from containers_made import make_docx, make_epub, make_tar, make_zip, page

from novelgpt.corpus.encodings import TextStream, decode_bytes
from novelgpt.corpus.encodings.detect import refuse_foreign
from novelgpt.corpus.signatures import container_kind
from novelgpt.messages import EXIT_INPUT, UserError

TEXT = "第一章 山村\n他提着灯笼走了出去，天亮的时候雪停了。\n" * 50
CALIBRE = "ebook-convert 'a b.x' 'a b'.txt  # from Calibre"
FOREIGN = {
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive", "7z x 'a b.x'"),
    "rar": (b"Rar!\x1a\x07\0", "a rar archive", "unrar x 'a b.x'"),
    "rar 5": (b"Rar!\x1a\x07\x01\0", "a rar archive", "unrar x 'a b.x'"),
    "pdf": (b"%PDF-1.7\n", "a PDF file", "pdftotext -layout 'a b.x' 'a b'.txt"),
    "mobi": (b"Shan_Cun".ljust(60, b"\0") + b"BOOKMOBI", "a Kindle book (mobi, azw3)", CALIBRE),
    "palm": (b"Shan_Cun".ljust(60, b"\0") + b"TEXtREAd", "a Kindle book (mobi, azw3)", CALIBRE),
    "kfx": (b"CONT\x02\0", "a Kindle book (kfx, azw)", CALIBRE),
    "doc": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Office file (doc, xls) or one with a password",
        "soffice --headless --convert-to txt:Text 'a b.x'",
    ),
    "rtf": (b"{\\rtf1\\ansi", "an RTF file", "soffice --headless --convert-to txt:Text 'a b.x'"),
    "odt": (
        make_zip({"mimetype": "application/vnd.oasis.opendocument.text"}, 0),
        "an OpenDocument file (odt)",
        "soffice --headless --convert-to txt:Text 'a b.x'",
    ),
    "chm": (b"ITSF\x03\0", "a CHM file of web pages", CALIBRE),
    "lit": (b"ITOLITLS", "a Microsoft Reader book (lit)", CALIBRE),
    "umd": (b"\x89\x9b\x9a\xde", "a UMD book", CALIBRE),
    "djvu": (b"AT&TFORM\0\0", "a DjVu file of scanned pages", "djvutxt 'a b.x' 'a b'.txt"),
    "sqlite": (b"SQLite format 3\0", "an SQLite database", "sqlite3 'a b.x' .dump"),
    "png": (b"\x89PNG\r\n\x1a\n", "a picture", "tesseract 'a b.x' 'a b' -l chi_sim"),
    "jpeg": (b"\xff\xd8\xff\xe0", "a picture", "tesseract 'a b.x' 'a b' -l chi_sim"),
    "webp": (b"RIFF\x10\0\0\0WEBPVP8 ", "a picture", "tesseract 'a b.x' 'a b' -l chi_sim"),
    "zstd": (b"\x28\xb5\x2f\xfd", "a zstd file", "unzstd 'a b.x'"),
    "zip": (make_zip({"a.txt": TEXT}, 0), "a zip archive", "unzip 'a b.x' -d 'a b'"),  # its texts lie bare in it
    "empty zip": (make_zip({}), "a zip archive", "unzip 'a b.x' -d 'a b'"),
    "epub": (make_epub({"1.xhtml": page(TEXT)}), "a zip archive", "unzip 'a b.x' -d 'a b'"),
    "docx": (make_docx(""), "a zip archive", "unzip 'a b.x' -d 'a b'"),
    "tar": (make_tar({"a.txt": TEXT}), "a tar archive", "tar -xf 'a b.x'"),
    "gzip": (gzip.compress(TEXT.encode()), "a gzip file", "gunzip -k 'a b.x'"),
    "bz2": (bz2.compress(TEXT.encode()), "a bzip2 file", "bunzip2 -k 'a b.x'"),
    "xz": (lzma.compress(TEXT.encode()), "an xz file", "unxz -k 'a b.x'"),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.parametrize("encoding", [None, "gb18030"])
def test_no_container_is_ever_read_as_text(case, encoding):
    data, kind, hint = FOREIGN[case]
    data += TEXT.encode() if case not in ("zip", "tar", "epub", "docx") else b""
    readers = (
        lambda: decode_bytes(data, encoding, name="a b.x"),
        lambda: list(TextStream(iter([data]), "a b.x", encoding)),
        lambda: refuse_foreign(data[:512], "a b.x"),
    )
    for read in readers:
        with pytest.raises(UserError) as caught:
            read()
        found = (caught.value.message, caught.value.hint, caught.value.code)
        assert found == (f"a b.x: {kind}, not text", hint, EXIT_INPUT)


@pytest.mark.parametrize("text", [TEXT, "PK", "BM 是一个人的名字。", "{rtf}", "<html>", "%PD", "II* 二", "ustar"])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5hkscs", "utf-16", "utf-8-sig"])
def test_texts_are_no_containers(text, encoding):
    assert container_kind(text.encode(encoding, "ignore")) is None
