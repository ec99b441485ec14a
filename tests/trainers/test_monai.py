"""MONAI: the page's loop in two processes, of which one is given a case twice; killed and resumed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Compose, Invertd

from conftest import ROOT, blocks, equals, write_page
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.logits.store import LogitStore


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's own network, beside three oblique, anisotropic volumes."""
    write_page("monai.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "examples/volumes"))
    raw = importlib.import_module("make_cases").write_dataset(tmp_path / "raw", "Dataset001_Toy", training=1, test=3)
    (raw / "imagesTs").rename(tmp_path / "volumes")
    yield importlib.import_module("mine")
    for name in ("mine", "make_cases"):
        sys.modules.pop(name, None)


def own(mine: ModuleType) -> dict[str, np.ndarray]:
    """What MONAI itself brings back to each image's file, (C, X, Y, Z), turned to z, y, x."""
    files = sorted(Path("volumes").iterdir())
    invert, out = Compose([Invertd("pred", transform=mine.pre, orig_keys="image", nearest_interp=False)]), {}
    for path, batch in zip(files, DataLoader(Dataset([{"image": str(p)} for p in files], mine.pre)), strict=True):
        with torch.inference_mode():
            batch["pred"] = mine.slide(batch["image"], mine.network)
        (one,) = decollate_batch(batch)
        out[path.name.removesuffix(".nii.gz")] = np.asarray(invert(one)["pred"]).transpose(0, 3, 2, 1)
    return out


def test_the_page_runs_as_written(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    done = [shell(code).stderr for code in blocks("monai.md", "bash")]
    assert (
        "process 2 of 2: " in done[0]
        and done[0].count("1 padding duplicates skipped") + done[0].count("1 were there") == 1
    )
    theirs, store = own(mine), LogitStore(tmp_path / "net.zarr")
    equals(store, theirs)
    masks = Ensemble([store]).vote()
    undecided = 0
    for sample, logits in theirs.items():
        labels, best = masks.labels(sample), logits.argmax(0)
        differ = labels != best
        undecided += int(differ.sum())
        first, second = np.sort(logits, axis=0)[:-3:-1]
        assert ((first - second)[differ] < 2**-10 * max(1, np.abs(logits).max())).all()
        image, answer = (nibabel.load(p) for p in (f"volumes/{sample}.nii.gz", f"answer/{sample}.nii.gz"))
        np.testing.assert_allclose(answer.affine, image.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(answer.dataobj).transpose(2, 1, 0), labels)
    print(f"{undecided} voxels of near-ties")


def test_killed_and_resumed(mine: ModuleType, shell: Callable, killed: Callable, tmp_path: Path) -> None:
    slow = Path("dump.py").read_text().replace("post(one)", "post(one); __import__('time').sleep(2)")
    Path("slow.py").write_text(slow)
    there = killed("torchrun --nproc-per-node 2 slow.py", tmp_path / "net.zarr", 1)
    assert 1 <= there < 3
    done = shell(blocks("monai.md", "bash")[0])
    assert "were there already" in done.stderr
    equals(LogitStore(tmp_path / "net.zarr"), own(mine))
