"""Config files as people write them -> values of a table's options -> YAML that reads back as the same values.

A file holds either a script's options themselves or sections named after the scripts, of which each script reads its
own, so that one file can drive a whole experiment::

    train: {epochs: 15, batch_size: 8}
    generate: {topk: 8, nsamples: 10}

Beside the sections `book: NAME` may stand, once for all scripts that have it. Numbers and dates stay the text that the
file says (`12:30` is no count of minutes and `010` no octal number): the options themselves know what they are. A
duplicate key is an error, since one of the two would be ignored.
"""

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import Field
from pathlib import Path

from novelgpt.cli.aliases import NAMES, translate
from novelgpt.cli.table import describe_option, entries_of, is_switch, reader
from novelgpt.languages import localize
from novelgpt.messages import EXIT_USAGE, UserError, nearest_words

SECTIONS = ("train", "eval", "generate", "clean", "vocabulary", "tokenize", "convert")
SHARED = ("book",)  # options that may stand beside the sections


def read_options(
    path: str, table: type, *, section: str, beside: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Read the options that a YAML or JSON file gives to one script: name -> value; a null leaves the default.

    Args:
        path: of the file.
        table: the script's options.
        section: the script's section, for example "train".
        beside: what the command line gives, name -> value; the meaning of some foreign names depends on it.

    Raises:
        UserError: no such file, an unknown section or key (with the nearest name), a value of the wrong kind or range.
    """
    entries, values = entries_of(table), {}
    found = section_values(path, section, shared=[name for name in SHARED if name in entries])
    given = translate(found, section=section, path=path, beside=beside)
    for name, value in given.items():
        if name not in entries:
            nearest = nearest_words(str(name), list(entries), aliases=NAMES.get(section))
            raise UserError(f"{path}: unknown key {name}", nearest, EXIT_USAGE)
        if value is not None:
            values[name] = option_value(name, entries[name], value, path)
    return values


def section_values(path: str, section: str, *, shared: Collection[str] = ()) -> dict[str, object]:
    """Return the entries of a config file for one script, and those that it shares with others, as they stand there."""
    values = read_config(path)
    # a file of sections is recognised by a section name that holds a mapping or nothing
    if not any(name in SECTIONS and (isinstance(value, dict) or value is None) for name, value in values.items()):
        return values
    for name in values:
        if name not in SECTIONS + SHARED:
            raise UserError(f"{path}: unknown section {name}", nearest_words(str(name), SECTIONS), EXIT_USAGE)
    own = {} if values.get(section) is None else values[section]
    if not isinstance(own, dict):
        message = f"{path}: section {section}: found {own!r}, expected options"
        raise UserError(message, "write one `  option: value` a line below it", EXIT_USAGE)
    return {name: values[name] for name in shared if name in values} | own


def option_value(name: str, entry: Field, value: object, path: str) -> object:
    """Return an entry of a file as the command line would store it, or refuse it.

    >>> from novelgpt.cli import TrainOptions
    >>> option_value("device", entries_of(TrainOptions)["device"], [0, 1], "my.yaml")
    '0,1'
    """
    # a switch is true or false, all else is not
    switch, hint = is_switch(entry), f"see --{name} in --help"
    if isinstance(value, dict) or isinstance(value, bool) != switch:
        expected = "true or false" if switch else "one value"
        message = f"{path}: {name}: found {value!r}, expected {expected}"
        raise UserError(message, f"{name}: true" if switch else hint, EXIT_USAGE)
    if switch:
        return value
    items = value if isinstance(value, list) else [value]
    try:
        if entry.metadata["many"]:  # one value stands for a list of one
            return tuple(reader(entry)(str(item)) for item in items)
        # a list of numbers, such as the GPUs 0 and 1, is written with commas on the command line
        return reader(entry)(",".join(map(str, items)))
    except argparse.ArgumentTypeError as refusal:
        raise UserError(f"{path}: --{name}: {refusal}", hint, EXIT_USAGE) from None


def read_config(path: str) -> dict:
    """Read a YAML or JSON mapping, every value as the file says it.

    Raises:
        UserError: missing, not YAML or JSON, not a mapping, or a duplicate key.
    """
    from novelgpt.files import ready_file

    is_json = Path(path).suffix.lower() == ".json"
    try:
        text = Path(ready_file(path)).read_text(encoding="utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique_keys) if is_json else load_yaml(text)
    except OSError as problem:
        raise UserError(f"--config {path}: {problem.strerror}", "give a YAML or JSON file", EXIT_USAGE) from problem
    except UnicodeDecodeError as problem:
        message = f"--config {path}: not UTF-8 at byte {problem.start}"
        raise UserError(message, "save it as UTF-8", EXIT_USAGE) from problem
    except (ValueError, RecursionError) as problem:
        raise UserError(f"--config {path}: {problem}", "correct the file at that place", EXIT_USAGE) from problem
    if not isinstance(value, dict):
        message = f"--config {path}: found a {type(value).__name__}, expected a mapping"
        raise UserError(message, "write one `option: value` a line", EXIT_USAGE)
    return value


def unique_keys(pairs: list[tuple[object, object]]) -> dict:
    """Make a mapping of pairs; ValueError for a duplicate key."""
    mapping: dict = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key} appears twice")
        mapping[key] = value
    return mapping


def load_yaml(text: str) -> object:
    """Parse YAML; ValueError with line and column when it is not YAML."""
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader, except for numbers, dates and duplicate keys."""

    # numbers and dates stay text
    dropped = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in dropped]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(loader, node):
        # duplicates within the mapping are refused; keys merged by `<<: *other` may be overridden
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        unique_keys([(loader.construct_object(key, deep=True), None) for key in own])
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:map", construct_mapping)
    try:
        return Loader(text).get_single_data()
    except yaml.YAMLError as problem:
        raise ValueError(" ".join(str(problem).split())) from problem
    except TypeError as problem:
        raise ValueError(f"a key is no single value: {problem}") from problem


def spell_yaml(value: object, *, readable: bool = True) -> str:
    """Write a value as YAML on one line that reads back as the same value; ASCII only unless readable."""
    import yaml

    settings = {"allow_unicode": readable, "default_flow_style": True, "width": 10**6}
    text = yaml.safe_dump(value, **settings).removesuffix("...\n").removesuffix("\n")
    # line breaks, of which Unicode has several, are folded unless written as escapes
    if len(text.splitlines()) > 1:
        text = yaml.safe_dump(value, default_style='"', **settings).removesuffix("\n")
    return text


def print_options(options, section: str) -> None:
    """Print every option as YAML under the script's section, its help as a comment."""
    is_readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"  # a file is read as UTF-8
    lines = [f"{section}:"]
    for name, entry in entries_of(type(options)).items():
        words = describe_option(entry)
        comment = localize(words) if is_readable else words.encode("ascii", "backslashreplace").decode()
        value = getattr(options, entry.name)
        value = list(value) if entry.metadata["many"] else value
        lines += [f"  # {comment}", f"  {name}: {spell_yaml(value, readable=is_readable)}"]
    print("\n".join(lines))
