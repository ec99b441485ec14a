"""Pages: nothing of a text is taken for markup, nothing is asked for, and tables, charts and pictures are there."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ensemble_kit.errors import Caution
from ensemble_kit.masks.drawing import to_eight_bits
from ensemble_kit.reports import page as pages
from ensemble_kit.reports import svg
from ensemble_kit.reports.pictures import Shelf, flat, photograph, smaller
from ensemble_kit.reports.report import Report

HOSTILE = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "]]>", "{{ 7*7 }}", "{% raw %}", "&lt;b&gt;",
         "javascript:alert(1)", "</style><script>x</script>", "--></svg><a href='//x'>", "\u202e<b>", "a\0b"]
    ),
)  # fmt: skip


class Seen(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and text by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(text: str) -> pages.Page:
    """Put a text wherever a page has one."""
    chart = pages.Chart(svg.strip([(text, np.array([0.5, 1.0]))], text, [0]), text, text)
    view = pages.View(
        text, text, (4, 3), "data:image/webp;base64,AA", [(text, "data:image/png;base64,AA")], text, False
    )
    blocks: list[pages.Block] = [
        pages.Sentences([text]),
        pages.Cautions([Caution(text, text)]),
        pages.Figures([(text, text, text)]),
        pages.Facts([(text, text)]),
        pages.Commands([(text, text)]),
        pages.Table(text, [text, text], [[text, text], [text, "0.5"]], text, last=True),
        pages.Table(text, ["", text], [[text, "1"]], shades=[[0.5]], sorts=False),
        chart,
        pages.Charts([chart], text),
        pages.Key(text, [(text, (1, 2, 3))]),
        pages.Views(text, [view]),
    ]
    return pages.Page(text, text, [pages.Section("one", text, text, blocks)], text)


PLAIN = Seen(page_of("plain").html())


@given(HOSTILE)
def test_no_text_becomes_markup(text: str) -> None:
    seen = Seen(page_of(f"x{text}").html())
    assert [(tag, list(found)) for tag, found in seen.tags] == [(tag, list(found)) for tag, found in PLAIN.tags]
    for (_, found), (_, other) in zip(seen.tags, PLAIN.tags, strict=True):
        for name in ("src", "href", "style", "class", "d"):  # where a text would be more than a text
            assert found.get(name) == other.get(name), name


def test_a_page_shows_its_texts() -> None:
    told = " ".join(Seen(page_of("R&D <b>").html()).text)
    assert told.count("R&D <b>") > 20


def test_the_policy_allows_the_one_script_and_nothing_from_elsewhere() -> None:
    html = page_of("x").html()
    policy = next(f["content"] for tag, f in Seen(html).tags if tag == "meta" and f.get("http-equiv"))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "http" not in re.sub(r'http-equiv|xmlns="[^"]*"', "", html)


def test_headings_and_names_are_there_for_those_who_do_not_see() -> None:
    tags = Seen(page_of("x").html()).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all(found.get("alt") for tag, found in tags if tag == "img")
    assert all(found.get("aria-label") for tag, found in tags if found.get("role") in {"img", "region"})
    assert [found for tag, found in tags if tag == "html"] == [{"lang": "en"}]
    ids = [found["id"] for _, found in tags if "id" in found]
    assert len(ids) == len(set(ids))


def ratio(a: str, b: str) -> float:
    """Contrast of two colours as #rrggbb (WCAG 2.2)."""
    values = []
    for text in (a, b):
        rgb = [int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
        values.append(float(np.dot(linear, [0.2126, 0.7152, 0.0722])))
    high, low = sorted(values, reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_stand_out_from_their_ground() -> None:
    style = re.search(r"<style>(.*?)</style>", page_of("x").html(), re.DOTALL)
    assert style is not None
    named = dict(re.findall(r"--([\w-]+): (#\w{6})", style[1]))
    for text, ground in [
        ("ink", "#ffffff"),
        ("quiet", "#ffffff"),
        ("link", "#ffffff"),
        ("warn", "#fff8ec"),
        ("quiet", "#f5f7f9"),
    ]:
        assert ratio(named[text], ground) >= 4.5, (text, ground)
    assert ratio("#566171", "#ffffff") >= 4.5  # texts of drawings


def test_columns_of_words_stand_at_the_left() -> None:
    table = pages.Table("t", ["name", "n", "which", "range"], [["a", "+0.5", "left", "0.1–0.2"], ["b", "–", "", ""]])
    assert table.words == [True, False, True, False]
    report = Report("t", ["name", "n"], [["a", "1"]], "legend")
    assert pages.Table.of(report) == pages.Table("t", ["name", "n"], [["a", "1"]], "legend")


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)], ids=["grey", "colour"])
def test_a_photograph_is_a_webp_of_its_size(shape: tuple[int, ...]) -> None:
    image = np.linspace(0, 255, int(np.prod(shape))).reshape(shape).astype(np.uint8)
    found = Image.open(BytesIO(photograph(image)))
    assert (found.format, found.size) == ("WEBP", (30, 40))
    grey = np.repeat(image[..., None], 3, 2) if len(shape) == 2 else image
    assert np.abs(np.asarray(found.convert("RGB")).astype(int) - grey).mean() < 20


def test_a_noisy_photograph_is_coded_more_coarsely() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    smooth = np.tile(np.arange(512) // 2, (512, 1)).astype(np.uint8)
    assert len(photograph(smooth)) < 26_000 < len(photograph(noise)) < 150_000


def test_a_layer_is_a_png_with_its_colours_and_opacity() -> None:
    index, colours = (
        np.array([[0, 1], [2, 1]], np.uint8),
        np.array([[0, 0, 0, 0], [9, 8, 7, 100], [1, 2, 3, 255]], np.uint8),
    )
    found = np.asarray(Image.open(BytesIO(flat(index, colours))).convert("RGBA"))
    assert np.array_equal(found, colours[index])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_deep_images_are_stretched(dtype: str) -> None:
    image = np.linspace(100, 900, 1000).reshape(20, 50).astype(dtype)
    found = to_eight_bits(image)
    assert (found.min(), found.max(), found.dtype) == (0, 255, np.uint8)
    assert to_eight_bits(found) is found
    assert smaller(found, (10, 25)).shape == (10, 25)
    assert to_eight_bits(np.full((3, 3), np.nan, np.float32)).tolist() == [[0] * 3] * 3


def test_pictures_lie_within_the_page_or_in_its_folder() -> None:
    inside, beside = Shelf(), Shelf("my page_files")
    assert inside.put(b"abc", "png") == "data:image/png;base64,YWJj"
    assert [beside.put(b"abc", "png"), beside.put(b"x", "webp")] == [
        "my%20page_files/0001.png",
        "my%20page_files/0002.webp",
    ]
    assert beside.files == {"0001.png": b"abc", "0002.webp": b"x"}
    assert "img-src data: 'self' file:;" in pages.policy("x", apart=True)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 8))
def test_ticks_are_few_and_inside(low: float, width: float, most: int) -> None:
    ticks = svg.Scale((low, low + width), (0, 100)).ticks(most)
    assert 1 <= len(ticks) <= 2 * most + 1
    assert all(low - 1e-6 * (1 + abs(low) + width) <= t <= low + width + 1e-6 * (1 + abs(low) + width) for t in ticks)


@pytest.mark.parametrize(
    "values", [[], [np.nan], [0.5], [0.0, 1.0], [1.0, 1.0]], ids=["none", "skipped", "one", "ends", "equal"]
)
def test_charts_take_whatever_values_there_are(values: list[float]) -> None:
    array = np.array(values)
    drawn: list[Any] = [svg.strip([("a", array)], "Dice", list(range(len(values))))]
    if values and not np.isnan(array).any():
        drawn += [svg.bars(array, array), svg.curve(np.linspace(0, 1, array.size), array, (0.5, 0.5), (0.4, 0.6))]
    assert all("nan" not in one and "inf" not in one for one in drawn)
