"""MONAI's transform: stores hold what the framework returns, and one member's vote is its own argmax."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.trainers.monai import SaveLogitsd

VOLUMES = Path(__file__).parent.parent / "examples/volumes"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MONAI warns of itself


@pytest.fixture(scope="module")
def example() -> ModuleType:
    sys.path.insert(0, str(VOLUMES))
    try:
        import sliding_window
    finally:
        sys.path.remove(str(VOLUMES))
    return sliding_window


@pytest.fixture(scope="module")
def images(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    raw = example.write_dataset(tmp_path_factory.mktemp("raw"), "Dataset001_Toy", training=1, test=2)
    return sorted((raw / "imagesTs").iterdir())


def test_a_store_is_what_monai_returns(example: ModuleType, images: list[Path], tmp_path: Path) -> None:
    put_out = example.dump(images, tmp_path / "net.zarr")
    store, masks = LogitStore(tmp_path / "net.zarr"), Ensemble([tmp_path / "net.zarr"]).vote()
    assert store.samples == ("case_01_0000", "case_02_0000") and store.rank == 3
    for sample, path, logits in zip(store.samples, images, put_out, strict=True):
        wanted = logits.numpy().transpose(0, 3, 2, 1)
        assert np.array_equal(store.read(sample), wanted.astype(np.float16))
        file, geometry = nibabel.load(path), store.geometry(sample)
        assert geometry is not None and np.allclose(geometry.ras, file.affine, atol=1e-4)
        assert store.image_size(sample) == file.shape[::-1] == wanted.shape[1:]
        labels, best = masks.labels(sample), wanted.argmax(0)
        differ = labels != best
        first, second = np.sort(wanted, axis=0)[:-3:-1]
        assert ((first - second)[differ] < 2e-3).all() and differ.mean() < 0.01


def test_what_was_not_inverted_is_refused(example: ModuleType, images: list[Path], tmp_path: Path) -> None:
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

    steps = [LoadImaged("image"), EnsureChannelFirstd("image")]
    with SaveLogitsd("image", tmp_path / "net.zarr", ["a"], ["case_01_0000"]) as save:
        for other in (Spacingd("image", pixdim=(2, 2, 2)), Orientationd("image", axcodes="RAS")):
            data = Compose([*steps, other])({"image": str(images[0])})
            with pytest.raises(MismatchError, match="Invertd") as found:
                save(data)
            assert found.value.code == "monai-not-inverted" and "case_01_0000" in found.value.item
        assert save.writer.out.missing == ["case_01_0000"]


def test_ids_and_keys_that_say_nothing_are_refused(tmp_path: Path) -> None:
    import torch

    store = {"out": tmp_path / "net.zarr", "classes": ["a"], "samples": ["x"]}
    with pytest.raises(UsageError, match="several outputs"):
        SaveLogitsd(keys=["pred", "aux"], **store)
    with SaveLogitsd(keys=("pred",), id="name", **store) as save:
        with pytest.raises(UsageError, match="meta data"):
            save({"pred": torch.zeros(1, 4, 5, 6), "name": torch.zeros(1)})
        with pytest.raises(UsageError, match="before argmax"):
            save({"pred": torch.zeros(1, 4, 5, 6, dtype=torch.int64), "name": "x"})
        with pytest.raises(UsageError, match=r"a loss in place of logits.*put out one number"):
            save({"pred": torch.tensor(0.7), "name": "x"})
        with pytest.raises(UsageError, match=r"no 'pred': a dict, its keys are 'out' .*pass keys="):
            save({"out": torch.zeros(1, 4, 5, 6), "name": "x"})
        with pytest.raises(UsageError, match=r"no 'name': a dict, its keys are 'pred' .*pass id="):
            save({"pred": torch.zeros(1, 4, 5, 6)})
        with pytest.raises(MismatchError, match="not declared with: 'y'"):
            save({"pred": torch.full((1, 4, 5, 6), -2.0), "name": "y"})
        save({"pred": torch.full((1, 4, 5, 6), -2.0), "name": "x"})
    assert LogitStore(tmp_path / "net.zarr").read("x").shape == (1, 6, 5, 4)


def test_the_size_of_a_file_is_its_images_where_an_output_has_none(images: list[Path], tmp_path: Path) -> None:
    """A network's plain tensor, which was not brought back to the file."""
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Spacingd

    steps = [LoadImaged("image"), EnsureChannelFirstd("image"), Spacingd("image", pixdim=(2, 2, 2))]
    data = Compose(steps)({"image": str(images[0])})
    data["pred"] = data["image"].as_tensor() - 2
    with SaveLogitsd("pred", tmp_path / "net.zarr", ["a"], ["case_01_0000"]) as save:
        with pytest.raises(MismatchError, match=r"put Invertd.*before it") as found:
            save(data)
        assert found.value.code == "monai-not-inverted" and save.writer.out.missing == ["case_01_0000"]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_what_a_network_did_not_see_is_no_logit_of_zero(
    images: list[Path], tmp_path: Path, activation: Activation
) -> None:
    """Invertd pads a crop with zeros: as logits of overlapping classes, 0.5, so all beyond the crop would be on."""
    from monai.transforms import CenterSpatialCropd, Compose, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd

    steps = [LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="PLI")]
    pre = Compose([*steps, CenterSpatialCropd("image", (9, 11, 5))])
    ids = ["case_01_0000"]
    with SaveLogitsd("pred", tmp_path / "net.zarr", ["organ", "lesion"], ids, activation=activation) as save:
        post = Compose([Invertd("pred", transform=pre, orig_keys="image", nearest_interp=False), save])
        data = pre({"image": str(images[0])})
        base = data["image"] * 0
        data["pred"] = base.new_tensor(np.r_["0", base.numpy() - 3, base.numpy() + 2])
        data["pred"].applied_operations = data["image"].applied_operations
        inverted = np.asarray(post(data)["pred"]).transpose(0, 3, 2, 1)
    seen = inverted.any(axis=0)
    assert 0 < seen.sum() < seen.size
    store, masks = LogitStore(tmp_path / "net.zarr"), Ensemble([tmp_path / "net.zarr"]).vote()
    window = store.placement(ids[0]).window
    assert window is not None and seen.sum() == np.prod(np.subtract(window[3:], window[:3])) == 9 * 11 * 5
    assert not masks[ids[0], "organ"].decode().any()
    assert np.array_equal(masks[ids[0], "lesion"].decode(), seen)
