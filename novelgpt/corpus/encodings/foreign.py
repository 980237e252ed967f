"""Files that are no text at all, told by their first bytes: archives, e-books, documents of a word processor."""

from novelgpt.messages import EXIT_INPUT, UserError

SIGNATURES = (  # where in the file, what stands there, what the file is
    (0, b"PK\x03\x04", "a zip file (docx, epub)"),
    (0, b"PK\x05\x06", "a zip file (docx, epub)"),
    (0, b"%PDF-", "a PDF file"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Word file"),
    (60, b"BOOKMOBI", "a mobi e-book"),
    (0, b"Rar!\x1a\x07", "a rar file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z file"),
)


def refuse_foreign(head: bytes, name: str) -> None:
    """Raise a UserError where a file, of these first bytes and this name, is known to be no text.

    >>> refuse_foreign("第一章 山村".encode(), "novel.txt")
    """
    for place, mark, kind in SIGNATURES:
        if head[place : place + len(mark)] == mark:
            hint = "save it as .txt (Word: as plain text; an e-book: with calibre; an archive: unpack it) and give that"
            raise UserError(f"{name}: {kind}, not text", hint, EXIT_INPUT)
