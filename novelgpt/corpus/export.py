"""Our tokenizers as Hugging Face files, which Transformers 4 and 5 read offline without our code.

    tokenizer.json         the whole tokenizer; no post-processor, for [CLS] and [SEP] round a prompt would end the text
    tokenizer_config.json  its class, and bos = eos = [CLS]; no token_type_ids, for GPT-2 would add them to its input
    vocab.txt              one token a line, for people and for older tools

The two byte-wise kinds are a BPE model with byte fallback, the character kind without merges.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from novelgpt.corpus.vocabulary import save_vocabulary
from novelgpt.files import write_json, write_text

HAN_RUNS = r"\p{Han}+"  # a merged token is within Han or within the rest


def new_byte_backend(tokens: Sequence[str], merges: Sequence[tuple[str, str]], marks: Iterable[str]):
    """Return the tokenizers.Tokenizer of a vocabulary with byte tokens.

    Args:
        tokens: the vocabulary.
        merges: pairs of tokens that become one, in their order; none for the character kind.
        marks: names that are parsed as marks unless the reader splits special tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: index for index, token in enumerate(tokens)}
    model = models.BPE(ids, list(merges), unk_token="[UNK]", byte_fallback=True, fuse_unk=False)
    backend = Tokenizer(model)
    if merges:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(HAN_RUNS), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in marks])
    return backend


def export_folder(folder: str | Path, backend, tokens: Sequence[str], *, model_max_length: int | None = None) -> None:
    """Write a tokenizer's three files into a folder, each complete or not at all.

    Args:
        folder: made if missing; other files in it stay.
        backend: a tokenizers.Tokenizer.
        tokens: the vocabulary.
        model_max_length: the model's context in tokens; None leaves it out.
    """
    folder = Path(folder)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the name that Transformers 4 and 5 both know
        "model_input_names": ["input_ids", "attention_mask"],
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
    save_vocabulary(folder / "vocab.txt", tokens)
