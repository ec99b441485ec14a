"""`ensk report --part`: the page that `ensk merge` makes of parts is the whole's, byte for byte, or it is refused."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.cli import page_out
from ensemble_kit.execution.parts import Part
from ensemble_kit.recipes.part_file import LATER, PartFile, path_of
from ensemble_kit.spec.affine import Geometry
from reported import SAMPLES, Files, make_files
from trying import ensk, refused


@pytest.fixture(autouse=True)
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Overlapping classes."""
    return make_files(tmp_path_factory.mktemp("overlapping"))


@pytest.fixture(scope="module")
def exclusive(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Exclusive classes, the first of which is the background."""
    return make_files(tmp_path_factory.mktemp("exclusive"), "softmax", classes=("background", "road", "sky"))


@pytest.fixture(scope="module")
def tuned(files: Files) -> Path:
    path = files.folder / "set.json"
    rule = ("--rule", "least-area:40")
    ensk("tune-thresholds", *files.stores, "--val", files.truth, "--folds", 3, *rule, "--out", path, "-q")
    return path


def pages(folder: Path, parts: int, *words: Any) -> tuple[bytes, bytes]:
    """Make one page of all samples, and one of parts."""
    ensk("report", *words, "--out", folder / "r.html", "-q")
    whole = (folder / "r.html").read_bytes()
    (folder / "r.html").unlink()
    for k in reversed(range(1, parts + 1)):
        ensk("report", *words, "--out", folder / "r.html", "--part", f"{k}/{parts}", "-q")
        assert not (folder / "r.html").exists()  # a file at its final name is whole
    ensk("merge", folder / "r.html", "--out", folder / "r.html", "-q")
    return whole, (folder / "r.html").read_bytes()


def has(page: bytes, *sections: str) -> bool:
    return all(f'<section id="{name}"'.encode() in page for name in sections)


@pytest.mark.parametrize("parts", [2, 3, len(SAMPLES)])
def test_every_section_of_a_set_with_stores_truth_and_images(
    files: Files, tuned: Path, tmp_path: Path, parts: int
) -> None:
    test = [word for store in files.stores for word in ("--compare", store)]
    words = (tuned, *files.stores, "--val", files.truth, "--images", files.images, *test, "--hd95", "--pictures", 5)
    whole, merged = pages(tmp_path, parts, *words)
    assert has(whole, "score", "classes", "curves", "samples", "members", "shift", "rules", "voted", "environment")
    assert b"HD95" in whole
    assert merged == whole


def test_one_part_is_the_page(files: Files, tmp_path: Path) -> None:
    ensk("report", *files.stores, "--out", tmp_path / "r.html", "--pictures", 1, "-q")
    ensk("report", *files.stores, "--out", tmp_path / "1.html", "--pictures", 1, "--part", "1/1", "-q")
    assert (tmp_path / "r.html").read_bytes() == (tmp_path / "1.html").read_bytes()


def test_groups_another_metric_rules_and_a_truth_of_more_samples(files: Files, tmp_path: Path) -> None:
    masks = ek.read_masks(files.truth)
    ek.MaskSet({**masks, **{("more.png", c): masks[SAMPLES[0], c] for c in masks.classes}}).write(tmp_path / "t.npz")
    words = (*files.stores, "--val", tmp_path / "t.npz", "--groups", "(.)[.]png", "--metric", "iou", "--empty", "skip")
    rules = ("--rule", "drop-small:9", "--rule", "fill-holes")
    whole, merged = pages(tmp_path, 2, *words, "--seed", 4, "--hd95", "--pictures", 2, *rules)
    assert b"over groups" in whole
    assert b"t.npz has 1 more" in whole
    assert merged == whole


@pytest.mark.parametrize("how", [(), ("--val",)], ids=["without truth", "with truth"])
def test_exclusive_classes(exclusive: Files, tmp_path: Path, how: tuple[str, ...]) -> None:
    val = [*how, exclusive.truth] if how else []
    words = (*exclusive.stores, *val, "--background", "background", "--images", exclusive.images)
    test = ("--compare", exclusive.stores[0], "--compare", exclusive.stores[1], "--compare", exclusive.stores[2])
    whole, merged = pages(tmp_path, 3, *words, *test, "--pictures", 4)
    assert has(whole, "samples", "members", "shift", *(["confusion", "classes"] if how else []))
    assert merged == whole


def test_a_truth_with_void(exclusive: Files, tmp_path: Path) -> None:
    """The first and the last sample have void pixels, so a part may have none."""
    masks, rng = ek.read_masks(exclusive.truth), np.random.default_rng(5)
    kept = dict(masks)
    for a, b in (("background", "road"), ("background", "sky"), ("road", "sky")):  # the truth's were moved
        kept |= {(s, b): kept[s, b] - kept[s, a] for s in masks.samples}
    void = {s: ek.encode(rng.random((60, 80)) < 0.1) for s in (SAMPLES[0], SAMPLES[2])}
    truth = {key: own - void.get(key[0], ek.Runs.empty((60, 80))) for key, own in kept.items()}
    ids = {s: f"case {k}.png" for k, s in enumerate(SAMPLES)}
    ek.MaskSet(truth, void=void).called(ids).write(tmp_path / "t", format="label-map")
    stores = []
    for k in range(2):
        stores.append(tmp_path / f"m{k}.npz")
        ek.Ensemble(exclusive.stores[k]).vote().called(ids).write(stores[-1])
    whole, merged = pages(tmp_path, 2, *stores, "--val", tmp_path / "t", "--hd95", "--pictures", 4)
    assert b"Void: " in whole
    assert merged == whole


def test_overlapping_classes_without_truth(files: Files, tmp_path: Path) -> None:
    whole, merged = pages(tmp_path, 3, *files.stores, "--decide", "rank", "--pictures", 4)
    assert b"expected Dice" in whole
    assert merged == whole


def test_a_test_set_with_fewer_samples_than_parts(files: Files, tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "t.zarr", files.masks.classes, ["a", "b"], (8, 8), member="member0") as out:
        out.write(["a", "b"], np.random.default_rng(0).normal(size=(2, 3, 8, 8)), image_size=[(16, 16)] * 2)
    whole, merged = pages(tmp_path, 4, files.stores[0], "--compare", tmp_path / "t.zarr", "--pictures", 0)
    assert has(whole, "shift")
    assert merged == whole


def test_mask_files_in_other_orders(files: Files, tmp_path: Path) -> None:
    """Samples and classes of each file stand in an order of its own."""
    for k, store in enumerate(files.stores):
        masks = ek.Ensemble(store).vote()
        masks.arranged(masks.samples[k:] + masks.samples[:k], masks.classes).write(tmp_path / f"m{k}.npz")
    truth = ek.read_masks(files.truth)
    truth.arranged(truth.samples[::-1], truth.classes[::-1]).write(tmp_path / "t.npz")
    words = (*(tmp_path / f"m{k}.npz" for k in range(3)), "--val", tmp_path / "t.npz", "--hd95", "--pictures", 2)
    whole, merged = pages(tmp_path, 2, *words)
    assert has(whole, "score", "members")
    assert merged == whole


@pytest.mark.parametrize("known", [len("ab"), 1], ids=["every spacing known", "one unknown"])
def test_volumes(tmp_path: Path, known: int) -> None:
    """Distances are of one unit, which all samples decide."""
    rng, place = np.random.default_rng(3), Geometry.of(np.diag([0.5, 1, 4, 1]))
    names = [(s, c) for s in "ab" for c in "xyz"]
    for name, dense in (("t", 0.2), ("m", 0.3)):
        masks = ek.MaskSet({k: ek.encode(rng.random((4, 9, 9)) < dense) for k in names})
        masks.with_geometry(dict.fromkeys("ab"[:known], place)).write(tmp_path / f"{name}.npz")
    whole, merged = pages(tmp_path, 2, tmp_path / "m.npz", "--val", tmp_path / "t.npz", "--hd95", "--pictures", 6)
    assert (b"HD95 mm" if known == 2 else b"HD95 pixels") in whole
    assert b"y = " in whole
    assert merged == whole


def test_stores_of_volumes(tmp_path: Path) -> None:
    stores, rng = [tmp_path / "a.zarr", tmp_path / "b.zarr"], np.random.default_rng(4)
    for path in stores:
        with ek.LogitWriter(path, ["x", "y"], ["v0", "v1", "v2"], (3, 6, 7), member=path.stem) as out:
            for s in ("v0", "v1", "v2"):
                out.write(s, rng.normal(size=(2, 3, 6, 7)).astype(np.float32), image_size=(6, 12, 14))
    ek.Ensemble(stores[0]).vote(0.4).write(tmp_path / "t.npz")
    whole, merged = pages(tmp_path, 2, *stores, "--val", tmp_path / "t.npz", "--hd95", "--pictures", 3)
    assert has(whole, "curves", "members")
    assert merged == whole


def test_pictures_beside_the_page(files: Files, tmp_path: Path) -> None:
    words = (*files.stores, "--val", files.truth, "--images", files.images, "--pictures", 2, "--folder")
    ensk("report", *words, "--out", tmp_path / "r.html", "-q")
    before = {p.name: p.read_bytes() for p in (tmp_path / "r_files").iterdir()}
    shutil.rmtree(tmp_path / "r_files")
    (tmp_path / "r.html").rename(tmp_path / "whole.html")
    for k in (1, 2):
        ensk("report", *words, "--out", tmp_path / "r.html", "--part", f"{k}/2", "-q")
    ensk("merge", tmp_path / "r.html", "--out", tmp_path / "r.html", "-q")
    assert {p.name: p.read_bytes() for p in (tmp_path / "r_files").iterdir()} == before
    assert (tmp_path / "r.html").read_bytes() == (tmp_path / "whole.html").read_bytes()


def test_processes_of_a_folder_of_their_own_and_the_command_that_the_page_names(
    files: Files, tuned: Path, tmp_path: Path
) -> None:
    """The page names the command of a page of all samples, without its part."""
    words = [str(w) for w in (tuned, *files.stores, "--val", files.truth, "--images", files.images, "--pictures", 2)]
    words = ["report", *words, "--out", "r.html"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert warm.ensk(*words, cwd=whole).returncode == 0
    for k in (1, 2):
        assert warm.ensk(*words, "--part", f"{k}/2", cwd=parts).returncode == 0
    (parts / "r.html.part-2-of-2").rename(tmp_path / "r.html.part-2-of-2")  # parts may be moved
    found = ["merge", "parts/r.html.part-1-of-2", "r.html.part-2-of-2", "--out", "merged.html"]
    merged = warm.ensk(*found, "--json", cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    assert '"pictures": 2' in merged.stdout
    assert (tmp_path / "merged.html").read_bytes() == (whole / "r.html").read_bytes()
    assert b"This page:" in (whole / "r.html").read_bytes()


@pytest.fixture
def parts(files: Files, tmp_path: Path) -> Path:
    """Two parts of a page."""
    for k in (1, 2):
        ensk("report", *_words(files), "--out", tmp_path / "r.html", "--part", f"{k}/2", "-q")
    return tmp_path / "r.html"


def _words(files: Files) -> list[Any]:
    return [files.stores[0], "--val", files.truth, "--images", files.images, "--pictures", 1]


def test_a_part_that_is_missing_or_named_twice_is_refused(parts: Path) -> None:
    one, two = (path_of(parts, Part(k, 2)) for k in (1, 2))
    with refused(ek.UsageError, "part-twice", "is named twice"):
        ensk("merge", one, one, two, "--out", parts)
    with refused(ek.IncompleteError, "part-missing", "without 2/2", "--part 2/2"):
        ensk("merge", one, "--out", parts)
    assert not parts.exists()


OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "pictures": (("--pictures", "2"), "pictures"),
    "thresholds": (("--thresholds", "0.4"), "decision"),
    "metric": (("--metric", "iou"), "measure"),
    "seed": (("--seed", "3"), "seed"),
    "groups": (("--groups", "(.)[.]png"), "groups"),
    "HD95": (("--hd95",), "hd95"),
    "rules": (("--rule", "drop-small:3"), "rules"),
}


@pytest.mark.parametrize(("options", "told"), OTHERS.values(), ids=OTHERS)
def test_parts_of_two_pages_are_refused(
    parts: Path, files: Files, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    ensk("report", *_words(files), *options, "--out", tmp_path / "o.html", "--part", "2/2", "-q")
    with refused(ek.MismatchError, "parts-differ", told):
        ensk("merge", path_of(parts, Part(1, 2)), path_of(tmp_path / "o.html", Part(2, 2)), "--out", parts)


def test_a_part_of_another_set_or_truth_is_not_taken_for_this_one(
    parts: Path, files: Files, tuned: Path, tmp_path: Path
) -> None:
    again = ["report", *_words(files), "--out", parts, "--part", "1/2"]
    before = path_of(parts, Part(1, 2)).stat().st_ino
    ensk(*again)
    assert path_of(parts, Part(1, 2)).stat().st_ino == before  # it is not done again
    files.masks.write(tmp_path / "other.npz")
    with refused(ek.UsageError, "output-exists", "part of another run", "--force"):
        ensk(*[tmp_path / "other.npz" if w == files.truth else w for w in again])
    ensk(*[tmp_path / "other.npz" if w == files.truth else w for w in again], "--force")
    assert path_of(parts, Part(1, 2)).stat().st_ino != before


def test_images_that_have_moved_are_named_to_the_merge(parts: Path, files: Files, tmp_path: Path) -> None:
    ensk("merge", parts, "--out", parts)
    there, moved = files.images, tmp_path / "moved"
    there.rename(moved)
    try:
        with refused(ek.IncompleteError, "images-missing", str(there), "--images FOLDER"):
            ensk("merge", parts, "--out", tmp_path / "again.html")
        ensk("merge", parts, "--out", tmp_path / "again.html", "--images", moved)
    finally:
        moved.rename(there)
    assert (tmp_path / "again.html").read_bytes() == parts.read_bytes()
    with refused(ek.IncompleteError, "images-missing", "no-folder"):
        ensk("merge", parts, "--out", parts, "--force", "--images", tmp_path / "no-folder")


def test_what_has_no_effect_on_a_page_or_its_merge_is_refused(
    parts: Path, files: Files, tuned: Path, tmp_path: Path
) -> None:
    with refused(ek.UsageError, "report-suffix", "r.csv"):
        ensk("merge", parts, "--out", tmp_path / "r.csv")
    with refused(ek.UsageError, "output-is-stdout"):
        ensk("merge", parts, "--out", "-")
    for option in ("--like", "--confusion", "--by-sample"):
        with refused(ek.UsageError, "option-idle", option):
            ensk("merge", parts, "--out", tmp_path / "o.html", option, tmp_path / "x.csv")
    with refused(ek.UsageError, "option-idle", "--part", "on a set alone"):
        ensk("report", tuned, "--part", "1/2", "--out", tmp_path / "o.html")
    with refused(ek.UsageError, "part-empty", "--part 1/99", "9 samples"):
        ensk("report", *_words(files), "--part", "1/99", "--out", tmp_path / "o.html")
    with refused(ek.UsageError, "option-invalid", "--part '2'"):
        ensk("report", *_words(files), "--part", "2", "--out", tmp_path / "o.html")
    with refused(ek.UsageError, "images-missing"):
        ensk("report", files.stores[0], "--images", tmp_path, "--part", "1/2", "--out", tmp_path / "o.html")
    ensk("report", files.stores[0], "--part", "1/2", "--out", tmp_path / "bare.html")
    ensk("report", files.stores[0], "--part", "2/2", "--out", tmp_path / "bare.html")
    with refused(ek.UsageError, "option-idle", "--images", "on a page without images"):
        ensk("merge", tmp_path / "bare.html", "--out", tmp_path / "bare.html", "--images", files.images)


def test_a_dry_run_says_how_a_page_is_shared_out(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensk("report", *_words(files), "--out", tmp_path / "r.html", "--part", "1/3", "--dry-run")
    told = capsys.readouterr().out
    assert "--array=1-3" in told
    assert f"merge {tmp_path / 'r.html'} --out {tmp_path / 'r.html'}" in told
    assert not list(tmp_path.iterdir())


def test_counts_of_curves_are_read_class_by_class(parts: Path) -> None:
    """They are the most of a part: the merge holds those of one class."""
    part = PartFile.load(path_of(parts, Part(1, 2)))
    later = [name for name in part.arrays if name.startswith(LATER)]
    assert later
    assert all(part.arrays[name] is not part.arrays[name] for name in later)
    assert all(part.arrays[name] is part.arrays[name] for name in part.arrays if name not in later)


@pytest.mark.parametrize("where", ["later.levels.0.npy", "masks.starts.npy", "head.npy"])
def test_a_damaged_part_is_told_and_made_again(parts: Path, files: Files, where: str) -> None:
    path = path_of(parts, Part(2, 2))
    content = bytearray(path.read_bytes())
    at = content.index(where.encode()) + len(where) + 140
    content[at] ^= 0xFF
    path.write_bytes(content)
    with refused(ek.DamagedError, "part-invalid", "run the command that made it"):
        ensk("merge", parts, "--out", parts)
    assert not parts.exists()
    ensk("report", *_words(files), "--out", parts, "--part", "2/2", "-q")
    ensk("merge", parts, "--out", parts, "-q")


def test_parts_whose_contents_do_not_fit_are_told(parts: Path) -> None:
    path = path_of(parts, Part(2, 2))
    part = PartFile.load(path)
    for head in ({}, {**part.head, "curves": [["x", 1, 2, 3]]}, {**part.head, "sets": {}}, {**part.head, "page": 3}):
        for k in (1, 2):
            own = PartFile.load(path_of(parts, Part(k, 2)))
            arrays = {name: own.arrays[name] for name in own.arrays}
            PartFile(own.kind, own.part, own.plan, head, arrays).save(path_of(parts, Part(k, 2)))
        with refused(ek.DamagedError, "part-invalid", "with --force"):
            ensk("merge", parts, "--out", parts)
    assert not parts.exists()


def test_parts_of_mask_files_in_another_order_are_refused(files: Files, tmp_path: Path) -> None:
    """The figures of one member stood under the name of another."""
    names = [tmp_path / f"{store.stem}.csv" for store in files.stores[:2]]
    for name, store in zip(names, files.stores, strict=False):
        ek.Ensemble([store]).vote(0.5).write(name, format="handbone")
    words = ("--val", files.truth, "--pictures", 0, "--out", tmp_path / "r.html", "-q")
    ensk("report", *names, *words, "--part", "1/2")
    ensk("report", *reversed(names), *words, "--part", "2/2")
    with refused(ek.MismatchError, "parts-differ"):
        ensk("merge", tmp_path / "r.html", "--out", tmp_path / "r.html")


def test_a_part_needs_no_temporary_file(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("report", *files.stores, "--val", files.truth, "--pictures", 0, "--out", tmp_path / "r.html", "-q")
    ensk(*words, "--part", "1/2")
    kept = path_of(tmp_path / "r.html", Part(1, 2)).read_bytes()
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    ensk(*words, "--part", "1/2", "--force")
    assert path_of(tmp_path / "r.html", Part(1, 2)).read_bytes() == kept


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_page_that_cannot_be_written_keeps_the_pictures_of_the_old_one(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "report",
        *files.stores,
        "--images",
        files.images,
        "--folder",
        "--out",
        tmp_path / "r.html",
        "-q",
        "--pictures",
    )
    ensk(*words, 1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    written = page_out.atomic_write

    @contextmanager
    def filled(path: Path, force: bool) -> Iterator[Any]:
        with written(path, force):
            yield Full()

    monkeypatch.setattr(page_out, "atomic_write", filled)
    with refused(ek.ResourceError, "write-failed"):
        ensk(*words, 2, "--force")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


class Full:
    """A file on a disk that is full."""

    def write(self, _: bytes) -> None:
        full()
