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

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CASES: list[None] = []
ALONE = {
    "P04": "test_the_floors_that_make_installs_are_those_that_are_promised",
    "P06": "test_a_release_is_the_same_every_time",
    "P08": "test_vulnerabilities_have_an_address",
    "P09": "test_no_source_evaluates_or_unpickles",
}
ELSEWHERE = {
    "P01": "test_release.py::test_workflows_pass_a_pedantic_audit",
    "P05": "test_release.py::test_one_job_publishes_and_builds_nothing",
    "P07": "test_package.py::test_the_wheel_holds_one_package_and_the_demo",
    "P10": "test_release.py::test_the_list_of_parts_is_whole_and_the_same_every_time",
    "P11": "test_package.py::test_imports_are_light",
}
NOT_HERE = {
    "P02": "needs a data base of vulnerabilities, which CI cannot reach; `pip-audit` in an installed environment asks it",
    "P03": "a library pins no versions for its users; their lock file does, and floors are tested (P04)",
    "P12": "this project has no public home yet, from which it would be rated",
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


@pytest.mark.slow
def test_a_release_is_the_same_every_time(tmp_path: Path) -> None:
    """Built in two folders at two times, zones, languages and umasks, from copies whose files are of other dates and rights."""
    digests = []
    for k, (zone, language, umask, rights) in enumerate(
        [("UTC", "C", 0o022, 0o644), ("Asia/Tokyo", "C.UTF-8", 0o077, 0o600)]
    ):
        source = tmp_path / f"source {k}"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / name, source / name)
        for name in ("ensemble_kit", "release"):
            shutil.copytree(
                ROOT / name, source / name, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__")
            )
        for path in source.rglob("*"):
            os.utime(path, (10**9 + k * 10**8,) * 2)
            path.chmod(rights if path.is_file() else 0o700)
        build = [sys.executable, "-W", "ignore", "-m", "build", "--no-isolation", "--outdir", source / "dist", source]
        env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TZ": zone, "LC_ALL": language}
        subprocess.run(build, check=True, capture_output=True, env=env, umask=umask)
        built = sorted((source / "dist").iterdir())
        assert [p.suffix for p in built] == [".whl", ".gz"]  # the sdist, and the wheel that was built from it
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in built])
    assert digests[0] == digests[1]


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
