"""Rules of post-processing against scipy.ndimage, their texts, and the command line in a process of its own."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

import ensemble_kit as ek
import warm
from ensemble_kit.decisions.clean import apply_rules
from ensemble_kit.decisions.connected import DropSmall, FillHoles, KeepLargest
from ensemble_kit.decisions.rule import Rule
from ensemble_kit.decisions.rules import Gate, parse_rule, parse_rules
from ensemble_kit.kernels import components

Make = Callable[..., ek.LogitStore]
ENSK = Path(sys.executable).with_name("ensk")
STRUCTURE = {4: ndimage.generate_binary_structure(2, 1), 8: ndimage.generate_binary_structure(2, 2)}
CLASSES = ("Radius", "Ulna", "left, @home")


def noise(seed: int) -> np.ndarray:
    """Images of every kind by seed: thin ones, dense and sparse noise, blobs, full and empty ones."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 5, 8, 13, 40], 2))
    density = rng.choice([0, 0.02, 0.3, 0.5, 0.6, 0.8, 0.98, 1])
    field = rng.random(shape)
    if rng.random() < 0.5:
        field = ndimage.uniform_filter(field, 3, mode="wrap")
    return field < np.quantile(field, density) if 0 < density < 1 else np.full(shape, density == 1)


def some_logits(rng: np.random.Generator) -> np.ndarray:
    """Logits (3, 12, 15) with regions and slopes."""
    return ndimage.zoom(6 * rng.normal(size=(3, 4, 5)), (1, 3, 3), order=1).astype(np.float16)


masks = st.one_of(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 11))),
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 3))),
    st.integers(0, 2**32).map(noise),
)
connectivity = st.sampled_from([4, 8])


def parts(mask: np.ndarray, neighbours: int) -> list[np.ndarray]:
    """Components, each a mask, in the order of their first pixels."""
    labels, count = ndimage.label(mask, STRUCTURE[neighbours])
    found = [labels == k for k in range(1, count + 1)]
    return sorted(found, key=lambda part: int(part.reshape(-1).argmax()))


def union(shape: tuple[int, ...], chosen: list[np.ndarray]) -> np.ndarray:
    return np.any(chosen, axis=0) if chosen else np.zeros(shape, bool)


@given(masks, connectivity)
def test_components_are_scipys(mask: np.ndarray, neighbours: int) -> None:
    runs = ek.encode(mask)
    starts, ends, labels, areas = components.components(runs.starts, runs.ends, *mask.shape, neighbours)
    wanted = parts(mask, neighbours)
    assert areas.tolist() == [int(part.sum()) for part in wanted]
    assert (starts // mask.shape[1] == (ends - 1) // mask.shape[1]).all()  # no piece crosses a row end
    for k, part in enumerate(wanted):
        kept = np.arange(areas.size) == k
        assert ek.Runs.trusted(components.keep(starts, ends, labels, kept), mask.shape) == ek.encode(part)


@given(masks, connectivity, st.integers(1, 12))
def test_drop_small(mask: np.ndarray, neighbours: Any, least: int) -> None:
    wanted = union(mask.shape, [p for p in parts(mask, neighbours) if p.sum() >= least])
    assert DropSmall(least, connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(wanted)


@given(masks, connectivity, st.sampled_from([0.01, 0.1, 0.3, 1.0]))
def test_drop_small_by_share(mask: np.ndarray, neighbours: Any, share: float) -> None:
    wanted = union(mask.shape, [p for p in parts(mask, neighbours) if p.sum() * 100 >= round(share * 100) * mask.size])
    assert DropSmall(min_share=share, connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(wanted)


@given(masks, connectivity, st.integers(1, 4))
def test_keep_largest(mask: np.ndarray, neighbours: Any, k: int) -> None:
    by_area = sorted(parts(mask, neighbours), key=lambda part: -int(part.sum()))  # stable: first pixels break ties
    assert KeepLargest(k, neighbours).apply(ek.encode(mask)) == ek.encode(union(mask.shape, by_area[:k]))


@given(masks, connectivity)
def test_fill_holes_is_scipys(mask: np.ndarray, neighbours: Any) -> None:
    wanted = ndimage.binary_fill_holes(mask, STRUCTURE[12 - neighbours])
    assert FillHoles(connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(wanted)
    if neighbours == 8:
        assert FillHoles().apply(ek.encode(mask)) == ek.encode(ndimage.binary_fill_holes(mask))


@given(masks, connectivity, st.integers(1, 6))
def test_fill_holes_up_to(mask: np.ndarray, neighbours: Any, largest: int) -> None:
    border = np.ones(mask.shape, bool)
    border[1:-1, 1:-1] = False
    holes = [p for p in parts(~mask, 12 - neighbours) if not (p & border).any() and p.sum() <= largest]
    wanted = mask | union(mask.shape, holes)
    assert FillHoles(largest, neighbours).apply(ek.encode(mask)) == ek.encode(wanted)


def test_a_large_plane() -> None:
    """Many runs, spirals and rows that wrap: deep trees of unions."""
    rng = np.random.default_rng(5)
    for density in (0.4, 0.59, 0.9):
        mask = rng.random((300, 257)) < density
        for neighbours in (4, 8):
            labels, count = ndimage.label(mask, STRUCTURE[neighbours])
            areas = np.bincount(labels.reshape(-1), minlength=count + 1)
            keeps = areas >= 5
            keeps[0] = False
            assert DropSmall(5, connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(keeps[labels])
            filled = ndimage.binary_fill_holes(mask, STRUCTURE[12 - neighbours])
            assert FillHoles(connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(filled)


def test_a_diagonal_does_not_reach_round_a_row_end() -> None:
    mask = np.zeros((3, 4), bool)
    mask[0, 3] = mask[2, 0] = mask[1, 0] = True  # (0, 3) and (1, 0) are neighbours in memory only
    assert KeepLargest(connectivity=8).apply(ek.encode(mask)).area == 2
    mask = np.zeros((3, 4), bool)
    mask[0, 3] = mask[2, 0] = True  # one row apart: the window of (2, 0) above begins just behind (0, 3)
    assert DropSmall(2).apply(ek.encode(mask)).area == 0


def test_ties_go_to_the_first_pixel() -> None:
    mask = np.array([[0, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
    assert KeepLargest(connectivity=4).apply(ek.encode(mask)).text() == "4 1 8 1"
    assert KeepLargest(2, connectivity=4).apply(ek.encode(mask)).text() == "4 3 8 1"


def test_what_changes_nothing_gives_the_mask_itself() -> None:
    mask = ek.Runs([0, 6, 13], [2, 8, 14], (4, 5))
    assert all(rule.apply(mask) is mask for rule in (DropSmall(2), KeepLargest(2), FillHoles()))
    assert (DropSmall(3).apply(mask).text(), KeepLargest().apply(mask).text()) == ("1 2 7 2 14 1", "1 2 7 2 14 1")


def test_share_is_exact() -> None:
    assert DropSmall(min_share=0.1).least((10, 10)) == 10  # not 11, as 0.1 in binary would have it
    assert DropSmall(min_share=0.0005).least((2048, 2048)) == 2098
    assert DropSmall(min_share=1).least((3, 5)) == 15


# --- texts and dicts -----------------------------------------------------------------------------------------

wholes = st.integers(1, 10**18 - 1)
shares = st.floats(0, 1)
names = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cc", "Cs"]), min_size=1)
common = {"classes": st.none() | st.lists(names, min_size=1, max_size=4, unique=True).map(tuple)}
connected = {**common, "connectivity": connectivity}
rules = st.one_of(
    st.builds(DropSmall, wholes, **connected),
    st.builds(DropSmall, min_share=shares.filter(bool), **connected),
    st.builds(KeepLargest, wholes, **connected),
    st.builds(FillHoles, st.none() | wholes, **connected),
    st.builds(Gate, shares, wholes, **common),
)


@given(rules)
def test_round_trips(rule: Rule) -> None:
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("drop-small:200", DropSmall(200)),
        ("drop-small:0.05%@Radius", DropSmall(min_share=0.0005, classes=("Radius",))),
        ("drop-small:200,connectivity=4", DropSmall(200, connectivity=4)),
        ("keep-largest", KeepLargest()),
        ("keep-largest:2@Radius,Ulna", KeepLargest(2, classes=("Radius", "Ulna"))),
        ("fill-holes", FillHoles()),
        ("fill-holes:connectivity=4", FillHoles(connectivity=4)),
        ("fill-holes:50,connectivity=4@a b", FillHoles(50, 4, classes=("a b",))),
        ("gate:0.75,2000", Gate(0.75, 2000)),
        ('gate:0.00001,1@"left, ""x""",me@home', Gate(0.00001, 1, classes=('left, "x"', "me@home"))),
    ],
)
def test_texts(text: str, rule: Rule) -> None:
    assert (parse_rule(text), str(rule)) == (rule, text)


def test_other_spellings() -> None:
    assert parse_rule("keep-largest:1") == KeepLargest()
    assert parse_rule("drop-small:200,connectivity=8") == DropSmall(200, connectivity=8)
    assert parse_rule("gate:1,1") == parse_rule("gate:1.00,1") == Gate(1, 1)
    assert parse_rules("fill-holes") == parse_rules([FillHoles()]) == (FillHoles(),)
    whole = DropSmall(np.int64(3), connectivity=np.int64(4))  # type: ignore[arg-type]
    assert (type(whole.min_area), type(whole.connectivity)) == (int, int)


BAD = (
    "", "drop", "Drop-small:3", " fill-holes", "fill-holes ", "drop-small", "drop-small:", "drop-small:0",
    "drop-small:-1", "drop-small:1.5", "drop-small:1e3", "drop-small:1,2", "drop-small:0%", "drop-small:101%",
    "drop-small:%", "drop-small:५", "drop-small:3,connectivity=5", "drop-small:3,connectivity=",
    "drop-small:connectivity=4,3", "drop-small:9999999999999999999", "drop-small:1" + "0" * 5000, "keep-largest:0",
    "keep-largest:1,2", "keep-largest:a", "fill-holes:", "fill-holes:0", "fill-holes:1%", "gate", "gate:0.5",
    "gate:50%,3", "gate:1.1,3", "gate:0.5,0", "gate:nan,3", "gate:0.5,3,connectivity=4", "gate:.5,3",
    "gate:1" + "0" * 500 + ",3", "fill-holes@", "fill-holes@a,", "fill-holes@a,a", 'fill-holes@"a', "fill-holes@a\nb",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:40]))
def test_bad_texts_are_refused(text: str) -> None:
    with pytest.raises(ek.UsageError, match=" · fix: "):
        parse_rule(text)


BAD_VALUES: dict[str, Callable[[], Any]] = {
    "no size": DropSmall,
    "area and share": lambda: DropSmall(3, 0.5),
    "boolean": lambda: DropSmall(True),
    "float": lambda: DropSmall(2.0),  # type: ignore[arg-type]
    "share of NaN": lambda: DropSmall(min_share=float("nan")),
    "connectivity 5": lambda: DropSmall(3, connectivity=5),  # type: ignore[arg-type]
    "none kept": lambda: KeepLargest(0),
    "text": lambda: FillHoles("3"),  # type: ignore[arg-type]
    "top as text": lambda: Gate("0.5", 3),  # type: ignore[arg-type]
    "no class": lambda: FillHoles(classes=()),
    "classes as text": lambda: FillHoles(classes="Radius"),  # type: ignore[arg-type]
    "a number as a rule": lambda: parse_rules([3]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("make", BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ek.UsageError, match=" · fix: "):
        make()


# --- sets, votes, the command line ---------------------------------------------------------------------------


def drawn(rows: list[str]) -> ek.Runs:
    return ek.encode(np.array([[c == "#" for c in row] for row in rows]))


RING = drawn(["###..", "#.#..", "###.#", ".....", "##..."])


def test_apply_rules_in_order_and_by_class() -> None:
    given = ek.MaskSet({("s", name): RING for name in CLASSES}, rule="on where ≥ 2 of 3")
    done = apply_rules(given, ["fill-holes@Radius", KeepLargest(classes=("Radius", "left, @home"))])
    assert done.rule == given.rule
    assert (done["s", "Radius"].area, done["s", "Ulna"], done["s", "left, @home"].area) == (9, RING, 8)
    hole = ek.MaskSet({("s", "x"): drawn(["###", "#.#", "###"])})
    assert apply_rules(hole, ["drop-small:9", "fill-holes"])["s", "x"].area == 0
    assert apply_rules(hole, ["fill-holes", "drop-small:9"])["s", "x"].area == 9
    assert apply_rules(hole, ()) == hole


def test_what_does_not_fit_is_refused() -> None:
    masks = ek.MaskSet({("s", "Radius"): RING})
    with pytest.raises(ek.MismatchError, match="'Radus'"):
        apply_rules(masks, "keep-largest@Radus")
    with pytest.raises(ek.UsageError, match="has no scores"):
        apply_rules(masks, "gate:0.5,3")
    with pytest.raises(ek.UsageError, match="a mask has none"):
        apply_rules(masks, "compete:0.5")


@pytest.mark.parametrize("mean", ["probability", "logit"])
@pytest.mark.parametrize("upsample", ["logits", "scores"])
def test_vote_with_rules(mean: Any, upsample: Any, make_store: Make, rng: np.random.Generator) -> None:
    stores = [make_store({s: some_logits(rng) for s in "ab"}, (40, 50), CLASSES) for _ in range(2)]
    ens = ek.Ensemble(stores, mean=mean, upsample=upsample)
    plain, top = ens.vote(0.4), ens.vote(0.9)
    areas = {key: top[key].area for key in top}
    least = sorted(areas.values())[3]
    assert least > 0  # so the gate closes for some and stays open for others
    gated = ens.vote(0.4, Gate(0.9, least))
    for key, runs in plain.items():
        assert gated[key] == (runs if areas[key] >= least else ek.Runs.empty(runs.shape))
    on_runs = ["fill-holes", "drop-small:30,connectivity=4@Ulna", KeepLargest(2, classes=("Radius",))]
    assert ens.vote(0.4, on_runs, jobs=1) == ens.vote(0.4, on_runs) == apply_rules(plain, on_runs)
    one = ens.vote(0.4, [*on_runs, Gate(0.9, least, classes=CLASSES[2:])])
    assert {k for k in one if one[k] != apply_rules(plain, on_runs)[k]} <= {("a", CLASSES[2]), ("b", CLASSES[2])}
    with pytest.raises(ek.MismatchError, match="'Tibia'"):
        ens.vote(0.4, "keep-largest@Tibia")


def ensk(*arguments: object) -> subprocess.CompletedProcess[str]:
    return warm.ensk(*arguments)


@pytest.mark.slow
def test_command_line(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    logits = [{s: some_logits(rng) for s in "ab"} for _ in range(2)]
    stores = [make_store(z, (40, 50), CLASSES) for z in logits]
    paths = [tmp_path / "m0.zarr", tmp_path / "m1.zarr"]
    texts = ["fill-holes", "drop-small:30@Ulna", 'keep-largest:1@Radius,"left, @home"']
    options = [part for text in texts for part in ("--rule", text)]
    out = tmp_path / "soft.csv"

    ran = ensk("vote", *paths, *options, "--rule", "gate:0.9,200", "--out", out, "--format", "handbone", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["rules"] == [*texts[:2], 'keep-largest@Radius,"left, @home"', "gate:0.9,200"]
    soft = ek.Ensemble(stores).vote(0.5, [*texts, "gate:0.9,200"])
    assert ek.read_masks(out, format="handbone", image_size=(40, 50)) == soft

    out = tmp_path / "hard.csv"
    ran = ensk("vote", "--hard", *paths, "--quorum", 1, *options, "--out", out, "--format", "handbone")
    assert ran.returncode == 0, ran.stderr
    assert "post-processing: fill-holes, then drop-small:30@Ulna" in ran.stderr
    hard = apply_rules(ek.hard_vote([ek.Ensemble([s]).vote() for s in stores], quorum=1), texts)
    assert ek.read_masks(out, format="handbone", image_size=(40, 50)) == hard


@pytest.mark.parametrize(
    ("code", "name", "arguments"),
    [
        (2, "rule-invalid", ["--rule", "drop-small:0"]),
        (6, "rule-class-unknown", ["--rule", "fill-holes@Tibia"]),
        (6, "rule-class-unknown", ["--rule", "fill-holes@Tibia", "--dry-run"]),
        (2, "gate-needs-scores", ["--hard", "--rule", "gate:0.75,2000"]),
    ],
)
def test_command_line_refuses(
    code: int, name: str, arguments: list[str], make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    make_store({"a": some_logits(rng)}, (40, 50), CLASSES)
    ran = ensk("vote", tmp_path / "m0.zarr", *arguments, "--out", tmp_path / "out.csv", "--format", "handbone")
    assert (ran.returncode, f"error[{name}] " in ran.stderr) == (code, True), ran.stderr
    assert " · fix: " in ran.stderr
    assert not (tmp_path / "out.csv").exists()


def test_kernels_stand_behind_the_fence() -> None:
    source = inspect.getsource(components)
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"numpy", "ensemble_kit"}
    assert "fastmath" not in source
    assert "parallel" not in source
