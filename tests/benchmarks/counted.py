"""Count the machine instructions of small fixed jobs, one call each: a process that guard.py starts under callgrind.

Without Valgrind it runs every job once, so that their machine code is made and kept. Under callgrind it counts: client
requests begin and end the counting around a call. Machine code is made for one processor, whichever this one is.
"""

from __future__ import annotations

import ctypes
import gc
import io
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite.binding
from llvmlite.binding.targets import FeatureMap

PROCESSOR = "haswell"  # AVX2 and F16C, which Valgrind knows
llvmlite.binding.get_host_cpu_name = lambda: PROCESSOR  # or Valgrind's own processor would have a cache of its own
llvmlite.binding.get_host_cpu_features = FeatureMap

ZERO, DUMP_AS, START, STOP = (0x43540000 + k for k in (1, 3, 4, 5))
"""Client requests of valgrind/callgrind.h: CALLGRIND_ZERO_STATS, _DUMP_STATS_AT, _START_ and _STOP_INSTRUMENTATION."""

REQUEST = bytes.fromhex(
    "48 89 f8"  # mov rax, rdi: the address of the six words of a request
    "48 31 d2"  # xor rdx, rdx: the answer where there is no Valgrind
    "48 c1 c7 03 48 c1 c7 0d 48 c1 c7 3d 48 c1 c7 33"  # rol rdi by 3, 13, 61, 51: Valgrind's mark; rdi is as it was
    "48 87 db"  # xchg rbx, rbx
    "48 89 d0 c3"  # mov rax, rdx; ret
)
"""A function in machine code of x86-64: valgrind.h has it as a macro for C."""


def requester() -> Callable[..., int]:
    """Make the function that asks Valgrind for something; where there is none it does nothing."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(REQUEST)
    held = ctypes.c_char.from_buffer(page)
    call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(ctypes.addressof(held))

    def ask(request: int, argument: bytes | None = None) -> int:
        words = (ctypes.c_uint64 * 6)(request)
        if argument is not None:
            words[1] = ctypes.cast(ctypes.c_char_p(argument), ctypes.c_void_p).value or 0
        return call(ctypes.addressof(words)) if held else 0  # the page lives as long as this function

    return ask


def calls(folder: Path) -> dict[str, Callable[[], Any]]:
    """Prepare the jobs: the main kernels, as users reach them, on inputs that a seed determines."""
    import inputs
    import jobs
    import numpy as np

    import ensemble_kit as ek
    from ensemble_kit.decisions.connected import DropSmall, KeepLargest
    from ensemble_kit.formats import submission
    from ensemble_kit.formats.dialects import PRESETS
    from ensemble_kit.masks.maskset import MaskSet
    from ensemble_kit.masks.packed import overlaps
    from ensemble_kit.scores.fusing import open_sample

    M, C, H = 5, 6, 512
    out: dict[str, Callable[[], Any]] = {}

    def vote(ensemble: Any) -> bytes:
        text, plane = io.BytesIO(), ensemble.members[0].placement("x").image
        runs = open_sample(ensemble, "x").decide(dict.fromkeys(range(C), 32768))
        masks = MaskSet.trusted({"x": plane}, ensemble.classes, runs, np.arange(C)[None])
        submission.write(masks, text, PRESETS["handbone"])
        return text.getvalue()

    confident, noisy = (inputs.bone_logits(M, C, H // 4, noisy=noisy) for noisy in (False, True))
    unsure, bands = inputs.soft_logits(M, C, 64), dict.fromkeys(range(C), jobs.BAND)
    drawn = [ek.encode(m) for m in inputs.bone_masks(C, 256)]
    for upsample in ("scores", "logits"):
        for kind, arrays, plane in (("confident", confident, H), ("noisy", noisy, H), ("unsure", unsure, 256)):
            ensemble = jobs.memory_ensemble(arrays, plane, upsample)
            out[f"soft vote, {kind}, {upsample}"] = lambda e=ensemble: vote(e)
        out[f"counts by level, unsure, {upsample}"] = lambda e=ensemble: open_sample(e, "x").counts(bands, drawn)
    sets = [
        ek.MaskSet({("x", f"bone {c}"): ek.encode(m) for c, m in enumerate(row)}) for row in inputs.run_edges(5, 29, H)
    ]
    out["hard vote"] = lambda: ek.hard_vote(sets)
    masks = inputs.bone_masks(C, H)
    out["RLE text"] = lambda: [ek.encode(m).text() for m in masks]
    out["COCO RLE"] = lambda: [ek.encode(m).coco() for m in masks]
    dirty = [ek.encode(m) for m in inputs.dirty_masks(29, H)]
    texts = [r.text() for r in dirty]
    out["text to runs"] = lambda: [ek.Runs.parse(t, (H, H)) for t in texts]
    out["Dice of runs"] = lambda: overlaps(dirty, dirty[1:] + dirty[:1])
    out["drop-small"] = lambda: [DropSmall(100).apply(m) for m in dirty]
    out["keep-largest"] = lambda: [KeepLargest().apply(m) for m in dirty]
    many = ek.MaskSet({(f"image{k:04}.png", f"bone {c}"): m for k in range(20) for c, m in enumerate(dirty)})
    read, written = folder / "in.csv", folder / "out.csv"
    many.write(read, "handbone")
    out["CSV file"] = lambda: many.write(written, "handbone")
    out["CSV file read"] = lambda: ek.read_masks(read, "handbone", image_size=(H, H))
    tuned, truth = jobs._tuning_case(folder, [a[:3] for a in confident], H // 4, 20)
    out["tune"] = lambda: ek.tune_thresholds(tuned, truth, jobs=1)
    return out


def count(jobs: Mapping[str, Callable[[], Any]]) -> None:
    """Run each job twice so that all is warm, and once more between requests; callgrind writes a file of each."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # as many threads everywhere
    ask = requester()
    for _ in range(2):
        for job in jobs.values():
            job()
    gc.collect()
    gc.disable()
    ask(START)
    for name, job in jobs.items():
        ask(ZERO)
        job()
        ask(DUMP_AS, name.encode())
    ask(STOP)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        count(calls(Path(made)))
    sys.exit()
