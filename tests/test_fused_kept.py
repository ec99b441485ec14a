"""`ensk fuse` of volumes and of members that saw windows: stores, arrays and NIfTI, against the oracle in plain NumPy."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from concurrent import futures
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import EXAMPLES
from ensemble_kit.cli.app import app
from ensemble_kit.execution.executor import Threads
from ensemble_kit.kernels import reference_disagreement as apart
from ensemble_kit.kernels import reference_volumes as oracle
from ensemble_kit.logits import layout
from ensemble_kit.recipes.fusing import Fusing
from ensemble_kit.scores import fused, raster
from ensemble_kit.scores.fused import logit_table
from ensemble_kit.spec.geometry import Box
from ensemble_kit.spec.mean import PROBABILITY
from volumes import OBLIQUE, array_of, save_nifti
from windowed import CLASSES, IMAGES, WEIGHTS, WINDOWS, evaluated, evaluated_alone, made


def around(ens: ek.Ensemble) -> Box:
    """The box around all windows."""
    windows = [m.placement("s").covered for m in ens.members]
    return Box(*np.min([w.start for w in windows], axis=0), *np.max([w.stop for w in windows], axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("upsample", ["logits", "scores"])
@pytest.mark.parametrize("windows", list(WINDOWS))
def test_a_store_holds_the_oracles_logits(
    tmp_path: Path, rank: int, activation: Any, upsample: Any, windows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "SLAB", 2 * 3 * 9 * 12 * 2)  # two slices of the finest volume at a time
    own = WINDOWS[windows][rank]
    ens = ek.Ensemble(made(tmp_path, rank, activation, own), weights=WEIGHTS, upsample=upsample)
    done = ek.fuse(ens, tmp_path / "fused.zarr", jobs=2)
    store, table = ek.LogitStore(tmp_path / "fused.zarr"), logit_table(PROBABILITY, activation)
    assert (done.written, done.bytes) == (2, sum(store.read(s).nbytes for s in ("s", "t")))
    same = own[0] == own[1]
    for sample in ("s", "t"):
        place, finest = store.placement(sample), ens.members[1].placement(sample)
        if same:
            assert place == finest
            levels = np.zeros((3, *finest.grid), np.int64)
            levels[:, *finest.box.slices] = evaluated(ens, sample, finest.box.shape).levels
        else:
            hull = around(ens)
            assert (place.grid, place.covered) == (hull.shape, hull)
            found = evaluated(ens, sample, hull.shape, hull.start)
            levels = (found.values + 32768) >> 16
            if activation == "softmax":  # where nobody has a say it is the background
                levels[0] = np.where(found.say.any(axis=0), levels[0], 65535)
        assert np.array_equal(store.read(sample).view(np.uint16), table[levels].view(np.uint16))
        if rank == 3:
            assert store.geometry(sample) == ens.members[0].geometry(sample) != None  # noqa: E711
    if not same and upsample == "logits":
        masks, wanted = ek.Ensemble(store).vote(), ens.vote()
        for key in wanted:
            assert (masks[key] ^ wanted[key]).area <= 1  # but for ties in 16 bits


def test_exclusive_classes_without_a_background_are_refused_between_windows(tmp_path: Path) -> None:
    paths = []
    for k, window in enumerate(((0, 0, 5, 9), (3, 4, 8, 12))):
        paths.append(tmp_path / f"m{k}.zarr")
        with ek.LogitWriter(paths[k], ["a", "b"], ["s"], activation="softmax", member=f"m{k}") as out:
            out.write("s", np.random.default_rng(k).normal(0, 3, (2, 4, 5)), (9, 12), window=window)
    with pytest.raises(ek.MismatchError, match="outside every member's window") as caught:
        ek.fuse(ek.Ensemble(paths), tmp_path / "fused.zarr")
    assert caught.value.code == "window-outside"
    assert not (tmp_path / "fused.zarr").exists()
    ek.fuse(ek.Ensemble(paths[:1]), tmp_path / "one.zarr")  # in one window every pixel has a class


def bits_of(levels: np.ndarray, weights: np.ndarray, joint: bool) -> np.ndarray:
    found = apart.information(levels, weights, not joint)
    most = int((np.log2(3) if joint else 1) * 2**40)
    found = found.sum(axis=0, keepdims=True) if joint else found
    return np.minimum((2 * 65535 * found + most) // (2 * most), 65535) / 65535 * (np.log2(3) if joint else 1)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("windows", ["whole", "a crop"])
@pytest.mark.parametrize("format", ["npz", "nifti"])
def test_probabilities_and_disagreement_at_the_images_size(
    tmp_path: Path, activation: Any, windows: str, format: Any  # noqa: A002
) -> None:  # fmt: skip
    ens = ek.Ensemble(made(tmp_path, 3, activation, WINDOWS[windows][3]), weights=WEIGHTS)
    out, image, joint = tmp_path / "out", IMAGES[3], activation == "softmax"
    ek.fuse(ens, out, format=format, uncertainty=True, jobs=1)
    index = json.loads((out / "fused.json").read_text())
    for entry in index["samples"]:
        sample = entry["id"]
        found = evaluated(ens, sample, image, (0, 0, 0))
        levels = found.levels
        alone = [evaluated_alone(ens, m, sample) for m in range(2)]
        inside = np.array([own.say.all(axis=0) for own in alone])
        scores = np.array([own.levels for own in alone]).astype(np.uint16)
        wanted = {"variance": np.zeros((3, *image)), "information": np.zeros((1 if joint else 3, *image))}
        for which in ((0,), (1,), (0, 1)):
            here = (inside == np.isin((0, 1), which)[:, None, None, None]).all(axis=0)
            rows = oracle.integer_weights([WEIGHTS[m] for m in which], [f"m{m}" for m in which])
            weights = np.array(rows, np.int64)
            own = scores[list(which)][:, :, here]
            wanted["variance"][:, here] = apart.variance(own, weights) / (4 * 65535)
            wanted["information"][:, here] = bits_of(own, weights.reshape(-1), joint)
        if format == "npz":
            with np.load(out / entry["file"]) as held:
                got = {name: held[name] for name in held.files}
            assert got["classes"].tolist() == list(CLASSES)
            probabilities, variance = got["probabilities"], got["variance"]
            information = got["mutual_information"].reshape(-1, *image)
            assert got["mutual_information"].ndim == (3 if joint else 4)
        else:
            files = index["files"]
            folder = out / entry["file"]
            image_file = nibabel.load(folder / files["a"])
            assert np.allclose(image_file.affine, OBLIQUE, atol=1e-5)
            assert image_file.get_data_dtype() == np.float32
            probabilities = np.stack([array_of(folder / files[name]) for name in CLASSES])
            variance = np.stack([array_of(folder / files[f"{name}.variance"]) for name in CLASSES])
            kept = ["mutual_information"] if joint else [f"{name}.mutual_information" for name in CLASSES]
            information = np.stack([array_of(folder / files[name]) for name in kept])
        assert probabilities.dtype == np.float32
        assert np.array_equal(probabilities, PROBABILITY.probabilities(levels).astype(np.float32))
        assert np.allclose(variance, wanted["variance"], atol=1e-7)
        assert np.allclose(information, wanted["information"], atol=1e-6)
    again = ek.fuse(ens, out, format=format, uncertainty=True)
    assert (again.resumed, again.written) == (2, 0)


@settings(max_examples=max(3, EXAMPLES // 8))
@given(
    grids=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 7)), min_size=2, max_size=2),
    activation=st.sampled_from(["sigmoid", "softmax"]),
    upsample=st.sampled_from(["logits", "scores"]),
    windows=st.sampled_from(list(WINDOWS)),
    slab=st.integers(1, 300),
)
def test_slabs_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, grids: Any, activation: Any, upsample: Any, windows: str, slab: int
) -> None:
    paths = made(tmp_path_factory.mktemp("v"), 3, activation, WINDOWS[windows][3], grids)
    inputs = ek.Ensemble(paths, upsample=upsample).inputs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "SLAB", slab)
        cut = fused.slabs(inputs, "s")
    assert [a for a, _ in cut[1:]] == [b for _, b in cut[:-1]]
    whole = fused.grid_levels(inputs, "s")
    assert np.array_equal(np.concatenate([fused.grid_levels(inputs, "s", part) for part in cut], axis=1), whole)


def test_a_volume_is_fused_slab_by_slab(tmp_path: Path) -> None:
    grid = (64, 128, 128)
    for k in range(2):
        with ek.LogitWriter(tmp_path / f"m{k}.zarr", CLASSES, ["s"], activation="softmax", member=f"m{k}") as out:
            z = np.random.default_rng(k).normal(0, 3, (3, *grid)).astype(np.float16)
            out.write("s", z, grid)
    ens = ek.Ensemble([tmp_path / "m0.zarr", tmp_path / "m1.zarr"])
    size = z.nbytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "SLAB", size // 16)
        patch.setattr(raster, "ROOM", size // 16)
        patch.setattr(layout, "MAX_SLAB", size // 16)
        kinds: tuple[Literal["store", "npz"], ...] = ("store", "npz")
        for kind in kinds:
            tracemalloc.start()
            Fusing(ens, tmp_path / f"out.{kind}", kind).run(Threads(1))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 0.7 * size, kind


def test_nifti_needs_volumes_and_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = made(tmp_path, 2, "sigmoid", WINDOWS["whole"][2])
    with pytest.raises(ek.UsageError, match="an image"):
        ek.fuse(ek.Ensemble(flat), tmp_path / "out", format="nifti")
    path = tmp_path / "v.zarr"
    with ek.LogitWriter(path, CLASSES, ["s"], activation="sigmoid", member="v") as out:
        out.write("s", np.random.default_rng(0).normal(0, 3, (3, 2, 3, 4)), (4, 6, 8))
    with pytest.raises(ek.UsageError, match="nothing says where"):
        ek.fuse(ek.Ensemble(path), tmp_path / "out", format="nifti")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ek.UsageError, match="like_image and spacing"):
        ek.fuse(ek.Ensemble(path), tmp_path / "out", format="npz", spacing=(1, 1, 1))
    save_nifti(tmp_path / "images" / "s.nii.gz", np.zeros((4, 6, 8), np.int16))
    arguments = ["fuse", path, "--out", tmp_path / "out", "--format", "nifti", "--like-image", tmp_path / "images"]
    app([*map(str, arguments), "-q"], standalone_mode=False)
    got = nibabel.load(tmp_path / "out" / "s" / "a.nii.gz")
    assert np.allclose(got.affine, OBLIQUE, atol=1e-5)
    ek.fuse(ek.Ensemble(path), tmp_path / "other", format="npz")
    with np.load(tmp_path / "other" / "s.npz") as held:
        assert np.array_equal(np.asarray(got.dataobj).T, held["probabilities"][1])
    ek.fuse(ek.Ensemble(path), tmp_path / "other", format="nifti", spacing=(5, 1, 1), overwrite=True)
    assert nibabel.load(tmp_path / "other" / "s" / "b.nii.gz").header.get_zooms() == (1, 1, 5)
    assert not (tmp_path / "other" / "s.npz").exists()


def test_volumes_are_fused_by_other_processes(tmp_path: Path) -> None:
    """Work travels as values: what a pool of processes writes is what threads write."""
    ens = ek.Ensemble(made(tmp_path, 3, "softmax", WINDOWS["a crop"][3]), weights=WEIGHTS)
    for format in ("store", "nifti"):  # noqa: A001 - the option's name
        ek.fuse(ens, tmp_path / f"{format}.threads", format=format, jobs=1)
        with futures.ThreadPoolExecutor(1) as pool:
            ek.fuse(ens, tmp_path / f"{format}.pool", format=format, executor=Pickling(pool))
    one, other = (ek.LogitStore(tmp_path / f"store.{how}") for how in ("threads", "pool"))
    assert np.array_equal(one.read("t"), other.read("t"))
    files = [p.relative_to(tmp_path / "nifti.pool") for p in (tmp_path / "nifti.pool").rglob("*.nii.gz")]
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "nifti.pool" / file).read_bytes() == (tmp_path / "nifti.threads" / file).read_bytes()


class Pickling(futures.Executor):
    """Gives work to another executor as bytes, as a process would get it."""

    def __init__(self, pool: futures.Executor) -> None:
        self._pool = pool

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> futures.Future[Any]:
        sent = pickle.dumps((fn, args, kwargs))
        return self._pool.submit(lambda: run(pickle.loads(sent)))


def run(call: Any) -> Any:
    work, args, kwargs = call
    return work(*args, **kwargs)
