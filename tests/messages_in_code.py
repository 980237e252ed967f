"""The code -> the messages that people see, each as a template: `{}` stands for every value.

From what say(), warn(), UserError and the like are given, the way goes back: through variables, both branches of a
condition, parts of lists, the values in an f-string, what functions of the package return, and what their callers give.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jinja2
from jinja2 import nodes

from novelgpt.languages import CONTEXT

# function -> the places of its arguments, and their names, that people read
SINKS = {
    "say": (0, "text"), "warn": (0, "text"), "shown": (0, "text"), "localize": (0, "text"), "word": (0, "text"),
    "UserError": (0, 1, "message", "hint"), "ArgumentTypeError": (0,), "ValueError": (0,), "Parser": (1,),
    "option": (1, "help"), "add_argument": ("help",),
}  # fmt: skip
SINKS |= dict.fromkeys(("python", "recorded", "sampling", "fixed", "changeable", "content", "free"), (1, "help"))
REPORTS = {"Decoded": (2, "reason"), "Notice": (2,), "Counter": (0,), "BookFacts": ("how", "reason")}
KEPT = ("how", "reason")  # attributes and keys that a report shows
COUNTED = ("counts", "repairs")  # counters whose keys it shows
TAKES = ("join", "list", "tuple", "sorted", "map", "filter", "printable")  # their text is that of their arguments
METHODS = ("removesuffix", "removeprefix", "strip", "items", "values", "get")  # and theirs that of their object too
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FILE = r"\S*[/_]\S*|\S+\.(?:py|txt|jsonl?|yaml|csv|html|gz)\b"
NOT_WORDS = re.compile(rf"--?[A-Za-z][\w-]*|\[[A-Za-z]+\]|{FILE}|\bSAMPLE\b|\w+=\S+|\{{\}}")
COMMAND = re.compile(r"(?:python|pip install|torchrun) (?:[^;,\n]|,\S)*|(?:--[\w{}-]+(?: [^\s;,-]+)? ?)+")
MACROS = ("fact", "table", "odd_characters")  # of pages, whose words they put into the reader's language
WORD = re.compile(r"[A-Za-z]{2}|\b[hs]\b")


class Messages:
    """All messages of a package.

    Attributes:
        templates: message -> file and line of one place where it stands.
        direct: those that stand where they are said.
    """

    def __init__(self, folder: Path):
        self.functions, self.calls, self.given = defaultdict(list), defaultdict(list), defaultdict(list)
        self.heirs = {}  # class -> what it is a kind of
        self.parents, self.paths, self.done, self.direct, self.templates = {}, {}, set(), set(), {}
        for path in sorted(folder.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.paths[tree] = path.relative_to(folder)
            nodes = list(ast.walk(tree))
            for node in nodes:
                self.parents.update(dict.fromkeys(ast.iter_child_nodes(node), node))
            for node in nodes:
                self.index(node)
        # what people are told, and what a report keeps for them
        sinks = SINKS | {heir: SINKS[name] for heir, name in self.heirs.items() if name in SINKS}
        for name, places in (sinks | REPORTS).items():
            for text in (text for call in self.calls[name] for text in arguments(call, places)):
                self.direct.update(part for words in literals(text) if name in sinks for part in paragraphs(words))
                self.collect(text)
        for text in [text for node in self.parents for text in kept_texts(node)]:
            self.collect(text)
        for call in self.calls["progress_bar"]:
            for words in (literals(text) for text in arguments(call, ("unit", "description"))):
                if needs_translation(words[0]):
                    self.add(f"bar{CONTEXT}{words[0]}", f"a bar, line {call.lineno}")
        for text, place in page_texts(folder / "pages/templates"):
            if needs_translation(text):
                self.add(text if " " in text else f"page{CONTEXT}{text}", place)

    def add(self, text: str, place: str) -> None:
        """Keep a text that stands where it is said."""
        self.direct.add(text)
        self.templates.setdefault(text, place)

    def index(self, node: ast.AST) -> None:
        """Note a function, a call, or what a statement gives to a variable."""
        if isinstance(node, FUNCTIONS):
            self.functions[node.name].append(node)
        elif isinstance(node, ast.Call):
            self.calls[called(node)].append(node)
        elif isinstance(node, ast.ClassDef):
            self.heirs.update((node.name, base.id) for base in node.bases if isinstance(base, ast.Name))
        for name, value in assignments(node):
            self.given[self.scope_of(node), name].append(value)

    def scope_of(self, node: ast.AST) -> ast.AST:
        """Return the function or the module that a node stands in."""
        node = self.parents[node]
        while not isinstance(node, (*FUNCTIONS, ast.Module)):
            node = self.parents[node]
        return node

    def collect(self, node: ast.expr) -> None:
        """Keep every template that an expression may be, and those of the values in it."""
        if node in self.done:
            return
        self.done.add(node)
        for template in (part for text in literals(node) for part in paragraphs(text)):
            if needs_translation(template):
                module = node
                while module in self.parents:
                    module = self.parents[module]
                self.templates.setdefault(template, f"{self.paths[module]}:{node.lineno}")
        for source in self.sources(node):
            self.collect(source)

    def sources(self, node: ast.expr) -> Iterator[ast.expr]:
        """Yield the expressions that the values of an expression come from."""
        match node:
            case ast.JoinedStr():
                yield from (part.value for part in node.values if isinstance(part, ast.FormattedValue))
            case ast.IfExp():
                yield from (node.body, node.orelse)
            case ast.BoolOp():
                yield from node.values
            case ast.BinOp(op=ast.Add()):  # the words themselves are in the template of both sides
                for side in (node.left, node.right):
                    yield from self.sources(side) if literals(side) else [side]
            case ast.List() | ast.Tuple():
                yield from node.elts
            case ast.ListComp() | ast.GeneratorExp():
                yield node.elt
            case ast.DictComp():
                yield from (node.key, node.value)
            case ast.Dict():
                yield from (part for part in (*node.keys, *node.values) if part)
            case ast.Subscript() | ast.Starred():
                yield node.value
            case ast.Call():
                yield from self.call_sources(node)
            case ast.Name():
                yield from self.name_sources(node)
            case ast.Attribute():
                yield from self.returned([part for part in self.functions[node.attr] if part.decorator_list])

    def call_sources(self, node: ast.Call) -> Iterator[ast.expr]:
        """Yield what a call returns: of `", ".join(...)` the parts, of a function of ours what it returns."""
        name = called(node)
        if name in TAKES:
            yield from node.args
        elif name in METHODS and isinstance(node.func, ast.Attribute):
            yield from (node.func.value, *node.args[1:])
        elif len(self.functions[name]) <= 3:  # else it is a name such as "write"
            yield from self.returned(self.functions[name])

    def returned(self, functions: list[ast.FunctionDef]) -> Iterator[ast.expr]:
        """Yield what functions return."""
        parts = (part for function in functions for part in ast.walk(function))
        yield from (part.value for part in parts if isinstance(part, (ast.Return, ast.Yield)) and part.value)

    def name_sources(self, node: ast.Name) -> Iterator[ast.expr]:
        """Yield what a variable may be: what is given to it where it is known, what callers give for a parameter."""
        scope = self.scope_of(node)
        while not isinstance(scope, ast.Module):
            yield from self.given[scope, node.id]
            names = [argument.arg for argument in scope.args.args]
            if node.id in names + [argument.arg for argument in scope.args.kwonlyargs]:
                place = (names.index(node.id) - (names[0] == "self"),) if node.id in names else ()
                name = self.parents[scope].name if scope.name == "__init__" else scope.name
                yield from (text for call in self.calls[name] for text in arguments(call, (node.id, *place)))
                return
            if self.given[scope, node.id]:
                return
            scope = self.scope_of(scope)
        yield from [scope.body[0].value] if node.id == "__doc__" else self.given[scope, node.id]


def literals(node: ast.expr) -> list[str]:
    """Return the template that the literals of an expression make, where there is any."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr():
            return ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)]
        case ast.BinOp(op=ast.Add()):
            sides = [literals(side) for side in (node.left, node.right)]
            return ["".join(side[0] if side else "{}" for side in sides)]
    return []


def kept_texts(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a node gives to a report."""
    match node:
        case ast.Assign(targets=[target]):
            yield from (value for place, value in pairs_of(target, node.value) if getattr(place, "attr", "") in KEPT)
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            yield from (value for key, value in pairs if getattr(key, "value", "") in KEPT)
        case ast.Subscript(value=ast.Attribute(attr=name) | ast.Name(id=name)) if name in COUNTED:
            yield node.slice


def page_texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what pages say, as templates, and where: what goes through the filters `word` and `named`, here or in a macro."""
    for path in sorted(folder.glob("*.html")):
        tree = jinja2.Environment().parse(path.read_text(encoding="utf-8"))
        found = [part.node for part in tree.find_all(nodes.Filter) if part.name in ("word", "named")]
        calls = [part for part in tree.find_all(nodes.Call) if getattr(part.node, "name", "") in MACROS]
        for argument in (argument for call in calls for argument in call.args):
            found += argument.items if isinstance(argument, nodes.List) else [argument]
        texts = ((text, part.lineno) for part in found for words in page_template(part) for text in paragraphs(words))
        yield from ((text, f"pages/templates/{path.name}:{line}") for text, line in texts)


def page_template(node: nodes.Node) -> list[str]:
    """Return the templates that an expression of a page makes."""
    match node:
        case nodes.Const(value=str(text)):
            return [text]
        case nodes.CondExpr():
            return [text for side in (node.expr1, node.expr2) for text in page_template(side)]
        case nodes.Concat():
            return ["".join((page_template(part) or ["{}"])[0] for part in node.nodes)]
    return []


def pairs_of(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Return each target of an assignment with what it gets."""
    if not isinstance(target, ast.Tuple):
        return [(target, value)]
    is_one_each = isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts)
    return list(zip(target.elts, value.elts if is_one_each else [value] * len(target.elts), strict=True))


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names of the variables to which a node assigns, adds or appends something, and what."""
    pairs = []
    match node:
        case ast.Assign():
            pairs = [pair for target in node.targets for pair in pairs_of(target, node.value)]
        case ast.AugAssign() | ast.AnnAssign() | ast.NamedExpr():
            pairs = [(node.target, node.value)]
        case ast.For() | ast.comprehension():
            targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
            pairs = [(target, node.iter) for target in targets]
        case ast.Call(func=ast.Attribute(attr="append" | "extend", value=target)):
            pairs = [(target, value) for value in node.args]
    for target, value in pairs:
        target = target.value if isinstance(target, (ast.Subscript, ast.Starred)) else target
        if isinstance(target, ast.Name) and value:
            yield target.id, value


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def arguments(call: ast.Call, places: tuple[int | str, ...]) -> list[ast.expr]:
    """Return the arguments of a call at these places or of these names."""
    found = [call.args[place] for place in places if isinstance(place, int) and place < len(call.args)]
    return found + [entry.value for entry in call.keywords if entry.arg in places]


def paragraphs(text: str) -> list[str]:
    r"""Return the messages in a text without what separates them from others.

    >>> paragraphs("; {} more"), paragraphs("hint: "), paragraphs("Writes on.\n\n    python generate.py\n")
    (['{} more'], ['hint: '], ['Writes on.', 'python generate.py'])
    """
    parts = [part.strip("\n") for part in text.split("\n\n")]
    parts = [line for part in parts for line in (part.split("\n") if part.lstrip().startswith("python ") else [part])]
    parts = [re.sub(r"(\{\})+", "{}", re.sub(r"^[,;] ", "", part.lstrip())) for part in parts]
    return [part if part.endswith(": ") and "{}" not in part else part.rstrip(" ,;") for part in parts]


def needs_translation(template: str) -> bool:
    """Tell whether a template has English words: not only flags with their values, paths, commands and `{}`.

    >>> [needs_translation(text) for text in ("--lr_end {}", "python train.py --raw", "{}: {}", "{} tokens")]
    [False, False, False, True]
    """
    return not COMMAND.fullmatch(template) and bool(WORD.search(NOT_WORDS.sub("", template)))
