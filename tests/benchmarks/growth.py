"""Time and peak memory of a soft vote as samples, members, grid and classes grow.

Writes docs/figures/growth.json and growth.png. Every point is a process of its own, whose peak memory is the system's own
figure. Logits are drawn once and read again for every sample from files that the page cache holds, so that what is
measured is the vote and not the drawing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = {"samples": 8, "members": 3, "grid": 512, "classes": 29}
AXES = {
    "samples": (8, 25, 80, 250, 800),
    "members": (1, 2, 4, 8, 15),
    "grid": (256, 512, 1024, 2048),
    "classes": (1, 4, 16, 64, 133),
}

POINT = """
import json, resource, sys, time
import numpy as np
sys.path[:0] = [{here!r}, {root!r}]
import jobs
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.masks.packed import texts
a = json.loads(sys.argv[1])
shape = (a["classes"], a["grid"], a["grid"])
arrays = [np.memmap(f"{folder}/m{{m}}.fp16", np.float16, "r", shape=shape) for m in range(a["members"])]
ensemble = jobs.memory_ensemble(arrays, 2048, "scores")
levels = dict.fromkeys(range(a["classes"]), 32768)
def vote():
    return sum(map(len, texts(open_sample(ensemble, "x", "scores").decide(levels).masks((2048, 2048)))))
vote()
before = resource.getrusage(resource.RUSAGE_SELF)
begin = time.process_time()
for _ in range(a["samples"]):
    vote()
mapped = sum(x.nbytes for x in arrays)
private = int([l for l in open("/proc/self/status") if l.startswith("RssAnon")][0].split()[1]) * 1024
print(json.dumps({{"seconds": time.process_time() - begin, "private_bytes": private,
                   "read_bytes": mapped * a["samples"]}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--quick", action="store_true", help="two small points of each axis")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for axis, values in AXES.items():
        for value in values[:2] if options.quick else values:
            case = BASE | {axis: value} | ({"grid": 64} if options.quick and axis != "grid" else {})
            found.setdefault(axis, []).append(case | point(case))
            print(axis, value, found[axis][-1], file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "growth.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    plot(found, options.out / "growth.png")


def point(case: dict[str, int]) -> dict[str, Any]:
    """Measure one case in a process of its own."""
    import numpy as np

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        plane = np.full((case["grid"], case["grid"]), -8, np.float16)
        y, x = np.indices(plane.shape)
        for m in range(case["members"]):
            with Path(folder, f"m{m}.fp16").open("wb") as file:
                for _ in range(case["classes"]):
                    cy, cx, r = (rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), 0.036)
                    distance = np.hypot(y / case["grid"] - cy, x / case["grid"] - cx) - r
                    file.write(np.clip(-400 * distance, -9, 9).astype(np.float16).tobytes())
        program = POINT.format(here=str(Path(__file__).parent), root=str(ROOT), folder=folder)
        command = [sys.executable, "-c", program, json.dumps(case)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def plot(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw seconds and private memory over each axis; both axes logarithmic, so that linear growth is a straight line."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
    for axis, (name, rows) in zip(axes, found.items(), strict=True):
        at = [r[name] for r in rows]
        axis.loglog(at, [r["seconds"] for r in rows], "o-", label="CPU s")
        axis.loglog(at, [r["read_bytes"] / 20e9 for r in rows], ":", color="grey", label="bytes / 20 GB/s")
        axis.loglog(at, [r["private_bytes"] / 1e9 for r in rows], "s-", label="private memory, GB")
        axis.set_xticks(at, [str(v) for v in at])
        axis.minorticks_off()
        axis.set_xlabel(name)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
