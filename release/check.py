"""Refuse a release whose files disagree on its version or on its home.

python release/check.py                                        # what the files say of each other
python release/check.py --tag v1.2.3 --repository owner/name   # and of a tag, as the release workflow does
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def versions(root: Path) -> dict[str, str]:
    """The version that each file says, by its path."""
    patterns = {
        "ensemble_kit/__init__.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "docs/cite.md": r"^  version = \{(.+)\},$",
        "release/conda/recipe.yaml": r'^  version: "(.+)"$',
    }
    said = {"pyproject.toml": project(root)["version"]}
    for path, pattern in patterns.items():
        found = re.findall(pattern, (root / path).read_text(encoding="utf-8"), re.MULTILINE)
        said[path] = found[0] if len(found) == 1 else f"{len(found)} versions"
    return said


def project(root: Path) -> dict[str, dict[str, str]]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def problems(root: Path, tag: str | None = None, repository: str | None = None) -> list[str]:
    """What keeps these files from being released, a sentence each."""
    said = versions(root)
    version, found = said["pyproject.toml"], []
    found += [f"{path} says version {v}, pyproject.toml {version}" for path, v in said.items() if v != version]
    if tag is not None:
        if tag != f"v{version}":
            found.append(f"the tag is {tag}, pyproject.toml says version {version}; tag v{version}")
        changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
        if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
            found.append(f"CHANGELOG.md has no heading '## [{version}] - DATE'; rename '## [Unreleased]'")
    if repository is not None:
        home = f"https://github.com/{repository}"
        for name, url in project(root)["urls"].items():
            if not f"{url}/".startswith(f"{home}/"):
                found.append(f"[project.urls] {name} is {url}, which is not below {home}; change pyproject.toml")
    return found


def main() -> int:
    """Print each problem; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", help="the tag that is released: v and the version")
    parser.add_argument("--repository", help="owner/name on GitHub, which [project.urls] has to name")
    given = parser.parse_args()
    found = problems(ROOT, given.tag, given.repository)
    print(*(found or ["ready"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
