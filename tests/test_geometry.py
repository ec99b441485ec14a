"""Placements of any rank: boxes, checks, and a store's description of two axes and of three."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.errors import UsageError
from ensemble_kit.logits import description, layout
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.records import Record
from ensemble_kit.spec.geometry import Box, Placement, as_text, check_image_size

IMAGE = Placement((24, 20), Box(2, 0, 24, 19), (60, 50))
VOLUME = Placement((9, 24, 20), Box(1, 2, 0, 9, 24, 19), (30, 60, 50))
"""The smallest placements of two axes and of three, conforming to all that stands below."""
BOTH = pytest.mark.parametrize("place", [IMAGE, VOLUME], ids=["image", "volume"])


@BOTH
def test_a_box_is_its_start_then_its_stop(place: Placement) -> None:
    box, cells = place.box, np.arange(np.prod(place.grid)).reshape(place.grid)
    assert (*box.start, *box.stop) == box
    assert cells[box.slices].shape == box.shape
    assert cells[box.slices].flat[0] == place.offset
    assert pickle.loads(pickle.dumps(place)) == place
    assert type(pickle.loads(pickle.dumps(place)).box) is Box


@BOTH
def test_the_whole_grid_by_default(place: Placement) -> None:
    assert Placement.of(place.grid, place.image, place.box) == place
    whole = Placement.of(np.array(place.grid), list(place.image))
    assert whole.box.slices == tuple(slice(0, n) for n in place.grid)
    assert whole.offset == 0


@BOTH
@given(st.data())
def test_a_box_outside_its_grid_is_refused(place: Placement, data: st.DataObject) -> None:
    axis, beyond = data.draw(st.integers(0, len(place.grid) - 1)), data.draw(st.integers(1, 9))
    start, stop = list(place.box.start), list(place.box.stop)
    wrong = data.draw(st.sampled_from(["before", "behind", "empty", "another rank"]))
    if wrong == "before":
        start[axis] = -beyond
    elif wrong == "behind":
        stop[axis] = place.grid[axis] + beyond
    elif wrong == "empty":
        start[axis] = stop[axis]
    box = Box(*start[1:], *stop[1:]) if wrong == "another rank" else Box(*start, *stop)
    with pytest.raises(UsageError, match=as_text(place.grid)) as caught:
        Placement(place.grid, box, place.image)
    assert caught.value.code == "box-outside-grid"


@BOTH
@pytest.mark.parametrize(
    "image", [(0, 5), (5,), (5, 5, 5, 5), (5, 2.5, 5), (True, 5), (2**40, 2**40, 2**40), 7, ("5", 5)]
)
def test_sizes_that_are_refused(place: Placement, image: object) -> None:
    with pytest.raises(UsageError) as caught:
        Placement(place.grid, place.box, image)  # type: ignore[arg-type]
    assert caught.value.code == "image-size"


def test_images_have_two_axes() -> None:
    assert check_image_size(np.array([4.0, 5.0])) == (4, 5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"\(height, width\)"):
        check_image_size((3, 4, 5))


@BOTH
@pytest.mark.parametrize("codec", ["none", "lossless"])
@pytest.mark.parametrize("fixed", [True, False], ids=["one grid", "grids"])
def test_a_description_has_any_rank(place: Placement, codec: layout.Codec, fixed: bool) -> None:
    rank = len(place.grid)
    spec = StoreSpec("m", ("a", "b"), ("s",), place.grid if fixed else None, "sigmoid", codec=codec)
    found, how = description.parse(spec.group_json(), spec.array_json(), "m.zarr")
    assert found == spec
    assert how == spec.layout
    own = not fixed or rank == 3
    assert spec.format == ("ensk.logits/2" if own else "ensk.logits/1")
    assert how.key(7) == ("7" if own else "c.7.0.0.0")
    array = spec.array(place)
    assert array.size == 2 * 2 * np.prod(place.grid)
    names = json.loads(spec.sample_json("s", array, "default") if own else spec.array_json())["dimension_names"]
    assert names[-rank - 1 :] == ["class", *["z", "y", "x"][-rank:]]
    record = Record("s", 0, array, "0" * 16)
    line = json.loads(json.dumps(record.to_json()))
    assert line["box"] == [*place.box.start, *place.box.stop]
    assert Record.from_json(line, spec) == record


def test_a_batch_says_a_size_and_a_box_for_each(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", ["a"], ["s", "t"], grid=(4, 4)) as out:
        with pytest.raises(UsageError, match="4 whole numbers") as caught:
            out.write("s", np.full((1, 4, 4), -3.0), (8, 8), box=(0, 0, 0, 4, 4, 4))
        assert caught.value.code == "batch-invalid"


@BOTH
def test_what_says_the_same_is_the_same(place: Placement) -> None:
    rank = len(place.grid)
    spelled = Placement.of(place.grid, place.image, place.box, Box.whole(place.image), ["linear"] * rank)
    assert spelled == place and spelled.covered == Box.whole(place.image) and spelled.kinds == ("linear",) * rank
    cropped = Placement.of(place.grid, place.image, place.box, (*[3] * rank, *[9] * rank), ["nearest"] * rank)
    assert cropped.covered.shape == (6,) * rank and cropped != place
    assert cropped.kinds == ("nearest",) * rank
    assert pickle.loads(pickle.dumps(cropped)) == cropped


@BOTH
@pytest.mark.parametrize("wrong", ["beyond", "empty", "rank"])
def test_a_window_outside_its_image_is_refused(place: Placement, wrong: str) -> None:
    rank = len(place.grid)
    start, stop = [0] * rank, list(place.image)
    if wrong == "beyond":
        stop[-1] += 1
    elif wrong == "empty":
        start[-1] = stop[-1]
    window = (*start, *stop) if wrong != "rank" else (*start, *stop, 1, 2)
    with pytest.raises(UsageError, match=as_text(place.image)) as caught:
        Placement.of(place.grid, place.image, None, window)
    assert caught.value.code == "window-outside-image"


@BOTH
@pytest.mark.parametrize("kinds", [("linear",), ("linear", "cubic", "linear")[:2], ("nearest",) * 4])
def test_kinds_of_axes_are_one_for_each(place: Placement, kinds: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="one for each axis") as caught:
        Placement.of(place.grid, place.image, axes=kinds)  # type: ignore[arg-type]
    assert caught.value.code == "axis-kinds"
