"""What makes a release, on paper and where it can be run: the files agree, nothing is trusted that moves, the recipe builds."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(p for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml")
RECIPE = yaml.safe_load((ROOT / "release/conda/recipe.yaml").read_text())
FOR_DEVELOPERS = {"bench", "dev", "docs"}
CONDA = {"torch": "pytorch", "opencv-python": "py-opencv", "matplotlib": "matplotlib-base"}
"""Names that differ on conda-forge; its py-opencv says to pip that it is opencv-python."""
PYTHONS = sorted(
    (c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)), key=lambda v: int(v[2:])
)


def jobs(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())["jobs"]


def program(name: str) -> str:
    """A command of the environment that runs the tests."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is missing; it is in the extra `dev`"
    return found


def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check", ROOT / "release/check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what `release/check.py` reads, with an owner and a dated heading: ready."""
    paths = (
        "pyproject.toml",
        "CITATION.cff",
        "CHANGELOG.md",
        "docs/cite.md",
        "ensemble_kit/__init__.py",
        "release/conda/recipe.yaml",
    )
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    edit(tmp_path / "pyproject.toml", "/OWNER/", "/somebody/")
    edit(tmp_path / "CHANGELOG.md", "## [Unreleased]", f"## [{PROJECT['version']}] - 2026-12-01")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_files_of_a_release_agree(tree: Path) -> None:
    version = PROJECT["version"]
    assert check().problems(ROOT) == []
    assert check().problems(tree, f"v{version}", "somebody/ensemble_kit") == []
    command = [sys.executable, ROOT / "release/check.py", "--tag", "v0.0.9", "--repository", "a/b"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert f"tag v{version}" in refused.stdout


@pytest.mark.parametrize(
    "path", ["CITATION.cff", "docs/cite.md", "ensemble_kit/__init__.py", "release/conda/recipe.yaml", "pyproject.toml"]
)
def test_a_file_of_another_version_is_named(tree: Path, path: str) -> None:
    version = PROJECT["version"]
    text = (tree / path).read_text()
    (tree / path).write_text(
        re.sub(rf'^(\s*_*version_*\W+){re.escape(version)}(["}},]*)$', r"\g<1>9.9.9\2", text, flags=re.MULTILINE)
    )
    found = check().problems(tree, f"v{version}", "somebody/ensemble_kit")
    assert any(path in line and "9.9.9" in line for line in found), found


def test_another_home_and_a_change_without_a_date_are_refused(tree: Path) -> None:
    tag = f"v{PROJECT['version']}"
    assert len(check().problems(tree, tag, "somebody/ensemble")) == len(PROJECT["urls"])
    edit(tree / "CHANGELOG.md", f"## [{PROJECT['version']}] - 2026-12-01", "## [Unreleased]")
    (found,) = check().problems(tree, tag, "somebody/ensemble_kit")
    assert "CHANGELOG.md" in found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_actions_are_pinned_to_a_commit_whose_version_is_said(path: Path) -> None:
    uses = re.findall(r"^ *-? *uses: (.*)$", path.read_text(), re.MULTILINE)
    assert uses
    for one in uses:
        assert one.startswith("./") or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", one), one


@pytest.mark.slow
def test_workflows_pass_a_pedantic_audit() -> None:
    command = [program("zizmor"), "--offline", "--persona", "pedantic", "--quiet", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS), ("github-issue-forms", FORMS), ("citation-file-format", [ROOT / "CITATION.cff"]),
        ("github-issue-config", [ROOT / ".github/ISSUE_TEMPLATE/config.yml"]), ("dependabot", [ROOT / ".github/dependabot.yml"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_files_for_others_keep_their_schemas(schema: str, paths: list[Path]) -> None:
    command = [program("check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert paths and done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_what_the_project_runs_on_all_that_is_claimed() -> None:
    ci, release = jobs("ci.yml"), jobs("release.yml")
    *prepared, run = [s["run"] for s in ci["everything"]["steps"] if "run" in s]
    assert run == ".ci/run"
    assert all("apt-get install" in step for step in prepared)
    assert set(PYTHONS) <= set(ci["pythons"]["strategy"]["matrix"]["python"])
    assert release["demo"]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]
    assert f">={PYTHONS[0]}" == PROJECT["requires-python"]


def test_one_job_publishes_and_builds_nothing() -> None:
    """What can publish runs no code of this project or of its dependencies, and there is no token to steal."""
    release = jobs("release.yml")
    trusted = [name for name, job in release.items() if "id-token" in job.get("permissions", {})]
    assert trusted == ["publish"]
    publish = release["publish"]
    assert publish["environment"]["name"] == "pypi"
    assert set(publish["needs"]) == {"ci", "demo"} and release["demo"]["needs"] == "build"
    assert not any("checkout" in step.get("uses", "") for step in publish["steps"])
    assert all(re.fullmatch(r"mkdir .+|.*mv .+", step["run"]) for step in publish["steps"] if "run" in step)
    (upload,) = [step for step in publish["steps"] if "pypi-publish" in step.get("uses", "")]
    assert upload["with"]["attestations"] is True and "password" not in upload["with"]
    assert not any("secrets." in path.read_text() for path in WORKFLOWS)


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_issue_forms_ask_for_the_machine(path: Path) -> None:
    (doctor,) = [part for part in yaml.safe_load(path.read_text())["body"] if part.get("id") == "doctor"]
    assert "`ensk doctor --json`" in doctor["attributes"]["description"]
    assert doctor["attributes"]["render"] == "json"


def test_commits_are_checked_by_what_make_lint_runs() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    _, _, rest = MAKEFILE.partition("\nlint: ")
    linted = re.findall(r"^\t\$\(BIN\)/(.+)$", rest.partition("\n\n")[0], re.MULTILINE)
    assert linted == ["ruff check .", "ruff format --check .", "mypy"]
    assert hooks["ruff-check"] == ".venv/bin/ruff check --force-exclude"
    assert hooks["ruff-format"] == ".venv/bin/ruff format --force-exclude"
    assert hooks["mypy"] == ".venv/bin/mypy"
    assert hooks["github-files"] == "make lint-github" and "\nlint-github: " in MAKEFILE


def test_links_of_the_readme_lead_somewhere_from_an_index_of_packages() -> None:
    """From hatchling's own metadata, where each is a page or a picture of the repository at the version's tag."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "metadata"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    metadata = json.loads(done.stdout)
    text, home = metadata["readme"]["text"], metadata["urls"]["Repository"]
    links = re.findall(r"(!?)\[[^]]*\]\(([^)]+)\)", text)
    assert len(links) == len(re.findall(r"\]\(", (ROOT / "README.md").read_text())) > 20
    for picture, target in links:
        if target.startswith(home):
            head = f"{home}/{'raw' if picture else 'blob'}/v{metadata['version']}/"
            assert (ROOT / target.removeprefix(head).partition("#")[0]).exists(), target
        else:
            assert target.startswith(("https://", "#")), target
    assert any(picture for picture, _ in links)


def requirements(lines: list[str]) -> dict[str, str]:
    """Names of conda-forge and floors, of requirements of either kind."""
    found = dict(re.fullmatch(r"([\w-]+)\s*>=\s*([\d.]+)", line).groups() for line in lines)  # type: ignore[union-attr]
    return {CONDA.get(name, name): floor for name, floor in found.items()}


def test_the_recipe_asks_for_what_the_project_asks_for() -> None:
    run = [line for line in RECIPE["requirements"]["run"] if not line.startswith(("python ", "__linux"))]
    ours = requirements(PROJECT["dependencies"])
    del ours["fastcrc"]  # not on conda-forge
    assert requirements(run) == ours | {"google-crc32c": "1.5"}
    extras = PROJECT["optional-dependencies"]
    optional = [line for name in extras.keys() - FOR_DEVELOPERS for line in extras[name]]
    assert requirements(RECIPE["requirements"]["run_constraints"]) == requirements(optional)
    assert RECIPE["context"]["python_min"] == PYTHONS[0]
    (entry,) = RECIPE["build"]["python"]["entry_points"]
    assert entry == "ensk = {ensk}".format(**PROJECT["scripts"])


@pytest.mark.slow
def test_the_recipe_builds_from_an_sdist_and_what_it_installs_is_consistent(tmp_path: Path) -> None:
    """Its script, line by line, as a builder of conda runs it; only the folder that is installed into is another."""
    command = [sys.executable, "-W", "ignore", "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    source, site = tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "site"
    env = {**os.environ, "PIP_TARGET": str(site), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for line in RECIPE["build"]["script"]:
        script = line.replace("${{ PYTHON }}", sys.executable)
        done = subprocess.run(["bash", "-euc", script], cwd=source, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    needed = re.findall(
        r"^Requires-Dist: ([\w-]+)", (next(site.glob("*.dist-info")) / "METADATA").read_text(), re.MULTILINE
    )
    assert "torch" in needed and "fastcrc" not in needed
    started = [sys.executable, "-c", "import ensemble_kit; print(ensemble_kit.__file__)"]
    where = subprocess.run(
        started, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(site)), where.stderr


@pytest.mark.slow
def test_the_list_of_parts_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    """`make sbom`'s own options, on the environment of the tests; cyclonedx-py checks what it writes against the schema."""
    (words,) = re.findall(r"\$\(BIN\)/(cyclonedx-py environment .*?) -o ", MAKEFILE.replace("\\\n", ""))
    made = []
    for checked in ("--validate", "--no-validate"):  # what is checked once holds of the same bytes
        out = tmp_path / f"{checked}.json"
        command = [program("cyclonedx-py"), *words.split()[1:], checked, "-o", out, sys.executable]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        made.append(out.read_bytes())
    assert made[0] == made[1]
    bom = json.loads(made[0])
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert (bom["metadata"]["component"]["name"], bom["metadata"]["component"]["version"]) == (
        "ensemble_kit",
        PROJECT["version"],
    )
    names = {part["name"].lower().replace("_", "-") for part in bom["components"]}
    assert {re.split(r"[>=\[]", d)[0] for d in PROJECT["dependencies"]} <= names
    assert str(ROOT) not in made[0].decode()


def test_sizes_are_stated_of_every_extra() -> None:
    page = (ROOT / "docs/install.md").read_text()
    measured = re.findall(r"^\| `ensemble_kit\[(\w+)\]` adds \| [\d,]+ \| [\d,]+ \|$", page, re.MULTILINE)
    assert measured == sorted(PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS)
    assert re.search(r"torch without CUDA .*\| [\d,]+ \|\n\| torch with CUDA adds \| [\d,]+ \| [\d,]+ \|", page)
