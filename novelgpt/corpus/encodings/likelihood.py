"""How much a text looks like Chinese prose, in nats: the evidence by which an encoding is chosen.

A reading of bytes is scored by the log-probability of its characters under a rough table: the rank of a frequent
character (Zipf's law), the level a character has in GB2312 and Big5, and the Unicode class of everything else. Two
readings of the same bytes are then compared by their sums: right readings lie near -6 nats per character, wrong ones
below -10. The table knows simplified and traditional characters alike, so the script never decides.
"""

import functools
import math
import unicodedata

import numpy as np

FREQUENT = (
    "的一不是了人我在有他这个来说道大上们到时去得里地出也子就那你下着以自要之好可见天为心后都看么起还过事如只家"
    "又和中生听然没小把没对什此何想能日头三面手两而回年多走老开此儿十便今眼当行叫知等便无声问二身口样向将正前打"
    "分从公气会太进情很长些意同发现动几给话前所吃请笑方成城主作罢已间被门定甚若住王女国死与使她别明四五因山名经"
    "至夫力马放做里水见其者于军兵官法用高怎第怪爷娘先姑姐妹哥弟兄父母忙命连候内真边白书才却早处往风千万外难轻亲"
    "半七八六九百物路文东西南北本种新实重光快带直许月火夜望色神剑令杀贼战金教受应全安信位拿相思难常量理认只让再"
    "最性点代件德吧吗呢啊哪谁啦嘛呀哈哦怕哭爱朋友学校先师徒宫皇帝臣君贵妃将帅曰吾汝乃矣焉乎哉遂故亦皆即既则须"
    "由且或虽岂莫非各每接拜礼送交落站坐睡醒床屋房院楼桌灯茶酒饭衣服鞋头发脸嘴鼻耳目足脚腿背肩胸血肉骨魂灵妖魔鬼"
    "仙佛僧寺庙庵洞府宝石玉珠银钱两个块条张件双只匹座层次番遍阵场片刻时辰更朝晚春夏秋冬花草树木林竹叶江河湖海"
    "云雨雪雷电星阳阴红黄绿青蓝黑紫声音歌曲诗词画琴棋字句言语论议计谋策信念记忘忽突猛缓慢急紧松深浅远近左右前"
    "合力加建设民政党革命运工业产社结变化革制度反解展部体系等关系报告决战斗争队员导求提机构造物质基础资料数形式"
    "美世界平活强题号原利空步始终单任保取组指挥持根据管程特治团线统图件感觉完通近众传收清达尔类示布参流切失台"
    "助众轮微惊奇异术功劲掌拳刀枪弓箭斗招飞跳跑追逃躲藏拦挡抓抱拉推握摇抬举挂穿戴脱洗吹唱喝骂答应喊叫哼叹怒喜"
    "恨愁悲伤痛苦累病药医救伤死活存亡胜败赢输赏罚罪恶善良忠孝义勇智仁贤愚富贫贱强弱软硬冷热暖凉香臭甜酸辣"
)
FREQUENT_TRADITIONAL = (
    "這個來說們時裡裏著為見後麼還過聽沒對頭兩開無聲問樣將從氣會進長發現動幾給話請罷間門國與別經馬軍於爺連內眞真邊書"
    "處風萬難輕親東種實帶許應劍殺賊戰讓認點學師宮貴帥則須雖豈禮衆眾嗎誰愛樓燈飯髮臉脚魂靈廟寶銀錢塊條張雙隻層陣場"
    "樹葉雲電陽陰紅黃綠藍歌詩詞畫論議計謀記緩緊鬆淺遠變結設產業運黨義黨革反體係關報決鬥爭隊員導機構質礎資數題號單"
    "組揮據團線統圖覺傳達爾類參輪驚異術勁槍飛擋攔舉罵嘆歎傷藥醫勝敗贏輸賞罰惡賢貧賤強軟熱涼寫聖莊縣區歲總準確極"
    "漸顯願語讀歡觀權歸舊獨獸獻現當嚇孫劉趙陳張吳楊鄭龍鳳鷄雞魚鳥蟲麗麥壽壞壯夢夠奪奮婦嬌實審寬專尋屬嶺幫幹廣廳彈"
    "彎德懷戲戶拋掛採掃換擊據擔擺擾斷時晉暫曉書東楚極榮樂橋檢歐歷殘毀汙決況淚淨減湯溫滅滿漢濟濕灣為烏無煙爲犧狀猶"
)
COMMON_PUNCTUATION = "，。“”「」：？！、"
OTHER_PUNCTUATION = "；…—『』《》（）·‘’〈〉【】〔〕．～－–―　"
TWINS = "∕﹨▓￭"  # what the two kinds of Big5 read where the other one reads the like

BAD_BYTE = -20.0  # nats for a byte that is no part of a character
ASTRAL = 0x10000  # the one table entry for every code point beyond the basic plane
PROBE = 1 << 16  # characters that are enough to judge a text
PLAUSIBLE = -9.7  # nats per character beyond ASCII; prose lies near -7, wrong readings below -10.5
STRANGE_LINE = -10.0  # the same for a single line, which is then looked at again
CHANGE_NATS = 25.0  # cost of a change of encoding, from one line to the next or within one
STRANGE_RUN, STRANGE_RUN_NATS = 12, -10.5  # neighbouring characters, and nats for each of them
MANY_KINDS = 20  # of characters; prose has more
MIN_CHARACTERS = 4  # beyond ASCII; a line of fewer is not judged
LETTER, IN_WORD = -13.3, -7.0  # nats of a foreign letter: alone, and behind another one of its word
AGAIN = -5.0  # nats of a sign behind itself
LATIN = 1  # the other alphabets whose words stand in Chinese books are Greek, Cyrillic and kana
ALPHABETS = ((0xC0, 0x250, LATIN), (0x370, 0x400, 2), (0x400, 0x530, 3), (0x3041, 0x3100, 4))
CATEGORY_NATS = {"L": -13.5, "M": -15.0, "N": -12.0, "P": -11.0, "S": -11.5, "Z": -11.0, "Cc": -16.0, "Cf": -12.0}


def char_nats(char: str) -> float:
    """Give the log-probability of a character that is neither frequent nor in a level of a Chinese standard."""
    code = ord(char)
    if 0xD800 <= code < 0xE000 or code == 0xFFFD:
        return BAD_BYTE
    if 0xE000 <= code < 0xF900:
        return -13.0  # user-defined characters occur in real books
    if 0x3040 <= code < 0x3100:
        return LETTER if char.isalpha() else -12.0  # kana
    if 0x4E00 <= code < 0xA000:
        return -15.5
    if 0xFF01 <= code < 0xFF5F:
        return -9.0  # full-width ASCII
    if code < 0x7F and code >= 0x20:
        return -6.0 if char.isalnum() else -7.0
    category = unicodedata.category(char)
    return CATEGORY_NATS.get(category, CATEGORY_NATS.get(category[0], -22.0))


def level_characters(codec: str, first: int, last: int, trails: range) -> str:
    """List the characters a double-byte standard holds in the rows of the lead bytes first to last."""
    codes = (bytes([lead, trail]) for lead in range(first, last + 1) for trail in trails)
    return "".join(code.decode(codec, "ignore") for code in codes)


@functools.cache
def nats_table() -> np.ndarray:
    """Build the log-probabilities of all code points in nats: float32 (65537,), the last for all from U+10000 on."""
    # every character by its class, then the two levels of both standards, the commoner level last
    table = np.array([char_nats(chr(code)) for code in range(ASTRAL)] + [-17.0], np.float32)
    levels = [
        (-13.0, level_characters("gb2312", 0xD8, 0xF7, range(0xA1, 0xFF))),
        (-13.0, level_characters("cp950", 0xC9, 0xF9, range(0x40, 0xFF))),
        (-10.5, level_characters("cp950", 0xA4, 0xC6, range(0x40, 0xFF))),
        (-10.5, level_characters("gb2312", 0xB0, 0xD7, range(0xA1, 0xFF))),
    ]
    for nats, chars in levels:
        table[[ord(char) for char in chars if "\u4e00" <= char <= "\u9fff"]] = nats
    # the frequent characters by their rank, a traditional one as the fourth as frequent as its simplified form
    for chars, stretch in ((FREQUENT_TRADITIONAL, 4), (FREQUENT, 1)):
        for rank, char in reversed(list(enumerate(chars))):
            table[ord(char)] = -2.2 - math.log(stretch * rank + 8)
    signs = [(-4.5, COMMON_PUNCTUATION), (-6.5, OTHER_PUNCTUATION), (-9.0, TWINS)]
    for nats, chars in (*signs, (-4.0, " \n\r\u3000"), (-6.0, "\t")):
        table[[ord(char) for char in chars]] = nats
    return table


@functools.cache
def nats_list() -> list[float]:
    """Return the table of nats_table as a list, for loops that look up one character at a time."""
    return nats_table().tolist()


@functools.cache
def byte_nats() -> list[float]:
    """Tabulate the log-probability of every single byte: ASCII as in nats_table, all others as bad bytes."""
    return [*nats_list()[:0x80], *[BAD_BYTE] * 0x80]


def unicode_codes(text: str) -> np.ndarray:
    """Return the code points of a text, lone surrogates included: uint32 (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@functools.cache
def alphabet_table() -> np.ndarray:
    """Tabulate the alphabet of each foreign letter by its code point, 0 for all others: uint8 (12545,)."""
    table = np.zeros(ALPHABETS[-1][1] + 1, np.uint8)
    for first, end, alphabet in ALPHABETS:
        table[first:end] = [alphabet * chr(code).isalpha() for code in range(first, end)]
    return table


def nats_of(text: str) -> np.ndarray:
    """Return the log-probability of each character in nats: float32 (len(text),).

    A foreign letter is a surprise, but behind another of its alphabet, or a Latin one behind ASCII, it is not; nor is
    a sign behind itself.

    >>> nats_of("的燚").round().tolist(), nats_of("мир").round().tolist(), nats_of("○○○").round().tolist()
    ([-4.0, -13.0], [-14.0, -7.0, -7.0], [-12.0, -5.0, -5.0])
    """
    codes = unicode_codes(text)
    nats, table = nats_table()[np.minimum(codes, ASTRAL)], alphabet_table()
    again = np.flatnonzero((codes[1:] == codes[:-1]) & (codes[1:] > 0x7F)) + 1
    nats[again] = np.maximum(nats[again], np.where(codes[again] >> 11 == 0xD800 >> 11, BAD_BYTE, AGAIN))
    # unsigned: what lies below a range wraps around
    places = np.flatnonzero((codes[1:] - 0xC0 < 0x470) | (codes[1:] - 0x3041 < 0xBF)) + 1
    if len(places):
        own, before = table[codes[places]], codes[places - 1]
        ascii_before = (before < 0x80) & (before >= 0x41)
        joined = np.where(own == LATIN, ascii_before, table[np.minimum(before, len(table) - 1)] == own)
        nats[places[joined & (own > 0)]] = IN_WORD
    return nats


def score(text: str) -> float:
    """Sum the log-probabilities of a text's characters, in nats.

    >>> score("他说道") > score("坻佷耋")
    True
    """
    return float(nats_of(text).sum(dtype=np.float64))


def is_plausible(text: str) -> bool:
    """Say whether a text reads as Chinese prose; ASCII and blanks count neither way.

    >>> is_plausible("萧炎大喝一声"), is_plausible("蠓縫湮狟"), is_plausible("OK")
    (True, False, True)
    """
    codes = unicode_codes(text[:PROBE])
    counted = codes[(codes > 0x7F) & (codes != 0x3000)]
    return float(nats_table()[np.minimum(counted, ASTRAL)].sum()) >= PLAUSIBLE * len(counted)


def nonsense_share(text: str) -> float:
    """Return the share, 0 to 1, of a text that does not read as Chinese, measured in stretches of PROBE characters."""
    starts = range(0, len(text), PROBE)
    return sum(not is_plausible(text[start:]) for start in starts) / max(1, len(starts))


def is_prose(text: str) -> bool:
    """Say whether a text reads as Chinese by its words: half of its signs are Chinese characters, and not the same few.

    >>> is_prose("他说：“我走了。”"), is_prose("“…”〕〕")
    (True, False)
    """
    codes = unicode_codes(text)
    counted = int(((codes > 0x7F) & (codes != 0x3000)).sum())
    han = codes[(codes >= 0x3400) & (codes < 0xA000)]
    is_varied = len(np.unique(han)) >= min(len(han) / 2, MANY_KINDS)
    return len(han) > 0 and 2 * len(han) >= counted and is_varied and is_plausible(text)


@functools.cache
def pair_nats(codec: str) -> list[float]:
    """Tabulate the nats of a codec's two-byte characters by lead * 256 + trail; BAD_BYTE * 3 where it has none."""
    nats, table = nats_list(), [BAD_BYTE * 3] * 65536
    for lead in range(0x81, 0xFF):
        for trail in range(0x40, 0xFF):
            text = bytes([lead, trail]).decode(codec, "ignore")
            if text and text[0] > "\x7f":
                table[lead * 256 + trail] = sum(nats[min(ord(char), ASTRAL)] for char in text)
    return table


@functools.cache
def pair_alphabets(codec: str) -> bytes:
    """Tabulate the alphabet of a codec's two-byte characters by lead * 256 + trail; 0 where it is no foreign letter."""
    table, alphabets = bytearray(65536), alphabet_table()
    for lead in range(0xA1, 0xC9):  # GB18030 and Big5 have their Greek and Russian letters there
        for trail in range(0x40, 0xFF):
            char = bytes([lead, trail]).decode(codec, "ignore")
            if len(char) == 1 and 0x370 <= ord(char) < len(alphabets):
                table[lead * 256 + trail] = alphabets[ord(char)]
    return bytes(table)


def sliding_sums(values: np.ndarray, width: int) -> np.ndarray:
    """Sum a few `width` values from each place on: float32 (num_values,), zeros taken beyond the end."""
    sums = values.astype(np.float32)
    for step in range(1, min(width, len(values))):
        sums[:-step] += values[step:]
    return sums


def line_sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sum one value a character, (num_chars,), over each line of the text with these code points: (num_lines,)."""
    starts = np.append(0, line_ends(codes)[:-1])
    return np.add.reduceat(values, starts, dtype=np.float64) if len(values) else np.zeros(1)


def line_ends(codes: np.ndarray) -> np.ndarray:
    """Find the places after each line's LF, CRLF or CR alone, and the end of the text: int64 (num_lines,)."""
    lone_return = (codes == 13) & (np.append(codes[1:], 0) != 10)
    ends = np.flatnonzero((codes == 10) | lone_return) + 1
    return ends if len(ends) and ends[-1] == len(codes) else np.append(ends, len(codes))


def has_strange_lines(text: str) -> bool:
    """Say whether some line, or a long run within one, does not read as Chinese.

    >>> has_strange_lines("却说玄德\\n蠓縫湮狟\\n")
    True
    """
    codes = unicode_codes(text)
    counted = (codes > 0x7F) & (codes != 0x3000)
    nats = nats_of(text) * counted
    if (sliding_sums(nats, STRANGE_RUN) < STRANGE_RUN_NATS * STRANGE_RUN).any():
        return True
    sums, counts = line_sums(nats, codes), line_sums(counted, codes)
    return bool(((counts >= MIN_CHARACTERS) & (sums < STRANGE_LINE * counts)).any())


def likeliest_path(scores: np.ndarray) -> np.ndarray:
    """Choose each line's state (num_lines,) by its nats (num_lines, num_states), less the costs of changes.

    >>> likeliest_path(np.array([[-70.0, -140], [-31, -35], [-190, -110], [-25, -22], [-320, -180]])).tolist()
    [0, 0, 1, 1, 1]
    """
    # forward: the best sum that ends in each state, and the state it came from
    first, *rows = scores.tolist()  # plain numbers: for so few states they are faster than arrays
    best, came_from = first, []
    for row in rows:
        change = max(best) - CHANGE_NATS
        leader = best.index(max(best))
        came_from.append([which if nats >= change else leader for which, nats in enumerate(best)])
        best = [max(nats, change) + own for nats, own in zip(best, row, strict=True)]
    # backward: from the best last state along what it came from
    path = [best.index(max(best))]
    for states in reversed(came_from):
        path.append(states[path[-1]])
    return np.array(path[::-1])
