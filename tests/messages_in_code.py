"""The code -> the messages that people see, each as a template: `{}` stands for every value.

From what say(), warn(), UserError and the like are given, the way goes back: through variables, both branches of a
condition, parts of lists, the values in an f-string, what functions of the package return, and what their callers give.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

# function -> the places of its arguments, and their names, that people read
SINKS = {
    "say": (0, "text"), "warn": (0, "text"), "shown": (0, "text"), "localize": (0, "text"),
    "UserError": (0, 1, "message", "hint"), "ArgumentTypeError": (0,), "ValueError": (0,),
    "progress_bar": ("unit", "description"), "Parser": (1,), "option": (1, "help"), "add_argument": ("help",),
}  # fmt: skip
SINKS |= dict.fromkeys(("python", "recorded", "sampling", "fixed", "changeable", "content", "free"), (1, "help"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
NOT_WORDS = re.compile(r"--?[A-Za-z][\w-]*|\[[A-Za-z]+\]|\S*[/_]\S*|\S+\.(?:py|txt|jsonl?|yaml|csv|html|gz)\b|\{\}")
COMMAND = re.compile(r"(?:python|pip install|torchrun) (?:[^;,]|,\S)*|(?:--[\w{}-]+(?: [^\s;,-]+)? ?)+")
WORD = re.compile(r"[A-Za-z]{2}")


class Messages:
    """All messages of a package."""

    def __init__(self, folder: Path):
        self.functions, self.calls = defaultdict(list), defaultdict(list)
        self.parents, self.paths, self.done, self.direct, self.templates = {}, {}, set(), set(), {}
        for path in sorted(folder.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.paths[tree] = path.relative_to(folder)
            for node in ast.walk(tree):
                self.parents |= {child: node for child in ast.iter_child_nodes(node)}
                if isinstance(node, FUNCTIONS[:2]):
                    self.functions[node.name].append(node)
                elif isinstance(node, ast.Call):
                    self.calls[called(node)].append(node)
        for name, places in SINKS.items():
            for call in self.calls[name]:
                for text in arguments(call, places):
                    self.direct |= {part for words in self.texts(text) for part in paragraphs(words)}
                    self.collect(text)

    def collect(self, node: ast.expr) -> None:
        """Keep every template that an expression may be, and those of the values in it."""
        if node in self.done:
            return
        self.done.add(node)
        for text in self.texts(node):
            for template in paragraphs(text):
                if needs_translation(template):
                    self.templates.setdefault(template, f"{self.paths[self.module_of(node)]}:{node.lineno}")
        for source in self.sources(node):
            self.collect(source)

    def module_of(self, node: ast.AST) -> ast.AST:
        """Return the module of a node."""
        while node in self.parents:
            node = self.parents[node]
        return node

    def texts(self, node: ast.expr) -> list[str]:
        """Return what the literals of an expression say."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else []
        if isinstance(node, ast.JoinedStr):
            return ["".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return ["".join(self.texts(side)[0] if self.texts(side) else "{}" for side in (node.left, node.right))]
        return []

    def sources(self, node: ast.expr) -> Iterator[ast.expr]:
        """Yield the expressions that the values of an expression come from."""
        match node:
            case ast.JoinedStr():
                yield from (part.value for part in node.values if isinstance(part, ast.FormattedValue))
            case ast.IfExp():
                yield from (node.body, node.orelse)
            case ast.BoolOp():
                yield from node.values
            case ast.BinOp(op=ast.Add()):
                yield from (side for side in (node.left, node.right) if not isinstance(side, (ast.Constant, ast.JoinedStr)))
                for side in (node.left, node.right):
                    if isinstance(side, ast.JoinedStr):
                        yield from self.sources(side)
            case ast.List() | ast.Tuple():
                yield from node.elts
            case ast.Starred():
                yield node.value
            case ast.ListComp() | ast.GeneratorExp():
                yield node.elt
            case ast.Dict():
                yield from (part for part in (*node.keys, *node.values) if part)
            case ast.Subscript():
                yield node.value
            case ast.Call():
                yield from self.call_sources(node)
            case ast.Name():
                yield from self.name_sources(node)

    def call_sources(self, node: ast.Call) -> Iterator[ast.expr]:
        """Yield what a call returns: of `", ".join(...)` the parts, of a function of ours what it returns."""
        name = called(node)
        if name in ("join", "list", "tuple", "sorted", "map", "filter"):
            yield from node.args
        elif name in ("removesuffix", "removeprefix", "strip", "items", "values") and isinstance(node.func, ast.Attribute):
            yield node.func.value
        elif name == "get" and isinstance(node.func, ast.Attribute):
            yield from (node.func.value, *node.args[1:])
        elif len(self.functions[name]) <= 3:
            for function in self.functions[name]:
                for part in ast.walk(function):
                    if isinstance(part, (ast.Return, ast.Yield)) and part.value:
                        yield part.value

    def name_sources(self, node: ast.Name) -> Iterator[ast.expr]:
        """Yield what a variable may be: what is assigned or added to it, what callers give for a parameter."""
        function = self.parents[node]
        while not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)):
            function = self.parents[function]
        if node.id == "__doc__":
            yield self.module_of(node).body[0].value
            return
        found = list(assignments(function, node.id))
        if not isinstance(function, ast.Module):
            names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
            if node.id in names or node.id in [argument.arg for argument in function.args.kwonlyargs]:
                offset = names[:1] in (["self"], ["cls"])
                place = names.index(node.id) - offset if node.id in names else None
                name = function.name
                if name == "__init__":
                    name = self.parents[function].name
                for call in self.calls[name]:
                    found += arguments(call, (node.id, *([] if place is None else [place])))
        if not found and not isinstance(function, ast.Module):
            found = [value for part in self.module_of(node).body for value in own_assignments(part, node.id)]
        yield from found


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def arguments(call: ast.Call, places: tuple[int | str, ...]) -> list[ast.expr]:
    """Return the arguments of a call at these places or of these names."""
    found = [call.args[place] for place in places if isinstance(place, int) and place < len(call.args)]
    return found + [entry.value for entry in call.keywords if entry.arg in places]


def assignments(function: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what is assigned, added or appended to a variable in a function."""
    for node in ast.walk(function):
        yield from own_assignments(node, name)


def own_assignments(node: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what one statement gives to a variable."""
    match node:
        case ast.Assign(value=value):
            for target in node.targets:
                if isinstance(target, ast.Tuple):
                    values = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
                    pairs = zip(target.elts, values, strict=True)
                    yield from (own for place, own in pairs if getattr(place, "id", "") == name)
                elif getattr(target, "id", "") == name or (
                    isinstance(target, ast.Subscript) and getattr(target.value, "id", "") == name
                ):
                    yield value
        case ast.AugAssign() | ast.AnnAssign() | ast.NamedExpr() if getattr(node.target, "id", "") == name and node.value:
            yield node.value
        case ast.For() | ast.comprehension():
            targets = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
            if name in [getattr(target, "id", "") for target in targets]:
                yield node.iter
        case ast.Call(func=ast.Attribute(attr="append" | "extend", value=ast.Name(id=found))) if found == name:
            yield from node.args


def paragraphs(text: str) -> list[str]:
    """Return the messages in a text without what separates them from others.

    >>> paragraphs("; {} more"), paragraphs("hint: "), paragraphs("Writes on.\\n\\n    python generate.py\\n\\nAnd on.\\n")
    (['{} more'], ['hint: '], ['Writes on.', 'python generate.py', 'And on.'])
    """
    parts = [re.sub(r"^[,;] ", "", part.strip("\n").lstrip()) for part in text.split("\n\n")]
    return [part if part.endswith(": ") else part.rstrip() for part in parts]


def needs_translation(template: str) -> bool:
    """Tell whether a template has English words: not only flags with their values, paths, commands and `{}`.

    >>> [needs_translation(text) for text in ("--lr_end {}", "python train.py --raw", "{}: {}", "{} tokens")]
    [False, False, False, True]
    """
    return not COMMAND.fullmatch(template) and bool(WORD.search(NOT_WORDS.sub("", template)))
