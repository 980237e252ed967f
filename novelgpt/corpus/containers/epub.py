"""An EPUB -> its sections: the pages in the order of the spine, divided where the navigation points to.

    META-INF/container.xml → content.opf → manifest: id → page;  spine: the order of the ids
                                         → the navigation: nav.xhtml of EPUB 3, else toc.ncx: title → page#id

The cover, contents pages and pages of pictures have no text of the story. Without a spine the pages are read in the
natural order of their names; a page that is missing or in no encoding is left out, both with a warning.
"""

import itertools
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from novelgpt.corpus.archives import open_zip, read_packed, zip_entries
from novelgpt.corpus.containers.html import Page, is_menu
from novelgpt.corpus.containers.markup import join_text, read_attributes, read_tokens
from novelgpt.corpus.containers.sections import SENTENCE_ENDS, Binder, Block, Section, is_line, is_listing, key_of
from novelgpt.messages import EXIT_INPUT, UserError, warn

PAGES = (".xhtml", ".html", ".htm")
PAGE_TYPES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
FEW_ENTRIES, MAX_GAP = 3, 2  # of a list of chapters; paragraphs from one entry to the next
FEW_LINES = 5  # above and below such a list
NO_TITLE = ("。", "；")  # at the end of a paragraph
MAX_STRETCH = 50_000  # characters of several pages under one title
LOWEST = 9  # the depth of a title that is in no navigation
SHOWN = 3  # missing pages named in a warning


@dataclass(frozen=True)
class Point:
    """An entry of the navigation."""

    title: str
    depth: int  # from 1
    page: str  # path in the archive
    anchor: str  # "" for the beginning of the page


class Package:
    """The files of an EPUB and its table of them.

    Attributes:
        pages: the pages of the spine in reading order, those that are read by the way last.
        guides: the paths of the navigation.
        title: the title of the book; "" where the table has none.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str, decode: Callable[[bytes, str], str]):
        self.archive = archive
        self.decode = decode
        self.name = name
        self.names = dict(zip_entries(archive))
        self.folded = {path.casefold(): path for path in self.names}
        self.opf = self.find_opf()
        opf = self.tokens(self.opf)
        self.title = next((text for (_, tag, _), (_, _, text) in itertools.pairwise(opf) if tag == "title"), "").strip()
        tokens = [(tag, read_attributes(value)) for kind, tag, value in opf if kind == "start"]
        self.items = {entry.get("id"): entry for tag, entry in tokens if tag == "item"}
        spine = [entry for tag, entry in tokens if tag == "itemref"]
        spine.sort(key=lambda entry: entry.get("linear") == "no")
        found = [self.items[entry.get("idref")] for entry in spine if entry.get("idref") in self.items]
        self.pages = list(dict.fromkeys(self.resolve(entry.get("href", ""), self.opf)[0] for entry in found))
        is_nav = [entry for entry in self.items.values() if "nav" in entry.get("properties", "").split()]
        is_ncx = [entry for entry in self.items.values() if entry.get("media-type") == "application/x-dtbncx+xml"]
        self.guides = [self.resolve(entry.get("href", ""), self.opf)[0] for entry in is_nav + is_ncx]
        self.guides += [path for path in self.names if path.lower().endswith(".ncx") and path not in self.guides]
        if not self.pages:
            self.pages = self.without_spine()

    def find_opf(self) -> str:
        """Find the file with manifest and spine; "" where there is none."""
        if "META-INF/container.xml" in self.names:
            for kind, tag, value in self.tokens("META-INF/container.xml"):
                if kind == "start" and tag == "rootfile":
                    path = self.resolve(read_attributes(value).get("full-path", ""), "")[0]
                    if path in self.names:
                        return path
        return next((path for path in self.names if path.lower().endswith(".opf")), "")

    def tokens(self, path: str) -> list[tuple[str, str, str]]:
        """Return the tokens of a file; none where it is missing."""
        return list(read_tokens(self.decode(self.read(path), f"{self.name}/{path}"))) if path in self.names else []

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return read_packed(self.archive, self.names[path], f"{self.name}/{path}")

    def resolve(self, href: str, base: str) -> tuple[str, str]:
        """Return the path and the anchor that a link in the file `base` means."""
        path, _, anchor = href.partition("#")
        for plain in (path, unquote(path)):
            full = posixpath.normpath(posixpath.join(posixpath.dirname(base), plain)) if path else base
            full = self.folded.get(full.casefold(), full) if full not in self.names else full
            if full in self.names:
                break
        return full, unquote(anchor)

    def without_spine(self) -> list[str]:
        """Return all pages in natural order, with a warning."""
        types = {
            self.resolve(entry.get("href", ""), self.opf)[0]: entry.get("media-type") for entry in self.items.values()
        }
        pages = [path for path in self.names if path.lower().endswith(PAGES) or types.get(path) in PAGE_TYPES]
        if not pages:
            raise UserError(f"{self.name}: an EPUB without pages", "fetch it again", EXIT_INPUT)
        warn(f"{self.name}: an EPUB without a spine: its {len(pages)} pages are read in the order of their names")
        return sorted(pages, key=natural_key)

    def encrypted_pages(self) -> list[str]:
        """Return the pages that are encrypted; fonts may be."""
        found, algorithm = [], ""
        for kind, tag, value in self.tokens("META-INF/encryption.xml"):
            attributes = read_attributes(value) if kind == "start" else {}
            if tag == "encryptionmethod" and kind == "start":
                algorithm = attributes.get("algorithm", "")
            elif tag == "cipherreference" and kind == "start" and algorithm not in FONT_ALGORITHMS:
                found.append(self.resolve(attributes.get("uri", ""), "")[0])
        return [path for path in found if path in self.pages]

    def points(self) -> list[Point]:
        """Return the entries of the navigation, the first that has any."""
        for path in self.guides:
            points = read_ncx(self, path) if path.lower().endswith(".ncx") else read_nav(self, path)
            if not points:
                continue
            # a single point above all others is the book itself
            if [point.depth for point in points].count(1) == 1 and len(points) > 2 and points[0].depth == 1:
                return points[1:]
            return points
        return []


def natural_key(path: str) -> list[str | int]:
    """Return what sorts names as people do.

    >>> sorted(["10.html", "9.html"], key=natural_key)
    ['9.html', '10.html']
    """
    parts = re.split("([0-9]{1,18})", path)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def read_epub(data: bytes, name: str, decode: Callable[[bytes, str], str]) -> list[Section]:
    """Read an EPUB.

    Args:
        data, name: the bytes of the file, and its name for messages.
        decode: from the bytes of a page and its name to its text.

    Returns:
        The sections in reading order; titles come from the navigation.

    Raises:
        UserError: damaged, absurdly large, encrypted, or without text.
    """
    with open_zip(data, name) as archive:
        package = Package(archive, name, decode)
        if package.encrypted_pages():
            message = f"{name}: copy-protected (DRM): its pages are encrypted, and only the shop's reader opens them"
            raise UserError(message, "get it without protection", EXIT_INPUT)
        sections = bind_pages(package)
    if not sections:
        raise UserError(f"{name}: an EPUB without text, only pictures", "give the novel as text", EXIT_INPUT)
    return sections


def bind_pages(package: Package) -> list[Section]:
    """Read all pages and divide them where the navigation points to."""
    points, binder, missing = package.points(), Binder(package.title), []
    titles = {key_of(point.title) for point in points} - {""}
    by_page: dict[str, list[Point]] = {}
    for point in points:
        by_page.setdefault(point.page, []).append(point)
    pages = []
    for path in package.pages:
        page = read_page(package, path, missing) if path not in package.guides else None
        own = by_page.get(path, [])
        if page:
            page.blocks = drop_contents(page.blocks, titles - {key_of(point.title) for point in own})
            pages.append((page, own))
    for page, own in divide_long_stretches(pages):
        add_page(binder, page, own)
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
        warn(f"{package.name}: {len(missing)} of {len(package.pages)} pages are missing or cannot be read: {shown}")
    return [section for section in binder.finish() if not is_listing(section, package.title)]


def divide_long_stretches(pages: list[tuple[Page, list[Point]]]) -> Iterator[tuple[Page, list[Point]]]:
    """Yield the pages with their points; where a point is followed by far too long a text, pages that begin with a
    title get one of their own: such a navigation is not finished."""
    starts = [number for number, (_, own) in enumerate(pages) if own or number == 0] + [len(pages)]
    for start, end in itertools.pairwise(starts):
        length = sum(len(block.text) for page, _ in pages[start:end] for block in page.blocks)
        for page, own in pages[start:end]:
            if length > MAX_STRETCH and not own and page.blocks and is_line(page.blocks[0].text):
                own = [Point(page.blocks[0].text, LOWEST, "", "")]
            yield page, own


def read_page(package: Package, path: str, missing: list[str]) -> Page | None:
    """Read a page; one that is missing or unreadable is noted."""
    try:
        if path in package.names:
            data = package.read(path)
            return Page(package.decode(data, f"{package.name}/{path}") if data.strip() else "")
    except UserError:
        pass
    missing.append(path)
    return None


def drop_contents(blocks: list[Block], titles: set[str]) -> list[Block]:
    """Empty the lists of chapters on a page, links or titles one below the other; sentences in between stay.

    Args:
        blocks: the paragraphs of the page.
        titles: keys of the titles of other pages.
    """
    is_entry = [
        (is_menu(block) or key_of(block.text) in titles) and not block.text.endswith(NO_TITLE) for block in blocks
    ]
    groups: list[list[int]] = []
    for number in itertools.compress(range(len(blocks)), is_entry):
        if groups and number - groups[-1][-1] <= MAX_GAP:
            groups[-1].append(number)
        else:
            groups.append([number])
    listed = {number for group in groups if len(group) >= FEW_ENTRIES for number in range(group[0], group[-1] + 1)}
    # what is left of a page that has no sentence is the head of the list
    is_story = [block.text[-1] in SENTENCE_ENDS and not entry for block, entry in zip(blocks, is_entry, strict=True)]
    if not any(is_story) and (
        (listed and len(blocks) - len(listed) <= FEW_LINES) or (any(is_entry) and is_entry.count(False) <= 1)
    ):
        return []
    return [Block("") if number in listed and not is_story[number] else block for number, block in enumerate(blocks)]


def add_page(binder: Binder, page: Page, points: list[Point]) -> None:
    """Add the paragraphs of a page, divided at the points that lead to it."""
    places = [(page.anchors.get(point.anchor, 0), point) for point in points]
    places.sort(key=lambda place: place[0])
    done = 0
    for place, point in places:
        binder.add(page.blocks[done:place])
        binder.begin(point.title, point.depth)
        done = place
    binder.add(page.blocks[done:])


def read_ncx(package: Package, path: str) -> list[Point]:
    """Read the navigation of EPUB 2."""
    points, depth, title, is_title = [], 0, [], False
    for kind, tag, value in package.tokens(path):
        if tag == "navpoint":
            depth += 1 if kind == "start" else -1
            title = []
        elif tag == "text":
            is_title = kind == "start" and depth > 0
        elif kind == "text" and is_title:
            title.append(value)
        elif tag == "content" and kind == "start" and depth > 0:
            points.append(Point(join_text(title), depth, *package.resolve(read_attributes(value).get("src", ""), path)))
    return points


def read_nav(package: Package, path: str) -> list[Point]:
    """Read the navigation of EPUB 3: nested lists of links in the `nav` that is the contents."""
    points, depth, title, href, is_toc, waiting = [], 0, None, "", False, []
    for kind, tag, value in package.tokens(path):
        if tag == "nav":
            is_toc = kind == "start" and read_attributes(value).get("type", "toc") == "toc"
        elif not is_toc:
            continue
        elif tag in ("ol", "ul"):
            depth += 1 if kind == "start" else -1
        elif tag in ("a", "span") and kind == "start":
            title, href = [], read_attributes(value).get("href", "")
        elif kind == "text" and title is not None:
            title.append(value)
        elif tag in ("a", "span") and title is not None:
            waiting.append((join_text(title), depth))
            if href:  # a title without a link of its own stands where the next one leads to
                points += [Point(*entry, *package.resolve(href, path)) for entry in waiting]
                waiting = []
            title = None
    return points
