"""Store what a network of MONAI says of the volumes of make_cases.py: a window slides over each, then Invertd.

    python examples/volumes/sliding_window.py monai-out

The network is not trained. What matters is the road: preprocess, slide, bring back, store, vote.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from make_cases import write_dataset
from monai.data import DataLoader, Dataset, decollate_batch
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Spacingd,
)

from ensemble_kit import Ensemble
from ensemble_kit.trainers.monai import SaveLogitsd

CLASSES = ["background", "organ", "tumour", "kidney"]


def network(seed: int) -> torch.nn.Module:
    """Return a small network that keeps the size of its input."""
    torch.manual_seed(seed)
    layers = [torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(8, len(CLASSES), 3, padding=1)]
    return torch.nn.Sequential(*layers).eval()


def dump(images: list[Path], out: Path, seed: int = 0) -> list[torch.Tensor]:
    """Store one network's logits; return them as MONAI has them, (C, X, Y, Z)."""
    pre = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS"),
            Spacingd("image", pixdim=(1.2, 1.2, 3.0)),
            NormalizeIntensityd("image"),
        ]
    )
    net, slide, put_out = network(seed), SlidingWindowInferer((24, 24, 12), overlap=0.25, mode="gaussian"), []
    samples = [path.name.removesuffix(".nii.gz") for path in images]
    loader = DataLoader(Dataset([{"image": str(path)} for path in images], pre), batch_size=1)
    with SaveLogitsd("pred", out, CLASSES, samples, activation="softmax") as save:
        post = Compose([Invertd("pred", transform=pre, orig_keys="image", nearest_interp=False), save])
        for batch in loader:
            with torch.inference_mode():
                batch["pred"] = slide(batch["image"], net)
            put_out += [post(one)["pred"] for one in decollate_batch(batch)]
    return put_out


def main(out: Path) -> None:
    """Make volumes, dump two networks, vote."""
    raw = write_dataset(out / "raw", "Dataset001_Toy", training=1, test=2)
    images = sorted((raw / "imagesTs").iterdir())
    for seed in (0, 1):
        dump(images, out / f"net_{seed}.zarr", seed)
    Ensemble([out / "net_0.zarr", out / "net_1.zarr"]).vote().write(out / "answer", format="nifti")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
