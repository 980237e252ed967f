"""Every option of the eight scripts with its default, help, range and roles; written nowhere else.

A script makes its flags from its table, `--print_config` prints it, the Python API takes it, run.json stores it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from novelgpt.cli.table import option, real, whole
from novelgpt.cli.values import (
    book_name,
    chapter_pattern,
    clock_time,
    count_or_share,
    drop_pattern,
    precision_name,
    token_names,
)

FORMATS = ("auto", "bf16", "fp16", "fp32")
NETWORK = "config/model_config_small.json"  # of a run for which neither one nor hours are given
SCHEDULES = ("linear", "cosine", "constant", "polynomial")
BOOK = "name of the book, whose files all lie in books/NAME/"
MOST_TOKENS = 10_000_000  # of a text; the memory for its numbers is taken at once

# the role `resume`: what a resumed run must share with the run that was stopped
fixed = partial(option, resume="fixed")  # the value
changeable = partial(option, resume="changeable")  # the value, unless --allow_change names the option
content = partial(option, resume="content")  # not the value but what it leads to: text, vocabulary, network
free = partial(option, resume="free")  # nothing

# roles of writing and evaluating; each includes the one above it
python = partial(option, python=True)  # may be given to evaluate() or generate()
recorded = partial(python, recorded=True)  # is kept in samples.jsonl
sampling = partial(recorded, sampling=True)  # decides which token is chosen


@dataclass(frozen=True)
class TrainOptions:
    """Options of train.py. Lengths are in tokens, rates per step; None leaves the choice to the machine or the data.

    The word before each parenthesis is the role `resume`. Further roles: `only`, the kind of data an option applies to,
    "windows" of a book or "rows" (one text per record); `needs`, what must be there for it to have an effect; of all
    tables `in_book`, the place in books/NAME/ that --book gives it, with `if_there` only where something is there.

    >>> options = TrainOptions(epochs=3, output_dir="runs/first")
    >>> options.epochs, options.stride, options.output_path.name
    (3, None, 'first')
    """

    book: str | None = free(None, BOOK, book_name, metavar="NAME")
    # the network and its vocabulary
    model_config: str | None = content(
        None, "config JSON of a network to train from scratch; default: config/model_config_small.json, or by --hours"
    )
    tokenizer_path: str | None = content(
        None, "vocabulary; default: the model's own, else cache/vocab_small.txt", in_book="vocab.txt", if_there=True
    )
    add_tokens: str | None = content(None, "further tokens, for example [TIL],[WS]; reserved places first", token_names)
    # the data: windows of a book, or one text per record
    raw_data_path: str = content(
        "data/train.json", "cleaned chapters, written by clr_ctrl.py", only="windows", in_book="train.json"
    )
    tokenized_data_path: str = content(
        "data/tokenized/", "folder of the numbered piece files", only="windows", in_book="tokenized/"
    )
    raw: bool = free(False, "tokenize raw_data_path into pieces first", only="windows")
    num_pieces: int = content(100, "piece files to cut the tokens into", whole(1, 1_000_000), only="windows")
    min_length: int = content(0, "leave out chapters of fewer characters and report them", whole(0), only="windows")
    valid_fraction: float = content(0.05, "share of the tokens held out at the end of the book", real(0, 0.9))
    rows: bool | None = content(None, "train on one text per record of --train_file; default: if one is given", bool)
    train_file: str | None = content(
        None, "records: .txt (one per line), .csv, .json, .jsonl; with --rows", only="rows"
    )
    validation_file: str | None = content(
        None, "records held out; default: the last valid_fraction of --train_file", only="rows"
    )
    text_column: str | None = content(None, "column or key of the text; default: text, else content", only="rows")
    block_size: int | None = content(
        None, "tokens per record at most, the rest is cut; default: the context", whole(4), only="rows"
    )
    loss_after: str | None = content(None, "score only what follows this token, for example [TIL]", only="rows")
    max_train_samples: int = content(0, "train only on the first N records; 0 = all", whole(0), only="rows")
    preprocessing_num_workers: int = free(1, "processes that tokenize; same result", whole(1, 1024), only="rows")
    # where the weights start
    pretrained_model: str | None = content(None, "model folder to start from instead of random weights")
    lora_rank: int = content(
        0,
        "train corrections of this rank and freeze the rest of pretrained_model (needs peft); 0 = off",
        whole(0, 4096),
    )
    lora_alpha: float = content(32.0, "corrections count by alpha / rank", real(0, 10_000, above=True))
    lora_dropout: float = content(0.0, "dropout of the corrections' inputs", real(0, 0.9))
    # whom it learns from beside the text
    teacher: str | None = content(
        None, "model folder whose distributions it also learns; of several the mean", metavar="FOLDER,…"
    )
    teacher_weight: float = content(
        0.5, "share of the loss that is the divergence from the teacher's distributions", real(0, 1, above=True)
    )
    second_generation: bool = content(
        False, "train one network in output_dir/first_generation/, then this one with it as teacher"
    )
    # what is learned in which order
    output_dir: str = free(
        "model/", "folder of the run: model folders, checkpoints, run.json, log.jsonl", in_book="model/"
    )
    epochs: int | None = changeable(
        None, "passes over the windows; default: 15, or as many as the hours allow", whole(1, 1_000_000)
    )
    hours: float | None = changeable(
        None,
        "choose what suits the book, and train for so many hours, start and end included",
        real(0, 1000, above=True),
    )
    batch_size: int | None = fixed(
        None, "windows per step, over all devices and micro-batches; default: 8, or by --hours", whole(1, 1_000_000)
    )
    stride: int | None = fixed(
        None, "tokens from window to window, at most the context; default: half of it", whole(1), only="windows"
    )
    random_phase: bool = fixed(True, "move the grid of windows by a random amount in every epoch", only="windows")
    # how the weights move
    lr: float | None = changeable(None, "peak learning rate; default: by optimizer and network width", real(0, 1))
    warmup_steps: float = changeable(0.02, "steps of linear warm-up, a count or a share of all steps", count_or_share)
    lr_scheduler: str = changeable(
        "linear", "course after warm-up; polynomial falls with the square of what is left", choices=SCHEDULES
    )
    lr_end: float = changeable(0.0, "learning rate of the last step, which the schedule falls to", real(0, 1))
    optimizer: str = fixed(
        "auto", "of the blocks' matrices; auto = muon from scratch, else adamw", choices=("auto", "adamw", "muon")
    )
    weight_decay: float | None = changeable(
        None, "decay of the matrices, not of biases and norms; default: forget in 2 epochs, 0.1 to 1", real(0, 100)
    )
    beta1: float = changeable(0.9, "decay of Adam's first moment", real(0, 0.9999))
    beta2: float = changeable(0.999, "decay of Adam's second moment", real(0, 0.999999))
    max_grad_norm: float = changeable(1.0, "gradient norm above which gradients are scaled down; 0 = never", real(0))
    dropout: float | None = changeable(None, "of embedding, residual, attention; default: the config's", real(0, 0.9))
    replace_inputs: float | None = changeable(
        None, "share of inputs made random; default: 0.15 if all is read over 4 times", real(0, 0.9), only="windows"
    )
    replacement: str = changeable(
        "neighbours",
        "which inputs: by what follows them, as Kneser-Ney smoothing has it; or all alike",
        choices=("neighbours", "frequency"),
        only="windows",
    )
    # how the machine computes it
    gradient_accumulation: int = free(
        1, "micro-batches that a batch is split into: less memory, same update", whole(1, 1_000_000)
    )
    gradient_checkpointing: bool = free(False, "recompute activations in backward: less memory, a third slower")
    shard: bool = free(False, "under torchrun: share every weight out over the processes (FSDP2)")
    precision: str = changeable("auto", "number format of the matrix products", precision_name, choices=FORMATS)
    fp16: bool = free(False, "the same as --precision fp16")
    parallel: str = free(
        "auto",
        "several GPUs: processes, one each, or threads of one (slower; Windows, Python); auto = processes",
        choices=("auto", "threads", "processes"),
    )
    compile: str = free("auto", "torch.compile: auto = on GPUs when the run repays it", choices=("auto", "on", "off"))
    device: str | None = free(None, "GPU numbers such as 0,1, or mps, or cpu; default: the first GPU, else the CPU")
    deterministic: bool = changeable(False, "the same bits in every run on GPUs; slower (CPUs do so anyway)")
    seed: int = fixed(0, "initial weights, window order and dropout are functions of it", whole(0, 2**31 - 1))
    # resuming, checkpoints, evaluations
    plan: bool = free(False, "print what the run would do and take on this machine, and stop")
    resume: str = free("auto", "auto = resume an unfinished run; never = move it aside; or a checkpoint's folder")
    allow_change: str = free("", "options that may differ from the unfinished run's, for example lr,epochs,log_step")
    save_steps: int = free(0, "steps between two checkpoints; 0 = by time and at the end of epochs", whole(0))
    save_minutes: float = free(15, "minutes between two checkpoints; 0 = at the end of epochs only", real(0))
    eval_steps: int = changeable(0, "steps between evaluations; 0 = after epochs only", whole(0), needs="held out")
    early_stopping_patience: int = changeable(
        0, "end after N evaluations in a row without a lower held-out loss; 0 = never", whole(0), needs="held out"
    )
    load_best_model_at_end: bool = changeable(False, "final_model gets the weights of best_model", needs="held out")
    save_total_limit: int = free(2, "resumable checkpoints to keep", whole(1))
    # when to stop, and what to show
    max_hours: float = free(0, "stop after this many hours, ready to be resumed; 0 = no limit", real(0))
    until: str | None = free(None, "stop at this time of the clock, for example 07:00", clock_time)
    log_step: int = changeable(200, "steps between two log lines", whole(1))
    writer_dir: str | None = free(None, "folder for TensorBoard curves; default: none")
    sample_prefix: str = free("", "prefix of the sample written after each epoch; default: the book's own opening")
    sample_length: int = free(100, "tokens of the sample written after each epoch; 0 = no sample", whole(0, 100_000))

    @property
    def pretrained_path(self) -> Path:
        """The model folder to start from; only where one is given."""
        return Path(self.pretrained_model)

    @property
    def teacher_paths(self) -> list[Path]:
        """The model folders of the teachers."""
        return [Path(name.strip()) for name in (self.teacher or "").split(",") if name.strip()]

    @property
    def network(self) -> str:
        """The config of the network that is trained from scratch."""
        return self.model_config or NETWORK

    @property
    def reads_rows(self) -> bool:
        """Tell whether a run reads one text a record; a file of records implies it."""
        return self.train_file is not None if self.rows is None else self.rows

    @property
    def output_path(self) -> Path:
        """The run folder."""
        return Path(self.output_dir)


@dataclass(frozen=True)
class CleanOptions:
    """Options of clr_ctrl.py."""

    paths: tuple[str, ...] = option((), "files or folders of novels", positional=True, metavar="PATH")
    book: str | None = option(None, BOOK, book_name, metavar="NAME")
    output: str = option("data/train.json", "the clean documents", metavar="FILE", in_book="train.json")
    encoding: str | None = option(None, "encoding of the input; detected if not given", metavar="NAME")
    force_encoding: bool = option(False, "obey --encoding even where it reads nonsense")
    field: str | None = option(None, "key or column of the text; text, 正文 … if not given", metavar="NAME")
    title_field: str | None = option(None, "key or column of the title; title, 章节 … if not given", metavar="NAME")
    # what is done to the text
    chapters: str | None = option(
        None,
        "regular expression of the lines that begin a chapter, or none for parts of even length; found if not given",
        chapter_pattern,
        metavar="REGEX",
    )
    keep_ads: bool = option(False, "leave advertisements, site lines and author's notes in")
    drop: tuple[str, ...] = option(
        (), "leave out lines that contain this text or /regular expression/; may be repeated", drop_pattern, many=True
    )
    keep_private: bool = option(False, "leave private-use characters in, instead of 〓 for them")
    width: str | None = option(None, "write all ASCII and full-width characters this way", choices=("half", "full"))
    traditional_to_simplified: bool = option(False, "convert the script; needs OpenCC")
    # what else is written
    report: str | None = option(None, "also write the report as one HTML page", metavar="FILE")
    titles: str | None = option(None, "also write chapters with titles as records: text[TIL]title", metavar="FILE")


@dataclass(frozen=True)
class VocabularyOptions:
    """Options of make_vocab.py."""

    book: str | None = option(None, BOOK, book_name, metavar="NAME")
    raw_data_path: str = option("data/train.json", "the cleaned chapters", in_book="train.json")
    vocab_file: str | None = option(
        None,
        "file to write (default cache/vocab_novel.txt); for bpe a folder (default cache/bpe_novel)",
        in_book="vocab.txt",
    )
    kind: str = option("character", "one token per character, or subwords", choices=("bpe", "character"))
    vocab_size: int | None = option(None, "at most this many tokens (bpe: 13317 unless given)", whole(1, 10**6))
    min_count: int = option(1, "rarer characters are left to their bytes", whole(1))
    reserved: int = option(20, "free [unusedN] tokens for later marks", whole(0, 10**5))
    small: bool = option(False, "rebuild cache/vocab_small.txt, which fits any Chinese novel")


@dataclass(frozen=True)
class TokenizeOptions:
    """Options of tokenize_corpus.py."""

    book: str | None = option(None, BOOK, book_name, metavar="NAME")
    raw_data_path: str = option("data/train.json", "the cleaned chapters", in_book="train.json")
    tokenized_data_path: str = option("data/tokenized/", "folder of the pieces", in_book="tokenized/")
    tokenizer_path: str = option(
        "cache/vocab_small.txt", "vocabulary file, or folder with one", in_book="vocab.txt", if_there=True
    )
    num_pieces: int = option(100, "number of training pieces", whole(1))
    valid_fraction: float = option(0.05, "share held out at the end", real(0, 0.9))
    min_length: int = option(0, "characters; shorter documents are left out and counted", whole(0))
    add_tokens: str | None = option(None, "further tokens of the vocabulary, for example [TIL],[WS]", token_names)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of eval.py."""

    book: str | None = option(None, BOOK, book_name, metavar="NAME")
    model_path: str = option("model/final_model", "model folder", in_book="model/final_model")
    tokenized_data_path: str = option("data/tokenized/", "pieces whose held-out part is scored", in_book="tokenized/")
    # what is scored; the held-out part of the pieces where neither is given
    text_path: str | None = option(
        None, "score this text instead: a novel, which is cleaned first, or clean .json, or a folder"
    )
    text: str | None = option(None, "score this sentence instead")
    # how it is read and measured
    encoding: str | None = python(None, "encoding of text_path; detected if not given")
    force_encoding: bool = python(False, "obey --encoding even where it reads nonsense")
    stride: int | None = python(None, "tokens between windows, at most the context (default half of it)", whole(1))
    batch_size: int = python(8, "windows per pass", whole(1))
    per_chapter: bool = python(False, "score every chapter by itself too")
    html: str | None = python(None, "also write a page that colours each character by its surprise", metavar="FILE")
    adapt: bool = python(False, "also score by a copy of the model that learns each stretch once it is scored")
    baseline: bool = python(False, "also score by counting what follows what in the training pieces")
    precision: str = python("fp32", "number format", precision_name, choices=FORMATS)
    device: str | None = python(None, "a GPU number, mps or cpu; default: the first GPU there is")


@dataclass(frozen=True)
class GenerateOptions:
    """Options of generate.py."""

    book: str | None = option(None, BOOK, book_name, metavar="NAME")
    # the model
    model_path: str = option("model/final_model", "folder of the model", in_book="model/final_model")
    tokenizer_path: str | None = option(None, "its vocabulary again, only to check that it is the one meant")
    device: str | None = python(
        None, "one GPU number or cpu (default: the first GPU, else the CPU; a Mac writes on its CPU)"
    )
    # what the text begins with
    prefix: str = option(
        "[CLS]萧炎大喝一声", "what the text begins with; unless given, an opening of its own book if that is at hand"
    )
    prefix_file: str | None = option(None, "a text to continue, in any encoding, instead of --prefix", metavar="FILE")
    mark: str | None = option(None, "write only what this token asks for, such as a title after [TIL]", metavar="TOKEN")
    # where it ends, and how many there are
    length: int = recorded(
        1000, "new tokens, as many as you like; -1 fills the model's context", whole(-1, MOST_TOKENS)
    )
    stop: str = recorded(
        "sentence",
        "after --length continue to the end of this; never = stop at once",
        choices=("sentence", "paragraph", "chapter", "never"),
    )
    nsamples: int = python(10, "how many texts", whole(1))
    batch_size: int = python(10, "texts written at a time; has no influence on them", whole(1))
    # how each token is chosen
    temperature: float = sampling(1.0, "lower is safer; 0 takes the best token always", real(0))
    topk: int = sampling(8, "choose among this many tokens; 0 = all", whole(0))
    topp: float = sampling(1.0, "choose among the best tokens of this probability; 0 or 1 = all", real(0, 1))
    min_p: float = sampling(0.0, "drop tokens less likely than this share of the best one", real(0, 1))
    repetition_penalty: float = sampling(1.0, "above 1: recent tokens less likely", real(0, above=True))
    penalty_window: int = sampling(256, "how many recent tokens that means; 0 = all", whole(0))
    no_repeat_ngram_size: int = sampling(0, "never write a run of this many tokens twice; 0 = may", whole(0))
    bad_words: tuple[str, ...] = sampling((), "words never written", many=True, metavar="WORD")
    # what is done along the way
    cut_loops: bool = recorded(True, "end a text that repeats itself")
    keep_head: int = sampling(0, "tokens of the beginning that are never forgotten", whole(0))
    seed: int | None = python(
        None, "text i is a function of (seed, i); default: a new one, which is printed", whole(0, 2**64 - 1)
    )
    # how the machine computes it
    precision: str = python(
        "auto", "auto: bf16 where the machine has it", precision_name, choices=("auto", "fp32", "bf16")
    )
    quantize: str | None = python(
        None, "8-bit weights, keys, values: fastest, on CPUs; prints the cost in perplexity", choices=("int8",)
    )
    # how it is shown
    stream: bool = option(False, "show characters as they are written")
    interactive: bool = option(False, "write by turns with the model")
    story: str | None = option(None, "with --interactive: a story of studio.py, by its name or number", metavar="NAME")
    # several beginnings in one run
    prompts_file: str | None = option(None, "one prefix per line; --nsamples of each", metavar="FILE")
    titles: tuple[str, ...] = option((), "write texts for each title, one file per text", many=True, metavar="TITLE")
    titles_file: str | None = option(None, "the titles, one per line", metavar="FILE")
    articles_per_title: int = option(5, "texts of each title", whole(1))
    # the book the model was trained on: what is copied from it, how it begins
    corpus: str | None = python(None, "the book it was trained on (default: where it was then)", metavar="FILE")
    copies: bool = option(True, "measure what is copied from the book")
    max_copy: int | None = python(None, "rewrite texts copying more than N characters in a row", whole(1), metavar="N")
    find: str | None = option(None, "only show openings of the book that hold these words", metavar="WORDS")
    openings: int = option(5, "how many of them", whole(1))
    # where the texts are kept
    save_samples: bool = option(False, "write the samples to files")
    save_samples_path: str = option("mnt/", "where to", metavar="FOLDER", in_book="samples/")
