"""A page of `ensk report` in a real headless browser: nothing is asked for, and sorting, blinking and keys work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import browser
from browser import Browser
from reported import SAMPLES, make_files
from trying import ensk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.PROGRAM is None, reason="no chromium is installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser.browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    files = make_files(folder)
    words = ("report", *files.stores, "--val", files.truth, "--images", files.images, "-q")
    ensk(*words, "--out", folder / "page.html")
    ensk(*words, "--out", folder / "apart.html", "--folder")
    return folder / "page.html"


@pytest.fixture
def shown(tab: Browser, page: Path) -> Browser:
    tab.asked.clear()
    tab.said.clear()
    tab.open(page)
    return tab


def test_the_page_asks_for_nothing_and_complains_of_nothing(shown: Browser, page: Path) -> None:
    assert shown.asked == [page.as_uri()]
    assert shown.said == []
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert shown.run(broken) == 0
    assert shown.run("document.images.length") == 5 * len(SAMPLES)


def test_the_policy_stops_what_would_be_asked_for(shown: Browser) -> None:
    shown.run("new Image().src = 'http://127.0.0.1:9/x.png'; fetch('http://127.0.0.1:9/').catch(() => 0)")
    shown.run("const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)")
    assert shown.run("window.ran") is None
    assert len(shown.said) >= 2
    assert all("Content Security Policy" in text for text in shown.said)


def test_pictures_beside_the_page_are_shown(tab: Browser, page: Path) -> None:
    tab.said.clear()
    tab.open(page.with_name("apart.html"))
    assert tab.run("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert tab.said == []


ROWS = "[...document.querySelector('#classes table').tBodies[0].rows].map(r => r.cells[{}].textContent)"
HEAD = "document.querySelector('#classes table').tHead.rows[0].cells[{}]"


def test_a_click_sorts_by_size_and_a_second_one_turns_it(shown: Browser) -> None:
    before = shown.run(ROWS.format(1))
    shown.run(f"{HEAD.format(1)}.querySelector('button').click()")
    assert shown.run(f"{HEAD.format(1)}.getAttribute('aria-sort')") == "descending"
    assert shown.run(ROWS.format(1)) == sorted(before, key=float, reverse=True)
    shown.run(f"{HEAD.format(1)}.querySelector('button').click()")
    assert shown.run(ROWS.format(1)) == sorted(before, key=float)
    shown.run(f"{HEAD.format(0)}.querySelector('button').click()")
    assert shown.run(f"{HEAD.format(1)}.getAttribute('aria-sort')") is None
    assert shown.run(f"{HEAD.format(0)}.getAttribute('aria-sort')") == "ascending"
    assert len(shown.run(ROWS.format(0))) == 3
    assert shown.run("document.querySelector('#classes table').tFoot.rows[0].cells[0].textContent") == "all"


SEEN = (
    "[...document.querySelector('.view').querySelectorAll('.layer')]"
    ".filter(i => getComputedStyle(i).visibility === 'visible').map(i => i.alt.split(' of ')[0])"
)


def test_buttons_choose_the_layer_and_blinking_takes_turns(shown: Browser) -> None:
    assert shown.run(SEEN) == ["errors"]
    shown.run("document.querySelector('.view label[for$=\"-2\"]').click()")
    assert shown.run(SEEN) == ["truth"]
    shown.run("document.querySelector('.view input[data-layer=none]').click()")
    assert shown.run(SEEN) == []
    shown.run("document.querySelector('.view button').click()")
    seen = set()
    for _ in range(30):
        seen |= set(shown.run(SEEN))
        shown.wait(0.1)
        if seen == {"truth", "answer"}:
            break
    assert seen == {"truth", "answer"}
    shown.run("document.querySelector('.view button').click()")
    assert shown.run("document.querySelector('.view button').getAttribute('aria-pressed')") == "false"
    still = shown.run(SEEN)
    shown.wait(1.0)
    assert shown.run(SEEN) == still


def test_the_keyboard_reaches_everything(shown: Browser) -> None:
    shown.key("Tab")
    assert shown.run("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        shown.key("Tab")
        reached.add(shown.run("document.activeElement.tagName + (document.activeElement.type || '')"))
        if "INPUTradio" in reached:
            break
    assert reached >= {"A", "BUTTONbutton", "INPUTradio"}
    shown.key("ArrowRight")
    assert shown.run(SEEN) == ["truth"]


def test_the_page_fits_a_narrow_screen(tab: Browser, page: Path) -> None:
    tab.open(page, width=390, height=800)
    assert tab.run("document.documentElement.scrollWidth") <= 390


def test_names_for_those_who_do_not_see(shown: Browser) -> None:
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "radio", "image", "table", "region", "navigation", "group"}
    bare = [
        n for n in nodes if not n.get("ignored") and n["role"]["value"] in named and not n.get("name", {}).get("value")
    ]
    assert [n["role"]["value"] for n in bare if n["role"]["value"] != "table"] == []
    roles = {n["role"]["value"] for n in nodes if not n.get("ignored")}
    assert {"heading", "table", "radio", "image", "navigation", "main"} <= roles
