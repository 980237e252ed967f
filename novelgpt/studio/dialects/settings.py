"""The body of another program's request -> our settings, and the names of what would have an effect and has none.

Front ends send twenty samplers with every request, most of them switched off. So each name of a body is one of these::

    read       a setting of ours under one of its names            checked against the table of generate.py's options
    harmless   says nothing about the text, or has a value that    passed over
               changes nothing, or its switch is off
    ignored    all else                                            answered without it, and named

A value that is null is not given. Of two names of one setting the first one in our table counts; if the other has
another value, it is ignored.
"""

from collections.abc import Mapping, Sequence

from novelgpt.cli import PRESET, PRESETS, GenerateOptions, names_with, with_changes
from novelgpt.messages import EXIT_USAGE, UserError

SAMPLING = names_with(GenerateOptions, sampling=True)
SEE = "look into docs/other_front_ends.md"
LARGEST = 1e18  # of any number; a setting has a range of its own, and a float none for a whole number of 400 digits
MAX_TEXTS = 64  # stops or banned words of one request

# our setting -> its names in requests; the first one that is given counts
NAMES = {
    "temperature": ("temperature",),
    "topk": ("top_k",),
    "topp": ("top_p",),
    "min_p": ("min_p",),
    "typical": ("typical_p", "typical"),
    "dry_multiplier": ("dry_multiplier",),
    "dry_base": ("dry_base",),
    "dry_allowed_length": ("dry_allowed_length",),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty", "rep_pen"),
    "penalty_window": ("repeat_last_n", "repetition_penalty_range", "rep_pen_range"),
    "no_repeat_ngram_size": ("no_repeat_ngram_size",),
}
RUNS = ("dry_base", "dry_allowed_length")  # that count where dry_multiplier is on
WORDS = ("banned_tokens", "banned_strings")  # that are never written
LENGTH = ("max_completion_tokens", "max_tokens", "max_length", "n_predict", "max_new_tokens", "num_predict")
SEED = ("seed", "sampler_seed")
STOPS = ("stop", "stop_sequence", "stopping_strings")
CONTEXT = ("max_context_length", "truncation_length", "n_ctx", "num_ctx")  # at least the model's changes nothing

# names that say nothing about the text
HARMLESS = (
    "api_server api_type cache_prompt genkey id_slot legacy_api metadata model_name models quiet reasoning_effort "
    "return_progress return_tokens service_tier spaces_between_special_tokens store stream stream_options "
    "timings_per_token user workers"
).split()
OFF = (None, False, 0, "", [], {})
# name -> the values that change nothing; what is not here changes nothing only where it is null
NEUTRAL = dict.fromkeys(
    (
        "ban_eos_token bypass_eos custom_token_bans dynamic_temperature dynatemp_range early_stopping "
        "epsilon_cutoff eta_cutoff frequency_penalty functions grammar grammar_string guided_grammar guided_json "
        "ignore_eos image_data images include_stop_str_in_output json_schema logit_bias lora max_tokens_second "
        "min_keep min_length min_tokens mirostat mirostat_mode n_discard n_indent nsigma penalty_alpha "
        "presence_penalty prompt_lookup_num_tokens render_special replace_instruct_placeholders skew smoothing_factor "
        "speculative_ngram stop_token_ids suffix t_max_predict_ms temperature_last tools top_a use_beam_search "
        "use_default_badwordsids xtc_probability"
    ).split(),
    OFF,
) | {
    **dict.fromkeys(("tfs", "tfs_z", "guidance_scale", "cfg_scale", "num_beams"), (1,)),
    **dict.fromkeys(("encoder_repetition_penalty", "length_penalty"), (1,)),
    **dict.fromkeys(("add_bos_token", "penalize_nl", "skip_special_tokens", "trim_stop"), (True,)),
    "adaptive_target": (-1, 0),
    "n_keep": (0,),
    "rep_pen_slope": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "top_n_sigma": (-1, 0),
}
# name -> the switches of which one must be on for it to have an effect
SWITCHES = {
    **dict.fromkeys(("mirostat_tau", "mirostat_eta"), ("mirostat", "mirostat_mode")),
    **dict.fromkeys(("dynatemp_low", "dynatemp_high"), ("dynamic_temperature",)),
    "dynatemp_exponent": ("dynatemp_range", "dynamic_temperature"),
    "smoothing_curve": ("smoothing_factor",),
    "xtc_threshold": ("xtc_probability",),
    "adaptive_decay": ("adaptive_target",),
    "negative_prompt": ("guidance_scale", "cfg_scale"),
    "grammar_retain_state": ("grammar",),
    "parallel_tool_calls": ("tools",),
}
BREAKERS = ("dry_penalty_last_n", "dry_sequence_breakers")  # of DRY; ours are names, quotes and line ends
PENALTIES = ("rep_pen_slope", "repetition_decay", "penalize_nl")  # without a penalty of repetition they do nothing
ORDERS = ("sampler_order", "sampler_priority", "samplers")  # without a cut by probability every order does the same


class Reader:
    """One request's body, of which each name is taken once; what is left at the end is looked up in the tables above.

    Args:
        body: the JSON object.
        context: tokens that the model reads at once.
        most: tokens that a text may have.
        first: names that go before others of the same setting, those of the dialect.

    Attributes:
        ignored: names that would have an effect and have none.

    >>> reader = Reader({"max_tokens": 5, "top_k": 40, "typical_p": 1, "top_a": 0.2}, context=1024, most=10_000)
    >>> reader.length(16), reader.wish(), reader.finish()
    (5, {'settings': {'topk': 40, 'typical': 1.0}, 'seed': None, 'stops': ()}, ['top_a'])
    """

    def __init__(self, body: Mapping[str, object], *, context: int, most: int, first: Sequence[str] = ()):
        self.body, self.context, self.most, self.first, self.ignored = body, context, most, first, []
        self.left = {name for name, value in body.items() if value is not None}
        self.sampling: dict[str, object] = {}

    def take(self, *names: str, default: object = None) -> object:
        """Return the value of the first of some names that is given; another value under another name is ignored."""
        given = [name for name in self.order(names) if name in self.left]
        self.left -= set(names)
        self.ignored += [name for name in given[1:] if self.body[name] != self.body[given[0]]]
        return self.body[given[0]] if given else default

    def order(self, names: Sequence[str]) -> list[str]:
        """Return the names of a setting, those of the dialect first."""
        return sorted(names, key=lambda name: name not in self.first)

    def name_of(self, names: Sequence[str]) -> str:
        """Return the name that a request uses for a setting."""
        return next((name for name in self.order(names) if self.body.get(name) is not None), names[0])

    def whole(self, *names: str, default: int, low: int, high: int) -> int:
        """Take a whole number in a range; UserError: anything else."""
        name = self.name_of(names)
        value = self.take(*names, default=default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
            raise refuse(name, value, "a whole number")
        if not low <= value <= high:
            raise refuse(name, value, f"a whole number from {low} to {high}")
        return int(value)

    def is_on(self, name: str, *, default: bool = False) -> bool:
        """Take a switch; UserError: neither true nor false."""
        value = self.take(name, default=default)
        if not isinstance(value, bool):
            raise refuse(name, value, "true or false")
        return value

    def text(self, *names: str, default: str | None = None) -> str:
        """Take a text; UserError: another type, or none where there is no default."""
        value = self.take(*names, default=default)
        if not isinstance(value, str):
            raise refuse(self.name_of(names), value, "a text")
        return value

    def texts(self, *names: str) -> tuple[str, ...]:
        """Take a list of texts, or one; empty ones are left out."""
        value = self.take(*names, default=[])
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > MAX_TEXTS:
            raise refuse(self.name_of(names), value, f"a list of at most {MAX_TEXTS} texts")
        return tuple(text for text in texts if text)

    def length(self, default: int, *, low: int = 1) -> int:
        """Take how many tokens a text may have."""
        return self.whole(*LENGTH, default=default, low=low, high=self.most)

    def wish(self) -> dict[str, object]:
        """Take what all dialects have: samplers, seed, and the texts before which a text ends."""
        return {"settings": self.settings(), "seed": self.seed(), "stops": self.texts(*STOPS)}

    def seed(self) -> int | None:
        """Take the seed; -1 draws one, and so does none."""
        value = self.whole(*SEED, default=-1, low=-1, high=2**64 - 1)
        return None if value < 0 else value

    def settings(self) -> dict[str, object]:
        """Take the samplers that we have, under our names.

        Raises:
            UserError: a value that generate.py would refuse.
        """
        for ours, names in NAMES.items():
            theirs = self.name_of(names)
            value = self.take(*names)
            is_off = ours in RUNS and not self.sampling.get("dry_multiplier")
            if value is not None and not is_off:
                self.sampling |= translate(ours, theirs, value)
        for name in WORDS:  # as text it is a list in one of several forms, which is looked up with the rest
            if isinstance(self.body.get(name), list) and (words := self.texts(name)):
                self.sampling["bad_words"] = self.sampling.get("bad_words", ()) + words
        if not self.is_on("do_sample", default=True):
            self.sampling["temperature"] = 0
        return self.sampling

    def finish(self) -> list[str]:
        """Return the names that were ignored, those that nobody has taken among them."""
        return [*self.ignored, *sorted(name for name in self.left if not self.is_harmless(name))]

    def is_harmless(self, name: str) -> bool:
        """Tell whether the value of a name changes nothing."""
        value, ours = self.body[name], PRESETS[PRESET] | self.sampling
        if name in ORDERS:
            is_one = all(ours.get(cut, 1) in (0, 1) for cut in ("topp", "typical")) and not ours.get("min_p")
            return is_one and ours.get("repetition_penalty", 1) == 1
        if name in BREAKERS and not ours.get("dry_multiplier"):
            return True
        if name in PENALTIES and ours.get("repetition_penalty", 1) == 1:
            return True
        if name in CONTEXT and isinstance(value, (int, float)):
            return value >= self.context or value <= 0
        if name in SWITCHES:
            return all(self.body.get(switch) in NEUTRAL[switch] for switch in SWITCHES[name] if switch in self.body)
        return name in HARMLESS or value in NEUTRAL.get(name, [] if name not in WORDS else OFF)


def translate(ours: str, theirs: str, value: object) -> dict[str, object]:
    """Return a setting of another program as ours, checked; where one number means something else, as what it means.

    >>> translate("topk", "top_k", -1), translate("topp", "top_p", 0), translate("penalty_window", "repeat_last_n", -1)
    ({'topk': 0}, {'topk': 1}, {'penalty_window': 0})
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) < LARGEST:  # what is no number is not less either
        raise refuse(theirs, value, "a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a reader of whole numbers takes 40.0 for no such number
    if value == -1 and ours in ("topk", "penalty_window"):  # of llama.cpp, vLLM: all of them
        value = 0
    elif value == 0 and ours == "topp":  # theirs leaves the best token; ours would be no filter at all
        ours, value = "topk", 1
    elif value == 0 and theirs == "repeat_last_n":  # of llama.cpp: no token is looked back at
        ours, value = "repetition_penalty", 1
    try:
        return {ours: getattr(with_changes(GenerateOptions(), {ours: value}, SAMPLING), ours)}
    except UserError as problem:
        raise UserError(theirs + problem.message.removeprefix(ours), problem.hint, EXIT_USAGE) from None


def refuse(name: str, value: object, expected: str) -> UserError:
    """Return the error of a value that a request must not have."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return UserError(f"{name}: found {shown}, expected {expected}", SEE, EXIT_USAGE)
