"""The first bytes of a file -> what it is, where that is no text: archives, e-books, office files, pictures.

An ending says what a file was called, its first bytes what it is. corpus/containers reads some of these files; of the
others a sentence says what they are, and a command makes text of them.
"""

import os
import shlex

HEAD_BYTES = 512  # within which all of this stands: the header of a tar
SIGNATURES = (  # what a file is, where in it, and what stands there
    ("odt", 30, (b"mimetypeapplication/vnd.oasis.opendocument",)),  # a zip, too
    ("zip", 0, (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK")),
    ("gzip", 0, (b"\x1f\x8b\x08",)),
    ("tar", 257, (b"ustar\0", b"ustar  \0")),
    ("bz2", 0, tuple(b"BZh%d1AY&SY" % level for level in range(1, 10))),
    ("xz", 0, (b"\xfd7zXZ\0",)),
    ("zstd", 0, (b"\x28\xb5\x2f\xfd",)),
    ("7z", 0, (b"7z\xbc\xaf\x27\x1c",)),
    ("rar", 0, (b"Rar!\x1a\x07",)),
    ("pdf", 0, (b"%PDF-", b"\xef\xbb\xbf%PDF-")),
    ("mobi", 60, (b"BOOKMOBI", b"TEXtREAd")),
    ("kfx", 0, (b"CONT\x02\0", b"\xeaDRMION\xee", b"TPZ0")),
    ("doc", 0, (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
    ("rtf", 0, (b"{\\rtf",)),
    ("chm", 0, (b"ITSF",)),
    ("lit", 0, (b"ITOLITLS",)),
    ("umd", 0, (b"\x89\x9b\x9a\xde",)),
    ("djvu", 0, (b"AT&TFORM",)),
    ("sqlite", 0, (b"SQLite format 3\0",)),
    ("picture", 0, (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")),
    ("picture", 8, (b"WEBPVP8",)),
)
NAMES = {
    "zip": "a zip archive",
    "gzip": "a gzip file",
    "tar": "a tar archive",
    "bz2": "a bzip2 file",
    "xz": "an xz file",
    "zstd": "a zstd file",
    "7z": "a 7z archive",
    "rar": "a rar archive",
    "pdf": "a PDF file",
    "mobi": "a Kindle book (mobi, azw3)",
    "kfx": "a Kindle book (kfx, azw)",
    "doc": "an old Office file (doc, xls) or one with a password",
    "odt": "an OpenDocument file (odt)",
    "rtf": "an RTF file",
    "chm": "a CHM file of web pages",
    "lit": "a Microsoft Reader book (lit)",
    "umd": "a UMD book",
    "djvu": "a DjVu file of scanned pages",
    "sqlite": "an SQLite database",
    "picture": "a picture",
}
COMMANDS = {  # what makes text of a file, or takes the files out of it; {stem}: the file without its ending
    "zip": "unzip {book} -d {stem}",
    "gzip": "gunzip -k {book}",
    "tar": "tar -xf {book}",
    "bz2": "bunzip2 -k {book}",
    "xz": "unxz -k {book}",
    "zstd": "unzstd {book}",
    "7z": "7z x {book}",
    "rar": "unrar x {book}",
    "pdf": "pdftotext -layout {book} {stem}.txt",
    **dict.fromkeys(("doc", "rtf", "odt"), "soffice --headless --convert-to txt:Text {book}"),
    "djvu": "djvutxt {book} {stem}.txt",
    "sqlite": "sqlite3 {book} .dump",
    "picture": "tesseract {book} {stem} -l chi_sim",
}
CALIBRE = "ebook-convert {book} {stem}.txt  # from Calibre"  # for all other kinds


def container_kind(head: bytes) -> str | None:
    r"""Tell what a file is by its first HEAD_BYTES bytes; None for what may be text.

    >>> container_kind(b"PK\x03\x04\x14\0"), container_kind("第一章".encode())
    ('zip', None)
    """
    for kind, place, marks in SIGNATURES:
        if head.startswith(marks, place):
            return kind
    return None


def converting_command(kind: str, name: str) -> str:
    """Return the command that makes text of a file.

    >>> converting_command("pdf", "三国 演义.pdf")
    "pdftotext -layout '三国 演义.pdf' '三国 演义'.txt"
    """
    stem = os.path.splitext(name)[0]
    return COMMANDS.get(kind, CALIBRE).format(book=shlex.quote(name), stem=shlex.quote(stem))
