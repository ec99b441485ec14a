"""README.md for an index of packages, where relative links lead nowhere: hatchling calls this at each build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Links of README.md lead to the repository of `[project.urls]`, at the tag of the version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the text with whole links into a project's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = absolute(text, metadata["urls"]["Repository"], metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, repository: str, version: str) -> str:
    """Make relative links whole: of pictures to the file itself, of others to its page."""

    def whole(link: re.Match[str]) -> str:
        picture, words, target = link.groups()
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return re.sub(r"(!?)\[([^]\[]*)\]\((?!\w+:|#)([^)\s]+)\)", whole, text)
