"""Texts -> their vocabulary file and a report of how well it fits, as `make_vocab.py` writes them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from novelgpt.corpus.tokenizers.base import NovelTokenizer, save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import (
    SMALL_SIZE,
    build_vocabulary,
    count_characters,
    first_tokens,
    is_character_token,
)
from novelgpt.messages import printable, say

NUM_EXAMPLES = 20  # characters that fall to bytes, the most frequent first
EXAMPLE_WIDTH = 30  # characters
SMALL_RESERVED = 100  # [unusedN] of cache/vocab_small.txt
COMMON_IN_BOOKS = (  # by code point
    "〇亹僝僨僰僽儗儵凴剗劄劌劘勑勔勷厓叆叇啰喆嗞嘒嘓嘚嘵嘽噀噁噇噉噠噦噭噲嚄嚌嚙嚚嚦嚭嚲嚳囅圞塿墐墠墻壈壚壠壻娬嫚嫪嫿嬙嬛嬡孌尅屧屩屭嶁嶒嶧巂巇巋巘幘幙幪幬幰廕廙徧慂慙慪憍憒憯懞懟懨懮戧戩摛摜摳摽撏撟撣擡擿攖攛攢攧敺敻斁斲斸"
    "旟晳曀曈曌朅査榖榼槅槥槩橑檇檟櫜櫱櫳欃欏欞歊歘歠殢殣殭毿氂滻漈漚漦漵漻潏澇澒澥澨濼瀍瀠瀼灃灩熇熛熯熲燋燖爇爚爲牀牓犨獃獫獮獼珰瑱璆璈璠璫甗疍疎瘆瘖瘞癉癭皞皦盩盬眬睺瞷矰碭磣磾礡礧礱禋禕禘禛禡禨禫禴秾穉窵窸窾竈箎箑箓篨篲簠"
    "籓籙籛籜籧籩粧絝綖綝綹緄緌緗緜緦緱縗縠縧縭縶繄繐繢繯繾纁纆纊纍纚罏罶罽羣翣翬翾耰聵脗膴臛臜臝臞臯舋艎葅蒓蒨蒱蓏蓗蓯蓺蓽蕡蕢薌薴藂藟蘄蘺虀虡蛺蜋蜎蜺蝀蝍蝘螄螘螣螾螿蟜蟣蠆蠋蠐蠙蠭衆衚袴裋裌裏褎褧褭褳褵襆襉襚襜襝覩覷觍觱觶觿"
    "詡詿誆諗諝謅譔譭譾讋讐讕讞讟豨貐貙賕賙賨賾赬趫趯趲跐跧跴跶踖踘踦踧踶蹍蹓蹔蹚蹢蹷蹻躒躕躚躥躦軿輀輈輗輶轀轘遹邅鄏鄔鄖鄚鄜鄠鄶鄺酇酺醁醄醨醲醾釂釃鈎鉏鉶銍銹鋃鋆鋋鋐鋙鋟鋮錁鍇鍘鍤鎛鎩鎪鎯鎸鏇鏌鏵鏹鐍鑊鑌鑕鑭鑱钂镕镚閟閫閬閶"
    "閽閿闉闒闓闚闞闠闤闿阇隤隩雚雝霅霣靚靸靿鞀鞚鞞鞬鞮鞶韙韝韞韮頎頠頦頲顒顔顗顙顢颭颻飈飏餂餑餕餗餧餱餳餺餼饁饃饈饘饟駃駔駬駰駼騂騃騄騊騑騕騠騤騧騭騮驁驄驊驌驎骎骫髙髽鬅鬐鬒鬖鬬鬷魆魋鮎鮐鯁鯗鯫鰣鰷鱘鱣鳷鴝鴞鵂鵒鵓鵰鵷鶂鶒鶖"
    "鶗鶘鶡鶬鶼鷃鷇鷖鷟鷫鷴鸂鸇鸑鸕鸝鸮鹺麀麃麤黿鼉齁齕齮龢"
)
UNSEEN_IN_BOOKS = (  # by place
    "圢帄庂仱伒刉刐匢吇妅奾奿巟汌阣伿冹劮呅吥呇坁奀妠宒岒彸忴杍杚杋沋汻狅玒耴迉丳侇佮剆咑呠坴妵姎妼姖妽姀姈妴姇屇岮岤岯岟岥岰彾怋怑怌怉抭抰抸昋昍杺枟枃杸杹枔毞沶沝泀泍泇泹泩炓炑炂狉狚玬玝盳盵苃迖陃俇俖勂哖咠咰垟垥壴姷姛姩姳姵"
    "姠姾姴姭峌峉峓峏峈峆峎峟庢庣恛恄拹挓挔拺拰昦昢昮柼柌枮柦柉柋殶毠浂洘洷洠洬洉炾炴炵炩牉狊狫狪狦玶玵玴玾珃珆珋瓬眅盺砓祄笀籿紁胇胉苲苰苪迣迡郋釓陊倵倱倎凎唒哷哸哠唋垺埐埁夎娕娏娊娞娳宭峬崀峹庨弳悎捊挩捁挭捇挳捚挸捈晇栚栜栦"
    "栨栮欯欭欴毤氥浺洍浘涆浨浾洖涃浻缹烗烒烞烠烔烍烅烆烇烚烎烡珒珛珔珚珗珨疿眓砡砪秮秜秞秝窉笓笅笉笒粌粈粅紎紌耾胵脀舥茿袃衴衼趶郖郣釢偅偣偤偀勓唭啋堔埲埥埬堐埩娸婃婄婈媎娾婍娹婌婇孲崨崥庱庴庲徟惤悿惍惀捼捸掅梇梪梋梤桸桻梑殏"
    "殎淊淭涺淂淉淓淽淗淍涻焍烳烼焆焀烸烶焋焎猑珶珼琋琈痐眳硍秶秷窏笢笝笣粔粣絊紻翋翇翉耟耛聇聈脥脭脕莏荾莯莗莮蛅蛃袧袬谻貥赹跁軞軗軠軡逤郬釳釨釮隿傃匒厧喥喌喕喡堷媩媜崵崹嵉崸崼嵅幁徦惢惁愝愄揨揯揘揂揇揋揗敤敜敨棎棝棞棴棑椕棇"
    "欼毲渿渜渱渨湥湸湤湕渵焣焥焢焲焟焨焺焛猭猦猌痚祳祰稄竤羢翗腇脺臦臷臸臹舽舿艵菵萛蛓褁詊貵跓跍軴軩鄬郼郹郻酠鈁鈥鈤鈙鈖隇雈僋傸嗀喍嗈嗂塨塱媰嫆媷嫀嫊媴媶嫍媹尳嵣嵨巰幊幋廅愶愲愩慀戠酨搚揧敯暔朠楈楁楌椻楋椲椯椼歁嗀毼溛溹溰溾"
    "溙溒溿滐滊溗溮溣煂煃煰瑂痶痵碃硹碖稢稛粴粯絼綔羦腤艂葀"
)


class Coverage(NamedTuple):
    """How well a vocabulary fits a text."""

    characters: int  # of the text
    covered: int  # characters that have a token of their own or are ASCII
    tokens: int  # that the text becomes
    missing: list[tuple[str, int]]  # characters written as two to four byte tokens with their counts, commonest first


def write_small_vocabulary(path: str | Path) -> None:
    """Write the vocabulary that fits any Chinese novel; see small_vocabulary."""
    tokens = small_vocabulary()
    save_vocabulary(path, tokens)
    say(f"wrote {path}: {len(tokens):,} tokens")


def fit_vocabulary(
    documents: Iterable[str], vocab_path: str | Path, *, kind: str, vocab_size: int | None, width: int, **sizes: int
) -> str:
    """Build the vocabulary of a corpus and write it.

    Args:
        documents: texts of the corpus, read once.
        vocab_path: the file to write; for kind "bpe" a folder.
        kind, vocab_size: as for NovelTokenizer.from_texts, but "bpe" has 13,317 tokens for None.
        width: of the embedding whose size is reported, in numbers a token.
        sizes: min_count and reserved, as for NovelTokenizer.from_texts.

    Returns:
        The report: coverage, what falls to bytes, tokens per character, parameters of the embedding.

    Raises:
        UserError: vocab_size is too small.
    """
    texts = list(documents)
    counts = count_characters(texts)
    # build and write; subwords are reported beside the characters that they replace
    if kind == "bpe":
        tokenizer = NovelTokenizer.from_texts(texts, kind=kind, vocab_size=vocab_size or SMALL_SIZE, **sizes)
        tokenizer.export(vocab_path)
        tokens, plain = tokenizer.tokens, build_vocabulary(counts, **sizes)
        rates = {kind: sum(len(tokenizer.encode(text)) for text in texts), "character": coverage(counts, plain).tokens}
    else:
        tokens = build_vocabulary(counts, vocab_size=vocab_size, **sizes)
        save_vocabulary(vocab_path, tokens)
        rates = {kind: coverage(counts, tokens).tokens}
    say(f"wrote {vocab_path}: {len(tokens):,} tokens")
    # report
    fit = coverage(counts, tokens)
    lines = [f"{vocab_path}: {len(tokens):,} tokens of kind {kind}", *coverage_lines(fit, texts)]
    for name, num_ids in rates.items():
        lines.append(f"tokens per character ({name}): {num_ids / max(fit.characters, 1):.3f}")
    return "\n".join([*lines, size_line(len(tokens), width)])


def coverage(counts: Mapping[str, int], tokens: Sequence[str]) -> Coverage:
    """Compare the characters of a text, with their counts, with a character vocabulary.

    >>> coverage({"萧": 1, "炎": 1, "a": 1}, ["萧"])
    Coverage(characters=3, covered=2, tokens=5, missing=[('炎', 1)])
    """
    known = set(tokens)
    missing = [(char, count) for char, count in counts.items() if char > "\x7f" and char not in known]
    missing.sort(key=lambda entry: (-entry[1], entry[0]))
    characters, lost = sum(counts.values()), sum(count for _, count in missing)
    in_bytes = sum(len(char.encode("utf-8", "surrogatepass")) * count for char, count in missing)
    return Coverage(characters, characters - lost, characters - lost + in_bytes, missing)


def coverage_lines(fit: Coverage, texts: Sequence[str]) -> list[str]:
    """Report how much of a text has tokens of its own, and show what has not, with a line it occurs in."""
    share = 100 * fit.covered / max(fit.characters, 1)
    lost = fit.characters - fit.covered
    lines = [
        f"covered: {fit.covered:,} of {fit.characters:,} characters ({share:.3f} %)",
        f"written as bytes: {lost:,} characters of {len(fit.missing):,} kinds",
    ]
    # a rare character is often damage, which its line tells at a glance
    places = example_lines(dict(fit.missing[:NUM_EXAMPLES]), texts)
    for char, count in fit.missing[:NUM_EXAMPLES]:
        lines.append(f"  U+{ord(char):04X} {printable(char)} × {count:,}: {printable(places[char])}")
    if len(fit.missing) > NUM_EXAMPLES:
        lines.append(f"  and {len(fit.missing) - NUM_EXAMPLES:,} more kinds")
    return lines


def example_lines(chars: Mapping[str, int], texts: Sequence[str]) -> dict[str, str]:
    """Find what surrounds the first occurrence of each character, within its line."""
    examples: dict[str, str] = {}
    for text in texts:
        for char in chars.keys() - examples.keys():
            place = text.find(char)
            if place >= 0:
                start, stop = text.rfind("\n", 0, place) + 1, text.find("\n", place)
                line = text[start : None if stop < 0 else stop]
                first = max(0, place - start - EXAMPLE_WIDTH // 2)
                examples[char] = line[first : first + EXAMPLE_WIDTH]
    return examples


def size_line(vocab_size: int, width: int) -> str:
    """Report how many parameters a vocabulary costs as an embedding, compared with the small vocabulary.

    >>> size_line(5_000, 768)
    'embedding at width 768: 3,840,000 parameters, 6,387,456 fewer than the 10,227,456 of 13,317 tokens'
    """
    difference = (vocab_size - SMALL_SIZE) * width
    comparison = f"{abs(difference):,} {'more' if difference > 0 else 'fewer'} than" if difference else "as many as"
    return (
        f"embedding at width {width}: {vocab_size * width:,} parameters, "
        f"{comparison} the {SMALL_SIZE * width:,} of {SMALL_SIZE:,} tokens"
    )


def small_vocabulary() -> list[str]:
    """Build the tokens of cache/vocab_small.txt: 13,317, for any Chinese novel, from Python's own codecs and a count.

    In this order, each character once: the whole of GB2312; the punctuation of GBK's first nine rows (— and · among it,
    which Python's GB2312 maps elsewhere); Big5's symbols and its level 1 (common traditional characters); and of its
    level 2 as many as fit, first those that the Japanese or the Korean standard has too, for these occur in texts.

    Then 577 of level 2 give way. Of 968 different Chinese books, 234 million characters, counted in November 2026: each
    Chinese character that stands in nine books or more and was not listed (COMMON_IN_BOOKS, by code point) takes the
    place of one of level 2 that stands in no book (UNSEEN_IN_BOOKS, the last in the list). Other tokens keep their ids.

    >>> tokens = small_vocabulary()
    >>> len(tokens), "裏" in tokens
    (13317, True)
    """
    level2 = decode_rows("big5", 0xC9, 0xF9)
    shared = {*decode_rows("euc_jp", 0xB0, 0xF4), *decode_rows("euc_kr", 0xCA, 0xFD)}
    characters = [
        *decode_rows("gb2312", 0xA1, 0xF7),
        *decode_rows("gbk", 0xA1, 0xA9),
        *decode_rows("big5", 0xA1, 0xC8),
        *sorted(level2, key=lambda char: char not in shared),  # sorting is stable: by code within both groups
    ]
    # dict.fromkeys keeps the first place of each character
    tokens = [*first_tokens(SMALL_RESERVED), *dict.fromkeys(characters)][:SMALL_SIZE]
    instead = dict(zip(UNSEEN_IN_BOOKS, COMMON_IN_BOOKS, strict=True))
    return [instead.get(token, token) for token in tokens]


def decode_rows(codec: str, first: int, last: int) -> list[str]:
    """List the characters of a two-byte code, by code, whose first byte lies between two values.

    >>> decode_rows("gb2312", 0xB0, 0xB0)[:4]
    ['啊', '阿', '埃', '挨']
    """
    # second bytes are of the upper half, and in Big5 of part of the lower
    trails = [*range(0x40, 0x7F if codec == "big5" else 0x40), *range(0xA1, 0xFF)]
    pairs = (bytes([lead, trail]) for lead in range(first, last + 1) for trail in trails)
    return [char for pair in pairs if is_character_token(char := pair.decode(codec, "replace")[0]) and char != "\ufffd"]
