"""Names of files in a folder or an archive -> their natural order, and which of them are chapters of one book.

    1.txt 2.txt … 10.txt 100.txt                  one book of four chapters and more
    第一卷/第一章 山村.txt … 第二卷/…              one book, in volumes
    斗破.txt 凡人.txt 红楼梦/1.txt 红楼梦/2.txt …   two books, and a third one

Files are chapters where there are at least five of one kind, most of them small, with numbers in their names or in
their first lines that differ.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from novelgpt.corpus.chapters import NUMBER, parse_number, read_heading

CHINESE = f"[{NUMBER}]"
UNIT = "[章回节節集话話卷部册冊篇幕季]"
COUNTED = re.compile(rf"第\s*({CHINESE}+)|卷\s?({CHINESE}+)|(\d+)|^({CHINESE}+)(?=\s*{UNIT}|[、.．_\s-]|$)")
PART = re.compile(r"[上中下](?=[\])）】》]*$|[卷部册冊篇集])")
FRONT = re.compile(r"^[\W_]*(?:序|楔子|引子|引言|前言|自序|简介|簡介|内容简介|扉页|版权)")
BACK = re.compile(r"^[\W_]*(?:尾声|尾聲|后记|後記|番外|终章|終章|完本|附录|附錄|大结局|大結局)")
VOLUME = re.compile(rf"^\W*(?:第?\s*{CHINESE}+\s*[卷部册冊篇集季]|卷\s?{CHINESE}+|vol|volume|part|book)", re.IGNORECASE)
NUMBERS = re.compile(rf"第?\s*{CHINESE}+\s*{UNIT}?|\d+")
GENERIC = re.compile(r"chapter|chap|ch|part|page|vol(?:ume)?|text|txt|content|正文|章节|章節|第|[\W_\d]", re.IGNORECASE)
SUFFIX = re.compile(r"\.(?:[A-Za-z]{1,5}|7z)(?:\.gz)?$")
MIN_CHAPTERS = 5  # files in one folder
SMALL_FILE = 100_000  # bytes; the middle one of a book's chapters is smaller
LOOKED_INTO = 40  # files whose first line is read
SHARE = 0.8  # of the files that must show what all are said to be


def stem_of(path: str) -> str:
    """Return the name of a file without folders and ending.

    >>> stem_of("vol01/第2节 掘金.txt.gz")
    '第2节 掘金'
    """
    return SUFFIX.sub("", path.rsplit("/", 1)[-1])


def ending_of(path: str) -> str:
    """Return the ending of a file's name, with `.gz`.

    >>> ending_of("1.txt.gz"), ending_of("第1.5章")
    ('.txt.gz', '')
    """
    return match.group() if (match := SUFFIX.search(path)) else ""


def natural_key(name: str) -> tuple:
    """Return what names are sorted by: numbers by their value, Chinese ones too, 上 中 下, and what frames a book.

    >>> sorted(["番外", "第十章", "第9章", "序", "10", "9", "书（下）", "书（中）", "书（上）"], key=natural_key)
    ['序', '9', '第9章', '10', '第十章', '书（上）', '书（中）', '书（下）', '番外']
    """
    frame = -1 if FRONT.match(name) else 1 if BACK.match(name) else 0
    parts: list[tuple] = []
    end = 0
    for match in COUNTED.finditer(name):
        parts.append((1, 0, order_parts(name[end : match.start()].rstrip(" \u3000"))))
        digits = next(filter(None, match.groups()))
        parts.append((0, parse_number(digits[:30]), ""))
        end = match.end()
    if name[end:]:
        parts.append((1, 0, order_parts(name[end:])))
    return frame, [part for part in parts if part != (1, 0, "")], name


def order_parts(text: str) -> str:
    """Write 上, 中 and 下 of a work in three parts so that they sort."""
    return PART.sub(lambda match: str("上中下".index(match.group())), text)


def path_key(path: str) -> tuple:
    """Return what paths are sorted by: a folder's files come before its folders."""
    *folders, name = path.split("/")
    stem = SUFFIX.sub("", name)
    return *((1, natural_key(folder)) for folder in folders), (0, (*natural_key(stem), name))


def group_books(files: dict[str, int], first_line: Callable[[str], str]) -> dict[str, list[str]]:
    """Divide files into books: each is a file of its own, or a folder with its chapters in order.

    Args:
        files: relative paths with "/" between their parts, and sizes in bytes.
        first_line: reads the first line of a file that is not blank, "" where it cannot.

    Returns:
        In natural order, the path of each book, a file's or a folder's ("" is the outermost), with its files.

    >>> group_books({f"{number}.txt": 9 for number in (1, 2, 10, 3, 4)} | {"更多/乙.txt": 9}, lambda name: "")
    {'': ['1.txt', '2.txt', '3.txt', '4.txt', '10.txt'], '更多/乙.txt': ['更多/乙.txt']}
    """
    order = sorted(files, key=path_key)
    folders: dict[str, list[str]] = {}  # of each folder the files directly in it
    inside: dict[str, set[str]] = {}  # of each folder the folders directly in it
    for path in order:
        place = path.rpartition("/")[0]
        folders.setdefault(place, []).append(path)
        while place and place not in inside.setdefault(place.rpartition("/")[0], set()):
            inside[place.rpartition("/")[0]].add(place)
            place = place.rpartition("/")[0]

    # from the innermost folder outwards, as a folder whose folders are volumes is a book too
    chapters: dict[str, str] = {}  # book -> ending of its chapters
    for place in sorted({*folders, *inside}, key=lambda place: -place.count("/") - bool(place)):
        own, volumes = folders.get(place, []), inside.get(place, set())
        if ending := ending_of_volumes(own, volumes, folders, files, chapters):
            chapters = {
                book: kind for book, kind in chapters.items() if not book.startswith(f"{place}/" if place else "")
            }
            chapters[place] = ending
            folders[place] = [*own, *(path for path in order if path.startswith(f"{place}/" if place else ""))]
        elif ending := ending_of_chapters({path: files[path] for path in own}, first_line):
            chapters[place] = ending
    book_of = {path: place for place, ending in chapters.items() for path in folders[place] if path.endswith(ending)}
    grouped: dict[str, list[str]] = {}
    for path in order:
        grouped.setdefault(book_of.get(path, path), []).append(path)
    return {book: order_chapters(paths, first_line) for book, paths in grouped.items()}


def order_chapters(paths: list[str], first_line: Callable[[str], str]) -> list[str]:
    """Sort chapters whose names do not count by the numbers in their first lines; others are sorted by their names.

    >>> order_chapters(["山.txt", "城.txt"], {"山.txt": "第二章", "城.txt": "第一章"}.get)
    ['城.txt', '山.txt']
    """
    if len(paths) < 2 or counted_share(paths) >= SHARE:
        return paths
    headings = {path: read_heading(first_line(path).strip()) for path in paths}
    numbers = {path: heading.number for path, heading in headings.items() if heading and heading.number is not None}
    places = {place: index for index, place in enumerate(dict.fromkeys(path.rpartition("/")[0] for path in paths))}
    last = max(numbers.values(), default=0) + 1

    def key(path: str) -> tuple[int, int]:
        return places[path.rpartition("/")[0]], numbers.get(path, -1 if FRONT.match(stem_of(path)) else last)

    return sorted(paths, key=key)


def counted_share(paths: Sequence[str]) -> float:
    """Return the share of files whose names hold numbers that no other has in their folder."""
    counted = [(path.rpartition("/")[0], tuple(NUMBERS.findall(stem_of(path)))) for path in paths]
    return len({(place, numbers) for place, numbers in counted if numbers}) / len(paths)


def usual_ending(paths: Sequence[str]) -> str:
    """Return the ending that most files have."""
    endings = Counter(map(ending_of, paths))
    return max(endings, key=endings.get, default="")


def ending_of_volumes(
    own: Sequence[str],
    volumes: set[str],
    folders: dict[str, list[str]],
    files: dict[str, int],
    chapters: dict[str, str],
) -> str:
    """Return the ending of a book's chapters where folders are its volumes: their names count, and most are books."""
    names = [volume.rpartition("/")[2] for volume in volumes]
    skeletons = {NUMBERS.sub("#", name) for name in names}
    are_counted = all(map(VOLUME.match, names)) or (len(skeletons) == 1 and "#" in str(skeletons))
    endings = {chapters[volume] for volume in volumes if volume in chapters}
    if not are_counted or len(volumes) < 2 or len(endings) != 1:
        return ""
    # a volume may have few chapters yet, but no novels
    ending = endings.pop()
    others = [path for volume in volumes if volume not in chapters for path in folders.get(volume, ())]
    is_small = all(files[path] < SMALL_FILE for path in [*others, *own] if path.endswith(ending))
    return ending if is_small else ""


def ending_of_chapters(files: dict[str, int], first_line: Callable[[str], str]) -> str:
    """Return the ending of a book's chapters where most files of one folder are chapters, else ""."""
    ending = usual_ending([*files])
    paths = [path for path in files if path.endswith(ending)]
    sizes = sorted(files[path] for path in paths)
    if len(paths) < MIN_CHAPTERS or sizes[len(sizes) // 2] >= SMALL_FILE:
        return ""
    # short novels would each begin with chapter 1
    looked = paths[:: -(-len(paths) // LOOKED_INTO)]
    headings = [read_heading(first_line(path).strip()) for path in looked]
    numbers = [heading.number for heading in headings if heading and heading.number is not None]
    if len(set(numbers)) < len(numbers) / 2:
        return ""
    return ending if max(counted_share(paths), len(numbers) / len(looked)) >= SHARE else ""


def title_of(path: str, text: str) -> str:
    """Return the title of a chapter: its first line where that is a heading, else what the file's name says, or "".

    >>> [title_of(name, "他走了。") for name in ("1.txt", "第2节 掘金.txt", "012_山村.txt", "chapter3.txt")]
    ['', '第2节 掘金', '山村', '']
    """
    first = next(filter(None, map(str.strip, text.split("\n"))), "")
    if read_heading(first):
        return first
    stem = re.sub(r"[_\s]+", " ", stem_of(path)).strip()
    if heading := re.search(rf"第\s*{CHINESE}+\s*{UNIT}.*", stem):
        return heading.group()
    bare = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", stem)
    return bare if GENERIC.sub("", bare) else ""
