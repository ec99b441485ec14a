"""Masks of three axes: runs over slices, rows and columns, their algebra, and rules, against scipy and cc3d."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

import ensemble_kit as ek
from ensemble_kit.decisions.clean import apply_rules, clean
from ensemble_kit.decisions.connected import DropSmall, FillHoles, KeepLargest
from ensemble_kit.decisions.rule import Decided
from ensemble_kit.decisions.rules import parse_rule, parse_rules
from ensemble_kit.kernels import components, contacts, reference
from ensemble_kit.masks.objects import components as parts_of
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.spec.affine import Geometry

STRUCTURE = {
    4: ndimage.generate_binary_structure(2, 1),
    6: ndimage.generate_binary_structure(3, 1),
    18: ndimage.generate_binary_structure(3, 2),
    26: ndimage.generate_binary_structure(3, 3),
}
BACKGROUND = {6: 26, 18: 6, 26: 6}
SPACING = Geometry.of(np.diag([0.8, 0.8, 5, 1]))  # 3.2 mm³ a voxel


def noise(seed: int) -> np.ndarray:
    """Volumes of every kind by seed: thin ones, dense and sparse noise, blobs, full and empty ones."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 6, 9], 3))
    density = rng.choice([0, 0.02, 0.2, 0.4, 0.6, 0.9, 0.98, 1])
    field = rng.random(shape)
    if rng.random() < 0.5:
        field = ndimage.uniform_filter(field, 3, mode="wrap")
    return field < np.quantile(field, density) if 0 < density < 1 else np.full(shape, density == 1)


shapes = st.tuples(*[st.integers(1, 5)] * 3)
volumes = st.one_of(hnp.arrays(np.bool_, shapes), st.integers(0, 2**32).map(noise))
pairs = shapes.flatmap(lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape)))
connectivity = st.sampled_from([6, 18, 26])


def parts(mask: np.ndarray, neighbours: int) -> list[np.ndarray]:
    """Components, each a mask, in the order of their first voxels."""
    labels, count = ndimage.label(mask, STRUCTURE[neighbours])
    found = [labels == k for k in range(1, count + 1)]
    return sorted(found, key=lambda part: int(part.reshape(-1).argmax()))


def union(shape: tuple[int, ...], chosen: list[np.ndarray]) -> np.ndarray:
    return np.any(chosen, axis=0) if chosen else np.zeros(shape, bool)


# --- runs ----------------------------------------------------------------------------------------------------


@given(volumes)
def test_a_volume_is_encoded_and_drawn(mask: np.ndarray) -> None:
    runs = ek.encode(mask)
    assert runs.shape == mask.shape
    assert runs.area == mask.sum()
    assert np.array_equal(runs.decode(), mask)
    assert runs == ek.Runs(runs.starts, runs.ends, runs.shape)
    assert runs.starts.tolist() == ek.encode(mask.reshape(1, -1)).starts.tolist()
    for laid in (np.asfortranarray(mask), mask.transpose(2, 0, 1).copy().transpose(1, 2, 0), mask[::-1].copy()[::-1]):
        assert ek.encode(laid) == runs == ek.encode(laid.astype(np.int16) * -7)


@given(pairs)
def test_algebra(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    x, y = ek.encode(a), ek.encode(b)
    assert (x & y, x | y, x ^ y, x - y) == tuple(ek.encode(m) for m in (a & b, a | b, a ^ b, a & ~b))
    assert ~x == ek.encode(~a)
    assert x.overlap(y) == (a & b).sum()


@given(volumes, st.sampled_from([0, 1]), st.booleans())
def test_text_counts_slice_by_slice(mask: np.ndarray, base: int, relative: bool) -> None:
    text = ek.encode(mask).text("C", base, relative)
    assert text == reference.text(mask.reshape(1, -1), "C", base, relative)
    assert ek.Runs.parse(text, mask.shape, "C", base, relative) == ek.encode(mask)


def test_a_volume_is_no_image_of_another_shape() -> None:
    assert ek.Runs([0], [4], (2, 3, 4)) != ek.Runs([0], [4], (6, 4))
    with pytest.raises(ek.MismatchError, match="2 x 3 x 4 and 6 x 4"):
        ek.Runs([0], [4], (2, 3, 4)) & ek.Runs([0], [4], (6, 4))


@pytest.mark.parametrize(
    "flat",
    [
        lambda r: r.text(order="F"), lambda r: ek.Runs.parse("1 1", r.shape, order="F"), ek.Runs.coco,
        ek.Runs.transposed, ek.Runs.coco_counts,
    ],
    ids=["text F", "parse F", "coco", "transposed", "counts"],
)  # fmt: skip
def test_what_has_no_meaning_in_three_axes_is_refused(flat: Any) -> None:
    with pytest.raises(ek.UsageError, match=r"volume: its size is 2 x 3 x 4 · fix: .*\.npz.*NIfTI") as caught:
        flat(ek.Runs([0], [5], (2, 3, 4)))
    assert caught.value.code == "volume-unfit"


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 4), (0, 2, 3), ()], ids=str)
def test_other_ranks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ek.UsageError, match=r"pass \(height, width\) or \(depth, height, width\)"):
        ek.Runs([], [], shape)


# --- components ----------------------------------------------------------------------------------------------


@given(volumes, connectivity)
def test_components_are_scipys_and_cc3ds(mask: np.ndarray, neighbours: int) -> None:
    runs, (_, H, W) = ek.encode(mask), mask.shape
    starts, ends, labels, areas = components.components(runs.starts, runs.ends, H, W, neighbours)
    wanted = parts(mask, neighbours)
    assert areas.tolist() == [int(part.sum()) for part in wanted]
    assert (starts // W == (ends - 1) // W).all()  # no piece crosses a row end
    for k, part in enumerate(wanted):
        kept = np.arange(areas.size) == k
        assert ek.Runs.trusted(components.keep(starts, ends, labels, kept), mask.shape) == ek.encode(part)
    theirs = cc3d.connected_components(mask, connectivity=neighbours)
    found = np.unique(np.stack([np.repeat(labels, ends - starts), theirs[mask]]), axis=1).T
    assert len(found) == areas.size == theirs.max()  # each of ours is one of theirs


@given(volumes)
def test_objects_connect_over_26_neighbours(mask: np.ndarray) -> None:
    assert parts_of(ek.encode(mask)) == [ek.encode(part) for part in parts(mask, 26)]


@given(volumes, connectivity, st.integers(1, 12))
def test_drop_small(mask: np.ndarray, neighbours: Any, least: int) -> None:
    wanted = union(mask.shape, [p for p in parts(mask, neighbours) if p.sum() >= least])
    assert DropSmall(least, connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(wanted)
    kept = cc3d.dust(mask, threshold=least, connectivity=neighbours) if mask.any() else mask
    assert np.array_equal(wanted, kept)


@given(volumes, connectivity, st.integers(1, 4))
def test_keep_largest(mask: np.ndarray, neighbours: Any, k: int) -> None:
    by_area = sorted(parts(mask, neighbours), key=lambda part: -int(part.sum()))  # stable: first voxels break ties
    assert KeepLargest(k, neighbours).apply(ek.encode(mask)) == ek.encode(union(mask.shape, by_area[:k]))


@given(volumes, connectivity)
def test_fill_holes_is_scipys(mask: np.ndarray, neighbours: Any) -> None:
    wanted = ndimage.binary_fill_holes(mask, STRUCTURE[BACKGROUND[neighbours]])
    assert FillHoles(connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(wanted)
    if neighbours == 26:
        assert FillHoles().apply(ek.encode(mask)) == ek.encode(ndimage.binary_fill_holes(mask))


@given(volumes, connectivity, st.integers(1, 6))
def test_fill_holes_up_to(mask: np.ndarray, neighbours: Any, largest: int) -> None:
    border = np.ones(mask.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    holes = [p for p in parts(~mask, BACKGROUND[neighbours]) if not (p & border).any() and p.sum() <= largest]
    wanted = mask | union(mask.shape, holes)
    assert FillHoles(largest, neighbours).apply(ek.encode(mask)) == ek.encode(wanted)


@given(volumes, st.sampled_from([None, 4, 8]))
def test_holes_of_slices(mask: np.ndarray, neighbours: Any) -> None:
    structure = STRUCTURE[4] if neighbours != 4 else np.ones((3, 3))
    wanted = np.stack([ndimage.binary_fill_holes(one, structure) for one in mask])
    assert FillHoles(connectivity=neighbours, slices=True).apply(ek.encode(mask)) == ek.encode(wanted)


def test_a_large_volume() -> None:
    """Many runs: deep trees of unions."""
    rng = np.random.default_rng(5)
    for density in (0.25, 0.35, 0.9):
        mask = rng.random((20, 31, 57)) < density
        for neighbours in (6, 18, 26):
            labels, count = ndimage.label(mask, STRUCTURE[neighbours])
            keeps = np.bincount(labels.reshape(-1), minlength=count + 1) >= 5
            keeps[0] = False
            assert DropSmall(5, connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(keeps[labels])
            filled = ndimage.binary_fill_holes(mask, STRUCTURE[BACKGROUND[neighbours]])
            assert FillHoles(connectivity=neighbours).apply(ek.encode(mask)) == ek.encode(filled)


@pytest.mark.parametrize("voxels", [((0, 2, 1), (1, 0, 1)), ((0, 0, 3), (0, 1, 0)), ((0, 2, 3), (1, 0, 0))], ids=str)
def test_neighbours_in_memory_only_are_apart(voxels: Any) -> None:
    """The last row of a slice and the first of the next one; the last column and the first of the next row."""
    mask = np.zeros((2, 3, 4), bool)
    for voxel in voxels:
        mask[voxel] = True
    for neighbours in (6, 18, 26):
        assert DropSmall(2, connectivity=neighbours).apply(ek.encode(mask)).area == 0  # type: ignore[arg-type]


# --- rules ---------------------------------------------------------------------------------------------------


def test_the_default_is_26_and_it_is_told() -> None:
    mask = np.zeros((2, 2, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[0, 0, 2] = True  # by a corner
    cleaned = apply_rules(ek.MaskSet({("v", "a"): ek.encode(mask)}), ["drop-small:3", "keep-largest"])
    assert cleaned["v", "a"].area == 3
    assert cleaned.rule == "drop-small:3 (over 26 neighbours), then keep-largest (over 26 neighbours)"
    assert apply_rules(cleaned, "drop-small:2,connectivity=18")["v", "a"].area == 0


@pytest.mark.parametrize(
    ("rule", "shape", "fix"),
    [
        ("drop-small:3,connectivity=8", (2, 3, 4), "connectivity=6, 18 or 26, or leave it out for 26"),
        ("keep-largest:connectivity=4", (2, 3, 4), "connectivity=6, 18 or 26"),
        ("fill-holes:connectivity=26", (3, 4), "connectivity=4 or 8, or leave it out for 8"),
        ("fill-holes:slices", (3, 4), "leave slices out"),
        ("fill-holes:slices,connectivity=26", (2, 3, 4), "connectivity=4 or 8"),
    ],
    ids=str,
)
def test_rules_of_another_rank_are_refused(rule: str, shape: tuple[int, ...], fix: str) -> None:
    with pytest.raises(ek.UsageError, match="cannot post-process") as caught:
        apply_rules(ek.MaskSet({("v", "a"): ek.Runs.empty(shape)}), rule)
    assert fix in str(caught.value)


@pytest.mark.parametrize("text", ["drop-small:100mm3", "least-area:32.5mm3", "fill-holes:50mm3,slices",
                                  "keep-largest:2,together", "keep-largest:together,connectivity=6@a,b",
                                  "fill-holes:slices", "drop-small:9,connectivity=18"])  # fmt: skip
def test_texts(text: str) -> None:
    assert str(parse_rule(text)) == text
    assert parse_rule(text.replace("mm3", "mm³")) == parse_rule(text)


@pytest.mark.parametrize("text", ["drop-small:mm3", "drop-small:0mm3", "drop-small:-1mm3", "gate:0.5,9mm3",
                                  "keep-largest:together,2", "fill-holes:slices,3", "drop-small:3,slices"])  # fmt: skip
def test_bad_texts_are_refused(text: str) -> None:
    with pytest.raises(ek.UsageError, match=" · fix: "):
        parse_rule(text)


def test_cubic_millimetres_are_voxels_of_the_affine() -> None:
    mask = np.zeros((3, 8, 20), bool)
    mask[1, 1:5, 1:9] = True  # 32 voxels of 3.2 mm³: 102.4 mm³
    mask[1, 6, :] = True
    placed = ek.MaskSet({("v", "a"): ek.encode(mask)}).with_geometry({"v": SPACING})
    cleaned = apply_rules(placed, "drop-small:100mm3")
    assert cleaned["v", "a"].area == 32
    assert cleaned.rule == "drop-small:100mm3 (over 26 neighbours, 32 voxels)"
    assert cleaned.geometry("v") == SPACING
    assert apply_rules(placed, "drop-small:102.5mm3")["v", "a"].area == 0
    assert apply_rules(placed, "least-area:166.5mm3")["v", "a"].area == 0
    assert apply_rules(placed, "least-area:166.4mm3")["v", "a"].area == 52


def test_holes_in_cubic_millimetres() -> None:
    mask = np.ones((3, 5, 6), bool)
    mask[1, 2, 1:3] = mask[1, 2, 4] = False  # holes of 6.4 and of 3.2 mm³
    placed = ek.MaskSet({("v", "a"): ek.encode(mask)}).with_geometry({"v": SPACING})
    assert [apply_rules(placed, f"fill-holes:{size}mm3")["v", "a"].area - 87 for size in (3.2, 3.3)] == [1, 3]


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 4)], ids=["volume", "image"])
def test_cubic_millimetres_need_a_geometry(shape: tuple[int, ...]) -> None:
    placed = ek.MaskSet({(s, "a"): ek.Runs.empty(shape) for s in "vw"}).with_geometry({"v": SPACING})
    with pytest.raises(ek.UsageError, match="sample 'w' has no geometry that says how large a voxel is") as caught:
        apply_rules(placed, "drop-small:100mm3")
    assert caught.value.code == "rule-geometry"


def test_volumes_of_several_spacings_are_told_by_their_range() -> None:
    fine = Geometry.of(np.diag([0.5, 0.5, 1, 1]))
    both = ek.MaskSet({(s, "a"): ek.Runs.empty((2, 3, 4)) for s in "vw"}).with_geometry({"v": SPACING, "w": fine})
    assert apply_rules(both, "least-area:100mm3").rule == "least-area:100mm3 (32 to 400 voxels)"


@given(pairs, connectivity, st.integers(1, 2))
def test_keep_largest_of_all_together(pair: tuple[np.ndarray, np.ndarray], neighbours: Any, k: int) -> None:
    a, b = pair
    found = sorted(parts(a | b, neighbours), key=lambda part: -int(part.sum()))
    kept = union(a.shape, found[:k])
    decided = Decided(("background", "a", "b"), [ek.encode(~a), ek.encode(a), ek.encode(b)])
    clean(decided, [KeepLargest(k, neighbours, together=True)])
    assert decided.masks == [ek.encode(~a), ek.encode(a & kept), ek.encode(b & kept)]


@given(st.integers(0, 2**32), connectivity)
def test_together_a_label_map_loses_what_nnunet_takes(seed: int, neighbours: int) -> None:
    """Foreground outside its largest component becomes background, never another class of the foreground."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (4, 5, 6)) * (rng.random((4, 5, 6)) < 0.4)
    largest = sorted(parts(labels > 0, neighbours), key=lambda part: -int(part.sum()))[:1]
    wanted = np.where(union(labels.shape, largest), labels, 0)
    rule = f"keep-largest:together,connectivity={neighbours}"
    for classes, first in ((["background", "x", "y"], 0), (["x", "y"], 1)):
        masks = ek.MaskSet.from_labels({"v": labels}, classes, first_value=first)
        cleaned = apply_rules(masks, rule)
        assert np.array_equal(cleaned.labels("v", values=range(first, 3)), wanted)


NAMES = ("a", "b", "c")


@pytest.mark.parametrize(
    "rules",
    [["drop-small:3"], ["keep-largest"], ["fill-holes"], ["drop-small:4,connectivity=6@b", "keep-largest:2@a,c"]],
    ids=" ".join,
)
@given(labels=hnp.arrays(np.int64, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 4)))
def test_classes_that_exclude_each_other_still_do(labels: np.ndarray, rules: list[str]) -> None:
    """Values 0 … 2 are classes, 3 none, 4 void; the oracle goes voxel by voxel."""
    void = {"s": ek.encode(labels == 4)}
    masks = ek.MaskSet({("s", n): ek.encode(labels == k) for k, n in enumerate(NAMES)}, void=void)
    cleaned, wanted = apply_rules(masks, rules), labels.copy()
    for rule in parse_rules(rules):
        for k in (k for k, name in enumerate(NAMES) if rule.covers(name)):
            before = wanted == k
            after = rule.apply(ek.encode(before)).decode()  # type: ignore[attr-defined]
            wanted[after] = k
            lost, count = ndimage.label(before & ~after, STRUCTURE[rule.neighbours(labels.shape)])
            wanted[lost > 0] = 5
            given = []
            for part in (lost == n for n in range(1, count + 1)):
                sides = [reference.contacts(part, wanted == value) for value in range(4)]
                given.append((part, k if max(sides) == 0 else sides.index(max(sides))))
            for part, value in given:
                wanted[part] = value
    assert cleaned.exclusive
    for k, name in enumerate(NAMES):
        assert np.array_equal(cleaned["s", name].decode(), wanted == k), name


@given(hnp.arrays(np.int64, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 2)), connectivity)
def test_contacts_are_the_oracles(labels: np.ndarray, neighbours: int) -> None:
    masks = [ek.encode(labels == k) for k in range(3)]
    _, H, W = labels.shape
    starts, ends, numbers, areas = components.components(masks[0].starts, masks[0].ends, H, W, neighbours)
    found = contacts.contacts(starts, ends, numbers, areas.size, *ManyRuns.of(masks), *labels.shape)
    whole = np.ones_like(labels, bool)
    for row, part in zip(found.tolist(), parts(labels == 0, neighbours), strict=True):
        inside, *others = (reference.contacts(part, m) for m in [*(labels == k for k in range(3)), whole])
        assert (row[1:-1], row[-1] - row[0]) == (others[:-1], others[-1] - inside)


@given(st.lists(hnp.arrays(np.bool_, (3, 4, 5)), min_size=2, max_size=4))
def test_nested_masks_of_volumes(masks: list[np.ndarray]) -> None:
    names = [str(k) for k in range(len(masks))]
    decided = Decided(names, [ek.encode(m) for m in masks])
    clean(decided, parse_rules("nested@" + ",".join(names)))
    assert decided.masks == [ek.encode(reduce(np.logical_and, masks[: k + 1])) for k in range(len(masks))]


# --- votes of stores ---------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> ek.LogitStore:
    """A store of one volume with two specks, of 8 and of 12 voxels, and its geometry."""
    logits = np.full((1, 6, 8, 9), -4, np.float32)
    logits[0, 1:3, 1:3, 1:3] = logits[0, 3:5, 5:7, 4:7] = 4
    names: Any = {"classes": ["x"], "samples": ["v"], "activation": "sigmoid", "member": "m"}
    with ek.LogitWriter(tmp_path / "m.zarr", grid=None, **names) as out:
        out.write("v", logits, image_size=(6, 8, 9), geometry=SPACING)
    return ek.LogitStore(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    ("rule", "left", "told"),
    [
        ("drop-small:9", 12, "over 26 neighbours"),
        ("drop-small:32mm3", 12, "over 26 neighbours, 10 voxels"),
        ("drop-small:25.6mm3", 20, "over 26 neighbours, 8 voxels"),
        ("keep-largest:together", 12, "over 26 neighbours"),
        ("least-area:64.1mm3", 0, "21 voxels"),
    ],
    ids=str,
)
def test_rules_of_a_soft_vote_go_by_the_geometry_of_the_stores(stored: Any, rule: str, left: int, told: str) -> None:
    voted = ek.Ensemble([stored]).vote(rules=[rule])
    assert voted["v", "x"].area == left
    assert f"{rule} ({told})" in str(voted.rule)
    assert voted.geometry("v") == SPACING


def test_a_volume_is_not_compared_with_an_image() -> None:
    solid, flat = (ek.MaskSet({("v", "a"): ek.Runs.empty(shape)}) for shape in ((2, 3, 4), (6, 4)))
    for compare in (ek.dice, ek.iou, ek.confusion, lambda a, b: ek.hard_vote([a, b])):
        with pytest.raises(ek.MismatchError, match=r"2 x 3 x 4 .*fix: compare volumes with volumes"):
            compare(solid, flat)
