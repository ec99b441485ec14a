"""Peak memory of those commands of docs/nnunet.md that run no network, on a generated folder of two folds' probabilities.

    python tests/benchmarks/nnunet_commands.py [--heads 15] [--grid 100 256 256] [--cases 2] [--page docs/performance.md]

The commands are taken from the page, but for new images. Each runs in a process of its own. A fold's validation cases are
`CASE.npz` of probabilities beside `CASE.nii.gz`.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import tempfile
from pathlib import Path
from string import Template

import commands
import nibabel
import numpy as np
import tables
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))

from generated_volumes import logits_of

PAGE = commands.ROOT / "docs" / "nnunet.md"
MEMORY = 2**30
"""What each command may take."""
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


def probabilities(size: tuple[int, int, int], heads: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw a case: softmax probabilities (heads, d, h, w), and the labels of the truth."""
    p = logits_of(size, heads, 0, seed).astype(np.float32)
    p -= p.max(0)
    np.exp(p, out=p)
    p /= p.sum(0)
    return p, logits_of(size, heads, 1, seed).argmax(0).astype(np.uint8)


def write_model(folder: Path, raw: Path, heads: int, size: tuple[int, int, int], cases: int) -> None:
    """Write what nnU-Net leaves behind when the folds of a model are validated with probabilities."""
    labels = {"background": 0} | {f"organ_{k}": k for k in range(1, heads)}
    (raw / "labelsTr").mkdir(parents=True)
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    for k in range(cases):
        fold = folder / f"fold_{k % 2}" / "validation"
        fold.mkdir(parents=True, exist_ok=True)
        p, truth = probabilities(size, heads, k)
        np.savez_compressed(fold / f"case_{k}.npz", probabilities=p)
        for path, voxels in ((fold, p.argmax(0).astype(np.uint8)), (raw / "labelsTr", truth)):
            nibabel.save(nibabel.Nifti1Image(voxels.T, AFFINE), path / f"case_{k}.nii.gz")


def without_networks() -> list[list[str]]:
    """Take the words of the commands on the training cases from the page."""
    section = PAGE.read_text().partition("## Four commands")[2].partition("\n## ")[0]
    lines = "\n".join(re.findall(r"```bash[^\n]*\n(.*?)```", section, re.DOTALL)).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("ensk ") and "test_" not in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=15)
    parser.add_argument("--grid", type=int, nargs=3, default=(100, 256, 256))
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--page", type=Path, help="its table between the marks is replaced")
    options = parser.parse_args()
    lines, most = ["| command | CPU | peak memory |", "|---|---:|---:|"], 0
    with tempfile.TemporaryDirectory() as folder:
        names = {"MODEL": str(Path(folder, "model")), "RAW": str(Path(folder, "raw"))}
        write_model(Path(names["MODEL"]), Path(names["RAW"]), options.heads, tuple(options.grid), options.cases)
        for words in without_networks():
            taken = commands.run([Template(word).substitute(names) for word in words], Path(folder))
            lines.append(f"| `ensk {words[0]}` | {taken.seconds:.1f} s | {taken.peak / 2**20:,.0f} MiB |")
            print(lines[-1], flush=True)
            most = max(most, taken.peak)
    if options.page:
        tables.put(options.page, "nnunet", "\n".join(lines) + "\n")
    if most > MEMORY:
        raise SystemExit(f"a peak of {most >> 20} MiB is above {MEMORY >> 20}")


if __name__ == "__main__":
    main()
