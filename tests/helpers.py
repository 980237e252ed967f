"""What several test modules share: texts that are hard on a tokenizer."""

ALL_CHARACTERS = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
NASTY = [
    "",
    "萧炎大喝一声",
    "[CLS]正文[SEP]里[PAD]的[MASK]方括号[UNK][unused1]",
    "<0x41><0xE4>",
    "\x00\x00中\x00",
    "\r\n\r \t　\u2028\u2029\x85\ufeff",
    "👨‍👩‍👧‍👦🏳️‍🌈",
    "한글과 조합 한글",
    "𠮷𪚥𰻞",
    "e\u0301\u0323\u200b\u202e",
    "\ue000\uf8ff\U0010ffff",
    "##的 ##ing",
]
TRAINING_TEXT = "萧炎大喝一声，纵身而起。“萧炎！”药老喝道……\n　　萧炎大喝一声：“来得好！”\n" * 20


def reference_ids(reference, text: str) -> list[int]:
    """Encode every line by transformers' BertTokenizer without marks, and join the lines with [SEP]."""
    ids: list[int] = []
    for line in text.split("\n"):
        ids += [*reference.encode(line, add_special_tokens=False), reference.sep_token_id]
    return ids[:-1]
