"""What advertisements and site lines look like: the patterns that notices.py puts together.

Lines are looked at in two disguises, both as long as the line itself: `fold` writes everything that looks like a Latin
letter as one, for addresses; `simplify` writes the traditional characters of these patterns in simplified form.
"""

import re
import unicodedata

TRADITIONAL = str.maketrans(
    "無彈廣機閱動書籤記關網説線發費電載學讀錄陸訪問評屋庫團眾點訂賞鮮紅節錯誤報舉擊這裡裏處權歸僅試習時內刪轉來製傳對"
    "員間後頁請續終結開個們務繼數詩詞賦話說聽",
    "无弹广机阅动书签记关网说线发费电载学读录陆访问评屋库团众点订赏鲜红节错误报举击这里里处权归仅试习时内删转来制传对"
    "员间后页请续终结开个们务继数诗词赋话说听",
)
LOOK_ALIKES = str.maketrans(
    "авсеһіјкмнорѕтухшԝѡгпαβεηικμνορτυχωςɑɡ" + "АВСЕНІЈКМОРЅТУХԜΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abcehijkmhopstyxwwwrnabenikmvoptuxwsag" + "abcehijkmopstyxwabezhikmnoptyx",
)
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
        "版权归|正版订阅|支持正版",
        "仅供(?:试[读阅]|学习|交流)|24小时内删除",
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
正版 仅供 24 天才 一秒 推荐 月票 更新 最快 转载 手打 精彩 更多 更好 整理 网友 校对 招收 报名 管理
书评 网址 域名 登陆 登录"""
KEY = "(?:(?:最后|最近)?更新(?:时间|日期)|发[布表](?:时间|日期)|(?:本章|总)?字数|上传时间|首发时间)"
KEEPING = re.compile(rf"^[\[【(（]?(?:{KEY}\s*[:：]\s*\d[\d\-:：/.\s年月日时分秒字]{{0,30}}[,，|｜]*\s*)+[\]】)）]?$")
ON_NEXT = "点击下一[页章]继续阅读"
END_MARK = re.compile(
    rf"^[\W_]*(?:本章(?:完|终|结束|已完|未完|到此结束)|未完待续|待续|请看下一?[页章]|下一?章更精彩|{ON_NEXT})"
    rf"(?:[，,\s]*(?:未完待续|待续|请看下一?[页章]|{ON_NEXT}))?[\W_]*$"
)
NAVIGATION = re.compile(r"^(?:[\W_]*(?:[上下前后]一?[页章]|返?回?(?:首页|目录|书[页目])|加入书[签架]))+[\W_]*$")
MENU = re.compile(r"^[^\s|｜│]{1,6}(?:\s*[|｜│]\s*[^\s|｜│]{1,6}){4,}$")
KEEPING_PAIRS = """更新 字数 发布 发表 上传 首发 本章 待续 看下 下章 点击 首页 目录 书页 书目 书签 书架
上一 下一 前一 后一 上页 下页 前页 后页 上章 前章 后章 回首 回目"""
RULE = re.compile(r"^(?:[-=_*—─━~～#＊＝－·•+]\s?){6,}$|^[-=_*—─━~～#＊＝－]{3,}[^\W_]{1,12}[-=_*—─━~～#＊＝－]{3,}$")
# The storytellers' formulas recur at the border of chapters by right.
FORMULA = re.compile("分解|正是|[诗词歌赋]曰|有诗|话说|却说|且说|后事|如何|听")
SPEECH = ("“", "‘", "「", "『", '"', "'", "—", "…")


class FoldTable(dict):
    """A str.translate table: compatibility forms, capitals and look-alikes to small ASCII letters, one to one."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = unicodedata.normalize("NFKC", char).translate(LOOK_ALIKES).lower()
        self[code] = plain = (plain if len(plain) == 1 else char).translate(LOOK_ALIKES)
        return plain


FOLD = FoldTable()


def fold(line: str) -> str:
    """Write a line in small ASCII letters as far as its letters look like them.

    >>> fold("ＷＷw.xiＡosＨuo．ｎｅt 小Ｓ說 \\u0430\\u03bf")
    'www.xiaoshuo.net 小s说 ao'
    """
    return line.translate(FOLD).translate(TRADITIONAL)


def simplify(line: str) -> str:
    """Write the traditional characters that occur in site lines in simplified form.

    >>> simplify("請記住本站網址")
    '请记住本站网址'
    """
    return line.translate(TRADITIONAL)


def pair_pattern(pairs: str) -> re.Pattern[str]:
    """Compile a fast pattern that matches all of the two-character words in both scripts, and a few more.

    >>> bool(pair_pattern("本章 字数").search("第八章 本章字數"))
    True
    """
    traditional: dict[str, str] = {}
    for old, new in TRADITIONAL.items():
        traditional[chr(new)] = traditional.get(chr(new), "") + chr(old)
    sides = ({word[side] for word in pairs.split()} for side in (0, 1))
    return re.compile(
        "".join(f"[{''.join(char + traditional.get(char, '') for char in sorted(side))}]" for side in sides)
    )
