"""Advertisements and site lines: found by what they are, removed with a reason, listed one by one.

A line goes when it is one of these; a story line with an address in it only loses the address::

    address        www.site.net, ＷＷw.xiＡo s.nett, site。ｃＯm: the letters of a domain, whatever is thrown between them
    site sentence  speaks of downloads, votes, bookmarks, the site itself, close to a chapter border or again and again
    book keeping   更新时间:… 本章字数:…   (本章完)   上一页 | 目录 | 下一页
    recurring      the same line at the border of many chapters
    rule line      ------- next to a heading or to a line that goes

Speech in quotes, poems, refrains and the storytellers' closing formulas stay.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from novelgpt.corpus.chapters import VOLUME_LINE, find_chapters
from novelgpt.corpus.cleaning import GAP

BORDER = 6  # lines that are not blank, counted from a heading or the end, within which site sentences are expected
EDGE = 30  # lines that are not blank at the end of a book
MAX_NOTICE = 160  # characters of a site sentence without an address
LOOK_ALIKES = str.maketrans(
    "авеһіјкмнорѕтухшԝѡгпαβεηικμνορτυχωςɑɡ" + "АВСЕНІЈКМОРЅТУХԜΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abehijkmhopstyxwwwrnabenikmvoptuxwsag" + "abcehijkmopstyxwabezhikmnoptyx",
)
LETTER = re.compile("[A-Za-zＡ-Ｚａ-ｚ\u0370-\u052fⒶ-ⓩ\U0001d400-\U0001d6a3]")
HAN = re.compile("[\u4e00-\u9fff\u3400-\u4dbf]")
JUNK = r"[^\w\n“”]{0,4}"
TOP = r"(?:c\s?o\s?m|n\s?e\s?t{1,2}|o\s?r\s?g|c\s?n|c\s?c|info|xyz)"
ADDRESS = re.compile(
    rf"(?:h{JUNK}t{JUNK}t{JUNK}p{JUNK}s?{JUNK})?(?<![a-z])w{JUNK}w{JUNK}w{JUNK}[a-vx-z0-9](?:[^\w，！？“”…《》\n]{{0,3}}[a-z0-9])*"
    rf"|https?\s?[:：]\s?/{{1,2}}[a-z0-9](?:[^\w，。！？“”…《》\n]{{0,2}}[a-z0-9])*"
    rf"|(?<![a-z0-9])(?:[a-z0-9-]\s?){{2,30}}[.。·•・点點]\s?{TOP}(?![a-z])(?:[./][a-z0-9./?=&%-]*)?"
    r"|(?<![a-z0-9.])(?:m|wap|3g|txt|book|read)\.[a-z0-9-]{2,30}(?:\.[a-z]{2,10})+(?:/[a-z0-9./?=&%-]*)?"
    rf"|(?<![a-z0-9.])[a-z0-9-]{{3,30}}\.(?:me|la|tw|hk|co|tv|vip|top|mobi|biz|org|cc)(?![a-z])(?:/[a-z0-9./?=&%-]*)?"
)
PLAIN_ADDRESS = re.compile(r"(?:[a-z0-9.:/?=&%#_-]+|[A-Z0-9.:/?=&%#_-]+|[ａ-ｚ０-９．：／]+)", re.ASCII)
SITE_WORD = re.compile(
    "小[说說]|天堂|[书書][吧库庫城屋网網评評友]|[网網][站址]|[阅閱][读讀]|下[载載]|手机|手機|首[发發]|更新|章[节節]|手打|文[学學]"
    "|免[费費]|登[陆陸录錄]|[访訪][问問]|域名|地址|中文[网網]|txt|最[新快]|收藏|[电電]子[书書]|推[荐薦]"
)
STORY_WORD = re.compile("[他她它]|我(?![们們])|[了着著][，。]")
OPEN, CLOSE = "（(【[［｛{〔<＜", "）)】]］｝}〕>＞"
EMPTY_BRACKETS = re.compile(rf"[{re.escape(OPEN)}][\W_]*[{re.escape(CLOSE)}]")
SENTENCE = re.compile(r"[^。！？…!?]*[。！？…!?”’」』）)]*")
SITE_PHRASES = [
    re.compile(phrase, re.IGNORECASE)
    for phrase in (
        "最新章[节節]",
        "[无無][弹彈][窗出]|[无無][广廣]告",
        "手机[用阅看版站]|手機[用閱看版站]|移[动動]版",
        "加入[书書][签籤架]|放入[书書]架",
        "(?:收藏|[记記]住|[关關]注|支持)(?:一下)?(?:本站|本[书書]|我[们們]|[网網][址站])",
        "本站|本小[说說][网網站]",
        "(?:全文|免[费費]|在[线線]|[线線]上|首[发發])[阅閱][读讀]",
        "(?:txt|全集|[电電]子[书書]|小[说說]|全本|免[费費])(?:全集|全本)?下[载載]",
        "下[载載](?:[网網站]|本[书書])",
        "(?:小[说說]|[书書]|文[学學]|[读讀][书書]|中文|[阅閱][读讀]|[电電]子[书書])(?:下[载載])?[网網站吧]",
        "本[书書文章](?:由|首[发發]|[来來]自|[转轉][载載]|最快)",
        "[书書]友[群们們]|q{2}群|微信公[众眾][号號]|公[众眾][号號]",
        "求(?:一下|[个個]|[点點]|各种)?(?:月票|推[荐薦]票?|收藏|[订訂][阅閱]|打[赏賞]|[鲜鮮]花|[红紅]票)",
        "章[节節](?:[错錯][误誤]|[报報][错錯]|[内內]容|缺失)|[错錯][误誤][举舉][报報]",
        "[点點]此(?:[举舉][报報]|[报報][错錯]|察看|查看|下[载載]|[阅閱][读讀])|[点點][击擊](?:下[载載]|[阅閱][读讀]|[这這]里|此[处處])",
        "版[权權][归歸]|正版[订訂][阅閱]|支持正版",
        "[仅僅]供(?:[试試][读讀阅閱]|[学學][习習]|交流)|24小[时時][内內][删刪]除",
        "天才.{0,3}秒[记記]住|一秒[记記]住",
        "推[荐薦]票|月票",
        "更新[时時][间間]|更新最快|最快更新|首[发發][网網]?[址站]?|[转轉][载載]|手打",
        "(?:精彩|更多|更好)(?:的)?(?:小[说說]|[内內]容|章[节節]|好[书書])",
        "整理(?:[制製]作|上[传傳]|[发發]布)|[网網]友上[传傳]|校[对對]制作",
        "招收|[报報]名加入|管理[员員]|[书書][评評]",
        "[网網]址|域名|登[陆陸录錄]",
    )
]
# Every phrase above holds one of these pairs; one search for a first and a second character finds the lines to look at.
PHRASE_PAIRS = """最新 无弹 無彈 无广 無廣 手机 手機 移动 移動 加入 放入 本站 本书 本書 本小 收藏 记住 記住 关注 關注 支持 网址 網址 网站 網站
全文 免费 免費 在线 在線 线上 線上 首发 首發 下载 下載 小说 小說 书网 書網 文学 文學 读书 讀書 中文 阅读 閱讀 电子 電子
本文 本章 书友 書友 qq QQ 微信 公众 公眾 求一 求个 求個 求点 求點 求各 求月 求推 求收 求订 求訂 求打 求鲜 求鮮 求红 求紅
章节 章節 错误 錯誤 点此 點此 点击 點擊 版权 版權 正版 仅供 僅供 24 天才 一秒 推荐 推薦 月票 更新 最快 转载 轉載 手打
精彩 更多 更好 整理 网友 網友 校对 校對 招收 报名 報名 管理 书评 書評 域名 登陆 登陸 登录 登錄 首网"""
KEY = (
    "(?:(?:最[后後]|最近)?更新(?:[时時][间間]|日期)|[发發][布表](?:[时時][间間]|日期)|(?:本章|[总總])?字[数數]|上[传傳][时時][间間]"
    "|[点點][击擊]|[来來]源|首[发發][时時][间間]|本章[阅閱][读讀])"
)
KEEPING = re.compile(rf"^[\[【(（]?(?:{KEY}\s*[:：]\s*[\w\-:/. ]{{1,30}}[\s,，|｜]*)+[\]】)）]?$")
END_MARK = re.compile(
    r"^[\W_]*(?:本章(?:完|[终終]|[结結]束|已?完|未完|到此[结結]束)|未完待[续續]|待[续續]|[请請]看下[一]?[页頁章]|下一?章更精彩"
    r"|[点點][击擊]下一[页頁章][继繼][续續][阅閱][读讀])+(?:[，,\s]*(?:未完待[续續]|待[续續]|[点點][击擊]下一[页頁章]?(?:[继繼][续續][阅閱][读讀])?))?[\W_]*$"
)
NAVIGATION = re.compile(
    r"^(?:[\W_]*(?:(?:[上下前后後]一?[页頁章]|返?回?(?:首[页頁]|目[录錄]|[书書][页頁目]|封面|列表)|加入?[书書][签籤架]|[设設]置|[换換][肤膚])))+[\W_]*$"
)
MENU = re.compile(r"^[^\s|｜│]{1,6}(?:\s*[|｜│]\s*[^\s|｜│]{1,6}){4,}$")
RULE = re.compile(r"^(?:[-=_*—─━~～#＊＝－·•+]\s?){6,}$|^[-=_*—─━~～#＊＝－]{3,}[^\W_]{1,12}[-=_*—─━~～#＊＝－]{3,}$")
FORMULA = re.compile("分解|正是|[诗詩词詞歌赋賦]曰|有[诗詩]|话说|話說|却说|卻說|且[说說]|后事|後事|如何|[听聽]")
KEEPING_PAIRS = """更新 字数 字數 发布 發布 发表 發表 上传 上傳 点击 點擊 来源 來源 首发 首發 本章 待续 待續 看下 下章 下一 首页 首頁 目录
目錄 上一 前一 后一 後一 上页 上頁 下页 下頁 上章 封面 列表 书页 書頁 书签 書籤 书目 書目 书架 设置 設置 换肤"""
SPEECH = "“‘「『\"'—…"


@dataclass
class Notice:
    """One line that is removed or shortened.

    Attributes:
        line: its number, from 1.
        text: the line as it was.
        reason: why.
        kept: what stays in its place; empty when the whole line goes.
    """

    line: int
    text: str
    reason: str
    kept: str = ""


class FoldTable(dict):
    """A str.translate table: compatibility forms, capitals and look-alikes to small ASCII letters, one to one."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = unicodedata.normalize("NFKC", char).translate(LOOK_ALIKES).lower()
        self[code] = plain = (plain if len(plain) == 1 else char).translate(LOOK_ALIKES)
        return plain


FOLD = FoldTable()


def fold(line: str) -> str:
    """Write a line in small ASCII letters as far as its letters look like them; the length stays.

    >>> fold("ＷＷw.xiＡosＨuo．ｎｅt 小Ｓ說 \\u0430\\u03bf")
    'www.xiaoshuo.net 小s說 ao'
    """
    return line.translate(FOLD)


def find_notices(lines: Sequence[str], starts: Sequence[int] = ()) -> list[Notice]:
    """Find the advertisements and site lines of one book.

    Args:
        lines: its lines as clean_text gives them, blank ones included.
        starts: indices of lines that begin a document although they are no headings.

    Returns:
        what to remove or shorten, in the order of the lines.

    >>> [notice.reason for notice in find_notices(["第一章 山村", "他走了。", "www.xiＡo-shuo.nett小.说", "(本章完)"])]
    ['address', 'end-of-chapter mark']
    """
    lines = list(lines)
    headings = {chapter.line - 1 for chapter in find_chapters(lines)}
    border = border_lines(lines, headings | set(starts))
    notices: dict[int, Notice] = {}
    for finder in (find_addresses, find_keeping, find_sentences, find_recurring):
        for notice in finder(lines, headings, border):
            notices.setdefault(notice.line - 1, notice)
    find_rules(lines, headings, notices)
    return [notices[index] for index in sorted(notices)]


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
    border: set[int] = set(filled[: places[0]]) if places else set(filled[:BORDER])
    for place in places:
        border.update(filled[max(0, place - BORDER) : place + BORDER + 1])
    border.update(filled[-EDGE:])
    return border


def lines_with(pattern: re.Pattern[str], lines: Sequence[str]) -> list[int]:
    """List the lines in which a pattern occurs, by one search over the whole text."""
    text = "\n".join(lines)
    starts, position = [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    return sorted({bisect_right(starts, match.start()) - 1 for match in pattern.finditer(text)})


def pair_pattern(pairs: str) -> re.Pattern[str]:
    """Compile a fast pattern that matches all of the two-character words, and a few more.

    >>> bool(pair_pattern("本章 字数").search("第八章 本章字数"))
    True
    """
    words = pairs.split()
    return re.compile(f"[{''.join({word[0] for word in words})}][{''.join({word[1] for word in words})}]")


def is_speech(line: str) -> bool:
    """Tell whether a line begins as speech or holds quoted speech.

    >>> is_speech("“最新章节？”他问。"), is_speech("最新章节请到本站")
    (True, False)
    """
    return line.startswith(tuple(SPEECH)) or "：“" in line or "：「" in line or "道：" in line


def find_addresses(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find web addresses, plain or disguised, and decide whether the line or only the address goes."""
    found: dict[int, list[tuple[int, int]]] = {}
    for index in lines_with(LETTER, lines):
        spans = [match.span() for match in ADDRESS.finditer(fold(lines[index]))]
        if spans:
            found[index] = spans
    sites = Counter(site_key(lines[index][start:end]) for index, spans in found.items() for start, end in spans)
    notices = []
    for index, spans in found.items():
        line = lines[index]
        kept = cut_addresses(line, spans)
        known = any(
            sites[site_key(line[start:end])] >= 3 or not PLAIN_ADDRESS.fullmatch(line[start:end])
            for start, end in spans
        )
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
    needed = 1 if len(HAN.findall(skeleton)) <= 15 else 2 if len(skeleton) <= 40 else 3
    return len(words) >= needed + 2 * bool(STORY_WORD.search(kept))


def cut_addresses(line: str, spans: Sequence[tuple[int, int]]) -> str:
    """Take the addresses out of a line, with brackets that held nothing else."""
    for start, end in reversed(spans):
        line = line[:start] + line[end:]
    while EMPTY_BRACKETS.search(line):
        line = EMPTY_BRACKETS.sub("", line)
    return GAP.sub(" ", line).strip()


def drop_site_sentences(line: str, spans: Sequence[tuple[int, int]]) -> str:
    """Take out of a story line the sentences that hold an address and speak of a site."""
    kept = []
    for match in SENTENCE.finditer(line):
        inside = [(s - match.start(), e - match.start()) for s, e in spans if match.start() <= s < match.end()]
        text = match.group()
        if not inside or not is_site_text(cut_addresses(text, [(s, min(e, len(text))) for s, e in inside])):
            kept.append(text)
    return "".join(kept).strip()


def find_keeping(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find dates and counts of characters, end-of-chapter marks and navigation."""
    notices = []
    for index in lines_with(pair_pattern(KEEPING_PAIRS), lines):
        line = lines[index]
        if index in headings or len(line) > MAX_NOTICE:
            continue
        for pattern, reason in (
            (KEEPING, "date or count of characters"),
            (END_MARK, "end-of-chapter mark"),
            (NAVIGATION, "navigation"),
            (MENU, "navigation"),
        ):
            if pattern.match(line):
                notices.append(Notice(index + 1, line, reason))
                break
    return notices


def find_sentences(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find sentences that speak of the site, its reader or its votes."""
    counts = Counter(lines)
    notices = []
    for index in lines_with(pair_pattern(PHRASE_PAIRS), lines):
        line = lines[index]
        if index in headings or len(line) > MAX_NOTICE or is_speech(line):
            continue
        phrases = sum(bool(phrase.search(line)) for phrase in SITE_PHRASES)
        bracketed = line[0] in OPEN and line[-1] in CLOSE
        needed = (
            3 - (index in border) - (counts[line] >= 3 or bracketed or line.lower().startswith(("ps", "p.s", "ｐｓ")))
        )
        if phrases >= max(1, needed):
            notices.append(Notice(index + 1, line, "site sentence"))
    return notices


def find_recurring(lines: Sequence[str], headings: set[int], border: set[int]) -> list[Notice]:
    """Find lines that stand, but for digits, at the border of at least five chapters and of a third of all."""
    if len(headings) < 5:
        return []
    short = [index for index in border - headings if 6 <= len(lines[index]) <= MAX_NOTICE]
    shapes = {index: re.sub(r"\d+", "0", lines[index]) for index in short if len(HAN.findall(lines[index])) >= 6}
    counts = Counter(shapes.values())
    least = max(5, len(headings) / 3)
    return [
        Notice(index + 1, lines[index], f"recurs at the border of {counts[shape]} chapters")
        for index, shape in shapes.items()
        if counts[shape] >= least
        and not is_speech(lines[index])
        and not FORMULA.search(lines[index])
        and not VOLUME_LINE.match(lines[index])
    ]


def find_rules(lines: Sequence[str], headings: set[int], notices: dict[int, Notice]) -> None:
    """Add the rule lines that stand next to a heading, to a removed line, or before the first heading."""
    filled = [index for index, line in enumerate(lines) if line]
    first = min(headings, default=0)
    rules = [place for place, index in enumerate(filled) if len(lines[index]) >= 6 and RULE.match(lines[index])]
    for order in (rules, rules[::-1]):
        for place in order:
            beside = filled[max(0, place - 1) : place] + filled[place + 1 : place + 2]
            index = filled[place]
            gone = any(other in headings or (other in notices and not notices[other].kept) for other in beside)
            if index not in notices and (gone or index < first):
                notices[index] = Notice(index + 1, lines[index], "rule line")
