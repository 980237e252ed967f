"""Config files as people write them -> a mapping; values -> YAML that reads back as the same values.

Numbers and dates stay the text that the file says (`12:30` is no count of minutes and `010` no octal number): the
options themselves know what they are. A key that stands twice is an error, since one of the two would be ignored.
"""

import json
from pathlib import Path

from novelgpt.messages import EXIT_USAGE, UserError


def read_config(path: str) -> dict:
    """Read a YAML or JSON mapping; every value stays what the file says.

    Raises:
        UserError: missing, not YAML or JSON, not a mapping, or a key stands twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise UserError(f"--config {path}: {problem.strerror}", "give a YAML or JSON file", EXIT_USAGE) from problem
    except UnicodeDecodeError as problem:
        raise UserError(
            f"--config {path}: not UTF-8 at byte {problem.start}", "save it as UTF-8", EXIT_USAGE
        ) from problem
    try:
        is_json = Path(path).suffix.lower() == ".json"
        value = json.loads(text, object_pairs_hook=unique_keys) if is_json else load_yaml(text)
    except (ValueError, RecursionError) as problem:
        raise UserError(f"--config {path}: {problem}", "correct the file at that place", EXIT_USAGE) from problem
    if not isinstance(value, dict):
        hint = "write one `option: value` a line"
        raise UserError(f"--config {path}: found a {type(value).__name__}, expected a mapping", hint, EXIT_USAGE)
    return value


def unique_keys(pairs: list[tuple[object, object]]) -> dict:
    """Make a mapping of pairs; ValueError when a key stands twice.

    >>> unique_keys([("lr", 1), ("epochs", 2)])
    {'lr': 1, 'epochs': 2}
    """
    mapping: dict = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key} stands twice")
        mapping[key] = value
    return mapping


def load_yaml(text: str) -> object:
    """Parse YAML; ValueError with line and column when it is not YAML.

    >>> load_yaml("until: 12:30\\nlr: 1e-4\\nraw: true")
    {'until': '12:30', 'lr': '1e-4', 'raw': True}
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's safe loader, but for numbers, dates and keys that stand twice."""

    dropped = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in dropped]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(loader, node):
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        unique_keys([(loader.construct_object(key, deep=True), None) for key in own])
        loader.flatten_mapping(node)  # `<<: *other`, whose keys may stand again
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:map", construct_mapping)
    try:
        return Loader(text).get_single_data()
    except yaml.YAMLError as problem:
        raise ValueError(" ".join(str(problem).split())) from problem
    except TypeError as problem:
        raise ValueError(f"a key is no single value: {problem}") from problem


def spell_yaml(value: object, *, readable: bool = True) -> str:
    r"""Write a value as YAML on one line that reads back as the same value.

    Args:
        value: None, bool, number, text, or a list of texts.
        readable: leave Chinese as it is; False writes ASCII only.

    >>> spell_yaml("井，一斗"), spell_yaml("a\nb"), spell_yaml(None), spell_yaml("")
    ('井，一斗', '"a\\nb"', 'null', "''")
    """
    import yaml

    settings = {"allow_unicode": readable, "default_flow_style": True, "width": 10**6}
    text = yaml.safe_dump(value, **settings).removesuffix("...\n").removesuffix("\n")
    if len(text.splitlines()) > 1:  # line breaks, of which Unicode has several, are folded unless written as escapes
        text = yaml.safe_dump(value, default_style='"', **settings).removesuffix("\n")
    return text
