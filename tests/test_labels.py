"""Label maps in memory: kernels against their oracles, `MaskSet.labels`, `from_labels`, `exclusive`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ensemble_kit as ek
from ensemble_kit.kernels import labels as kernels
from ensemble_kit.kernels import reference
from ensemble_kit.masks.labelmaps import LabelMap, overlap_of
from ensemble_kit.spec.label_table import LabelTable, by_order, is_background

shapes = st.tuples(st.integers(1, 13), st.integers(1, 90))
maps = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda kind: hnp.arrays(kind, shapes, elements=st.integers(0, 4), fill=st.integers(0, 4))
)
stacks = st.integers(1, 4).flatmap(lambda n: shapes.flatmap(lambda s: hnp.arrays(np.bool_, (n, *s))))


def set_of(stack: np.ndarray) -> ek.MaskSet:
    return ek.MaskSet({("a", f"c{k}"): ek.encode(mask) for k, mask in enumerate(stack)})


# --- kernels


@given(maps)
def test_stretches_and_runs_are_the_oracles(labels: np.ndarray) -> None:
    flat = labels.reshape(-1)
    edges = kernels.stretches(flat)
    assert edges.tolist() == [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1)]
    starts, ends, offsets = kernels.runs_of(edges, flat[edges].astype(np.int64), flat.size, 5)
    for k, wanted in enumerate(reference.label_runs(labels, list(range(5)))):
        assert np.array_equal(starts[offsets[k] : offsets[k + 1]], wanted[0])
        assert np.array_equal(ends[offsets[k] : offsets[k + 1]], wanted[1])


@given(maps)
def test_values_of_one_class_are_one_run(labels: np.ndarray) -> None:
    owner = np.array([0, 0, -1, 1, 1])
    flat = labels.reshape(-1)
    edges = kernels.stretches(flat)
    starts, ends, offsets = kernels.runs_of(edges, owner[flat[edges]], flat.size, 2)
    for k, wanted in enumerate(reference.label_runs(owner[labels], [0, 1])):
        assert np.array_equal(starts[offsets[k] : offsets[k + 1]], wanted[0])
        assert np.array_equal(ends[offsets[k] : offsets[k + 1]], wanted[1])


def test_stretches_beyond_the_first_room() -> None:
    flat = (np.arange(5000) % 2).astype(np.uint8)
    assert kernels.stretches(flat).tolist() == list(range(5000))
    assert kernels.stretches(np.zeros(5000, np.uint8)).tolist() == [0]


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(3)), elements=st.integers(0, 2)))
def test_rows_of_colours(pixels: np.ndarray) -> None:
    codes = (pixels.astype(np.int64) * [65536, 256, 1]).sum(1)
    known, out = np.array([0, 1, 257, 65537]), np.empty(len(pixels), np.uint16)
    kernels.rows_of_colours(pixels, known, out)
    assert out.tolist() == [known.tolist().index(c) if c in known else 4 for c in codes.tolist()]


@given(stacks)
def test_exclusive_and_painted_are_the_oracles(stack: np.ndarray) -> None:
    masks, values = set_of(stack), list(range(7, 7 + len(stack)))
    assert masks.exclusive == (not reference.overlapping(list(stack)))
    assert np.array_equal(masks.labels("a", values, paint=True), reference.painted(list(stack), values, 0))
    turned = dict(reversed(list(zip(masks.classes, values, strict=True))))
    assert np.array_equal(masks.labels("a", turned, paint=True), reference.painted(list(stack)[::-1], values[::-1], 0))
    found = overlap_of(masks.packed, masks.indices(masks.samples, masks.classes))
    if found is None:
        assert np.array_equal(masks.labels("a", values), reference.painted(list(stack), values, 0))
    else:
        assert (stack[found[1]] & stack[found[2]]).any()
        assert found[0] == 0
        with pytest.raises(ek.MismatchError, match=f"'c{found[1]}' and 'c{found[2]}' overlap"):
            masks.labels("a")


@given(stacks, st.integers(1, 14))
def test_bands_of_rows_are_the_label_map(stack: np.ndarray, height: int) -> None:
    masks, values = set_of(stack), {f"c{k}": 7 + k for k in range(len(stack))}
    wanted = reference.painted(list(stack), list(values.values()), 0)
    bands = list(masks.label_bands("a", values, paint=True, height=height))
    assert [len(band) for band in bands[:-1]] == [height] * (len(bands) - 1)
    assert np.array_equal(np.concatenate(bands), wanted)
    if masks.exclusive:
        assert np.array_equal(np.concatenate(list(masks.label_bands("a", values, False, height))), wanted)
    else:
        with pytest.raises(ek.MismatchError, match="overlap"):
            masks.label_bands("a", values, False, height)


@given(maps, st.integers(1, 14))
def test_a_label_map_that_comes_in_bands_is_cut_as_a_whole(labels: np.ndarray, height: int) -> None:
    bands = [labels[first : first + height] for first in range(0, len(labels), height)]
    found, wanted = LabelMap.of_slices(bands, labels.shape, "a"), LabelMap.of(labels, "a")
    assert found.edges.tolist() == wanted.edges.tolist()
    assert (found.values.tolist(), found.shape) == (wanted.values.tolist(), wanted.shape)


def test_the_overlap_is_found_in_its_sample() -> None:
    apart, both = ek.Runs([0], [2], (1, 4)), ek.Runs([1], [3], (1, 4))
    masks = ek.MaskSet({("a", "x"): apart, ("a", "y"): ek.Runs.empty((1, 4)), ("b", "x"): apart, ("b", "y"): both})
    assert not masks.exclusive
    assert masks.arranged(["a"], ["x", "y"]).exclusive
    assert masks.labels("a").tolist() == [[1, 1, 0, 0]]
    with pytest.raises(ek.MismatchError) as caught:
        masks.labels("b")
    assert caught.value.code == "classes-overlap"


# --- label maps of mask sets


@given(maps)
def test_labels_come_back(labels: np.ndarray) -> None:
    names = ["background", "a", "b", "c", "d"]
    masks = ek.MaskSet.from_labels({"s": labels}, names)
    assert masks.exclusive
    assert np.array_equal(masks.labels("s"), labels)
    for k, name in enumerate(names):
        assert masks["s", name] == ek.encode(labels == k)


@pytest.mark.parametrize(
    ("classes", "kind", "wanted"),
    [
        (["background", "x"], np.uint8, [0, 1, 255, 255]),
        (["x", "y"], np.uint8, [1, 2, 0, 255]),
        (["x", "BG"], np.uint8, [0, 1, 255, 255]),
        ([*map(str, range(254))], np.uint8, [1, 2, 0, 255]),
        ([*map(str, range(255))], np.uint16, [1, 2, 0, 65535]),
        (["background", *map(str, range(299))], np.uint16, [0, 1, 65535, 65535]),
    ],
    ids=["background", "none", "background last", "254 classes", "255 classes", "300 classes"],
)
def test_values_by_default(classes: list[str], kind: type, wanted: list[int]) -> None:
    masks = {("a", name): ek.Runs([k], [k + 1], (1, 4)) if k < 2 else ek.Runs.empty((1, 4)) for k, name in enumerate(classes)}  # fmt: skip
    labels = ek.MaskSet(masks, void={"a": ek.Runs([3], [4], (1, 4))}).labels("a")
    assert (labels.dtype, labels.tolist()) == (kind, [wanted])


def test_values_that_are_passed() -> None:
    masks = ek.MaskSet({("a", "x"): ek.Runs([0], [1], (1, 3)), ("a", "y"): ek.Runs([1], [2], (1, 3))})
    assert masks.labels("a", {"y": 7, "x": 300}).tolist() == [[300, 7, 0]]
    assert masks.labels("a", [0, 1]).tolist() == [[0, 1, 255]]
    for bad in ([1], [1, 2, 3], {"x": 1}, [1, -1], [1, 65536], [1, 2.5], {"x": 1, "y": 2, "z": 3}):
        with pytest.raises(ek.UsageError) as caught:
            masks.labels("a", bad)  # type: ignore[arg-type]
        assert caught.value.code == "label-map-invalid"


def test_volumes_and_wide_integers() -> None:
    labels = np.array([[[0, 1], [2, 2]], [[1, 0], [0, 255]]], np.int64)
    masks = ek.MaskSet.from_labels({"v": labels}, {0: "bg", 1: "x", 2: "x"})
    assert (masks.image_size("v"), masks["v", "x"].area, masks.void("v").area) == ((2, 2, 2), 4, 1)
    assert masks.labels("v").shape == (2, 2, 2)


# --- reading rules


def table(classes: list[str], values: list[int], **options: object) -> LabelTable:
    return by_order(classes, dict.fromkeys(values, 10), "the set", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("classes", "values", "options", "first"),
    [
        (["background", "liver", "spleen"], [0, 1], {}, 0),
        (["_background_", "liver"], [1], {}, 0),
        (["void_0", "liver"], [0, 1], {}, 0),
        (["void", "vocal folds"], [0, 1], {}, 0),
        (["liver", "spleen"], [0, 2], {}, 1),
        (["liver", "spleen"], [2, 255], {}, 1),
        (["liver", "spleen"], [0, 1], {"first_value": 0}, 0),
        (["liver", "spleen"], [0, 1], {"first_value": 1}, 1),
        (["background", "liver"], [0, 1, 2], {"first_value": 1}, 1),
        ([*map(str, range(255))], [255], {}, 1),
    ],
    ids=lambda v: str(v)[:30],
)
def test_the_class_of_each_value(classes: list[str], values: list[int], options: dict[str, int], first: int) -> None:
    made = table(classes, values, **options)
    assert [made.values[first + k] for k in range(len(classes))] == classes
    assert made.void == {255 if len(classes) < 255 else 65535}
    assert (first == 0) == (0 not in made.values or made.values[0] is not None)


@pytest.mark.parametrize(
    ("classes", "values", "code", "words"),
    [
        (["road", "sidewalk"], [0, 1], "label-ambiguous", r"0 \(10 pixels\).*'road'.*'sidewalk' absent"),
        (["road", "sidewalk"], [1, 255], "label-ambiguous", "--first-value"),
        (["road"], [], "label-ambiguous", "no values but void"),
        (["road", "background"], [0, 1], "label-background", r"'background' is not the first.*1 \(10 pixels\)"),
    ],
    ids=["classes from 0 or the last absent", "255 is void", "void only", "background last"],
)
def test_what_has_two_readings_is_refused(classes: list[str], values: list[int], code: str, words: str) -> None:
    with pytest.raises(ek.EnskError, match=words) as caught:
        table(classes, values)
    assert caught.value.code == code


def test_values_that_nobody_named_are_listed() -> None:
    labels = np.array([[0, 1, 7], [7, 9, 255]], np.uint8)
    for classes in (["background", "x"], {0: "background", 1: "x"}, ["x"]):
        with pytest.raises(ek.MismatchError, match=r"7 \(2 pixels\), 9 \(1 pixel\)") as caught:
            ek.MaskSet.from_labels({"s": labels}, classes)
        assert caught.value.code == "label-values"
    with pytest.raises(ek.MismatchError, match=r"255 \(1 pixel\)"):
        ek.MaskSet.from_labels({"s": labels}, {0: "a", 1: "b", 7: "b", 9: "c"}, void=None)
    masks = ek.MaskSet.from_labels({"s": labels}, ["background", "x"], void=[7, 9, 255])
    assert (masks.void("s").area, masks["s", "x"].area) == (4, 1)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2)), np.zeros(3, int), np.zeros((0, 2), int), np.array([[-1, 0]]), np.array([[70000, 0]])],
    ids=["floats", "flat", "no pixel", "negative", "beyond 16 bits"],
)
def test_arrays_that_are_no_label_maps(array: np.ndarray) -> None:
    with pytest.raises(ek.UsageError) as caught:
        ek.MaskSet.from_labels({"s": array}, ["background", "x"])
    assert caught.value.code == "label-map-invalid"


def test_counts_of_values() -> None:
    assert LabelMap.of([[True, False, True]], "a").counts() == {0: 1, 1: 2}


@pytest.mark.parametrize("name", ["background", "BG", "_background_", "Background", "void_0", "__background__", "0_bg"])
def test_names_of_the_background(name: str) -> None:
    assert is_background(name)


@pytest.mark.parametrize("name", ["void", "back", "ground", "other", "backgrounds", "void_1"])
def test_names_of_no_background(name: str) -> None:
    assert not is_background(name)
