"""`PYTHONPATH=tests python -m pages.site FOLDER` makes the docs site: the pages as they stand, at short addresses.

The pages are Markdown of GitHub and notebooks, and link to each other, and to files of the repository, by relative paths. A copy of
them is laid out for the generator: README.md is its start, docs/PAGE.md becomes PAGE.html, what else they link to lies in
files/. Links are written anew. One that leads nowhere, an anchor that is not there and a page that stands in no menu end
the build.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
NAMED = re.compile(r"\[[\w/-]+\.md\]\(([\w./-]+\.md)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
DECLARED = re.compile(r"^(```\w+) (?:run|not-run: .*)$", re.MULTILINE)
MARK = re.compile(r"^(<!-- .* -->)\n(?=\|)", re.MULTILINE)
IN_MENU = re.compile(r": (\S+\.md)$", re.MULTILINE)


class SiteError(Exception):
    """What keeps the site from being built."""


def text_of(source: Path) -> str:
    """Read a page, or a notebook as one."""
    text = source.read_text(encoding="utf-8")
    if source.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{code}\n```" if kind == "code" else code for kind, code in cells) + "\n"


@dataclass(frozen=True)
class Site:
    """The site of the pages below a folder, whose settings are docs/site.yml."""

    root: Path

    def build(self, out: Path) -> None:
        """Build it; any warning of the generator ends that."""
        settings = self.root / "docs" / "site.yml"
        with tempfile.TemporaryDirectory() as made:
            pages = {place.as_posix() for place in self.lay_out(Path(made) / "docs").values() if place.suffix == ".md"}
            menu = IN_MENU.findall(settings.read_text(encoding="utf-8"))
            if wrong := sorted(pages ^ set(menu)) or sorted({page for page in menu if menu.count(page) > 1}):
                raise SiteError(
                    f"give each page one place in the menu of docs/site.yml, and no other: {', '.join(wrong)}"
                )
            shutil.copy(settings, Path(made) / "mkdocs.yml")
            command = [sys.executable, "-m", "zensical", "build", "--strict"]
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SiteError(done.stdout + done.stderr)
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(Path(made) / "site", out)

    def lay_out(self, folder: Path) -> dict[Path, PurePosixPath]:
        """Copy the pages, and all that they link to, into `folder`; return where each file went."""
        found: dict[Path, PurePosixPath] = {}
        ahead = [self.root / "README.md", *self.root.glob("docs/*.md"), *self.root.glob("examples/*/README.md")]
        while ahead:
            source = ahead.pop()
            if source in found:
                continue
            found[source] = self.place(source)
            target = folder / found[source]
            target.parent.mkdir(parents=True, exist_ok=True)
            if found[source].suffix == ".md":
                text = text_of(source)
                ahead += self.linked(source, text)
                target.write_text(self.adapted(source, text), encoding="utf-8")
            else:
                shutil.copyfile(source, target)
        return found

    def place(self, source: Path) -> PurePosixPath:
        """Say where a file of the repository lies in the site."""
        path = PurePosixPath(source.relative_to(self.root).as_posix())
        if path.name == "README.md":
            return PurePosixPath("index.md") if len(path.parts) == 1 else path.parent.with_suffix(".md")
        if path.suffix == ".ipynb":
            return path.with_suffix(".md")
        if path.suffix == ".md":
            return PurePosixPath(path.name if path.parts[0] == "docs" else path.name.lower())
        return path.relative_to("docs") if path.parts[0] == "docs" else "files" / path

    def linked(self, page: Path, text: str) -> Iterator[Path]:
        """Yield the files of the repository that a page links to, or shows."""
        for target in LINK.findall(FENCED.sub("", text)):
            if "://" not in target:
                there = Path(os.path.normpath(page.parent / target))
                if not there.is_file():
                    raise SiteError(f"{page.relative_to(self.root)}: no file is there: {target}")
                yield there

    def adapted(self, page: Path, text: str) -> str:
        """Write a page for the generator.

        Links are those of the site, and have a page's title where they have its file name; fences are without our
        words; a blank line stands above each table.
        """

        def link(found: re.Match[str]) -> str:
            if "://" in found[0]:
                return found[0]
            there = self.place(Path(os.path.normpath(page.parent / found[0])))
            return os.path.relpath(there, self.place(page).parent)

        def named(found: re.Match[str]) -> str:
            heading = text_of(page.parent / found[1]).split("\n", 1)[0]
            return f"[{heading.removeprefix('# ')}]({found[1]}"

        parts = FENCED.split(text)
        parts[::2] = [LINK.sub(link, NAMED.sub(named, MARK.sub(r"\1\n\n", part))) for part in parts[::2]]
        parts[1::2] = [DECLARED.sub(r"\1", part) for part in parts[1::2]]
        return "".join(parts)


if __name__ == "__main__":
    try:
        Site(ROOT).build(Path(sys.argv[1]))
    except SiteError as error:
        sys.exit(str(error))
