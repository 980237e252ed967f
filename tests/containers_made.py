"""E-books, Word files and archives made of texts, for the tests that read them."""

import io
import tarfile
import zipfile

CONTAINER = '<container><rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def make_zip(files: dict[str, str | bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of files, name -> content."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def make_tar(files: dict[str, str | bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    """Return a tar of files, name -> content, or the header of a link or a device; mode as of tarfile."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in files.items():
            header = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if header is content else content.encode() if isinstance(content, str) else content
            header.name, header.size = name, len(data)
            archive.addfile(header, io.BytesIO(data))
    return packed.getvalue()


def page(body: str, head: str = "") -> str:
    """Return an XHTML page."""
    return (
        f'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head>{head}</head><body>{body}</body></html>'
    )


def make_ncx(points: list) -> str:
    """Return the navigation of EPUB 2; points: (title, link, points below)."""

    def written(points: list) -> str:
        return "".join(
            f"<navPoint><navLabel><text>{title}</text></navLabel><content src='{link}'/>{written(below)}</navPoint>"
            for title, link, below in points
        )

    return f"<ncx><docTitle><text>书</text></docTitle><navMap>{written(points)}</navMap></ncx>"


def make_opf(pages: list[str], items: str = "", spine: str | None = None) -> str:
    """Return the table of an EPUB whose spine are these pages."""
    listed = "".join(
        f'<item id="p{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(pages)
    )
    order = "".join(f'<itemref idref="p{n}"/>' for n in range(len(pages))) if spine is None else spine
    return f"<package><manifest>{listed}{items}</manifest><spine>{order}</spine></package>"


def make_epub(pages: dict[str, str | bytes], points: list = (), *, others: dict = {}, **opf) -> bytes:  # noqa: B006
    """Return an EPUB of pages, name -> XHTML, with the navigation of EPUB 2; others: further files, or other ones."""
    items = opf.pop("items", "") + '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    files = {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER}
    files |= {"OEBPS/content.opf": make_opf(list(pages), items, **opf), "OEBPS/toc.ncx": make_ncx(list(points))}
    files |= {f"OEBPS/{name}": content for name, content in pages.items()}
    return make_zip({name: content for name, content in (files | others).items() if content is not None})


def make_docx(body: str, styles: str = "") -> bytes:
    """Return a Word file with this body of paragraphs."""
    return make_zip(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f"<?xml version='1.0'?><w:document {WORD}><w:body>{body}</w:body></w:document>",
            "word/styles.xml": f"<w:styles {WORD}>{styles}</w:styles>",
        }
    )
