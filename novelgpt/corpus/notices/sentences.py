"""Sentences that speak of a site, its readers or its votes, alone or stuck to a paragraph."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from novelgpt.corpus.folding import fold, pair_pattern, simplify_site_words
from novelgpt.corpus.notices.lines import (
    CLAUSE,
    HEADED,
    LEFT,
    MAX_NOTICE,
    MAX_STUCK,
    MIN_STORY,
    QUOTE_ENDS,
    RIGHT,
    SITE_WORD,
    STORY_ENDS,
    STORY_WORD,
    BookLines,
    Notice,
    in_quotes,
    is_speech,
    line_offsets,
    num_han,
    split_pieces,
)

VOTES = "月票|推荐票|红票|票|收藏|订阅|打赏|鲜花|花花|留言|包养"
# what hardly a story says counts twice
STRONG_PHRASES = """最新章节
无弹[窗出]
天才.{0,3}秒记住|一秒记住|请记住.{0,60}(?:网址|域名|地址|本站)|记住(?!的).{0,8}(?:网址|域名|本站)|收藏.{0,3}(?:网址|本站)
首发网址|更新最快|最快更新|更新超?快|更新.{0,2}最[快新]
(?:小说|书|书包|文学|读书|中文|阅读|电子书)(?:下载)?网(?![络站上])|小说[站吧]|(?:小说|txt|TXT).?天堂|书站
本(?:书|文|章|章节|作品|电子书|资源|小说|站).{0,12}(?:首发|手打|整理|制作|提供|上传|下载于|来自|转载|最快)
(?:百度云|网盘).{0,4}搜索|云搜索|搜索资源
(?:全文|免费|在线|线上|首发)阅读(?!器)
手机用户[请可浏访阅]|有声小说|在线收听
(?:txt|TXT|全集|电子书|小说|全本)(?:全集|全本)?下载
仅供(?:读者)?(?:试[读阅]|预览)|24小时(?:之?内|后).{0,3}删除|请您?(?:购买|支持)正版
(?:微信|加|关注)公众号|公众号[:：]|公[^\\w]众[^\\w]?号|微信关注
免费app|免费APP|看书神器|读书入口
搜小说
维护人员|校正章节
第一时间(?:免费)?(?:更新|阅读|手打|首发)|[（(【\\[［].{1,12}手打[）)】\\]］]""".split("\n")
PHRASES = """手机[用阅看版站]|移动版|手机端|电脑站|客户端
加入书[签架]|放入书架
[无零]广告
(?:收藏|记住|关注|支持)(?:一下)?(?:本站|本书|我们|网[址站])
本站|本小说[网站]
下载(?:网|站|本书)
书[屋吧库城]|论坛|文学城
书友[群们]?|[qQ]{2}群|粉丝群|读者群
章节(?:错误|报错|内容|缺失)|错误举报
点此(?:举报|报错|察看|查看|下载|阅读)|点击(?:下载|阅读|这里|此处|进去|下一)
版权[归所为]|正版(?:订阅|图书|书籍)|(?:支持|购买)正版
仅供(?:学习|交流|个人)|商业(?:用途|目的|行为)|不得用[于作]
后果自负|一切后果
更新时间|首发|手打
转载
(?:精彩|更多|更好)的?(?:小说|内容|章节|好书)|精校小说
整理(?:制作|上传|发布|收藏)|网友上传|校对|为您整理|[自网]网?络收集|来自(?:互联网|网络)
公众号
招收|报名加入|管理员|书评|会员
网址|域名|登[陆录]|地址
书源|听书|换源|阅读模式|找书|(?:小说|阅读)网站
百[度镀](?:一下|搜索)|小说分享|小说上传|分享网站|分享平台
欢迎(?:访问|光临|棒场|捧场)|不要错过|贴吧|十万本""".split("\n")
# of authors: they count at the border of chapters and in asides, where stories do not speak of votes
STRONG_VOTES = """求.{0,6}(?:VOTES)
感谢.{0,40}(?:打赏|[月推]荐?票|地雷|营养液|霸王票|捧场|订阅)|[扔投]了\\d+个
[月推]荐?票(?:[（(]\\w+[)）])?(?:总?榜|突破|满[百千万\\d]|[过每])
未完待续|本章未完|章节已更|^\\W*第[一二三四五六七八九十\\d]+更\\W*$""".replace("VOTES", VOTES).split("\n")
VOTE_WORDS = """推荐票|月票|票票|求推荐|求支持
[加爆补欠双]更|第[一二三四五六七八九十\\d]+更|今[日天].{0,6}更|更新
盟主
打赏
上架
入[vV]
订阅
催更|断更|码字|存稿
作者君|小天使|读者
新书|完本|大纲
感谢|谢谢
亲们|大家|各位|么么
评论""".split("\n")
FIRST_VOTE = len(STRONG_PHRASES) + len(PHRASES)  # number of the first phrase of authors
WEIGHTED = [
    *((2, re.compile(phrase)) for phrase in STRONG_PHRASES),
    *((1, re.compile(phrase)) for phrase in PHRASES),
    *((2, re.compile(phrase, re.MULTILINE)) for phrase in STRONG_VOTES),
    *((1, re.compile(phrase)) for phrase in VOTE_WORDS),
]
# Every phrase holds one of these pairs: one search for a first and a second character finds the lines to look at
PHRASE_PAIRS = """
最新 无弹 无广 零广 手机 移动 电脑 客户 加入 放入 收藏 记住 关注 支持 本站 本小 全文 免费 在线 线上 首发 tx TX 全集
电子 小说 全本 下载 书下 书网 书站 书吧 书屋 书库 书城 论坛 文学 读书 中文 阅读 本书 本文 本章 本作 本电 本资 书友 qq
QQ qQ Qq 微信 公众 粉丝 读者 求一 求个 求点 求各 求波 求大 求月 求推 求收 求订 求打 求鲜 求红 求票 求花 求留 求评 求包
求支 章节 错误 点此 点击 版权 正版 仅供 商业 不得 一切 24 天才 一秒 推荐 月票 票票 更新 最快 转载 手打 精彩 更多 更好
精校 整理 网友 校对 为您 网络 来自 招收 报名 管理 书评 会员 网址 域名 登陆 登录 地址 百度 网盘 云搜 搜小 搜索 书源
听书 换源 找书 看书 未完 感谢 谢谢 扔了 投了 加更 爆更 补更 欠更 双更 已更 百镀 维护 校正 模式 今天 今日 盟主 打赏
上架 入v 入V 订阅 催更 断更 码字 存稿 作者 小天 大纲 卡文 新书 完本 亲们 各位 么么 荐票 包网 后果 上传 分享 欢迎 有声
收听 求保 求三 求五 求双 一时"""
SHORT, LITTLE, LONG = 20, 10, 40  # Chinese characters
LEAST = 3  # times that a sentence stands in a book that recurs
OTHERS = re.compile("[他她]")  # a story of others than author and reader
PAIRS = frozenset(PHRASE_PAIRS.split())
ANY_PAIR = re.compile(f"(?=({pair_pattern(PHRASE_PAIRS).pattern}))")  # and a few more; they may overlap
SCATTERED = "\\/.*#@!-_^~|+=%&$·•`' "  # signs between the letters of a disguised phrase
WITHOUT_SCATTERED = str.maketrans("", "", SCATTERED)

LEAST_NAMES = 5  # sentences into which the same name is written
# 手打 is what typists sign with, and what a hand does: to open, to break, somebody …
TRIGGER = re.compile(
    r"(?<=(\w\w))(?:第一时间)?(?:手打(?![开断了个得死人架我你他她它在电败下拳字过碎破成起来晕跑颤飞残通昏跌出响落掉入造翻伤住的错招量扫照磨理"
    r"发平退折狂自穿麻哈猎铁着赢圈滑向到不])|最快更新)"
)
ANY = re.compile("手打|最快更新")  # finds the lines to look at
MAX_NAME = 8  # characters


@dataclass
class Piece:
    """A sentence of a line, or a group in brackets, with the phrases of sites in it."""

    start: int
    text: str
    weights: dict[int, int]  # number of a phrase: its weight
    first: int  # where the first phrase begins in the line; without one, behind its first character

    @property
    def is_strong(self) -> bool:
        """Whether a phrase in it is one that hardly a story says."""
        return max(self.weights.values(), default=0) > 1

    @property
    def may_be_story(self) -> bool:
        """Whether it is a longer sentence with a single word that authors and sites use."""
        return sum(self.weights.values()) <= 1 and num_han(self.text) >= MIN_STORY

    def weigh(self, *, votes: bool) -> int:
        """Add the weights of its phrases, those of authors too if so asked."""
        return sum(weight for number, weight in self.weights.items() if votes or number < FIRST_VOTE)

    @property
    def key(self) -> str:
        """What it says, without digits and signs."""
        return re.sub(r"[\W\d_]+", "", self.text)


def lines_with_words(book: BookLines) -> list[int]:
    """List the lines with one of the pairs, in either script."""
    places = (m.start() for m in ANY_PAIR.finditer(book.text) if simplify_site_words(m.group(1)) in PAIRS)
    return sorted({bisect_right(book.offsets, place) - 1 for place in places})


def find_phrases(lines: Sequence[str]) -> list[list[tuple[int, int, int]]]:
    """List for each line where phrases of sites begin in it, with the phrase's number and weight.

    >>> [[place for place, _, _ in found] for found in find_phrases(["他走了。", "她来了。一 秒记*住"])]
    [[], [4]]
    """
    # each phrase is searched once in all lines, without the signs scattered between its letters
    bare = [line.translate(WITHOUT_SCATTERED) for line in map(simplify_site_words, lines)]
    text, offsets = "\n".join(bare), line_offsets(bare)
    found: list[list[tuple[int, int, int]]] = [[] for _ in lines]
    for number, (weight, phrase) in enumerate(WEIGHTED):
        for match in phrase.finditer(text):
            line = bisect_right(offsets, match.start()) - 1
            found[line].append((match.start() - offsets[line], number, weight))
    # back to the places in the line with its signs
    for line, phrases in zip(lines, found, strict=True):
        if phrases:
            places = [place for place, char in enumerate(line) if char not in SCATTERED]
            phrases[:] = [(places[place], number, weight) for place, number, weight in phrases]
    return found


def read_pieces(line: str, found: Sequence[tuple[int, int, int]]) -> list[Piece]:
    """Divide a line, and say which phrases begin in each piece."""
    pieces = []
    for start, end in split_pieces(line):
        inside = [entry for entry in found if start <= entry[0] < end]
        first = min((place for place, _, _ in inside), default=start)
        cut = story_end(line[start:end], first - start)
        if cut:
            pieces.append(Piece(start, line[start : start + cut], {}, start + 1))
        weights = {number: weight for _, number, weight in inside}
        pieces.append(Piece(start + cut, line[start + cut : end], weights, max(first, start + cut + 1)))
    return pieces


def story_end(text: str, first: int) -> int:
    """Say where the clauses end that stand in front of the first phrase of a piece and may be story; 0 for nowhere.

    >>> story_end("天上下着一场很大很大的雪，首发网址", 13), story_end("（天上下着一场很大很大的雪，首发网址）", 14)
    (13, 0)
    """
    if is_aside(text):
        return 0
    end = max((clause.start() for clause in CLAUSE.finditer(text) if clause.start() <= first), default=0)
    lead = text[:end]
    return end if num_han(lead) >= MIN_STORY and not SITE_WORD.search(fold(lead)) else 0


def find_sentences(book: BookLines) -> Iterator[Notice]:
    """Find sentences that speak of the site, its reader or its votes.

    In the middle of a chapter their phrases must weigh three; one less each for a line at a border of chapters, and
    for what recurs, stands in brackets or begins with PS; one more for what speaks of him, her or me.
    """
    candidates = lines_with_words(book)
    phrases = zip(candidates, find_phrases([book.lines[index] for index in candidates]), strict=True)
    lines = {index: read_pieces(book.lines[index], found) for index, found in phrases if found}
    counts = Counter(piece.key for pieces in lines.values() for piece in pieces if piece.weights)
    for index, pieces in lines.items():
        line = book.lines[index]
        near = index in book.border
        kept = cut_heading(pieces) if index in book.headings else cut_pieces(line, pieces, near, counts)
        if kept != line:
            yield book.notice(index, "site sentence", kept)


def cut_heading(pieces: Sequence[Piece]) -> str:
    """Take out of a heading what stands behind its beginning and speaks of a site, in brackets or in two phrases."""
    kept = []
    for piece in pieces:
        weight = piece.weigh(votes=True)
        gone = piece.start > 0 and weight >= (2 if piece.text[0] in LEFT else 3)
        kept.append("" if gone else piece.text)
    return "".join(kept).strip()


def weight_needed(text: str, *, strong: bool, near: bool, recurs: bool) -> int:
    """Say how much the phrases of a text must weigh for it to go; its place counts where one of them is strong."""
    aside = is_aside(text) and strong
    return 3 - (near and strong) - (aside or recurs) + bool(STORY_WORD.search(text)) + bool(OTHERS.search(text))


def is_aside(text: str) -> bool:
    """Tell whether a text stands in brackets or begins with PS.

    >>> is_aside("（求票）"), is_aside("ＰＳ：求票"), is_aside("他求票")
    (True, True, False)
    """
    return (text[0] in LEFT and text.rstrip()[-1] in RIGHT) or fold(text[:2]) == "ps"


def cut_pieces(line: str, pieces: Sequence[Piece], near: bool, counts: Counter[str]) -> str:
    """Return what stays of a line: all of it, nothing, or the story to which sentences of a site are stuck."""
    gone = []
    for piece in pieces:
        recurs = counts[piece.key] >= LEAST and num_han(piece.text) >= 3
        votes = near or recurs or is_aside(piece.text)
        # a piece that is not the line must say more: a border of chapters does not count
        needed = weight_needed(piece.text, strong=piece.is_strong, near=False, recurs=recurs)
        told = in_quotes(line, piece.first) and piece.text[0] not in LEFT
        least = 4 if num_han(piece.text) > LONG and not is_aside(piece.text) else 2
        gone.append(piece.weigh(votes=votes) >= max(least, needed) and not told)
    # the line as a whole: what stands between its phrases goes with them
    whole = not is_speech(line) and len(line) <= MAX_NOTICE and is_notice(line, pieces, near, counts)
    if whole:
        about = [number for number, piece in enumerate(pieces) if piece.weights and not piece.may_be_story]
        about = about or [number for number, piece in enumerate(pieces) if piece.weights]
        gone[about[0] : about[-1] + 1] = [True] * (about[-1] + 1 - about[0])
    if not any(gone):
        return line
    kept = join_kept(line, pieces, gone)
    # a few words without an end belong to what they stand beside, but for a heading
    short = num_han(kept) < SHORT and not kept.rstrip("，,").endswith(STORY_ENDS) and not HEADED.search(kept)
    return "" if whole and near and short else kept


def is_notice(line: str, pieces: Sequence[Piece], near: bool, counts: Counter[str]) -> bool:
    """Tell whether the phrases of a whole line weigh enough; a border of chapters counts where one is strong."""
    recurs = min(counts[piece.key] for piece in pieces if piece.weights) >= LEAST
    votes = near or recurs or is_aside(line)
    weights = {number: w for piece in pieces for number, w in piece.weights.items() if votes or number < FIRST_VOTE}
    needed = weight_needed(line, strong=max(weights.values(), default=0) > 1, near=near, recurs=recurs)
    return sum(weights.values()) >= max(1, needed)


def join_kept(line: str, pieces: Sequence[Piece], gone: list[bool]) -> str:
    """Join the pieces that stay; one beside a piece that goes follows it if it speaks of a site too or has no words."""
    for order in (range(len(pieces)), reversed(range(len(pieces)))):
        for number in order:
            piece = pieces[number]
            if any(gone[max(0, number - 1) : number + 2]) and not in_quotes(line, piece.first):
                gone[number] = gone[number] or follows(piece)
    kept = "".join(piece.text for piece, out in zip(pieces, gone, strict=True) if not out).strip()
    return kept if num_han(kept) > 1 or kept.endswith(QUOTE_ENDS) else ""


def follows(piece: Piece) -> bool:
    """Tell whether a piece goes with its neighbour."""
    words = set(SITE_WORD.findall(fold(piece.text)))
    about = len(words) >= 2 and num_han(piece.text) <= MAX_STUCK and not STORY_WORD.search(piece.text)
    rest = bool(piece.weights) and num_han(piece.text) <= LITTLE
    return about or rest or not re.search(r"\w|[”’」』]", piece.text)


def find_inserted(book: BookLines) -> Iterator[Notice]:
    """Find a name in front of 手打 or 最快更新 that stands in many sentences, and cut both out of them."""
    places = {index: list(TRIGGER.finditer(book.lines[index])) for index in book.with_pattern(ANY)}
    before = Counter(match.group(1) for found in places.values() for match in found)
    names: dict[str, str] = {}
    for ending, count in before.items():
        if count >= LEAST_NAMES:
            starts = [m.string[: m.start()] for found in places.values() for m in found if m.group(1) == ending]
            names[ending] = common_ending(starts)
    for index, found in places.items():
        line = book.lines[index]
        for match in reversed(found):
            if match.group(1) in names:
                start = match.start() - len(shared_ending(line[: match.start()], names[match.group(1)]))
                line = line[:start] + line[match.end() :]
        if line != book.lines[index] and index not in book.headings:
            yield book.notice(index, "name in a sentence", line.strip())


def common_ending(texts: Sequence[str]) -> str:
    """Give the longest ending of which each longer one is still that of most texts.

    >>> common_ending(["他走学习园地", "雪学习园地", "天黑学习园地", "园地"])
    '学习园地'
    """
    ending = ""
    while len(ending) < MAX_NAME:
        longer = Counter(
            text[-len(ending) - 1 :] for text in texts if text.endswith(ending) and len(text) > len(ending)
        )
        best, count = longer.most_common(1)[0] if longer else ("", 0)
        if count < 0.6 * len(texts):
            break
        ending = best
    return ending


def shared_ending(text: str, other: str) -> str:
    """Give the longest ending of both texts.

    >>> shared_ending("习园地", "学习园地")
    '习园地'
    """
    same = list(takewhile(lambda pair: pair[0] == pair[1], zip(reversed(text), reversed(other), strict=False)))
    return text[len(text) - len(same) :]
