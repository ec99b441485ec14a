"""What a notebook draws, and the example notebook, run cell by cell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from conftest import smooth_logits
from ensemble_kit.reports import plots
from ensemble_kit.reports.html import report_html
from ensemble_kit.tuning.shift import compare

pytestmark = pytest.mark.slow

Make = Callable[..., ek.LogitStore]
ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").rglob("*.ipynb"))
SHOWN = {"thresholds": (3, 1), "exclusive": (2, 1), "volume": (2, 2)}
"""Tables and pictures of each notebook."""
IMAGE = (40, 50)
HOSTILE = "<script>alert(1)</script>", "a & $x_1$ 'b' \"c\" é", "$\\frac{"


def tuned(make_store: Make, rng: np.random.Generator, classes: tuple[str, ...], **options: object) -> ek.ThresholdSet:
    samples = [f"s{k}" for k in range(9)]
    ens = ek.Ensemble([make_store({s: smooth_logits(rng, (len(classes), 12, 15)) for s in samples}, IMAGE, classes)])
    truth = {(s, c): ens.sample(s).runs(k, 30000) for s in samples for k, c in enumerate(classes)}
    return ek.tune_thresholds(ens, ek.MaskSet(truth), **options)  # type: ignore[arg-type]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_html_shows_every_name_as_it_is_and_runs_none(make_store: Make, rng: np.random.Generator) -> None:
    found = tuned(make_store, rng, HOSTILE, folds=3)
    text = found._repr_html_()
    page = Page(text)
    assert set(page.tags) <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "strong"}
    assert set(HOSTILE) <= set(page.cells)
    assert "$" not in text  # a notebook would take it for a formula
    assert text.count("<tr>") == 1 + len(HOSTILE) + 1
    ens = ek.Ensemble([make_store({"t": smooth_logits(rng, (1, 8, 8))}, IMAGE, HOSTILE[:1], member="m")])
    assert "script" not in Page(compare(ens, ens)._repr_html_()).tags


def test_html_of_warnings(make_store: Make, rng: np.random.Generator) -> None:
    from ensemble_kit.errors import Caution
    from ensemble_kit.reports.report import Report

    page = Page(report_html(Report("<t>", ["<c>"], [["<r>"]], "<m>", ["<l>"], [Caution("<w>", "<f>")])))
    assert "Warning:" in page.cells
    assert {"<t>", "<c>", "<r>", "<m>", "<l>", " <w> · fix: <f>"} <= set(page.cells)


@pytest.mark.parametrize("mean", ["probability", "logit"])
def test_the_plot_shows_curve_point_plateau_and_folds(make_store: Make, rng: np.random.Generator, mean: str) -> None:
    pytest.importorskip("matplotlib")
    samples = [f"s{k}" for k in range(9)]
    ens = ek.Ensemble([make_store({s: smooth_logits(rng, (3, 12, 15)) for s in samples}, IMAGE, HOSTILE)], mean=mean)  # type: ignore[arg-type]
    truth = ek.MaskSet({(s, c): ens.sample(s).runs(k, 30000) for s in samples for k, c in enumerate(HOSTILE)})
    found = ek.tune_thresholds(ens, truth, folds=3)
    figure = found.plot()
    assert [ax.get_title() for ax in figure.axes] == [" ".join(c.split()) for c in HOSTILE]
    for ax, c in zip(figure.axes, found.classes, strict=True):
        lines = {line.get_label(): line for line in ax.get_lines()}
        assert lines["chosen"].get_xydata()[0].tolist() == [found.thresholds[c.name], c.score]
        curve = dict(lines["all samples"].get_xydata().tolist())
        assert curve[found.thresholds[c.name]] == pytest.approx(c.score, abs=1e-12)
        low, high = lines["plateau"].get_xdata()
        assert low <= found.thresholds[c.name] <= high
        assert len(lines["chosen by a fold"].get_xdata()) == 3
        assert len(ax.collections) == 1
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    one = found.plot([HOSTILE[1]])
    assert len(one.axes) == 1
    plain = ek.tune_thresholds(ens, truth).plot()
    assert not plain.axes[0].collections
    assert {t.get_text() for t in plain.legends[0].get_texts()} == {"all samples", "plateau", "chosen"}


def test_what_cannot_be_drawn_says_why(
    make_store: Make, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuned(make_store, rng, ("x", "y"))
    found.save(tmp_path / "set.json")
    with pytest.raises(ek.UsageError, match="read from a file, which holds no curves"):
        ek.ThresholdSet.load(tmp_path / "set.json").plot()
    with pytest.raises(ek.MismatchError, match="no class is called 'z'; it has 'x', 'y'"):
        found.plot(["z"])
    with pytest.raises(ek.MismatchError, match="no class is named"):
        found.plot([])
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plots.figure_class.cache_clear()
    with pytest.raises(
        ek.UsageError, match=r"'matplotlib.*' is not installed · fix: pip install 'ensemble_kit\[plot\]'"
    ):
        found.plot()


RUN = """
import ast, json, sys
space = {"__name__": "__main__"}
with open(sys.argv[1], encoding="utf-8") as file:
    cells = json.load(file)["cells"]
for cell in cells:
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]))
        last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), space)
        value = None if last is None else eval(compile(last, "cell", "eval"), space)
        if value is not None:  # a notebook shows it
            kind = "png" if hasattr(value, "_repr_png_") else "html"
            print(kind, len(getattr(value, f"_repr_{kind}_")()))
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_notebook_runs(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = warm.run("-W", "error", "-c", RUN, path, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout.count("html "), ran.stdout.count("png ")) == SHOWN[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_notebook_is_stripped(path: Path) -> None:
    book = json.loads(path.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            compile("".join(cell["source"]), cell["id"], "exec")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
