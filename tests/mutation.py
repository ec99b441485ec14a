"""Mutation testing of the algebra of masks and of the votes: `make mutation`, or `python tests/mutation.py ManyRuns`.

One small change of the source at a time: a comparison, an operator, a number, a condition turned round, a check taken
out. The tests must notice each. Every mutant is a fork of a process that has imported everything else, so that one
costs a second or two. A survivor is either killed by a new test or stands in `EXPLAINED` with its reason; the script
fails where one does neither. Modules and mutants are named by what they define and by the function, wherever either
stands: nothing here changes when a function moves.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "ensemble_kit"
RESULT = HERE.parent / ".mutation.json"
"""What the last run counted; `figures.py --only gates` puts it into the page."""
_MASKS = ("test_runs.py", "faults/test_rle.py", "test_refusals.py")
TESTS = {
    "Runs": _MASKS,
    "ManyRuns": _MASKS,
    "parse_counts": _MASKS,
    "hard_vote": ("test_voting.py", "test_refusals.py", "test_plurality.py"),
    "VoteWeights": ("test_voting.py", "test_refusals.py"),
}
"""The tests that have to notice, by a class or function of the module in question."""
SKIPPED = "not test_formats and not test_stacks and not test_stores"
"""Tests of that file which look elsewhere."""
LIMIT = 120.0
"""Seconds until a mutant that never ends counts as noticed."""
EXPLAINED = {
    "Runs.decode: for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):  [True → False]": "a mask has as many starts as ends since it was made",
    "Runs.__invert__: return Runs.trusted((np.zeros(1, np.int64), np.full(1, math.prod(self.shape), np.int64)), self.shape) - self  [1 → 2]": "the kernel counts runs by their starts; a longer array of ends is not looked at",
    "encode: if array.flags.f_contiguous and (not array.flags.c_contiguous):  [array.flags.f_contiguous and (not array.flags.c_contiguous) → array.flags.f_contiguous or not array.flags.c_contiguous]": "the other way gives the same mask, and takes longer",
    "encode: if array.flags.f_contiguous and (not array.flags.c_contiguous):  [not array.flags.c_contiguous → array.flags.c_contiguous]": "the other way gives the same mask, and takes longer",
    "encode: laid = Runs.trusted(kernels.encode_bytes(array.T.reshape(-1).view(np.uint8)), (W, H))  [1 → 2]": "NumPy takes any negative length for the one that is not known",
    "encode: flat = np.ascontiguousarray(array).reshape(-1)  [1 → 2]": "NumPy takes any negative length for the one that is not known",
    "ManyRuns.joined: starts, ends, counts = zip(*((m.starts, m.ends, np.diff(m.offsets)) for m in several), strict=True)  [True → False]": "every one gives three arrays",
    "texts: cuts = np.clip(np.arange(len(masks) + 2) - 1, 0, len(masks) - 1)  [2 → 3]": "the kernel counts the texts by their masks; a longer array of cuts is not looked at",
    "_fault: value = int(digits[:20])  [20 → 21]": "21 digits are beyond any image as well",
    "_voted: indices = [m.indices(first.samples, first.classes).reshape(-1) for m in masks]  [1 → 2]": "NumPy takes any negative length for the one that is not known",
    "_voted: members = np.empty((len(masks), 4), np.int64)  [4 → 5]": "the kernel reads the first four columns",
    "_voted: for given, own, where in zip(masks, members, indices, strict=True):  [True → False]": "all three are made of the same members",
    "hard_vote: heard = [m for m, weight in zip(masks, weights, strict=True) if weight]  [True → False]": "there is a weight for each member",
    "VoteWeights.of: if sum(known) * unit > _MOST:  [sum(known) * unit > _MOST → sum(known) * unit >= _MOST]": "2^60 itself is as far from an overflow as what is below it",
}
"""Survivors that no test can notice, as the report names them, and why: the function, the statement, the change."""

COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
COUNTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
           ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module with one change; what did not change is shared with the others."""

    line: int
    name: str
    tree: ast.Module


def home(name: str) -> Path:
    """Find the module that defines a class or function at its top."""
    sources = ((path, path.read_text()) for path in PACKAGE.rglob("*.py"))
    found = [path for path, source in sources if name in source and name in _defined(ast.parse(source))]
    assert len(found) == 1, f"{name} is defined in {found}"
    return found[0]


def _defined(tree: ast.Module) -> set[str]:
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def mutants(source: str) -> Iterator[Mutant]:
    """Make every mutant of a module: only what its functions do, neither their types nor the words of messages."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    working, statements = _working(nodes), _statements(tree)
    places = {id(child): (node, *place) for node in nodes for *place, child in _children(node)}
    for k, node in enumerate(nodes):
        if k not in working:
            continue
        for change in range(_changes(node)):
            mutated = copy.deepcopy(node)
            new, what = _change(mutated, change)
            if what:
                name = f"{statements[id(node)]}  [{what}]"
                yield Mutant(node.lineno, name, _with(node, new, places))  # type: ignore[attr-defined]


def _children(node: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    """Yield each child with the field that holds it, and its number where that is a list."""
    for field, value in ast.iter_fields(node):
        for k, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield field, k, child


def _with(old: ast.AST, new: ast.AST, places: dict[int, tuple[ast.AST, str, int | None]]) -> ast.Module:
    """Put another node in the place of one: a tree that shares all but the nodes above it."""
    while id(old) in places:
        old, field, k = places[id(old)]
        value = getattr(old, field)
        above = copy.copy(old)
        setattr(above, field, new if k is None else [*value[:k], new, *value[k + 1 :]])
        new = above
    assert isinstance(new, ast.Module)
    return new


def _statements(tree: ast.Module) -> dict[int, str]:
    """Say of each node in which function and statement it stands: `Runs.decode: out[start:end] = True`."""
    found: dict[int, str] = {}

    def enter(node: ast.AST, qualname: str, statement: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            qualname = f"{qualname}.{node.name}".lstrip(".")
        elif isinstance(node, ast.stmt):
            statement = f"{qualname}: {ast.unparse(node).splitlines()[0]}"
        found[id(node)] = statement
        for child in ast.iter_child_nodes(node):
            enter(child, qualname, statement)

    enter(tree, "", "")
    return found


def _working(nodes: list[ast.AST]) -> set[int]:
    """Number the nodes inside functions, without annotations, defaults, docstrings and what only makes a message."""
    kept: set[int] = set()

    def take(node: ast.AST) -> None:
        kept.add(id(node))
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.JoinedStr | ast.arguments) and child is not getattr(node, "annotation", None):
                take(child)

    for function in nodes:
        if isinstance(function, ast.FunctionDef) and function.name not in {"__repr__", "__hash__"}:
            for statement in function.body:
                if isinstance(statement, ast.Raise):
                    kept.add(id(statement))
                else:
                    take(statement)
    messages = {id(n) for r in nodes if isinstance(r, ast.Raise) for n in ast.walk(r) if n is not r}
    return {k for k, n in enumerate(nodes) if id(n) in kept - messages}


def _changes(node: ast.AST) -> int:
    kinds = (
        ast.Compare,
        ast.BinOp,
        ast.AugAssign,
        ast.BoolOp,
        ast.UnaryOp,
        ast.Constant,
        ast.If,
        ast.IfExp,
        ast.Raise,
        ast.Expr,
    )
    return len(node.ops) if isinstance(node, ast.Compare) else int(isinstance(node, kinds))


def _change(node: ast.AST, which: int) -> tuple[ast.AST, str]:
    """Change a node; return what takes its place, and how to say it, or "" where there is nothing to change."""
    before = ast.unparse(node)
    if isinstance(node, ast.Compare):
        node.ops[which] = COMPARED[type(node.ops[which])]()
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        if type(node.op) not in COUNTED:
            return node, ""
        node.op = COUNTED[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp):
        node = node.operand
    elif isinstance(node, ast.Constant):
        if type(node.value) not in {int, bool}:
            return node, ""
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.If | ast.IfExp):
        if isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            return node, ""  # they have mutants of their own
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return node, f"if {ast.unparse(node.test)}"
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return ast.Pass(), "taken out"
    else:
        return node, ""
    return node, f"{before} → {ast.unparse(node)}"


class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutant in the module's place."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.module, self.path, self.tree = module, path, tree

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.module else None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(ast.fix_missing_locations(self.tree), str(self.path), "exec"), module.__dict__)


def survives(module: str, path: Path, mutant: Mutant, tests: list[str]) -> bool:
    """Run the tests in a fork with the mutant in place; tell whether all pass."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            with Path(os.environ.get("ENSK_MUTANT_LOG", os.devnull)).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            sys.meta_path.insert(0, Importer(module, path, mutant.tree))
            import pytest

            quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider"]
            code = pytest.main(["-x", "-q", "-m", "not slow", "-k", SKIPPED, *quiet, *tests])
        finally:
            sys.stdout.flush()
            os._exit(int(code))
    ended, until = 0, time.monotonic() + LIMIT
    while not ended and time.monotonic() < until:
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
        return False
    return os.waitstatus_to_exitcode(status) == 0


def warm() -> None:
    """Import what the tests need, but for the package's own modules above the kernels."""
    for name in ("hypothesis", "pandas", "pycocotools.mask", "pytest", "ensemble_kit.kernels.runs"):
        importlib.import_module(name)


def main() -> None:
    """Try every mutant of the modules; fail where a survivor is not explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS], default=[], help="by what they define")
    parser.add_argument("--function", help="only mutants of this function, such as parse_counts or Runs.decode")
    given = parser.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp()
    os.environ["ENSK_EXAMPLES"] = "10"
    warm()
    failed, told = False, dict[str, dict[str, int]]()
    for subject in given.modules or TESTS:
        path = home(subject)
        short = path.relative_to(PACKAGE).with_suffix("").as_posix()
        module = f"ensemble_kit.{short.replace('/', '.')}"
        tests = [str(HERE / t) for t in TESTS[subject]]
        tried = [m for m in mutants(path.read_text()) if not given.function or m.name.startswith(f"{given.function}: ")]
        tried.sort(key=lambda m: m.line)
        unchanged = Mutant(0, "", ast.parse(path.read_text()))
        assert survives(module, path, unchanged, tests), "the tests fail without a mutant"
        left = []
        for mutant in tried:
            if survives(module, path, mutant, tests):
                left.append(mutant.name)
                print(
                    f"{short}.py:{mutant.line}: {mutant.name}{'  (explained)' if mutant.name in EXPLAINED else ''}",
                    flush=True,
                )
        assert survives(module, path, unchanged, tests), "by now the tests fail without a mutant: none of this counts"
        known = len([m for m in left if m in EXPLAINED])
        print(f"{short}: {len(tried)} mutants, {len(left)} survive, {known} of them explained")
        told[short] = {"mutants": len(tried), "survivors": len(left), "explained": known}
        failed |= known < len(left)
    if not given.function:
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps({**kept, **told}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
