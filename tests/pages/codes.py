"""Find every error code in the source of the package: the class it is raised with, and what its messages say.

A code is the first argument of an error's class. Often it gets there through a function, which may stand in another
module, take the code as any of its parameters, and be called by yet another such function. So from each error that is
made, callers are followed backwards through the whole package until the code is a text. Where a function stands makes
no difference. Calls whose code cannot be told are listed as unclear, and a test wants none: no code drops out unseen.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import ensemble_kit
from ensemble_kit import errors

PACKAGE = Path(ensemble_kit.__file__).parent
KINDS = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.EnskError) and kind is not errors.EnskError
}
SIGNATURE = ("code", "what", "item", "fix")
BLANK = "…"
"""Stands in a message for what is known only when the error is raised."""
FIX = " · fix: "
REPORT = "error["
"""How a message begins that is reported without an error of ours."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Raised:
    """One way in which a code is raised: its exit code, what cannot be done, and the fix."""

    exit: int
    what: str
    fix: str


@dataclass(frozen=True)
class Module:
    """A module: what its functions, classes, imports and constants are, by name."""

    name: str
    functions: dict[str, list[Function]] = field(default_factory=dict)
    bases: dict[str, list[str]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, tree: ast.Module, nodes: Iterable[ast.AST]) -> Module:
        """Index a syntax tree, whose nodes were walked; imports inside functions count too."""
        module = cls(name)
        for node in nodes:
            if isinstance(node, Function):
                module.functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                module.bases[node.name] = [_name(b) for b in node.bases]
            elif isinstance(node, ast.ImportFrom) and node.module:
                module.imports.update({a.asname or a.name: (node.module, a.name) for a in node.names})
        for statement in tree.body:
            if isinstance(statement, ast.Assign):
                module.constants.update({t.id: statement.value for t in statement.targets if isinstance(t, ast.Name)})
        return module


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: its module, its function, and what was passed for the function's parameters."""

    module: Module
    function: Function | None = None
    passed: Mapping[str, tuple[ast.expr, Scope]] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """Names of the function's parameters, without `self`."""
        if self.function is None:
            return []
        a = self.function.args
        return [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in {"self", "cls"}]

    def replaced(self, old: Scope, new: Scope) -> Scope:
        """Put another scope in the place of one, also where it is that of what was passed."""
        if self is old:
            return new
        passed = {name: (expression, scope.replaced(old, new)) for name, (expression, scope) in self.passed.items()}
        return Scope(self.module, self.function, passed)

    def local(self, use: ast.Name) -> ast.expr | None:
        """Return what a name was assigned last before its use, in the function or at the top of the module.

        None where only a run tells, since a branch or a loop before it assigns the name.
        """
        for block, index in reversed(list(_blocks(self.function, use)) if self.function else []):
            for statement in reversed(block[:index]):
                if (value := _assigned(statement, use.id)) is not None:
                    return value
                if any(
                    isinstance(n, ast.Name) and n.id == use.id and isinstance(n.ctx, ast.Store)
                    for n in ast.walk(statement)
                ):
                    return None
        return self.module.constants.get(use.id)


class Codes:
    """The codes of a package.

    Parameters
    ----------
    sources : text of every module, by dotted name.

    Attributes
    ----------
    found : dict by code, every way in which it is raised.
    unclear : `module:line` of each error whose code cannot be told.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        trees = {name: ast.parse(text) for name, text in sources.items()}
        nodes = {name: list(ast.walk(tree)) for name, tree in trees.items()}
        self._modules = {name: Module.of(name, tree, nodes[name]) for name, tree in trees.items()}
        self._named: dict[str, list[Function]] = {}
        for name, own in (item for module in self._modules.values() for item in module.functions.items()):
            self._named.setdefault(name, []).extend(own)
        self._callers: dict[Function, list[tuple[ast.Call, Scope]]] = {}
        self._passed_about = {name for walked in nodes.values() for name in _values(walked)}
        self.found: dict[str, set[Raised]] = {}
        self.unclear: list[str] = []
        calls = [found for name, tree in trees.items() for found in _calls(tree, Scope(self._modules[name]))]
        for call, scope in calls:
            for function in self._functions(call.func, scope.module):
                self._callers.setdefault(function, []).append((call, scope))
        reporting = [module for name, module in self._modules.items() if REPORT in sources[name]]
        reporters = {f for m in reporting for own in m.functions.values() for f in own if _reports(f)}
        for call, scope in calls:
            if (exit_code := self._exit(call, scope)) is not None:
                self._follow(exit_code, _bound(call, SIGNATURE, scope), call, scope)
            elif reporters.intersection(self._functions(call.func, scope.module)):
                self._report(call, scope)

    def _follow(
        self,
        exit_code: int,
        parts: Mapping[str, tuple[ast.expr, Scope]],
        call: ast.Call,
        scope: Scope,
        path: tuple[Function, ...] = (),
    ) -> None:
        """Record the codes of an error; where the function around it was passed one, follow those who call it.

        They are followed too where it was passed all of what its message says.
        """
        codes = _leaves(*parts["code"]) if "code" in parts else []
        if not codes or not all(isinstance(leaf, (ast.Constant, ast.Name, ast.Attribute)) for leaf, _ in codes):
            self.unclear.append(f"{scope.module.name}:{call.lineno}")
            return
        messages = [leaf for p in ("what", "fix") if p in parts for leaf in _leaves(*parts[p])]
        for leaf, at in [*codes, *messages]:
            callers = self._callers.get(at.function, []) if at.function and at.function not in path else []
            if isinstance(leaf, ast.Name) and leaf.id in at.parameters and callers:
                for caller, there in callers:
                    passed = _defaults(at) | _bound(caller, at.parameters, there)
                    inside = Scope(at.module, at.function, passed)
                    moved = {p: (e, s.replaced(at, inside)) for p, (e, s) in parts.items()}
                    self._follow(exit_code, moved, call, scope, (*path, at.function))
                return
        for leaf, at in codes:
            if isinstance(leaf, ast.Constant):
                texts = [_variants(*parts[p]) if p in parts else [BLANK] for p in ("what", "fix")]
                ways = {Raised(exit_code, what, fix) for what, fix in itertools.product(*texts)}
                self.found.setdefault(leaf.value, set()).update(ways)
            elif isinstance(leaf, ast.Name) and at.function and at.function.name not in self._passed_about:
                continue  # a function that nobody calls raises nothing
            elif not (isinstance(leaf, ast.Attribute) and leaf.attr == "code"):  # which raises the same error again
                self.unclear.append(f"{scope.module.name}:{call.lineno}")

    def _report(self, call: ast.Call, scope: Scope) -> None:
        """Record a code that is reported without an error of ours: its message and exit code are arguments."""
        values = [leaf.value for a in call.args for leaf, _ in _leaves(a, scope) if isinstance(leaf, ast.Constant)]
        exits = [v for v in values if isinstance(v, int)]
        texts = [text for a in call.args for text in _variants(a, scope) if FIX in text]
        for code in (v for v in values if isinstance(v, str) and v not in texts):
            for what, _, fix in (text.partition(FIX) for text in texts):
                self.found.setdefault(code, set()).add(Raised(exits[0], what.partition(": ")[0], fix))

    def _exit(self, call: ast.Call, scope: Scope) -> int | None:
        """Return the exit code of the error that a call makes; None where it makes none."""
        kind = self._kind(_name(call.func), scope.module)
        is_error = {"item", "fix"} <= {k.arg for k in call.keywords} and scope.module.name != errors.__name__
        if kind is None and is_error and not self._functions(call.func, scope.module):
            self.unclear.append(f"{scope.module.name}:{call.lineno}")
        return KINDS.get(kind or "")

    def _kind(self, name: str, module: Module) -> str | None:
        """Return the class of `errors` that a name is, or is a child of."""
        home, original = module.imports.get(name, (module.name, name))
        if home == errors.__name__ and original in KINDS:
            return original
        bases = self._modules[home].bases.get(original, []) if home in self._modules else []
        return next((kind for base in bases if (kind := self._kind(base, self._modules[home]))), None)

    def _functions(self, callee: ast.expr, module: Module) -> list[Function]:
        """Return the functions that a callee can be: of its module, of where it is imported from, else of its name."""
        name = _name(callee)
        if isinstance(callee, ast.Attribute):
            home = ".".join(module.imports.get(_name(callee.value), ("", "")))
            if home in self._modules:
                return self._modules[home].functions.get(name, [])
        elif name in module.imports:
            home, original = module.imports[name]
            if home in self._modules and (own := self._modules[home].functions.get(original)):
                return own
            name = original
        if name in module.functions:
            return module.functions[name]
        return self._named.get(name, [])


@cache
def used() -> Codes:
    """Read the package as it stands."""
    paths = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
    return Codes({name.removesuffix(".__init__"): path.read_text() for name, path in paths.items()})


def _calls(tree: ast.AST, scope: Scope) -> Iterator[tuple[ast.Call, Scope]]:
    """Walk a tree's calls, each with the innermost function around it."""
    waiting = [(tree, scope)]
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, ast.Call):
            yield node, around
        inside = Scope(around.module, node) if isinstance(node, Function) else around
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _values(nodes: list[ast.AST]) -> set[str]:
    """Names that are used as values, not called: a function among them may be called by whoever gets it."""
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    used = (n for n in nodes if isinstance(n, (ast.Name, ast.Attribute)) and id(n) not in called)
    return {_name(node) for node in used if isinstance(node.ctx, ast.Load)}


def _reports(function: Function) -> bool:
    """Tell whether a function writes `error[CODE]` for a code that it was passed."""
    return any(
        isinstance(text, ast.JoinedStr) and isinstance(text.values[0], ast.Constant) and text.values[0].value == REPORT
        for text in ast.walk(function)
    )


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _blocks(node: ast.AST, use: ast.Name) -> Iterator[tuple[list[ast.stmt], int]]:
    """Walk the lists of statements around a name, from the outside in, each with the index of the statement inside."""
    for _, children in ast.iter_fields(node):
        for index, child in enumerate(children if isinstance(children, list) else []):
            if isinstance(child, ast.AST) and any(n is use for n in ast.walk(child)):
                if isinstance(child, ast.stmt):
                    yield children, index
                yield from _blocks(child, use)


def _assigned(statement: ast.stmt, name: str) -> ast.expr | None:
    """Return what a statement assigns to a name, alone or in a tuple."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=True)
        return next((v for t, v in pairs if isinstance(t, ast.Name) and t.id == name), None)
    return value if isinstance(target, ast.Name) and target.id == name else None


def _bound(call: ast.Call, parameters: list[str] | tuple[str, ...], scope: Scope) -> dict[str, tuple[ast.expr, Scope]]:
    """Match a call's arguments with parameters."""
    given = dict(zip(parameters, call.args, strict=False)) | {k.arg: k.value for k in call.keywords if k.arg}
    return {name: (value, scope) for name, value in given.items()}


def _defaults(scope: Scope) -> dict[str, tuple[ast.expr, Scope]]:
    """Return what stands for the parameters of a function that a call does not pass."""
    assert scope.function is not None
    a, outside = scope.function.args, Scope(scope.module)
    positional = [p.arg for p in (*a.posonlyargs, *a.args)]
    given = dict(zip(positional[len(positional) - len(a.defaults) :], a.defaults, strict=True))
    given |= {p.arg: d for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True) if d is not None}
    return {name: (value, outside) for name, value in given.items()}


def _leaves(node: ast.expr, scope: Scope) -> list[tuple[ast.expr, Scope]]:
    """What an expression can be: through conditions, names that are assigned once, and parameters that were passed."""
    if isinstance(node, ast.IfExp):
        return [*_leaves(node.body, scope), *_leaves(node.orelse, scope)]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        found: list[tuple[ast.expr, Scope]] = []
        for value in node.values:
            leaves = _leaves(value, scope)
            found += [(leaf, at) for leaf, at in leaves if not isinstance(leaf, ast.Constant) or leaf.value]
            if all(isinstance(leaf, ast.Constant) and leaf.value for leaf, _ in leaves):
                break  # it is never empty, so what comes after it is never taken
        return found
    if isinstance(node, ast.Name):
        if node.id in scope.passed:
            return _leaves(*scope.passed[node.id])
        if node.id not in scope.parameters and (value := scope.local(node)) is not None:
            return _leaves(value, scope)
    return [(node, scope)]


def _variants(node: ast.expr, scope: Scope) -> list[str]:
    """Write a message with a blank for each value that is known only later; one text for each side of a condition."""
    out = []
    for leaf, at in _leaves(node, scope):
        if isinstance(leaf, ast.Constant):
            out.append(str(leaf.value))
        elif isinstance(leaf, ast.JoinedStr):
            out += map("".join, itertools.product(*(_variants(v, at) for v in leaf.values)))
        elif isinstance(leaf, ast.FormattedValue):
            out += _variants(leaf.value, at) if isinstance(leaf.value, (ast.Name, ast.IfExp, ast.Constant)) else [BLANK]
        elif isinstance(leaf, ast.BinOp) and isinstance(leaf.op, ast.Add):
            out += map("".join, itertools.product(_variants(leaf.left, at), _variants(leaf.right, at)))
        else:
            out.append(BLANK)
    return list(dict.fromkeys(re.sub(f"{BLANK}(,? *(or )?{BLANK})+", BLANK, text) for text in out))
