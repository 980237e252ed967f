"""Advertisements and site lines: found by what they are, removed with a reason, listed one by one.

A line goes when it is one of these; a story line with an address in it only loses the address::

    address        www.site.net, ＷＷw.xiＡo s.nett, site。ｃＯm: the letters of a domain, whatever stands between
    site sentence  speaks of downloads, votes, bookmarks, the site itself, close to a chapter border or again and again
    bookkeeping    更新时间:… 本章字数:…   (本章完)   上一页 | 目录 | 下一页
    recurring      the same line at the border of many chapters
    front matter   [书名 / 作者 著], and the blurb from 内容简介 on, before the first heading
    rule line      ------- next to a heading or to a line that goes

Speech in quotes, poems, refrains and the storytellers' closing formulas stay. Lines are matched in the forms of
folding.py.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from novelgpt.corpus.chapters import VOLUME_LINE
from novelgpt.corpus.folding import fold, pair_pattern, simplify_site_words
from novelgpt.corpus.patterns import matching_lines

BORDER = 6  # lines that are not blank, counted from a heading or the end, within which site sentences are expected
EDGE = 30  # lines that are not blank at the end of a book
MAX_NOTICE = 160  # characters in a site sentence without an address
LETTER = re.compile("[A-Za-zＡ-Ｚａ-ｚ\u0370-\u052fⒶ-ⓩ\U0001d400-\U0001d6a3]")
HAN = re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")
NOISE = r"[^\w\n“”]{0,4}"  # what is scattered between the letters of www
# the rest of a domain: letters and digits, with up to three other characters before each
INSIDE = r"(?:[^\w，！？“”…《》\n]{0,3}[a-z0-9])*"
PATH = r"(?:[./][a-z0-9./?=&%-]*)?"
TOP = r"(?:c\s?o\s?m|n\s?e\s?t{1,2}|o\s?r\s?g|c\s?n|c\s?c|info|xyz)(?![a-z])"
# endings that are words or names as well: believed behind a longer name only
COUNTRY = r"(?:me|la|tw|hk|co|tv|vip|top|mobi|biz|org|cc)(?![a-z])"
ADDRESS = re.compile(
    "|".join(
        (
            rf"(?:h{NOISE}t{NOISE}t{NOISE}p{NOISE}s?{NOISE})?(?<![a-z])w{NOISE}w{NOISE}w{NOISE}[a-vx-z0-9]{INSIDE}",
            rf"https?\s?[:：]\s?/{{1,2}}[a-z0-9]{INSIDE}",
            rf"(?<![a-z0-9])(?:[a-z0-9-]{{2,30}}[.。·•・点]|(?:[a-z0-9-]\s){{2,30}}[.。·•・点]\s?){TOP}{PATH}",
            rf"(?<![a-z0-9.])(?:m|wap|3g|txt|book|read)\.[a-z0-9-]{{2,30}}(?:\.[a-z]{{2,10}})+{PATH}",
            rf"(?<![a-z0-9.])[a-z0-9-]{{3,30}}\.{COUNTRY}{PATH}",
        )
    )
)
# An address that is not disguised: all small, all capital, or all full-width.
PLAIN_ADDRESS = re.compile(r"[a-z0-9.:/?=&%#_-]+|[A-Z0-9.:/?=&%#_-]+|[ａ-ｚ０-９．：／]+")
SITE_WORD = re.compile(
    "小说|天堂|书[吧库城屋网评友]|网[站址]|阅读|下载|手机|首发|更新|章节|手打|文学|免费|登[陆录]|访问|域名|地址|中文网|txt|最[新快]|收藏"
    "|电子书|推荐"
)
# whoever tells of him, her or me tells a story
STORY_WORD = re.compile("[他她它]|我(?!们)|[了着][，。]")
OPEN, CLOSE = "（(【[［｛{〔<＜", "）)】]］｝}〕>＞"
EMPTY_BRACKETS = re.compile(rf"[{re.escape(OPEN)}][\W_]*[{re.escape(CLOSE)}]")
SENTENCE_ENDS = tuple("。！？…：；．.!?:;”’」』")
SENTENCE = re.compile(r"[^。！？…!?]*[。！？…!?”’」』）)]*")
# no story says this: it counts as two phrases
SURE_PHRASE = re.compile("仅供(?:读者)?(?:试[读阅]|预览)|24小时(?:之?内|后).{0,3}删除|请您?(?:购买|支持)正版")
SITE_PHRASES = [
    re.compile(phrase, re.IGNORECASE)
    for phrase in (
        "最新章节",
        "无弹[窗出]|无广告",
        "手机[用阅看版站]|移动版",
        "加入书[签架]|放入书架",
        "(?:收藏|记住|关注|支持)(?:一下)?(?:本站|本书|我们|网[址站])",
        "本站|本小说[网站]",
        "(?:全文|免费|在线|线上|首发)阅读",
        "(?:txt|全集|电子书|小说|全本|免费)(?:全集|全本)?下载",
        "下载(?:网|站|本书)",
        "(?:小说|书|文学|读书|中文|阅读|电子书)(?:下载)?[网站吧]",
        "本[书文章](?:由|首发|来自|转载|最快)",
        "书友[群们]|qq群|微信公众号|公众号",
        "求(?:一下|个|点|各种)?(?:月票|推荐票?|收藏|订阅|打赏|鲜花|红票)",
        "章节(?:错误|报错|内容|缺失)|错误举报",
        "点此(?:举报|报错|察看|查看|下载|阅读)|点击(?:下载|阅读|这里|此处)",
        "版权归|正版(?:订阅|图书|书籍)|(?:支持|购买)正版",
        "仅供(?:学习|交流)|商业(?:用途|目的)",
        "天才.{0,3}秒记住|一秒记住",
        "推荐票|月票",
        "更新时间|更新最快|最快更新|首发|转载|手打",
        "(?:精彩|更多|更好)的?(?:小说|内容|章节|好书)",
        "整理(?:制作|上传|发布)|网友上传|校对制作",
        "招收|报名加入|管理员|书评",
        "网址|域名|登[陆录]",
    )
]
# Every phrase holds one of these pairs: one search for a first and a second character finds the lines to look at.
PHRASE_PAIRS = """最新 无弹 无广 手机 移动 加入 放入 收藏 记住 关注 支持 本站 本小 全文 免费 在线 线上 首发 tx TX
Tx 全集 电子 小说 全本 下载 书下 书网 书站 书吧 文学 读书 中文 阅读 本书 本文 本章 书友 qq QQ
qQ Qq 微信 公众 求一 求个 求点 求各 求月 求推 求收 求订 求打 求鲜 求红 章节 错误 点此 点击 版权
正版 仅供 商业 24 天才 一秒 推荐 月票 更新 最快 转载 手打 精彩 更多 更好 整理 网友 校对 招收 报名 管理
书评 网址 域名 登陆 登录"""
KEY = "(?:(?:最后|最近)?更新(?:时间|日期)|发[布表](?:时间|日期)|(?:本章|总)?字数|上传时间|首发时间)"
BOOKKEEPING = re.compile(
    rf"^[\[【(（]?(?:{KEY}\s*[:：]\s*\d[\d\-:：/.\s年月日时分秒字]{{0,30}}[,，|｜]*\s*)+[\]】)）]?$"
)
ON_NEXT = "点击下一[页章]继续阅读"
END_MARK = re.compile(
    rf"^[\W_]*(?:本章(?:完|终|结束|已完|未完|到此结束)|未完待续|待续|请看下一?[页章]|下一?章更精彩|{ON_NEXT})"
    rf"(?:[，,\s]*(?:未完待续|待续|请看下一?[页章]|{ON_NEXT}))?[\W_]*$"
)
NAVIGATION = re.compile(r"^(?:[\W_]*(?:[上下前后]一?[页章]|返?回?(?:首页|目录|书[页目])|加入书[签架]))+[\W_]*$")
MENU = re.compile(r"^[^\s|｜│]{1,6}(?:\s*[|｜│]\s*[^\s|｜│]{1,6}){4,}$")
BOOKKEEPING_PAIRS = """更新 字数 发布 发表 上传 首发 本章 待续 看下 下章 点击 首页 目录 书页 书目 书签 书架
上一 下一 前一 后一 上页 下页 前页 后页 上章 前章 后章 回首 回目"""
BOOK_LINE = re.compile(r"^[\[【][^\[\]【】]{1,40}[/／][^\[\]【】]{1,30}著\s*[\]】]$")
BLURB = re.compile(
    r"^[\W_]*(?:(?:书籍|图书|本书|作品|小说|故事|内容|作者)(?:介绍|简介|提要|梗概)|编辑推荐)(?:[\W_]*$|\s*[:：】])"
)
AFTER_BLURB = re.compile(r"^[\W_]*(?:前言|自?序[言章]?|引[言子]|题记|楔子|目\s*录|正文)[\W_]*$")
MAX_BLURB = 2_000  # characters; what is longer may be the story
RULE = re.compile(r"^(?:[-=_*—─━~～#＊＝－·•+]\s?){6,}$|^[-=_*—─━~～#＊＝－]{3,}[^\W_]{1,12}[-=_*—─━~～#＊＝－]{3,}$")
# The storytellers' formulas recur at the border of chapters by right.
FORMULA = re.compile("分解|正是|[诗词歌赋]曰|有诗|话说|却说|且说|后事|如何|听")
SPEECH = ("“", "‘", "「", "『", '"', "'", "—", "…")


@dataclass
class Notice:
    """One line that is removed or shortened."""

    line: int  # its number, from 1
    text: str  # the line as it was
    reason: str
    kept: str = ""  # what stays in its place; empty when the whole line goes


def find_notices(lines: Sequence[str], headings: set[int], starts: Sequence[int] = ()) -> list[Notice]:
    """Find the advertisements and site lines of one book, in the order of its lines.

    Args:
        lines: its lines as clean_text gives them, blank ones included.
        headings, starts: indices of the chapter headings, and of other lines that begin a document.

    >>> lines = ["第一章 山村", "他走了。", "www.xiＡo-shuo.nett小.说", "(本章完)"]
    >>> [notice.reason for notice in find_notices(lines, {0})]
    ['address', 'end-of-chapter mark']
    """
    border = border_lines(lines, headings | set(starts))
    notices: dict[int, Notice] = {}
    # the first finder that names a line has the reason; rule lines go by what has gone beside them
    for finder in (find_addresses, find_bookkeeping, find_front_matter, find_sentences, find_recurring):
        for notice in finder(lines, headings, border):
            notices.setdefault(notice.line - 1, notice)
    find_rules(lines, headings, notices)
    return [notices[index] for index in sorted(notices)]


def find_dropped(lines: Sequence[str], patterns: Sequence[str]) -> list[Notice]:
    """Find the lines that hold one of these texts, or match one written as /regular expression/.

    >>> [notice.reason for notice in find_dropped(["求票", "第一卷", "他走了。"], ["求票", "/^第.卷$/"])]
    ['--drop 求票', '--drop /^第.卷$/']
    """
    found: dict[int, Notice] = {}
    for pattern in patterns:
        is_expression = len(pattern) > 2 and pattern[0] == pattern[-1] == "/"
        for index in matching_lines(pattern[1:-1] if is_expression else re.escape(pattern), lines):
            if lines[index]:
                found.setdefault(index, Notice(index + 1, lines[index], f"--drop {pattern}"))
    return [found[index] for index in sorted(found)]


def remove_notices(lines: Sequence[str], notices: Sequence[Notice]) -> list[str]:
    """Return the lines without what the notices name; line numbers stay as they were.

    >>> remove_notices(["第一章", "(本章完)"], [Notice(2, "(本章完)", "end-of-chapter mark")])
    ['第一章', '']
    """
    lines = list(lines)
    for notice in notices:
        lines[notice.line - 1] = notice.kept
    return lines


def border_lines(lines: Sequence[str], headings: set[int]) -> set[int]:
    """List the lines near a heading, before the first heading and at the end of the book."""
    filled = [index for index, line in enumerate(lines) if line]
    places = [place for place, index in enumerate(filled) if index in headings]
    # without headings, the first lines are a border as well
    border = set(filled[: places[0]] if places else filled[:BORDER]) | set(filled[-EDGE:])
    for place in places:
        border.update(filled[max(0, place - BORDER) : place + BORDER + 1])
    return border


def lines_with(pattern: re.Pattern[str], lines: Sequence[str]) -> list[int]:
    """List the lines in which a pattern occurs, by one search over the whole text."""
    text = "\n".join(lines)
    starts = [0, *accumulate(len(line) + 1 for line in lines)]  # where each line begins in the text, and its end
    return sorted({bisect_right(starts, match.start()) - 1 for match in pattern.finditer(text)})


def is_speech(line: str) -> bool:
    """Tell whether a line begins as speech or holds quoted speech.

    >>> is_speech("“最新章节？”他问。"), is_speech("最新章节请到本站")
    (True, False)
    """
    return line.startswith(SPEECH) or "：“" in line or "：「" in line or "道：" in line


def find_addresses(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find web addresses, plain or disguised, and decide whether the line or only the address goes."""
    # folding is slow: only lines with a letter are looked at
    found: dict[int, list[tuple[int, int]]] = {}
    for index in lines_with(LETTER, lines):
        spans = [match.span() for match in ADDRESS.finditer(fold(lines[index]))]
        if spans:
            found[index] = spans
    sites = Counter(site_key(lines[index][start:end]) for index, spans in found.items() for start, end in spans)
    # the whole line goes if it is about the site; a story line loses an address that is disguised or stands often
    notices = []
    for index, spans in found.items():
        line = lines[index]
        kept = cut_addresses(line, spans)
        addresses = [line[start:end] for start, end in spans]
        known = any(sites[site_key(part)] >= 3 or not PLAIN_ADDRESS.fullmatch(part) for part in addresses)
        if index in headings:
            notices.append(Notice(index + 1, line, "address in a heading", kept))
        elif len(HAN.findall(kept)) <= 2 or is_site_text(kept):
            notices.append(Notice(index + 1, line, "address"))
        elif known:
            notices.append(Notice(index + 1, line, "address in a story line", kept))
        elif (shorter := drop_site_sentences(line, spans)) != line:
            notices.append(Notice(index + 1, line, "address in a site sentence", shorter))
    return notices


def site_key(address: str) -> str:
    """Reduce an address to its letters, without www and what follows the top-level domain.

    >>> site_key("ＷＷw.xiＡosＨuo.ｎｅt/t/xt"), site_key("http://m.xiaoshuo.net")
    ('xiaoshuo', 'xiaoshuo')
    """
    letters = re.sub(r"[^a-z0-9.。]", "", re.sub(r"^https?", "", fold(address)))
    parts = [part for part in re.split(r"[.。]", letters) if part and part not in ("www", "m", "wap")]
    return parts[0] if parts else letters


def is_site_text(kept: str) -> bool:
    """Tell whether what stands around an address speaks of the site and not of the story."""
    skeleton = re.sub(r"[^\w]|_", "", fold(kept))
    words = set(SITE_WORD.findall(skeleton))
    if is_speech(kept) or len(skeleton) > 2 * MAX_NOTICE:
        return False
    # the longer the text, the more of its words must be about a site; and two more if it tells of people
    needed = 1 if len(HAN.findall(skeleton)) <= 15 else 2 if len(skeleton) <= 40 else 3
    return len(words) >= needed + (2 if STORY_WORD.search(kept) else 0)


def cut_addresses(line: str, spans: Sequence[tuple[int, int]]) -> str:
    """Take the addresses out of a line, with brackets that held nothing else."""
    for start, end in reversed(spans):
        line = line[:start] + line[end:]
    # brackets inside brackets empty from within
    while EMPTY_BRACKETS.search(line):
        line = EMPTY_BRACKETS.sub("", line)
    return re.sub(r"\s{2,}", " ", line).strip()


def drop_site_sentences(line: str, spans: Sequence[tuple[int, int]]) -> str:
    """Take out of a story line the sentences that hold an address and speak of a site."""
    # addresses are cut from a sentence before it is judged; its offsets begin again
    kept = []
    for match in SENTENCE.finditer(line):
        inside = [(s - match.start(), e - match.start()) for s, e in spans if match.start() <= s < match.end()]
        text = match.group()
        if not inside or not is_site_text(cut_addresses(text, [(s, min(e, len(text))) for s, e in inside])):
            kept.append(text)
    return "".join(kept).strip()


def find_bookkeeping(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find dates and counts of characters, end-of-chapter marks and navigation."""
    notices = []
    for index in lines_with(pair_pattern(BOOKKEEPING_PAIRS), lines):
        if index in headings or len(lines[index]) > MAX_NOTICE:
            continue
        line = simplify_site_words(lines[index])
        for pattern, reason in (
            (BOOKKEEPING, "date or count of characters"),
            (END_MARK, "end-of-chapter mark"),
            (NAVIGATION, "navigation line"),
            (MENU, "navigation line"),
        ):
            if pattern.match(line):
                notices.append(Notice(index + 1, lines[index], reason))
                break
    return notices


def find_front_matter(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find the lines before the first heading that name the book, and its blurb up to a rule line or title."""
    notices, blurb, inside = [], [], False
    for index in range(min(headings, default=0)):
        line = simplify_site_words(lines[index])
        if BOOK_LINE.match(line):
            notices.append(Notice(index + 1, lines[index], "title of the file"))
        inside = bool(line and BLURB.match(line)) or (inside and not RULE.match(line) and not AFTER_BLURB.match(line))
        if inside and line:
            blurb.append(Notice(index + 1, lines[index], "blurb"))
    return notices + (blurb if sum(len(notice.text) for notice in blurb) <= MAX_BLURB else [])


def find_sentences(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find sentences that speak of the site, its reader or its votes.

    In the middle of a chapter it takes three different phrases; one less each for a line at a border of chapters, and
    for one that recurs, stands in brackets or begins with PS; one more for a line that speaks of him, her or me.
    """
    counts = Counter(lines)
    notices = []
    for index in lines_with(pair_pattern(PHRASE_PAIRS), lines):
        if index in headings or len(lines[index]) > MAX_NOTICE or is_speech(lines[index]):
            continue
        line = simplify_site_words(lines[index])
        phrases = sum(bool(phrase.search(line)) for phrase in SITE_PHRASES)
        phrases += 2 * bool(SURE_PHRASE.search(line))
        aside = (line[0] in OPEN and line[-1] in CLOSE) or fold(line).startswith("ps")
        needed = 3 - (index in border) - (aside or counts[lines[index]] >= 3) + bool(STORY_WORD.search(line))
        if phrases >= max(1, needed):
            notices.append(Notice(index + 1, lines[index], "site sentence"))
    return notices


def find_recurring(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find lines that stand, but for digits, at the border of at least five chapters and of a third of all.

    A line that ends as sentences do may be a refrain and stays; if it speaks of a site, find_sentences has it.
    """
    if len(headings) < 5:
        return []
    # lines of one shape differ in their digits only: dates and chapter numbers
    short = [index for index in border - headings if 6 <= len(lines[index]) <= MAX_NOTICE]
    shapes = {index: re.sub(r"\d+", "0", lines[index]) for index in short if len(HAN.findall(lines[index])) >= 6}
    counts = Counter(shapes.values())  # chapters at whose border a shape stands
    least = max(5, len(headings) / 3)
    return [
        Notice(index + 1, lines[index], f"recurs at the border of {counts[shape]} chapters")
        for index, shape in shapes.items()
        if counts[shape] >= least
        and not is_speech(lines[index])
        and not lines[index].endswith(SENTENCE_ENDS)
        and not FORMULA.search(simplify_site_words(lines[index]))
        and not VOLUME_LINE.match(lines[index])
    ]


def find_rules(lines: Sequence[str], headings: set[int], notices: dict[int, Notice]) -> None:
    """Add the rule lines that stand next to a heading, to a removed line, or before the first heading."""
    filled = [index for index, line in enumerate(lines) if line]
    first = min(headings, default=0)
    rules = [place for place, index in enumerate(filled) if len(lines[index]) >= 6 and RULE.match(lines[index])]
    # once down and once up, as a rule line goes with the one beside it
    for order in (rules, rules[::-1]):
        for place in order:
            beside = filled[max(0, place - 1) : place] + filled[place + 1 : place + 2]
            index = filled[place]
            gone = any(other in headings or (other in notices and not notices[other].kept) for other in beside)
            if index not in notices and (gone or index < first):
                notices[index] = Notice(index + 1, lines[index], "rule line")
