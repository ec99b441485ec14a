"""Draw the pictures of docs/gallery.md: run its commands as they stand, and keep what they draw.

    make figures                             python docs/figures/draw_gallery.py [FOLDER]

Pages of HTML are opened in a headless Chromium; where there is none their pictures are left as they are.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from browser import PROGRAM, browser  # noqa: E402 - it lies beside the tests

PAGE = ROOT / "docs" / "gallery.md"
BLOCK = re.compile(r"^```(bash|python) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DRAWN = {name: f"pictures/0024_{name}.png" for name in ("overlay", "errors", "disputed")}
PARTS = {
    "report": ("body", "#score"),
    "samples": ("#samples p.told", "#samples .views fieldset"),
}
"""Of the report, what each picture begins with, and what it ends with."""
WIDTH, QUALITY = 1100, 80
PROGRAMS = Path(sys.executable).parent
"""Where `ensk` lies."""


def run_page(folder: Path, programs: Path) -> None:
    """Run the blocks of the page, in order."""
    env = os.environ | {"PATH": os.pathsep.join([str(programs), os.environ["PATH"]])}
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        command = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-W", "error", "-c"]
        subprocess.run([*command, code], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)


def shots(page: Path) -> dict[str, Image.Image]:
    """Photograph parts of a page."""
    whole = page.with_suffix(".png")
    where = "document.querySelector({!r}).getBoundingClientRect().{} + scrollY"
    with browser() as tab:
        tab.open(page, WIDTH)
        edges = {
            name: (tab.run(where.format(first, "top")), tab.run(where.format(last, "bottom")))
            for name, (first, last) in PARTS.items()
        }
        tab.picture(whole)
    image = Image.open(whole).convert("RGB")
    return {
        name: image.crop((0, max(0, round(top) - 12), WIDTH, round(bottom) + 12))
        for name, (top, bottom) in edges.items()
    }


def beside(paths: list[Path], times: int = 4) -> Image.Image:
    """Put small pictures side by side, each pixel as several."""
    images = [Image.open(path).convert("RGB") for path in paths]
    large = [i.resize((i.width * times, i.height * times), Image.Resampling.NEAREST) for i in images]
    out = Image.new("RGB", (sum(i.width for i in large) + 8 * (len(large) - 1), max(i.height for i in large)), "white")
    left = 0
    for image in large:
        out.paste(image, (left, 0))
        left += image.width + 8
    return out


def draw(out: Path, programs: Path = PROGRAMS) -> None:
    """Run the page, whose `ensk` lies in a folder, and write its pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run_page(folder, programs)
        pictures = {f"{name}.jpg": Image.open(folder / path).convert("RGB") for name, path in DRAWN.items()}
        pictures["curves.png"] = Image.open(folder / "curves.png").convert("RGB")
        pictures["slices.png"] = beside(sorted((folder / "slices").iterdir(), reverse=True))
        if PROGRAM is not None:
            pictures |= {f"{name}.jpg": shot for name, shot in shots(folder / "report.html").items()}
        for name, image in pictures.items():
            file = io.BytesIO()
            if name.endswith(".png"):
                image.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
            else:
                image.save(file, "JPEG", quality=QUALITY, optimize=True)
            (out / name).write_bytes(file.getvalue())
            print(f"{out / name}: {image.width} x {image.height}, {len(file.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "figures" / "gallery")
