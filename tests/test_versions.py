"""The kit's own files: what is written keeps the schema of its format, and a version of tomorrow is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.recipes.stack import Stack
from ensemble_kit.spec.georeference import GeoReference

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "tests" / "faults" / "fixtures"
CLASSES, SAMPLES = ("x", "y"), tuple(f"s{k}" for k in range(4))
AFFINE = ek.Geometry.of(np.diag([0.8, 0.8, 5, 1]), "LPS")
CITY = GeoReference('PROJCS["site",UNIT["metre",1]]', (2, 0, 500000, 0, -2, 4600000))


def schema(name: str) -> Any:
    read = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(read)
    return read


def keeps(name: str, *contents: Any) -> None:
    """Every content keeps the schema, and none does without a key that it has to have."""
    check = jsonschema.Draft202012Validator(schema(name))
    assert contents
    for content in contents:
        check.validate(content)
        needed = {"format", "sync", "sample", "classes", "samples", "crcs"} & set(content)
        for key in needed:
            assert not check.is_valid({k: v for k, v in content.items() if k != key}), key
        assert not check.is_valid({**content, "another": 1})


def values(shape: tuple[int, ...]) -> np.ndarray:
    return (np.random.default_rng(len(shape)).normal(size=(2, *shape)) * 5).astype(np.float16)


def one_grid(path: Path) -> None:
    with ek.LogitWriter(path, CLASSES, SAMPLES, grid=(4, 4), clamp=12, provenance={"model": "m"}) as out:
        out.write(list(SAMPLES[:2]), np.stack([values((4, 4))] * 2), image_size=(8, 8), box=(0, 0, 4, 3))
        out.write("s2", values((4, 4)).astype(np.float32) * 2e4, image_size=(8, 9), source="1" * 32)
        out.write("s0", values((4, 4)), image_size=(9, 9), again=True)


def compressed(path: Path) -> None:
    with ek.LogitWriter(path, CLASSES, SAMPLES, grid=(4, 4), codec="lossless", activation="softmax") as out:
        out.write("s1", values((4, 4)), image_size=(8, 8))


def images(path: Path) -> None:
    with ek.LogitWriter(path, CLASSES, SAMPLES) as out:
        out.write("s0", values((4, 5)), image_size=(20, 20), window=(2, 2, 18, 20), axes=("linear", "nearest"))
        out.write("s1", values((5, 4)), image_size=(20, 20))
        out.write("s1", values((6, 4)), image_size=(20, 20), again=True)


def volumes(path: Path) -> None:
    with ek.LogitWriter(path, CLASSES, SAMPLES, grid=(3, 4, 5), codec="lossless") as out:
        out.write("s0", values((3, 4, 5)), image_size=(6, 8, 10), geometry=AFFINE)


def scenes(path: Path) -> None:
    boxes, void = [(0, 0, 4, 4), (0, 2, 4, 6)], ek.encode(np.arange(16 * 24).reshape(16, 24) < 3)
    with ek.LogitWriter(path, CLASSES, SAMPLES) as out:
        tiles = (values((4, 6))[:, y0:y1, x0:x1] for y0, x0, y1, x1 in boxes)
        out.write_tiles("s0", tiles, boxes, (4, 6), (16, 24), geometry=CITY, void=void)


STORES = [one_grid, compressed, images, volumes, scenes]


def lines(store: Path) -> Iterator[Any]:
    for segment in (store / "logits" / "manifest").glob("*.jsonl"):
        yield from map(json.loads, segment.read_text().splitlines())


@pytest.mark.parametrize("write", STORES, ids=lambda w: w.__name__)
def test_stores_and_their_manifests_keep_the_schemas(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "s.zarr")
    keeps("ensk.logits", json.loads((tmp_path / "s.zarr/zarr.json").read_text())["attributes"]["ensemble_kit"])
    keeps("ensk.manifest", *lines(tmp_path / "s.zarr"))


def test_every_field_of_the_manifest_is_written_by_one_of_these(tmp_path: Path) -> None:
    """So that the schema tells of none that is no more."""
    for write in STORES:
        write(tmp_path / f"{write.__name__}.zarr")
    written = {key for path in tmp_path.iterdir() for line in lines(path) if "sample" in line for key in line}
    assert written == set(schema("ensk.manifest")["oneOf"][1]["properties"])


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.zarr")), ids=lambda p: p.name)
def test_stores_of_former_releases_keep_the_schemas(path: Path) -> None:
    keeps("ensk.logits", json.loads((path / "zarr.json").read_text())["attributes"]["ensemble_kit"])
    keeps("ensk.manifest", *lines(path))


def masks_of(shape: tuple[int, ...]) -> ek.MaskSet:
    at = np.indices(shape).sum(0)
    return ek.MaskSet({(s, c): ek.encode(at % (3 + k) == 0) for s in SAMPLES for k, c in enumerate(CLASSES)})


@pytest.mark.parametrize(
    ("masks", "kind"),
    [
        (masks_of((6, 8)), "png"),
        (masks_of((6, 8)), "npy"),
        (masks_of((3, 4, 5)).with_geometry(dict.fromkeys(SAMPLES, AFFINE)), "npy"),
        (masks_of((3, 4, 5)).with_geometry(dict.fromkeys(SAMPLES, AFFINE)), "class-volumes"),
        (ek.MaskSet.from_labels({"a": np.eye(4, dtype=np.uint8)}, ["background", "line"]), "label-map"),
    ],
    ids=["png", "npy", "npy of volumes", "class-volumes", "label-map"],
)
def test_indices_of_folders_keep_the_schema(masks: ek.MaskSet, kind: str, tmp_path: Path) -> None:
    masks.write(tmp_path / "m", format=kind)
    keeps("ensk.masks", json.loads((tmp_path / "m" / "index.json").read_text()))


def members(folder: Path, rng: np.random.Generator) -> ek.Ensemble:
    for name in ("a", "b"):
        with ek.LogitWriter(folder / f"{name}.zarr", CLASSES, SAMPLES, grid=(12, 12)) as out:
            for sample in SAMPLES:
                out.write(sample, smooth_logits(rng, (2, 12, 12)), image_size=(24, 24))
    return ek.Ensemble([folder / "a.zarr", folder / "b.zarr"])


@pytest.mark.slow
def test_fused_folders_and_stacks_keep_the_schemas(tmp_path: Path, rng: np.random.Generator) -> None:
    both = members(tmp_path, rng)
    ek.fuse(both, tmp_path / "fused", format="npz", uncertainty=True)
    ek.fuse(both, tmp_path / "fused.zarr", uncertainty=True)
    indices = tmp_path / "fused" / "fused.json", tmp_path / "fused.uncertainty" / "uncertainty.json"
    keeps("ensk.fused", *(json.loads(path.read_text()) for path in indices))
    truth = ek.MaskSet({(s, c): both.sample(s).runs(k, 30000) for s in SAMPLES for k, c in enumerate(CLASSES)})
    with pytest.warns(ek.errors.EnskWarning):
        ek.fit_stack(both, truth, out=tmp_path / "stacked.zarr", folds=3)
    keeps("ensk.stack", json.loads((tmp_path / "stacked.stack.json").read_text()))


def test_a_version_of_tomorrow_is_refused_by_its_name(tmp_path: Path) -> None:
    """And not read as if it were one of today."""
    one_grid(tmp_path / "s.zarr")
    masks_of((6, 8)).write(tmp_path / "m", format="png")
    (tmp_path / "set.json").write_bytes((FIXTURES / "set-1.json").read_bytes())
    (tmp_path / "stack.json").write_bytes((FIXTURES / "stack-1.json").read_bytes())
    for path, now, open_it in (
        (tmp_path / "s.zarr/zarr.json", "ensk.logits/1", lambda: ek.LogitStore(tmp_path / "s.zarr")),
        (tmp_path / "m/index.json", "ensk.masks/1", lambda: ek.read_masks(tmp_path / "m")),
        (tmp_path / "set.json", "ensk.thresholds/1", lambda: ek.ThresholdSet.load(tmp_path / "set.json")),
        (tmp_path / "stack.json", "ensk.stack/1", lambda: Stack.load(tmp_path / "stack.json")),
    ):
        open_it()
        text = path.read_text()
        assert now in text
        path.write_text(text.replace(now, f"{now[:-1]}9"))
        with pytest.raises((ek.UsageError, ek.DamagedError)) as caught:
            open_it()
        assert f"{now[:-1]}9" in caught.value.item
        assert now in caught.value.item
