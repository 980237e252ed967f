"""The spelling of other tools -> ours, by the tables of alias_table.py.

Taken on the command line and in config files, never shown in `--help`, printed as ours by `--print_config`. An alias
counts only where the script has the option it stands for and none of the alias's own name.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from novelgpt.alias_table import CLOSED, NAMES, REMARKS, STEPS, STRATEGIES, VALUES, WITHOUT_EFFECT
from novelgpt.messages import EXIT_USAGE, UserError, say, warn


@dataclass(frozen=True)
class Vocabulary:
    """The aliases that a script takes.

    Attributes:
        names: alias -> our option.
        idle: key without effect -> the values of which that is true.
        own: the script's own options.
        origin: what stands before a name in a message: "--", or "FILE: ".
    """

    names: dict[str, str]
    idle: dict[str, tuple[str, ...]]
    own: Collection[str]
    origin: str

    @property
    def dash(self) -> str:
        """What stands before our names."""
        return "--" if self.origin == "--" else ""

    def takes(self, name: object) -> bool:
        """Tell whether a name is an alias or a key without effect."""
        return name in self.names or name in self.idle


def vocabulary_of(section: str, own: Collection[str], origin: str) -> Vocabulary:
    """Return the aliases that a script with these options takes.

    Args:
        section: of the script in a config file.
        own: names of its options.
        origin: "--" for the command line, "FILE: " for a config file.
    """
    names = {name: ours for name, ours in NAMES.get(section, {}).items() if ours in own and name not in own}
    idle = {name: values for name, values in WITHOUT_EFFECT.get(section, {}).items() if name not in own}
    return Vocabulary(names, idle, own, origin)


def translate(
    given: Mapping[str, object], words: Vocabulary, beside: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return entries under our names: aliases translated and said, keys without effect left out and named.

    Args:
        given: name -> value, ours and theirs, text or what YAML and JSON make of it; None is not given.
        words: from vocabulary_of.
        beside: the entries of the other place (config file or command line), in which some meanings are looked up.

    Raises:
        UserError: an alias and ours with different values; a value that means nothing here.

    >>> translate({"epochs": 3, "learning_rate": "1e-4"}, vocabulary_of("train", ("epochs", "lr"), "--"))
    {'epochs': 3, 'lr': '1e-4'}
    """
    result = {name: value for name, value in given.items() if not words.takes(name)}
    check_idle(given, words)
    sources = {name: name for name in result}
    places = (given, beside or {}) if words.origin == "--" else (beside or {}, given)  # the command line first
    said = []
    for name, value in given.items():
        if name not in words.names or value is None:
            continue
        ours = words.names[name]
        meant = our_value(name, value, places, words)
        is_ratio = name == "warmup_ratio"  # of the ratio and the steps of warm-up one is 0 and says nothing
        if meant is None or (is_ratio and is_same(meant, 0) and result.get(ours) is not None):
            continue
        said.append(line_of(name, value, ours, meant, words.dash))
        settles = name in STRATEGIES or (is_ratio and is_same(result.get(ours), 0))
        if not settles and result.get(ours) is not None and not is_same(result[ours], meant):
            first = f"{words.dash}{sources[ours]} {given[sources[ours]]}"
            message = f"{words.origin}{name} {value} and {first}: one option, two values"
            raise UserError(message, f"leave one of them out; here it is called {words.dash}{ours}", EXIT_USAGE)
        result[ours], sources[ours] = meant, name
    if said and os.environ.get("RANK", "0") == "0":
        say(f"{words.origin.removeprefix('--')}here {'; '.join(said)}")
    return result


def translate_words(argv: list[str], words: Vocabulary, beside: Mapping[str, object] | None = None) -> list[str]:
    """Return a command line under our names; see translate.

    >>> translate_words(["--epochs", "3", "--learning_rate", "1e-4"], vocabulary_of("train", ("epochs", "lr"), "--"))
    ['--epochs', '3', '--lr=1e-4']
    """
    rest, given = sort_words(argv, words)
    last = argv.index("--") if "--" in argv else len(argv)
    ours = [words.names[name] for name in given if name in words.names]
    result = translate(given, words, beside)
    return rest + [f"--{name}={result[name]}" for name in dict.fromkeys(ours) if name in result] + argv[last:]


def sort_words(argv: list[str], words: Vocabulary) -> tuple[list[str], dict[str, object]]:
    """Return the words of a command line that stay, and what it gives by name, theirs and ours, up to `--`.

    A flag of theirs takes the next word unless that is a flag; one without a word is a switch.
    """
    rest, given = [], {}
    last = argv.index("--") if "--" in argv else len(argv)
    for flag, *values in split_at_flags(argv[:last]):
        name, equals, inline = flag.removeprefix("--").partition("=")
        values = [inline, *values] if equals else values
        is_flag = flag.startswith("--")
        if is_flag and name in words.names and not values and name not in VALUES:
            rest.append(f"--{words.names[name]}")  # whose value is missing
        elif is_flag and words.takes(name):
            given[name] = values[0] if values else True
            rest += values[1:] if name in words.names else []
        else:
            given |= {name: values[0]} if is_flag and name in words.own and values else {}
            rest += [flag, *values] if not equals else [flag, *values[1:]]
    return rest, given


def split_at_flags(argv: list[str]) -> list[list[str]]:
    """Split words before every flag.

    >>> split_at_flags(["a", "--b", "1", "2", "--c"])
    [['a'], ['--b', '1', '2'], ['--c']]
    """
    parts: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not parts:
            parts.append([])
        parts[-1].append(word)
    return parts


def our_value(name: str, value: object, places: Sequence[Mapping[str, object]], words: Vocabulary) -> object:
    """Return what the value of an alias is in ours, which may depend on others; None is our default."""
    text = spelled(value)
    if name in STRATEGIES and text == "steps":
        steps = [place.get(spelling) for spelling in STEPS[STRATEGIES[name]] for place in places]
        return next((step for step in steps if step is not None and not is_same(step, 0)), VALUES[name][text])
    if name in VALUES and text in VALUES[name]:
        return VALUES[name][text]
    if name in CLOSED:
        refuse_value(name, value, VALUES[name], words)
    if name == "warmup_ratio" and not is_share(text):
        message = f"{words.origin}{name}: found {text!r}, expected a number from 0 to below 1"
        raise UserError(message, f"{words.dash}warmup_steps takes a number of steps too", EXIT_USAGE)
    if name == "validation_split_percentage" and is_number(text):
        return str(float(text) / 100)
    if name in ("num_train_epochs", "max_epochs") and is_number(text) and float(text).is_integer():
        return str(int(float(text)))
    if name == "per_device_train_batch_size" and text.isdecimal():
        return str(int(text) * accumulation(places, words))
    return value


def accumulation(places: Sequence[Mapping[str, object]], words: Vocabulary) -> int:
    """Return the micro-batches that their batch size is multiplied by, under whatever name."""
    entries = [entry for place in places for entry in place.items() if entry[1] is not None]
    values = [spelled(value) for name, value in entries if words.names.get(name, name) == "gradient_accumulation"]
    return int(values[0]) if values and values[0].isdecimal() else 1


def check_idle(given: Mapping[str, object], words: Vocabulary) -> None:
    """Name the keys without effect in one warning; refuse a value of theirs that would have one."""
    names = [name for name, value in given.items() if name in words.idle and value is not None]
    for name in names:
        allowed = words.idle[name]
        if allowed and not any(is_same(given[name], value) for value in allowed):
            refuse_value(name, given[name], allowed, words)
    if names and os.environ.get("RANK", "0") == "0":
        warn(f"{words.origin.removeprefix('--')}without effect here: {', '.join(words.dash + name for name in names)}")


def refuse_value(name: str, value: object, allowed: Iterable[str], words: Vocabulary) -> None:
    """Raise the error of a value that would change the result and that is not supported."""
    message = f"{words.origin}{name}: found {spelled(value)!r}, supported is {' or '.join(allowed)}"
    raise UserError(message, "leave it out, or see --help for what there is", EXIT_USAGE)


def line_of(name: str, value: object, ours: str, meant: object, dash: str) -> str:
    """Say what an alias is: the names, the values where they differ, and what one might not expect.

    >>> line_of("warmup_ratio", 0.1, "warmup_steps", "0.1", ""), line_of("bf16", True, "precision", "bf16", "--")
    ('warmup_ratio is warmup_steps', '--bf16 true is --precision bf16')
    """
    same = is_same(value, meant)
    words = f"{dash}{name} is {dash}{ours}" if same else f"{dash}{name} {spelled(value)} is {dash}{ours} {meant}"
    return words + REMARKS.get(ours, "")


def spelled(value: object) -> str:
    """Spell a value of YAML or JSON as on the command line.

    >>> spelled(True), spelled("True"), spelled(["none"]), spelled(1e-4)
    ('true', 'true', 'none', '0.0001')
    """
    if isinstance(value, (list, tuple)):
        return ",".join(map(spelled, value))
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text


def is_number(text: str) -> bool:
    """Tell whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_share(text: str) -> bool:
    """Tell whether a text is a number from 0 to below 1."""
    return is_number(text) and 0 <= float(text) < 1


def is_same(one: object, other: object) -> bool:
    """Tell whether two values are the same number or the same text.

    >>> is_same("1e-4", 0.0001), is_same(True, "true"), is_same("a", "b")
    (True, True, False)
    """
    one, other = spelled(one), spelled(other)
    return float(one) == float(other) if is_number(one) and is_number(other) else one == other
