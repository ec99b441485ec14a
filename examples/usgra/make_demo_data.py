"""Make the demo's data folder from USGRA-SEG and the trained state dicts; the same bytes every time.

Prints the figures of the networks as shipped, in the form of the table in README.md.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from train import BUILDERS, CLASSES, PREPROCESS, evaluate, preprocess, read_masks, split

VALIDATION, TEST = 16, 12
LIMIT = 6_000_000  # bytes of the whole folder: it ships in the wheel
ATTRIBUTION = """\
# Attribution

"USGRA-SEG", Timm Kandaouroff, github.com/tmkand/usgra-seg, CC BY 4.0. Changes: masks converted from colours
to indices, grey images stored with one channel.

Further changes made for this project: a selection of {val} images of the authors' training part (`val/`) and
{test} of their test part (`test/`); some PNG files compressed anew, their pixel values unchanged; the indices
written as one binary mask per class (0 or 255), with the names "nerve" and "vessel", which are ours, read off
the pictures; a third class `any` = nerve ∪ vessel derived from them. The licence:
<https://creativecommons.org/licenses/by/4.0/>.

`weights/` holds networks that were trained on the authors' training part by this project's
`examples/usgra/train.py`. Nothing here is a medical device, and nothing may be diagnosed with it.
"""


def spread(names: list[str], count: int) -> list[str]:
    """Pick `count` names evenly over the sorted list: no figure takes part in the choice."""
    order = sorted(names)
    return [order[i * len(order) // count] for i in range(count)]


def copy_image(source: Path, target: Path) -> None:
    """Copy a PNG, compressed anew where that is smaller; pixel values stay."""
    with Image.open(source) as image:
        image.save(target, "PNG", optimize=True)
    if target.stat().st_size >= source.stat().st_size:
        shutil.copyfile(source, target)
    with Image.open(source) as a, Image.open(target) as b:
        if a.mode != b.mode or not np.array_equal(np.asarray(a), np.asarray(b)):
            raise SystemExit(f"{source.name}: pixel values changed")


def copy_part(source: Path, target: Path, names: list[str]) -> None:
    """Copy images, and write their masks as one binary 8-bit PNG per class: masks/<class>/<image name>."""
    for folder in (target / "images", *(target / "masks" / c for c in CLASSES)):
        folder.mkdir(parents=True)
    for name in names:
        copy_image(source / "images" / name, target / "images" / name)
        for label, mask in zip(CLASSES, read_masks(source / "masks" / name), strict=True):
            plane = Image.fromarray(mask.astype(np.uint8) * 255)
            plane.save(target / "masks" / label / name, "PNG", optimize=True)


def report(title: str, source: Path, names: list[str], weights: Path) -> None:
    """Print the Dice of each network as shipped, at threshold 0.5 and full image size, as a table's rows."""
    images = torch.stack([preprocess(source / "images" / n) for n in names])
    masks = [read_masks(source / "masks" / n) for n in names]
    for name, build in BUILDERS.items():
        net = build()
        net.load_state_dict(torch.load(weights / f"{name}.pt", weights_only=True), strict=True)
        dice = evaluate(net, images, masks)
        print(" | ".join(["", title, name, *(f"{d:.3f}" for d in (*dice, dice.mean())), ""]).strip())


def main() -> None:
    """Write weights, classes, preprocessing, both parts and the attribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the usgra folder, with train/ and test/")
    parser.add_argument("--weights", type=Path, required=True, help="where train.py put the state dicts")
    parser.add_argument("--out", type=Path, default=Path("ensemble_kit/demo/data"))
    args = parser.parse_args()

    weights = {name: (args.weights / f"{name}.pt").read_bytes() for name in BUILDERS}
    for part in ("weights", "val", "test"):
        shutil.rmtree(args.out / part, ignore_errors=True)
    (args.out / "weights").mkdir(parents=True)
    for name, content in weights.items():
        (args.out / "weights" / f"{name}.pt").write_bytes(content)
    (args.out / "classes.txt").write_text("".join(f"{c}\n" for c in CLASSES), encoding="utf-8")
    (args.out / "preprocess.json").write_text(json.dumps(PREPROCESS, indent=2) + "\n", encoding="utf-8")
    notice = ATTRIBUTION.format(val=VALIDATION, test=TEST)
    (args.out / "ATTRIBUTION.md").write_text(notice, encoding="utf-8")

    _, held = split([p.name for p in (args.data / "train" / "images").glob("*.png")])
    tests = sorted(p.name for p in (args.data / "test" / "images").glob("*.png"))
    parts = {"val": (args.data / "train", held, VALIDATION), "test": (args.data / "test", tests, TEST)}
    for part, (source, names, count) in parts.items():
        chosen = spread(names, count)
        copy_part(source, args.out / part, chosen)
        report(f"{part}, all {len(names)}", source, names, args.out / "weights")
        report(f"{part}, the demo's {count}", source, chosen, args.out / "weights")

    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    print(f"{VALIDATION} validation and {TEST} test images, {size / 1e6:.2f} MB in all")
    if size > LIMIT:
        raise SystemExit(f"the folder holds {size} bytes, over the limit of {LIMIT}")


if __name__ == "__main__":
    main()
