"""`ensk report`: every figure is the one that the kit's own commands print; what needs truth is left out without it."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.recipes.reporting.material import Material, of_masks
from ensemble_kit.recipes.reporting.scores import score_section
from ensemble_kit.recipes.reporting.slices import slices_of
from ensemble_kit.reports.page import Sentences, Table
from ensemble_kit.spec.scoring import Measure
from reported import CLASSES, SAMPLES, Files, make_files
from trying import ensk, refused


def report(*words: Any, out: Path) -> str:
    """Run the command, and return the page."""
    ensk("report", *words, "--out", out, "--force", "-q")
    return out.read_text("utf-8")


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    """Return what a command answers with --json."""
    capsys.readouterr()
    ensk(*words, "--json")
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def sections(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', html)


def table(html: str, caption: str) -> list[list[str]]:
    """Return the rows of the table whose caption begins so, as texts; the first row are the columns."""
    found = [
        t for t in re.findall(r"<table.*?</table>", html, re.DOTALL) if re.search(rf"<caption>{re.escape(caption)}", t)
    ]
    assert found, f"no table {caption!r}"
    rows = re.findall(r"<tr>(.*?)</tr>", found[0], re.DOTALL)
    return [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def figures(html: str) -> dict[str, str]:
    return dict(re.findall(r'<dt>([^<]*)</dt><dd class="value">([^<]*)</dd>', html))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Overlapping classes, one of which has a hostile name."""
    return make_files(tmp_path_factory.mktemp("overlapping"))


@pytest.fixture(scope="module")
def exclusive(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Exclusive classes, the first of which is the background."""
    return make_files(tmp_path_factory.mktemp("exclusive"), "softmax", classes=("background", "road", "sky"))


@pytest.fixture(scope="module")
def tuned(files: Files) -> Path:
    path = files.folder / "set.json"
    ensk(
        "tune-thresholds",
        *files.stores,
        "--val",
        files.truth,
        "--folds",
        3,
        "--rule",
        "least-area:40",
        "--out",
        path,
        "-q",
    )
    return path


@pytest.fixture(scope="module")
def page(files: Files, tuned: Path) -> str:
    test = [word for store in files.stores for word in ("--compare", store)]
    words = (tuned, *files.stores, "--val", files.truth, "--images", files.images)
    return report(*words, *test, out=files.folder / "page.html")


def test_a_set_with_stores_truth_and_images_has_every_section(page: str) -> None:
    assert sections(page) == [
        "score", "classes", "curves", "samples", "members", "shift", "rules", "voted", "environment",
    ]  # fmt: skip


def test_scores_are_those_of_the_commands(
    page: str, files: Files, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensk("vote", *files.stores, "--thresholds", tuned, "--out", tmp_path / "v.npz", "-q")
    scored = said(capsys, "score", tmp_path / "v.npz", "--val", files.truth)
    chosen = ek.ThresholdSet.load(tuned)
    assert figures(page)["mean Dice"] == f"{scored['mean']:.4f}" == f"{chosen.score:.4f}"
    crossed = chosen.validation.crossed
    assert crossed is not None
    assert figures(page)["out of fold"] == f"{crossed.scores['tuned']:.4f}"
    rows = {row[0]: row for row in table(page, "mean Dice (both empty")}
    for name in CLASSES:
        assert rows[name][1] == f"{scored['per_class'][name]:.4f}"
        assert rows[name][2] == f"{crossed.classes[name].score:.4f}"
        assert rows[name][3] == f"{chosen.thresholds[name]:.4f}"


def test_areas_and_counts_of_a_class_are_those_of_its_masks(page: str, files: Files, tuned: Path) -> None:
    found = ek.dice(ek.Ensemble(files.stores).vote(ek.ThresholdSet.load(tuned)), ek.read_masks(files.truth))
    rows = {row[0]: row for row in table(page, "mean Dice (both empty")}
    for k, name in enumerate(CLASSES):
        pred, true = found.pred[:, k], found.truth[:, k]
        assert rows[name][-4] == f"{100 * (pred.sum() / true.sum() - 1):+.1f} %"
        assert rows[name][-3:] == [
            str((true > 0).sum()), str(((true > 0) & (pred == 0)).sum()), str(((true == 0) & (pred > 0)).sum()),
        ]  # fmt: skip


def test_each_member_scores_what_its_own_vote_scores(
    page: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row[0]: row[1] for row in table(page, "The answer against its parts")}
    for k, store in enumerate(files.stores):
        ensk("vote", store, "--out", tmp_path / f"{k}.npz", "-q")
        assert rows[f"member{k}"] == f"{said(capsys, 'score', tmp_path / f'{k}.npz', '--val', files.truth)['mean']:.4f}"
    ensk("vote", *files.stores, "--out", tmp_path / "half.npz", "-q")
    half = said(capsys, "score", tmp_path / "half.npz", "--val", files.truth)["mean"]
    assert rows["0.5 for all, no rules"] == f"{half:.4f}"
    agreement = {row[0]: row[1:] for row in table(page, "Agreement")}
    alike = said(capsys, "score", tmp_path / "0.npz", "--val", tmp_path / "1.npz")["mean"]
    assert agreement["member0"][1] == agreement["member1"][0] == f"{alike:.4f}"


def test_samples_are_listed_from_the_worst_on(page: str, files: Files, tuned: Path) -> None:
    found = ek.dice(ek.Ensemble(files.stores).vote(ek.ThresholdSet.load(tuned)), ek.read_masks(files.truth))
    scores = found.values.mean(1)
    rows = table(page, "Samples")[1:]
    assert [row[0] for row in rows] == [found.samples[k] for k in np.argsort(scores, kind="stable")]
    assert [row[1] for row in rows] == [f"{v:.4f}" for v in np.sort(scores)]
    worst = int(np.argmin(scores))
    assert rows[0][2] == found.classes[int(np.argmin(found.values[worst]))]


def test_a_rule_removed_what_differs_with_and_without_it(page: str, files: Files, tuned: Path) -> None:
    chosen, ensemble = ek.ThresholdSet.load(tuned), ek.Ensemble(files.stores)
    before, after = ensemble.vote(chosen, rules=()), ensemble.vote(chosen)
    rows = {row[0]: row for row in table(page, "least-area:40")}
    removed = sum((before[key] - after[key]).area for key in before)
    assert rows["all"][1] == str(removed)
    emptied = sum(before[key].area > 0 and not after[key].area for key in before)
    assert rows["all"][-1] == str(emptied)


def test_curves_say_the_score_of_the_threshold_that_decides(page: str, files: Files, tuned: Path) -> None:
    chosen, ensemble = ek.ThresholdSet.load(tuned), ek.Ensemble(files.stores)
    found = ek.dice(ensemble.vote(chosen, rules=()), ek.read_masks(files.truth)).per_class
    told = unescape(page)
    for name in CLASSES:
        assert f"{name}: {found[name]:.4f} at {chosen.thresholds[name]:.4f}; the best of the curve is" in told


def test_texts_are_escaped_and_pictures_inside(page: str) -> None:
    assert "<b>soft" not in page
    assert "<img src=x" not in page
    assert page.count("{{7*7}}") == page.count("&lt;img src=x onerror=alert(1)&gt; &#39;&#34;&amp;{{7*7}}.png") > 3
    assert page.count("&lt;b&gt;soft&lt;/b&gt; &amp; tissue") > 5
    assert len(re.findall(r'<img class="base" src="data:image/webp', page)) == len(SAMPLES)
    assert 'src="' not in re.sub(r'src="data:', "", page)


def test_the_commands_of_the_page_do_it_again(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(unescape(line))[1:] for line in re.findall(r"<code>(.*?)</code>", page, re.DOTALL)]
    assert [words[0] for words in commands][:2] == ["vote", "score"]
    ensk(*commands[0], "-q")
    assert f"{said(capsys, *commands[1])['mean']:.4f}" == figures(page)["mean Dice"]


def test_without_truth_the_page_has_what_needs_none(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = report(*files.stores, "--images", files.images, out=tmp_path / "r.html")
    assert sections(html) == ["samples", "members", "voted", "environment"]
    review = said(capsys, "review", *files.stores, "--out", tmp_path / "review.csv", "--first", 9)["first"]
    assert [row[0] for row in table(html, "Samples")[1:]] == [row["sample"] for row in review]
    assert [row[1] for row in table(html, "Samples")[1:]] == [f"{row['score']:.4f}" for row in review]
    assert "errors of" not in html


def test_a_set_alone_is_told_of(files: Files, tuned: Path, tmp_path: Path) -> None:
    html = report(tuned, out=tmp_path / "r.html")
    assert sections(html) == ["score", "classes", "voted", "environment"]
    assert figures(html)["mean Dice, in-sample"] == f"{ek.ThresholdSet.load(tuned).score:.4f}"


def test_a_set_is_found_by_its_name(files: Files, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("thresholds").mkdir()
    Path("thresholds/mine.json").write_bytes(tuned.read_bytes())
    assert "Report on mine" in report("mine", out=tmp_path / "r.html")


def test_masks_alone_and_several(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for k, store in enumerate(files.stores):
        paths.append(tmp_path / f"m{k}.npz")
        ensk("vote", store, "--out", paths[-1], "-q")
    html = report(paths[0], "--val", files.truth, "--images", files.images, out=tmp_path / "one.html")
    assert sections(html) == ["score", "classes", "samples", "voted", "environment"]
    assert figures(html)["mean Dice"] == f"{said(capsys, 'score', paths[0], '--val', files.truth)['mean']:.4f}"
    html = report(*paths, "--val", files.truth, out=tmp_path / "three.html")
    assert sections(html) == ["score", "classes", "samples", "members", "voted", "environment"]
    ensk("vote", *paths, "--hard", "--out", tmp_path / "hard.npz", "-q")
    assert (
        figures(html)["mean Dice"]
        == f"{said(capsys, 'score', tmp_path / 'hard.npz', '--val', files.truth)['mean']:.4f}"
    )
    assert sections(report(paths[0], out=tmp_path / "bare.html")) == ["samples", "voted", "environment"]


def test_the_commands_of_masks_name_their_format(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k, store in enumerate(files.stores):
        ensk("vote", store, "--out", f"{k}.csv", "-q", "--csv", "base=0,order=F")
    how = ("--from", "handbone", "--csv", "base=0,order=F", "--image-size", "60x80")
    html = report("0.csv", "1.csv", "2.csv", *how, "--val", files.truth, out=tmp_path / "r.html")
    vote, score = [shlex.split(unescape(line))[1:] for line in re.findall(r"<code>(.*?)</code>", html, re.DOTALL)][:2]
    ensk(*vote, "-q")
    ensk(*score, "--out", "s.json", "-q")
    assert f"{json.loads(Path('s.json').read_text())['mean']:.4f}" == figures(html)["mean Dice"]
    html = report("0.csv", *how, "--val", files.truth, out=tmp_path / "r.html")
    score, *_ = [shlex.split(unescape(line))[1:] for line in re.findall(r"<code>(.*?)</code>", html, re.DOTALL)]
    ensk(*score, "--out", "s.json", "--force", "-q")
    assert f"{json.loads(Path('s.json').read_text())['mean']:.4f}" == figures(html)["mean Dice"]


@pytest.mark.parametrize("how", [(), ("--metric", "iou", "--empty", "skip")], ids=["dice", "mIoU"])
def test_exclusive_classes_have_a_confusion(
    how: tuple[str, ...], exclusive: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = report(
        *exclusive.stores, "--val", exclusive.truth, "--images", exclusive.images, *how, out=tmp_path / "r.html"
    )
    assert sections(html) == ["score", "classes", "confusion", "samples", "members", "voted", "environment"]
    ensk("vote", *exclusive.stores, "--out", tmp_path / "v.npz", "-q")
    masks, truth = (ek.read_masks(path) for path in (tmp_path / "v.npz", exclusive.truth))
    counts = ek.confusion(masks, truth).counts
    rows = table(html, "Confusion")
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    assert rows[2][2] == f"{shares[1, 1]:.1f}"
    assert figures(html)[f"mean {'IoU over pairs' if how else 'Dice'}"] == (
        f"{said(capsys, 'score', tmp_path / 'v.npz', '--val', exclusive.truth, *how)['mean']:.4f}"
    )
    assert "</span>background<" not in html


def test_pictures_are_as_many_as_asked_for(files: Files, tmp_path: Path) -> None:
    for count in (0, 1, 4):
        html = report(*files.stores, "--val", files.truth, "--pictures", count, out=tmp_path / "r.html")
        assert html.count('<fieldset class="view') == count
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["The worst", "Around the median", "The best"]


def test_pictures_beside_the_page(files: Files, tmp_path: Path) -> None:
    words = (*files.stores, "--val", files.truth, "--images", files.images, "--pictures", 2, "--folder")
    html = report(*words, out=tmp_path / "my page.html")
    sources = [unescape(s) for s in re.findall(r'src="([^"]*)"', html)]
    assert len(sources) == 2 * 5
    assert all((tmp_path / s.replace("%20", " ")).is_file() for s in sources)
    assert report(*words, out=tmp_path / "my page.html") == html


def test_a_page_is_the_same_bytes_twice_and_for_any_threads(files: Files, tmp_path: Path) -> None:
    words = (*files.stores, "--val", files.truth, "--images", files.images)
    texts = [report(*words, "--jobs", jobs, out=tmp_path / "r.html") for jobs in (1, 4)]
    assert texts[0] == texts[1]


def test_volumes_are_seen_in_three_slices(tmp_path: Path, rng: np.random.Generator) -> None:
    shape, classes = (6, 20, 30), ("organ", "lesion")
    truth, masks = {}, {}
    for k in range(2):
        for c in classes:
            cube = np.zeros(shape, bool)
            cube[1:5, 4:15, 5:20] = True
            truth[f"v{k}", c] = ek.encode(cube)
            cube[3:, 4:8, 22:28] = True  # the one component that is wrong
            masks[f"v{k}", c] = ek.encode(cube)
    ek.MaskSet(truth).write(tmp_path / "t.npz")
    ek.MaskSet(masks).write(tmp_path / "m.npz")
    html = report(tmp_path / "m.npz", "--val", tmp_path / "t.npz", "--pictures", 6, out=tmp_path / "r.html")
    titles = re.findall(r"<legend>(.*?)</legend>", html)
    assert titles[:3] == ["v0, z = 4", "v0, y = 5", "v0, x = 24"]
    assert len(titles) == 6


def test_ids_of_images_may_be_stems(files: Files, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for path in files.images.iterdir():
        (tmp_path / "deep" / path.name).write_bytes(path.read_bytes())
    masks = files.masks.called({s: Path(s).stem for s in files.masks.samples})
    masks.write(tmp_path / "m.npz")
    html = report(tmp_path / "m.npz", "--images", tmp_path, "--pictures", 2, out=tmp_path / "r.html")
    assert html.count('class="base"') == 2


def test_refusals_name_what_to_do(files: Files, tuned: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r.html")
    files.masks.write(tmp_path / "m.npz")
    with refused(ek.UsageError, "report-suffix", "r.txt", ".html"):
        ensk("report", tuned, "--out", tmp_path / "r.txt")
    with refused(ek.UsageError, "report-inputs", "1 stores and 1 mask files"):
        ensk("report", files.stores[0], tmp_path / "m.npz", *out)
    with refused(ek.UsageError, "report-inputs", "two sets"):
        ensk("report", tuned, tuned, *out)
    with refused(ek.UsageError, "option-idle", "--val", "on a set alone"):
        ensk("report", tuned, "--val", files.truth, *out)
    with refused(ek.UsageError, "option-idle", "--weights", "on mask files"):
        ensk("report", tmp_path / "m.npz", "--weights", "1", *out)
    with refused(ek.IncompleteError, "member-missing", "no.npz"):
        ensk("report", tmp_path / "no.npz", *out)
    with refused(ek.IncompleteError, "set-missing", "no-such-set"):
        ensk("report", "no-such-set", *out)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "x.png").write_bytes((files.images / SAMPLES[0]).read_bytes())
    with refused(ek.IncompleteError, "images-missing", "x"):
        ensk("report", tmp_path / "m.npz", "--images", tmp_path / "others", *out)
    with refused(ek.MismatchError, "classes-differ", "the set"):
        ek.MaskSet({(s, "other"): files.masks[s, "bone"] for s in SAMPLES}).write(tmp_path / "o.npz")
        ensk("report", tuned, tmp_path / "o.npz", *out)
    (tmp_path / "r.html").write_text("mine")
    with refused(ek.UsageError, "output-exists", "r.html"):
        ensk("report", tuned, *out)
    assert (tmp_path / "r.html").read_text() == "mine"


def test_an_image_of_another_size_is_refused(files: Files, tmp_path: Path) -> None:
    from PIL import Image

    for s in SAMPLES:
        Image.new("L", (10, 10)).save(tmp_path / s)
    with refused(ek.MismatchError, "image-size-differs", "10 x 10", "60 x 80"):
        ensk("report", files.stores[0], "--images", tmp_path, "--out", tmp_path / "r.html", "-q")


def test_equal_members_gain_nothing() -> None:
    one = ek.MaskSet({(f"s{k}", "a"): ek.Runs([k], [k + 4], (4, 5)) for k in range(4)})
    found = of_masks({"a": one, "b": one, "c": one}, one, Measure(), None, None, 0)
    assert found.scores is not None
    assert found.scores.score == 1.0
    section = score_section(found)
    assert section is not None
    (rows,) = [block.rows for block in section.blocks if isinstance(block, Table)]
    assert [list(row[1:]) for row in rows[1:]] == [["1.0000", "+0.0000", "+0.0000", "+0.0000", "0", "0"]] * 3


@pytest.mark.slow
def test_thousands_of_samples_and_hundreds_of_classes_make_a_page_that_opens(tmp_path: Path) -> None:
    rng, classes = np.random.default_rng(0), [f"class {c}" for c in range(300)]
    runs = [ek.Runs([int(s)], [int(s) + 9], (20, 20)) for s in rng.integers(0, 300, 50)]

    def masks(samples: int, names: list[str], step: int) -> ek.MaskSet:
        return ek.MaskSet(
            {(f"s{k}", c): runs[(k * step + n) % 50] for k in range(samples) for n, c in enumerate(names)}
        )

    for samples, names in ((20, classes), (4000, classes[:8])):
        masks(samples, names, 7).write(tmp_path / "m.csv", format="handbone")
        masks(samples, names, 8).write(tmp_path / "t.csv", format="handbone")
        words = (tmp_path / "m.csv", "--val", tmp_path / "t.csv", "--image-size", "20", "--pictures", 2)
        html = report(*words, out=tmp_path / "r.html")
        assert len(html) < 1_000_000
        assert ("of the 60 lowest of 300 classes" in html) == (samples == 20)
        assert ("the 1000 lowest of 4000" in html) == (samples == 4000)


def test_a_truth_that_does_not_fit_the_stores_is_refused(files: Files, exclusive: Files, tmp_path: Path) -> None:
    out, none = ("--out", tmp_path / "r.html", "-q", "--force"), tmp_path / "t.npz"
    truth = ek.read_masks(files.truth)
    truth.arranged(SAMPLES[:-2], CLASSES).write(none)
    pages = ("report", *files.stores, "--val", none, *out)
    drawn = ("draw", "errors", files.stores[0], "--val", none, "--out", tmp_path / "p", "-q", "--force")
    with refused(ek.IncompleteError, "truth-missing", SAMPLES[-2], "2 of 9"):
        ensk(*pages)
    ensk(*drawn)  # the first samples have a truth
    with refused(ek.IncompleteError, "truth-missing", "1 of 1"):
        ensk(*drawn, "--sample", SAMPLES[-1])
    truth.called({s: s.replace(".png", ".tif") for s in SAMPLES}).write(none)
    for words in (pages, drawn):
        with refused(ek.IncompleteError, "truth-missing", "--id stem"):
            ensk(*words)
    ensk(*pages, "--id", "stem")
    for choice in (("--only", "rim"), ("--except", "bone")):
        with refused(ek.MismatchError, "classes-differ", "bone", "--only"):
            ensk("report", *files.stores, "--val", files.truth, *choice, *out)
    with refused(ek.MismatchError, "classes-differ", "--background background"):
        ensk("report", *exclusive.stores, "--val", exclusive.truth, "--except", "background", *out)
    words = ("--except", "background", "--background", "background")
    ensk("report", *exclusive.stores, "--val", exclusive.truth, *words, *out)


def again(html: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run the commands of a page up to its score, and return that."""
    commands = [shlex.split(unescape(line))[1:] for line in re.findall(r"<code>(.*?)</code>", html, re.DOTALL)]
    for words in commands:
        if words[0] == "score":
            return said(capsys, *words)
        ensk(*words, "-q", "--force")
    raise AssertionError(commands)


@pytest.mark.parametrize("kind", ["stores", "several CSV files", "one CSV file", "CSV of all"])
def test_the_commands_give_sizes_and_classes_that_files_lack(
    kind: str, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs: list[Any] = files.stores
    if kind != "stores":
        inputs = [f"m{k}.csv" for k in range(1 if kind == "one CSV file" else 3)]
        for store, path in zip(files.stores, inputs, strict=False):
            ensk("vote", store, "--out", path, "--format", "handbone", "-q")
    truth = ek.read_masks(files.truth)
    if kind == "CSV of all":
        truth.write("truth.csv", format="handbone")
    else:
        one = ek.MaskSet({(s, "bone"): truth[s, "bone"] for s in SAMPLES})  # label maps need the names of classes
        one.write("truth", format="label-map")
        if kind == "stores":
            inputs = [tmp_path / f"one{k}.zarr" for k in range(2)]
            for path in inputs:
                with ek.LogitWriter(path, ["bone"], SAMPLES, (60, 80), member=path.stem) as out:
                    for s in SAMPLES:
                        out.write(s, 8.0 * truth[s, "bone"].decode()[None] - 4, image_size=(60, 80))
    val: list[Any] = ["--val", "truth.csv" if kind == "CSV of all" else "truth"]
    val += [] if kind in {"stores", "CSV of all"} else ["--only", "bone"]
    html = report(*inputs, *val, "--images", files.images, out=tmp_path / "r.html")
    assert f"{again(html, capsys)['mean']:.4f}" == figures(html)["mean Dice"]


def test_samples_of_the_truth_that_no_store_holds_are_told(files: Files, tmp_path: Path) -> None:
    truth = ek.read_masks(files.truth)
    more = {("more.png", c): truth[SAMPLES[0], c] for c in CLASSES}
    ek.MaskSet({**truth, **more}).write(tmp_path / "t.npz")
    html = report(*files.stores, "--val", tmp_path / "t.npz", out=tmp_path / "r.html")
    assert "<dt>truth left out</dt><dd>1 samples that the stores do not hold</dd>" in html
    assert "t.npz has 1 more, which it refuses" in html
    assert "left out" not in report(*files.stores, "--val", files.truth, out=tmp_path / "r.html")


def test_options_that_only_a_truth_gives_an_effect_are_refused(files: Files, tuned: Path, tmp_path: Path) -> None:
    files.masks.write(tmp_path / "m.npz")
    out = ("--out", tmp_path / "r.html", "-q")
    scored = (("--metric", "iou"), ("--empty", "0"), ("--eps", "1"), ("--groups", "(.)"), ("--val-format", "png"))
    chosen = (("--only", "bone"), ("--except", "bone"), ("--void", "3"), ("--first-value", "1"), ("--id", "stem"))
    for words in (*scored, *chosen):
        with refused(ek.UsageError, "option-idle", words[0], "without a truth"):
            ensk("report", files.stores[0], *words, *out)
        with refused(ek.UsageError, "option-idle", words[0], "on a set alone"):
            ensk("report", tuned, *words, *out)
    for words in scored:
        with refused(ek.UsageError, "option-idle", words[0], "without a truth"):
            ensk("report", tmp_path / "m.npz", *words, *out)
    with refused(ek.UsageError, "option-idle", "--folder", "on a set alone"):
        ensk("report", tuned, "--folder", *out)
    assert not (tmp_path / "r_files").exists()
    with refused(ek.UsageError, "member-twice", "m.npz is named twice"):
        ensk("report", f"a={tmp_path / 'm.npz'}", f"b={tmp_path / 'm.npz'}", *out)


def test_a_path_that_is_not_there_is_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("no.zarr", "no.csv", "no.npz", "labels.nii.gz"):
        with refused(ek.IncompleteError, "member-missing", f"{name} does not exist"):
            ensk("report", name)
    with refused(ek.IncompleteError, "set-missing", "no.json"):
        ensk("report", "no.json")


def test_pictures_are_counted_and_images_that_are_missing_are_named(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("report", files.stores[0], "--pictures", 4, "--force", "--out", tmp_path / "r.html")
    assert said(capsys, *words)["pictures"] == 4
    for s in SAMPLES[:-1]:
        (tmp_path / s).write_bytes((files.images / s).read_bytes())
    capsys.readouterr()
    ensk(*words, "--images", tmp_path, "--json")
    found = capsys.readouterr()
    assert json.loads(found.out)["pictures"] == 4
    assert "1 of 9 samples have no image" in found.err
    assert "1 of 1 samples" not in found.err
    ensk("draw", "overlay", files.stores[0], "--images", tmp_path, "--out", tmp_path / "p")
    assert "no image" not in capsys.readouterr().err  # the first four have one


def test_pictures_of_a_killed_run_are_replaced(files: Files, tmp_path: Path) -> None:
    words = ("report", files.stores[0], "--out", tmp_path / "r.html", "--folder", "-q")
    ensk(*words)
    whole = (tmp_path / "r.html").read_bytes()
    (tmp_path / "r.html").unlink()  # the page is written after them
    ensk(*words)
    assert (tmp_path / "r.html").read_bytes() == whole
    (tmp_path / "r.html").unlink()
    (tmp_path / "r_files" / "pictures-of-a-report.txt").unlink()
    with refused(ek.UsageError, "output-foreign", "r_files"):
        ensk(*words)
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("top", [-9.0, 1.0], ids=["at no threshold", "above some thresholds"])
def test_a_score_of_no_pair_is_told_in_words(top: float, tmp_path: Path) -> None:
    logits = np.linspace(-9, top, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    for name in ("a", "b"):
        with ek.LogitWriter(tmp_path / f"{name}.zarr", ["c"], ["s", "t"], (8, 8), member=name) as out:
            out.write(["s", "t"], np.repeat(logits, 2, axis=0), image_size=[(8, 8)] * 2)
    ek.MaskSet({(s, "c"): ek.Runs([], [], (8, 8)) for s in "st"}).write(tmp_path / "t.npz")
    words = (tmp_path / "a.zarr", tmp_path / "b.zarr", "--val", tmp_path / "t.npz", "--empty", "skip")
    html = report(*words, out=tmp_path / "r.html")
    shown = re.sub(r"<(style|script)>.*?</\1>|data:[^\"]*", "", html, flags=re.DOTALL)
    assert ("no gain is known" in shown) == (top < 0)
    assert ("no pair counts where its masks are empty" in shown) == (top > 0)
    assert not re.search(r"\bnan\b", shown, re.IGNORECASE)


def test_curves_say_how_far_they_run(page: str) -> None:
    assert "at every threshold from 0.05 to 0.95, and as far as the one that decides" in page


def test_the_worst_voxel_is_none_that_does_not_count() -> None:
    shape = (2, 4, 4)
    truth = ek.MaskSet({("s", "a"): ek.Runs([31], [32], shape)}, void={"s": ek.Runs([0], [16], shape)})
    found = of_masks({"m": ek.MaskSet({("s", "a"): ek.Runs([0], [8], shape)})}, truth, Measure(), None, None, 0)
    assert [cut.told for cut in slices_of(found, "s", 16)] == ["z = 1", "y = 3", "x = 3"]


def test_scores_are_those_of_their_samples_and_classes_in_any_order_of_the_truth(files: Files, tmp_path: Path) -> None:
    masks, truth = files.masks, ek.read_masks(files.truth)
    masks.write(tmp_path / "m.npz")
    truth.arranged(truth.samples[::-1], truth.classes[::-1]).write(tmp_path / "t.npz")
    words = (tmp_path / "m.npz", "--pictures", 2, "--hd95", "--val")
    html = report(*words, tmp_path / "t.npz", out=tmp_path / "r.html")
    usual = report(*words, files.truth, out=tmp_path / "r.html")
    found = ek.dice(masks, truth)
    scores = dict(zip(found.samples, found.values.mean(1), strict=True))
    order = sorted(scores, key=scores.__getitem__)
    assert [row[:2] for row in table(html, "Samples")[1:]] == [[s, f"{scores[s]:.4f}"] for s in order]
    assert [unescape(s) for s in re.findall(r"<legend>(.*?)</legend>", html)] == [order[0], order[len(order) // 2]]
    assert sorted(table(html, "mean Dice")) == sorted(table(usual, "mean Dice"))


def test_surfaces_are_measured_where_it_is_asked_for(tmp_path: Path) -> None:
    from ensemble_kit.metrics.surface import hausdorff95
    from ensemble_kit.spec.affine import Geometry

    place = Geometry.of(np.diag([0.5, 1, 4, 1]))
    rng = np.random.default_rng(3)
    names = [(s, c) for s in "ab" for c in "xyz"]
    truth = ek.MaskSet({k: ek.encode(rng.random((4, 9, 9)) < 0.2 * (k[1] != "z")) for k in names})
    masks = ek.MaskSet({k: ek.encode(rng.random((4, 9, 9)) < 0.2) for k in names})
    for told in (masks, truth):
        told.with_geometry(dict.fromkeys("ab", place)).write(tmp_path / f"{'mask' if told is masks else 'truth'}.npz")
    page = report(tmp_path / "mask.npz", "--val", tmp_path / "truth.npz", "--hd95", out=tmp_path / "r.html")
    rows = table(page, "mean Dice")
    column = rows[0].index("HD95 mm")
    each = {k: hausdorff95(masks[k], truth[k], (4, 1, 0.5)) for k in names}
    means = {c: np.mean([each[s, c] for s in "ab"]) for c in "xy"}
    assert [row[column] for row in rows[1:]] == [
        f"{means['x']:.2f}",
        f"{means['y']:.2f}",
        "–",
        f"{np.mean([*means.values()]):.2f}",
    ]
    assert "HD95: 95th percentile" in page
    masks.write(tmp_path / "mask.npz")
    truth.write(tmp_path / "truth.npz")
    page = report(tmp_path / "mask.npz", "--val", tmp_path / "truth.npz", "--hd95", out=tmp_path / "r.html")
    assert "HD95 pixels" in table(page, "mean Dice")[0]
    with refused(ek.UsageError, "option-idle", "--hd95", "without a truth"):
        ensk("report", tmp_path / "mask.npz", "--hd95", "--out", tmp_path / "n.html")


def test_curves_are_the_same_however_many_classes_are_counted_at_a_time(
    files: Files, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble_kit.recipes.reporting import curves

    words = [tuned, *files.stores, "--val", files.truth]
    at_once = report(*words, out=tmp_path / "r.html")
    monkeypatch.setattr(curves, "_HELD", 1)
    assert report(*words, out=tmp_path / "r.html") == at_once
    assert "curves" in sections(at_once)


@pytest.mark.parametrize(("n", "claim"), [(1, "tells nothing"), (5, "5 samples are too few"), (6, "more than chance")])
def test_a_gain_is_claimed_of_six_samples_at_least(n: int, claim: str) -> None:
    right, cut = (ek.MaskSet({(f"s{k}", "a"): ek.Runs([0], [end], (4, 5)) for k in range(n)}) for end in (10, 8))
    section = score_section(Material(masks=right, truth=right, members={"cut": cut}))
    assert section is not None
    told = next(block.lines[0] for block in section.blocks if isinstance(block, Sentences))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert claim in told
    assert ("95 %" in told) == (n > 1)
    assert table.rows[1][2:] == ["+0.1111", *(["–", "–"] if n == 1 else ["+0.1111", "+0.1111"]), str(n), "0"]


def test_another_metric_than_the_sets_is_told_apart(
    files: Files,
    tuned: Path,
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    told = "The set was tuned by mean Dice (both empty = 1, eps = 0), and the sentences below are of that."
    assert told not in page
    words = (tuned, *files.stores, "--val", files.truth)
    html = report(*words, "--metric", "iou", out=tmp_path / "r.html")
    assert told in html
    assert f"{again(html, capsys)['mean']:.4f}" in figures(html).values()
    html = report(*words, "--metric", "f2", out=tmp_path / "r.html")
    assert told in html
    assert "ensk score" not in html  # which has no such metric
