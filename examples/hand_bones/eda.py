"""Look at the data: python eda.py data --out eda writes classes.csv, suspects.txt and eda.png, and prints a summary."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from hand_bones.classes import CLASSES
from hand_bones.command import run
from hand_bones.layout import read_layout, removals_of
from hand_bones.survey import Survey, survey
from hand_bones.wrist import BENT


def draw(found: Survey, path: Path) -> None:
    """Draw areas, overlaps and angles into one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 6), layout="constrained")
    areas, overlaps, angles = figure.subplots(1, 3, width_ratios=[1.1, 1.2, 0.9])
    areas.boxplot(
        100 * found.area, orientation="horizontal", tick_labels=CLASSES, widths=0.6, flierprops={"marker": "."}
    )
    areas.invert_yaxis()
    areas.set(title="area of a class", xlabel="% of the image")
    shown = 100 * found.overlap / np.maximum(found.area.mean(axis=0)[:, None], 1e-12)
    picture = overlaps.imshow(shown, cmap="magma_r", vmin=0)
    overlaps.set(title="overlap, % of the row's class")
    overlaps.set_xticks(range(len(CLASSES)), CLASSES, rotation=90, fontsize=7)
    overlaps.set_yticks(range(len(CLASSES)), CLASSES, fontsize=7)
    figure.colorbar(picture, ax=overlaps, shrink=0.8)
    angles.hist(found.degrees[np.isfinite(found.degrees)], bins=np.arange(-50, 51, 2.5))
    for degrees in (-BENT, BENT):
        angles.axvline(degrees, color="black", linestyle=":")
    angles.set(title="wrist", xlabel="degrees towards the little finger", ylabel="images")
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--removals", type=Path, help="a line an image: image_id reason; without it ROOT/removals.txt")
    parser.add_argument("--out", type=Path, default=Path("eda"))
    a = parser.parse_args()
    found = survey(read_layout(a.root, "train", removals=removals_of(a.root, a.removals)))
    a.out.mkdir(parents=True, exist_ok=True)
    found.table().to_csv(a.out / "classes.csv", index=False, float_format="%.4f")
    suspects = [f"{image_id} {reason}" for image_id, reason in found.suspects()]
    (a.out / "suspects.txt").write_text("".join(f"{line}\n" for line in suspects), encoding="utf-8")
    draw(found, a.out / "eda.png")
    print(found.table().to_string(index=False, float_format="%.3f"))
    print(found.summary())
    print(f"{len(suspects)} things to look at in {a.out / 'suspects.txt'}")


if __name__ == "__main__":
    run(main)
