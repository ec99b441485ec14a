"""P: what is shipped, what it needs, and what its source may not do."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PUBLIC = "this project has no public home yet, from which it would be audited, published or rated"
CASES: list[None] = []
ALONE = {
    "P04": "test_the_floors_that_make_installs_are_those_that_are_promised",
    "P06": "test_a_wheel_is_the_same_every_time",
    "P08": "test_vulnerabilities_have_an_address",
    "P09": "test_no_source_evaluates_or_unpickles",
}
ELSEWHERE = {
    "P07": "test_package.py::test_the_wheel_holds_one_package_and_the_demo",
    "P11": "test_package.py::test_imports_are_light",
}
NOT_HERE = {
    "P01": "there is no workflow to audit: CI is one script, .ci/run, and two targets of make",
    "P02": "needs a data base of vulnerabilities, which CI cannot reach; `pip-audit` in an installed environment asks it",
    "P03": "a library pins no versions for its users; their lock file does, and floors are tested (P04)",
    "P05": PUBLIC,
    "P10": PUBLIC,
    "P12": PUBLIC,
}


def test_the_floors_that_make_installs_are_those_that_are_promised() -> None:
    """`make floors` runs the suite on the oldest versions: those of pyproject, or `.*` of their series."""
    (line,) = re.findall(r"^FLOORS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = dict(re.findall(r"([\w-]+)==([\d.]+?)(?:\.\*)?(?:\s|$)", line))
    promised = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["volumes"]]
    said = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", d).groups() for d in promised)  # type: ignore[union-attr]
    assert len(made) >= 9
    for name, version in made.items():
        assert (version + ".0").startswith(said[name] + ".") or version == said[name], name


def test_a_wheel_is_the_same_every_time(tmp_path: Path) -> None:
    """Built in two folders at two times, from copies whose files are of other dates."""
    digests = set()
    for k in range(2):
        source = tmp_path / f"source {k}"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / "ensemble_kit", source / "ensemble_kit", copy_function=shutil.copyfile,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        for path in source.rglob("*"):
            os.utime(path, (10**9 + k * 10**8,) * 2)
        build = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            source / "dist",
            source,
        ]
        subprocess.run(build, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
        (wheel,) = (source / "dist").glob("*.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_vulnerabilities_have_an_address() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for words in ("## What is promised", "## What can run code", "## Reporting", "report a vulnerability privately"):
        assert words in text, words


def test_no_source_evaluates_or_unpickles() -> None:
    """ruff's bandit rules stand in the lint; these hold whatever a line asks it to ignore.

    But for the cache of machine code, which is a pickle behind a checksum, in the user's own folder (X33, X38), and for
    work that a process sends to the workers of its own pool or cluster, who unpickle whatever it sends.
    """
    modules, calls = {"pickle", "marshal", "shelve", "dill", "joblib", "yaml", "xmlrpc", "telnetlib"}, {"eval", "exec"}
    for path in sorted((ROOT / "ensemble_kit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and [a.name for a in node.names] != ["UnpicklingError"]:
                names.append(node.module or "")
            if path.name in {"jit.py", "task.py"} and names == ["pickle"]:
                continue
            assert not modules & {n.split(".")[0] for n in names}, path
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls), path
            trusting = (
                isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
            )
            assert not trusting, path
