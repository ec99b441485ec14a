"""Draw masks on their images: what a submission says, where it errs, where members disagree.

python draw_pictures.py overlay       data/test/DCM submission.csv --out pictures
python draw_pictures.py errors        data/test/DCM submission.csv --truth data/test_truth/outputs_json
python draw_pictures.py disagreement  data/test/DCM unet.zarr segformer.zarr upernet.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_bones import pictures
from hand_bones.command import run
from hand_bones.images import read_grey, read_size

from ensemble_kit import IncompleteError, UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("overlay", "errors", "disagreement"))
    parser.add_argument("images", type=Path, help="folder of the images, at any depth")
    parser.add_argument("masks", type=Path, nargs="+", help="submissions or logit stores")
    parser.add_argument("--truth", type=Path, help="masks in any format of the kit, for errors")
    parser.add_argument("--sample", action="append", help="an image id; without it the first 4")
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--width", type=int, default=1600)
    a = parser.parse_args()
    if (a.kind == "errors") != (a.truth is not None) or (a.kind != "disagreement" and len(a.masks) != 1):
        raise UsageError(
            "pictures-arguments",
            f"cannot draw {a.kind}",
            item=f"{len(a.masks)} mask files, {'a' if a.truth else 'no'} truth",
            fix="overlay takes one, errors one and --truth, disagreement several",
        )
    if a.width < 1:
        raise UsageError(
            "pictures-arguments", f"cannot draw {a.kind}", item=f"--width {a.width}", fix="pass at least 1"
        )
    files = {path.name: path for path in sorted(a.images.rglob("*.png"))}
    if not files:
        raise IncompleteError(
            "images-missing", f"cannot draw {a.kind}", item=f"{a.images} holds no *.png", fix="pass the images' folder"
        )
    sizes = {name: read_size(path) for name, path in files.items()}
    members = {str(path): pictures.load_masks(path, sizes) for path in a.masks}
    first = next(iter(members.values()))
    truth = pictures.load_masks(a.truth, sizes) if a.truth else None
    for sample in a.sample or first.samples[:4]:
        if sample not in files:
            raise IncompleteError(
                "images-missing", "cannot draw on an image that is not there", item=sample, fix=f"look under {a.images}"
            )
        grey = read_grey(files[sample])
        if truth is not None:
            picture = pictures.errors(grey, first, truth, sample)
        elif a.kind == "overlay":
            picture = pictures.overlay(grey, first, sample)
        else:
            picture = pictures.disagreement(grey, members, sample)
        target = a.out / f"{Path(sample).stem}_{a.kind}.jpg"
        pictures.save(picture, target, a.width)
        print(target)


if __name__ == "__main__":
    run(main)
