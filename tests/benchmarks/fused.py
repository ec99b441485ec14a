"""How far the vote of a fused store is from that of its members: the demo's three networks on its test images.

    python tests/benchmarks/fused.py [--page docs/storage.md]

Dice between the two, the mean over all pairs of sample and class (both empty count 1), and the share of pixels that differ.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tables

import ensemble_kit as ek

GOLDEN = Path(__file__).parent.parent / "golden"
STORES = [GOLDEN / f"{name}_test.zip" for name in ("unet", "fpn", "dilated")]


def row(mean: str, upsample: str, folder: Path) -> str:
    """Fuse, vote both ways, compare."""
    ens = ek.Ensemble(STORES, mean=mean, upsample=upsample)  # type: ignore[arg-type]
    out = folder / f"{mean}-{upsample}.zarr"
    ek.fuse(ens, out)
    ours = ek.Ensemble([out], mean=mean, upsample=upsample).vote()  # type: ignore[arg-type]
    theirs = ens.vote()
    off = sum((ours[key] ^ theirs[key]).area for key in theirs)
    pixels = sum(int(np.prod(theirs.image_size(s))) for s in theirs.samples) * len(theirs.classes)
    return f"| {mean} | {upsample} | {ek.dice(ours, theirs).mean:.5f} | {off / pixels:.4%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[2] / "docs/storage.md")
    options = parser.parse_args()
    lines = ["| `--mean` | `--upsample` | Dice of the two votes | pixels that differ |", "|---|---|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        lines += [row(mean, up, Path(folder)) for mean in ("probability", "logit") for up in ("logits", "scores")]
    tables.put(options.page, "fused", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
