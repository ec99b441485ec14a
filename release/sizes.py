"""Measure what an installation takes: the base, what CUDA adds, what each extra adds; write docs/install.md's table.

    python release/sizes.py --torch torch==2.13.0+cpu --cuda torch==2.13.0 --page docs/install.md

Each is really installed, into folders that are removed again: of CUDA some gigabytes, in all some minutes. Sizes are
those of the files in site-packages, compiled modules among them, in MB of 10^6 bytes. pip takes its options from the
environment: with `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` it finds builds of torch without CUDA.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARKS = "<!-- sizes -->\n", "<!-- /sizes -->"
FOR_DEVELOPERS = {"bench", "dev", "docs"}


def pip(python: Path | None, *words: object) -> None:
    """Run pip, for the interpreter of another environment where one is given."""
    whose = ["--python", str(python)] if python else []
    subprocess.run([sys.executable, "-m", "pip", *whose, "-q", *map(str, words)], check=True)


def size(folder: Path) -> float:
    """MB of all files below a folder."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir()) / 1e6


def packages(folder: Path) -> int:
    """How many distributions are installed in a folder."""
    return sum(1 for _ in folder.glob("*.dist-info"))


def version_of(site: Path) -> str:
    """Version of the torch that pip chose, which says whether it is one without CUDA."""
    (found,) = site.glob("torch-*.dist-info")
    return found.name.removeprefix("torch-").removesuffix(".dist-info")


def install(folder: Path, torch: str, wheel: Path) -> tuple[Path, Path]:
    """Make an environment of torch and the wheel; return its interpreter and its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip(python, "install", torch)
    pip(python, "install", torch, wheel)
    (site,) = folder.glob("lib/python3.*/site-packages")
    return python, site


def adds(folder: Path, python: Path, wheel: Path, extra: str) -> tuple[float, list[str]]:
    """Install what an extra adds to an environment beside it; return MB and the names of what it adds."""
    report, beside = folder / "report.json", folder / "beside"
    pip(python, "install", "--dry-run", "--report", report, f"ensemble_kit[{extra}] @ {wheel.as_uri()}")
    found = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    new = {m["name"]: m["version"] for m in found if m["name"].replace("-", "_") != "ensemble_kit"}
    if not new:
        return 0.0, []
    pip(None, "install", "--no-deps", "--target", beside, *(f"{name}=={version}" for name, version in new.items()))
    return size(beside), sorted(new, key=str.lower)


def table(torch: str, cuda: str | None) -> list[str]:
    """Measure everything; the lines of a table, and of what was measured."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lines = ["| installed | packages | MB |", "|---|---:|---:|"]
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        pip(None, "wheel", "--no-deps", "--wheel-dir", room, ROOT)
        (wheel,) = room.glob("*.whl")
        python, site = install(room / "base", torch, wheel)
        whole, of_torch, said = size(site), size(site / "torch"), f"torch {version_of(site)}"
        lines.append(
            f"| `ensemble_kit`, torch without CUDA ({of_torch:,.0f} MB of it) | {packages(site)} | {whole:,.0f} |"
        )
        if cuda:
            _, other = install(room / "cuda", cuda, wheel)
            said += f" and, with CUDA, {version_of(other)}"
            lines.append(f"| torch with CUDA adds | {packages(other) - packages(site)} | {size(other) - whole:,.0f} |")
        for extra in sorted(extras.keys() - FOR_DEVELOPERS):
            folder = room / extra
            folder.mkdir()
            mb, new = adds(folder, python, wheel, extra)
            lines.append(f"| `ensemble_kit[{extra}]` adds | {len(new)} | {mb:,.0f} |")
            print(f"{extra}: {', '.join(new) or 'nothing'}", file=sys.stderr)
    return [
        *lines,
        "",
        f"`make sizes` · {said} · Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    ]


def main() -> None:
    """Print the table, or put it between the marks of a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default="torch", help="requirement of the base's torch, a build without CUDA")
    parser.add_argument("--cuda", help="requirement of a torch with CUDA, whose size is stated too")
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    given = parser.parse_args()
    text = "\n".join(table(given.torch, given.cuda))
    if not given.page:
        print(text)
        return
    page = given.page.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1]), re.DOTALL)
    given.page.write_text(pattern.sub(lambda _: f"{MARKS[0]}{text}\n{MARKS[1]}", page, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
