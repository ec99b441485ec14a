"""The pages: those that are generated are current, and every command of a page runs as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import browser
import ensemble_kit
import pages
import warm
from ensemble_kit.cli.explain import CODES, EXITS
from pages.codes import Codes, Raised, used

ROOT = Path(__file__).parent.parent
WRITTEN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FACTORY = "from ensemble_kit.errors import DamagedError\n"


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, declaration and content of each fenced block."""
    return [(language, told.strip(), code) for language, told, code in BLOCK.findall(page.read_text())]


@pytest.mark.slow
def test_generated_pages_are_current() -> None:
    """`make docs` writes them."""
    assert pages.stale() == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    assert page.read_text().count("\n```") == 2 * len(blocks(page)), "a block without a language"
    for language, told, _ in blocks(page):
        allowed = "" if language == "text" else r"not-run: .+" if language != "bash" else r"run|not-run: .+"
        assert re.fullmatch(r"run|not-run: .+" if language == "python" else allowed, told), f"{language} {told}"


GALLERY = ROOT / "docs" / "gallery.md"
"""Its blocks are run by what draws its pictures."""
RUN = [p for p in WRITTEN if p != GALLERY and any(b[1] == "run" for b in blocks(p))]
DEMO = re.compile(r"^ensk demo --out (\S+)$", re.MULTILINE)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(warm.commands()), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


def shell(code: str, folder: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", code]
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert ran.returncode == 0, f"{code}\n{ran.stderr}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ensk demo` writes, with which most pages begin: it runs as docs/start.md has it, for all of them."""
    folder = tmp_path_factory.mktemp("demo")
    command = DEMO.search((ROOT / "docs/start.md").read_text())
    assert command
    shell(command[0], folder)
    return folder / command[1]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_blocks_run_as_written(page: Path, demo: Path, tmp_path: Path) -> None:
    """In order, in one new folder for each page."""
    for language, told, code in blocks(page):
        if told != "run":
            continue
        if language == "bash":
            shell(DEMO.sub(f"cp -r {shlex.quote(str(demo))} \\1", code), tmp_path)
        else:
            ran = warm.run("-W", "error", "-c", code, cwd=tmp_path, env=environment())
            assert ran.returncode == 0, f"{code}\n{ran.stderr}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        if "://" in target:
            continue
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), f"{target}#{anchor}"


def test_code_refers_to_anchors_that_are_there() -> None:
    for path in [*ROOT.glob("ensemble_kit/**/*.py"), *ROOT.glob("tests/**/*.py")]:
        text = re.sub(r"\s*\n\s*", "", path.read_text())
        assert not re.search(r"\bdesign\s§", path.read_text()), path  # docs/concepts.md has the rules
        for page, anchor in re.findall(r"(docs/\w+\.md)#([\w-]+)", text):
            assert anchor in anchors(ROOT / page), f"{path}: {page}#{anchor}"


def test_pages_name_files_that_are_there() -> None:
    missing = []
    for page in ("CONTRIBUTING.md", "DESIGN.md", "docs/architecture.md", "docs/concepts.md"):
        for name in re.findall(r"`([\w/]+\.py|[\w/]+/)`", (ROOT / page).read_text()):
            there = [ROOT / name, ROOT / "ensemble_kit" / name, *(ROOT / "ensemble_kit").glob(f"*/{name}")]
            missing += [] if any(path.exists() for path in there) else [f"{page}: {name}"]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_citation_names_this_version() -> None:
    assert f"version = {{{ensemble_kit.__version__}}}" in (ROOT / "docs/cite.md").read_text()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.slow
def test_the_picture_can_be_drawn_again(tmp_path: Path) -> None:
    """`make figures` writes it into docs/."""
    command = [sys.executable, str(ROOT / "docs/figures/draw_road.py"), str(tmp_path / "road.png")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert (tmp_path / "road.png").read_bytes().startswith(b"\x89PNG")


def pictures_of_the_gallery() -> set[str]:
    return set(re.findall(r"\]\(figures/gallery/(\S+)\)", GALLERY.read_text()))


def test_the_gallery_shows_each_of_its_pictures_and_they_are_small() -> None:
    kept = {p.name: p.stat().st_size for p in (ROOT / "docs/figures/gallery").iterdir()}
    assert set(kept) == pictures_of_the_gallery()
    assert sum(kept.values()) < 600_000


@pytest.mark.slow
def test_the_gallery_can_be_drawn_again(tmp_path: Path) -> None:
    """Every block of the page runs as written, and each picture is among what they draw."""
    code = (
        "import pathlib, sys\nfolder, *paths = sys.argv[1:]\nsys.path.insert(0, folder)\nimport draw_gallery\n"
        "draw_gallery.draw(*map(pathlib.Path, paths))"
    )
    ran = warm.run("-c", code, ROOT / "docs/figures", tmp_path, warm.commands(), env=environment(), timeout=None)
    assert ran.returncode == 0, ran.stderr
    of_a_browser = set() if browser.PROGRAM else {"report.jpg", "samples.jpg"}
    assert {p.name for p in tmp_path.iterdir()} == pictures_of_the_gallery() - of_a_browser
    for path in tmp_path.iterdir():
        with Image.open(path) as now, Image.open(ROOT / "docs/figures/gallery" / path.name) as kept:
            assert abs(now.width - kept.width) < 20, path.name


@pytest.mark.slow
def test_every_code_can_be_told_from_the_source() -> None:
    assert used().unclear == []


def test_every_code_has_a_meaning() -> None:
    """Written by hand in codes.json, in whole sentences."""
    known = json.loads(CODES.read_text())
    assert [c for c, entry in known.items() if not re.fullmatch(r"[A-Z`].+[.!]", entry["meaning"])] == []
    assert {way["exit"] for entry in known.values() for way in entry["raised"]} == set(EXITS) - {0}


@pytest.mark.parametrize(
    "sources",
    [
        {"k.a": FACTORY + "raise DamagedError('c', 'cannot', item='', fix='mend')"},
        {"k.a": FACTORY + "def bad(code, fix):\n    return DamagedError(code, 'cannot', item='', fix=fix)\nraise bad('c', 'mend')"},
        {
            "k.low": FACTORY + "def bad(why, code, *, fix='mend'):\n    return DamagedError(code, 'cannot', item=why, fix=fix)",
            "k.a": "from k.low import bad as worse\nraise worse('', code='c')",
        },
        {
            "k.low": FACTORY + "class E(DamagedError): ...",
            "k.mid": "from k.low import E\ndef bad(code):\n    told = f'can{\"not\"}'\n    raise E(code, told, item='', fix='mend')",
            "k.a": "from k import mid\ndef again(name):\n    mid.bad(name)\nagain('c')",
        },
        {
            "k.low": FACTORY + "class Table:\n    def bad(self, code):\n        raise DamagedError(code, 'cannot', item='', fix='mend')",
            "k.a": "def read(table):\n    table.bad('c')",
        },
        {"k.a": "def report(code, text, end):\n    print(f'error[{code}] {text}')\nreport('c', 'cannot: it · fix: mend', 3)"},
    ],
    ids=["raised where it stands", "factory", "factory elsewhere", "factory of a factory", "method", "reported"],
)  # fmt: skip
def test_a_code_is_found_wherever_it_is_made(sources: dict[str, str]) -> None:
    found = Codes(sources)
    assert found.found == {"c": {Raised(3, "cannot", "mend")}}
    assert found.unclear == []


@pytest.mark.parametrize(
    "source",
    [
        FACTORY + "def bad(table):\n    raise DamagedError(table['code'], 'cannot', item='', fix='')",
        FACTORY + "kind = [DamagedError][0]\nraise kind('c', 'cannot', item='', fix='')",
    ],
    ids=["code", "class"],
)
def test_a_code_that_cannot_be_told_is_named(source: str) -> None:
    assert len(Codes({"k.a": source}).unclear) == 1


def explained(*words: str) -> subprocess.CompletedProcess[str]:
    return warm.ensk("explain", *words)


def test_explain_tells_meaning_fix_and_exit_code() -> None:
    told = explained("error[weights-invalid]").stdout
    assert "Weights are finite numbers" in told
    assert "Exit code 2: usage" in told
    assert "Exit code 6: inputs do not fit" in told
    assert "fix: pass exactly one weight per member name" in told
    answer = json.loads(explained("csv-quote", "--json").stdout)
    assert answer["code"] == "csv-quote"
    assert answer["meaning"]
    assert answer["raised"][0]["exit"] == 3


def test_explain_offers_near_codes() -> None:
    ran = explained("csv-qoute")
    assert ran.returncode == 2
    assert "error[code-unknown]" in ran.stderr
    assert "csv-quote" in ran.stderr
