"""The docs site: it builds without a warning, and every link in it leads to a page, a file and an anchor of its own."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from browser import PROGRAM, browser
from ensemble_kit.cli.explain import CODES
from pages.site import ROOT, Site, SiteError

pytest.importorskip("zensical")
pytestmark = pytest.mark.slow
FENCES = "markdown_extensions:\n  - pymdownx.superfences\n"
SETTINGS = f"site_name: x\nuse_directory_urls: false\n{FENCES}nav:\n  - Start: index.md\n  - Other: other.md\n  - Book: a/b.md\n"
CELLS = [("markdown", ["# A book\n", "\n", "Text."]), ("code", ["print(1)\n", "print(2)"])]
OTHER = "docs/other.md"
PAGES = {
    "README.md": f"# Start\n\n[other.md]({OTHER}#two-words), [a file](LICENSE), [a book](a/b.ipynb)\n",
    "a/b.ipynb": json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in CELLS]}),
    OTHER: "# Other\n\n## Two words\n\n```bash run\nls\n```\n",
    "docs/site.yml": SETTINGS,
    "LICENSE": "MIT\n",
}
TEXTS = {"p", "li", "code", "strong"}


class Page(HTMLParser):
    """Anchors, links, what is loaded, and paragraphs without what is code or bold in them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.paragraphs: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.anchors |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.append(told["href"])
        elif "src" in told or (tag == "link" and "href" in told):
            self.loaded.append(told.get("src") or told["href"])
        if tag == "article" or (self._open and tag in TEXTS):
            self._open.append(tag)
            self.paragraphs += [""] if tag in {"p", "li"} else []

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag in {"article", *TEXTS}:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in {"p", "li"}:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    Site(ROOT).build(out)
    return out


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in built.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_to_a_page_and_an_anchor(built: Path, pages: dict[Path, Page]) -> None:
    assert sum(len(page.links) for page in pages.values()) > 1000
    astray = []
    for path, page in pages.items():
        for target in [*page.links, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            known = pages[there].anchors if there in pages else {""}
            if not there.is_file() or unquote(parts.fragment) not in known:
                astray.append(f"{path.relative_to(built)}: {target}")
    assert astray == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert [target for page in pages.values() for target in page.loaded if urlsplit(target).netloc] == []


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
def test_a_browser_asks_nobody_else(built: Path) -> None:
    """Scripts could, which no attribute shows."""
    with browser() as tab:
        for name in ("index", "errors", "examples/notebooks/volume"):
            tab.open(built / f"{name}.html")
            tab.wait(0.5)
        assert tab.asked
        assert [address for address in tab.asked if not address.startswith("file:")] == []


def test_every_error_code_is_an_anchor(built: Path, pages: dict[Path, Page]) -> None:
    assert set(json.loads(CODES.read_text())) <= pages[built / "errors.html"].anchors


def test_no_list_table_or_link_is_left_as_text(built: Path, pages: dict[Path, Page]) -> None:
    """The generator wants a blank line where GitHub does not."""
    marks = re.compile(r"^\s*(?:[-*]|\d+\.) |^\s*\||```|\]\(", re.MULTILINE)
    left = [f"{path.name}: {text}" for path, page in pages.items() for text in page.paragraphs if marks.search(text)]
    assert left == []


def lay(folder: Path, **changed: str) -> Site:
    for name, text in (PAGES | {name.replace("__", "."): text for name, text in changed.items()}).items():
        path = folder / name.replace("docs_", "docs/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return Site(folder)


def test_links_are_those_of_the_site_and_have_titles(tmp_path: Path) -> None:
    lay(tmp_path / "of").build(tmp_path / "site")
    start, other = (Page(tmp_path / "site" / name) for name in ("index.html", "other.html"))
    assert {"other.html#two-words", "files/LICENSE", "a/b.html"} <= {link.removeprefix("./") for link in start.links}
    assert start.paragraphs[0].startswith("Other, a file")
    assert "two-words" in other.anchors
    book = (tmp_path / "site/a/b.html").read_text()
    assert Page(tmp_path / "site/a/b.html").paragraphs == ["Text."]
    code = re.sub(r"<[^>]*>", "", re.findall(r"<pre.*?</pre>", book, re.DOTALL)[0])
    assert code.strip() == "print(1)\nprint(2)"
    assert (tmp_path / "site/files/LICENSE").read_text() == "MIT\n"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"README__md": "# Start\n\n[x](docs/none.md)\n"}, "README.md: no file is there: docs/none.md"),
        ({"README__md": PAGES["README.md"] + f"[x]({OTHER}#none)\n"}, "anchor does not exist"),
        ({"docs_third__md": "# Third\n"}, "third.md"),
        ({"docs_site__yml": SETTINGS + "  - None: none.md\n"}, "none.md"),
        ({"docs_site__yml": SETTINGS + "  - Again: other.md\n"}, "other.md"),
    ],
    ids=[
        "a page that is not there",
        "an anchor that is not there",
        "a page in no menu",
        "a menu without its page",
        "twice",
    ],
)
def test_what_leads_nowhere_ends_the_build(changed: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=re.escape(told)):
        lay(tmp_path / "of", **changed).build(tmp_path / "site")
    assert not (tmp_path / "site").exists()
