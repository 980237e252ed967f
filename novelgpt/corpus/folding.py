"""Two forms of a line in which patterns find what disguises itself, each as long as the line.

ＷＷw.xiＡo s.nett   ─fold→                 www.xiao s.nett     all that looks like a Latin letter is one
請記住本站網址       ─simplify_site_words→  请记住本站网址      traditional characters of site lines
"""

import re
import unicodedata

TRADITIONAL = str.maketrans(
    "無彈廣機閱動書籤記關網説線發費電載學讀錄陸訪問評屋庫團眾點訂賞鮮紅節錯誤報舉擊這裡裏處權歸僅試習時內刪轉來製傳對"
    "員間後頁請續終結開個們務繼數詩詞賦話說聽簡紹",
    "无弹广机阅动书签记关网说线发费电载学读录陆访问评屋库团众点订赏鲜红节错误报举击这里里处权归仅试习时内删转来制传对"
    "员间后页请续终结开个们务继数诗词赋话说听简绍",
)
LOOK_ALIKES = str.maketrans(
    "авсеһіјкмнорѕтухшԝѡгпαβεηικμνορτυχωςɑɡ" + "АВСЕНІЈКМОРЅТУХԜΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "abcehijkmhopstyxwwwrnabenikmvoptuxwsag" + "abcehijkmopstyxwabezhikmnoptyx",
)


class FoldTable(dict):
    """A str.translate table: compatibility forms, capitals and look-alikes to small ASCII letters, one to one."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = unicodedata.normalize("NFKC", char).translate(LOOK_ALIKES).lower()
        self[code] = plain = (plain if len(plain) == 1 else char).translate(LOOK_ALIKES)
        return plain


FOLD = FoldTable()


def fold(line: str) -> str:
    """Return a line in small ASCII letters as far as its letters look like them.

    >>> fold("ＷＷw.xiＡosＨuo．ｎｅt 小Ｓ說 \\u0430\\u03bf")
    'www.xiaoshuo.net 小s说 ao'
    """
    return line.translate(FOLD).translate(TRADITIONAL)


def simplify_site_words(line: str) -> str:
    """Return a line with the traditional characters of site lines in simplified form.

    >>> simplify_site_words("請記住本站網址")
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
    sides = (sorted({word[side] for word in pairs.split()}) for side in (0, 1))
    return re.compile("".join(f"[{''.join(char + traditional.get(char, '') for char in side)}]" for side in sides))
