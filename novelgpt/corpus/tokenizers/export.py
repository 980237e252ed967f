"""Vocabularies -> Hugging Face files, which Transformers 4 and 5 read offline without our code.

    tokenizer.json         the whole tokenizer
    tokenizer_config.json  its class, bos = eos = [CLS], and the context of the model beside it

The character and subword kinds are BPE models with byte fallback, the former without merges. In the WordPiece kind a
newline and [SEP] stand for each other, so "[SEP]" typed into a prompt is a newline too.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from novelgpt.files import write_json, write_text

INNER_SPACE = r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])"  # a space that does not stand between two Latin words
HAN_RUNS = r"\p{Han}+"  # a merged token is within Han or within the rest


def new_byte_backend(tokens: Sequence[str], merges: Sequence[tuple[str, str]], marks: Iterable[str]):
    """Return the tokenizers.Tokenizer of a vocabulary with byte tokens.

    Args:
        tokens: the vocabulary.
        merges: pairs of tokens that become one, in their order; none for the character kind.
        marks: names that are parsed as marks, unless the reader splits special tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    # no post-processor: [CLS] and [SEP] around a prompt would end the text
    ids = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(ids, list(merges), unk_token="[UNK]", byte_fallback=True, fuse_unk=False)
    backend = Tokenizer(model)
    if merges:  # without them every character stands for itself, however the text is split
        backend.pre_tokenizer = new_splitter()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in marks])
    return backend


def new_splitter():
    """Return the pre-tokenizer that keeps Han characters apart from all others."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(HAN_RUNS), "isolated")


def new_wordpiece_backend(tokens: Sequence[str], *, lowercase: bool, marks: Iterable[str] = ()):
    """Return the tokenizers.Tokenizer of a BERT vocabulary.

    Args:
        tokens: the vocabulary.
        lowercase: fold case and drop accents, as BERT does.
        marks: names that are parsed as marks, and newlines become [SEP]; without any, the result is BERT's for one line
            of plain text.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    ids = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    # [SEP] is not special, so that decoding without special tokens keeps line breaks
    if marks:
        backend.normalizer = normalizers.Sequence([normalizers.Replace("\n", "[SEP]"), backend.normalizer])
        special = [AddedToken(name, special=True, normalized=False) for name in marks if name != "[SEP]"]
        backend.add_special_tokens(special)
        backend.add_tokens([AddedToken("[SEP]", special=False, normalized=True)])
    # join the parts of words, then drop the spaces that do not part Latin words
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece("##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(r"\[SEP\]|\[sep\]"), "\n"),  # its name is normalized like any text
            decoders.Replace(Regex(INNER_SPACE), ""),
        ]
    )
    return backend


def export_backend(folder: str | Path, backend, *, model_max_length: int | None) -> None:
    """Write a tokenizer.json and its tokenizer_config.json into a folder, each complete or not at all.

    Args:
        folder: made if missing; other files in it stay.
        backend: a tokenizers.Tokenizer.
        model_max_length: the context of the model in tokens; None leaves it out.
    """
    folder = Path(folder)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the name that Transformers 4 and 5 both know
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 would add token_type_ids to its input
        "bos_token": "[CLS]",
        "eos_token": "[CLS]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
    }
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", config)
