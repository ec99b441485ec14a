"""`ensk doctor`: versions, threads, devices, disk."""

import os
import platform
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.plain import size
from ensemble_kit.execution.cores import cores
from ensemble_kit.remote.copies import here

_PACKAGES = [
    "ensemble_kit",
    "torch",
    "numpy",
    "scipy",
    "numba",
    "pandas",
    "optuna",
    "opencv-python",
    "opencv-python-headless",
    "zarr",
    "typer",
    "rich",
    "pillow",
    "jinja2",
    "fastcrc",
    "google-crc32c",
    "onnxruntime",
    "safetensors",
    "matplotlib",
    "obstore",
    "distributed",
    "nibabel",
    "pynrrd",
]


def doctor(
    common: Common,
    path: Annotated[Path, typer.Option("--path", help="Folder on the disk that stores will be written to.")] = Path(),
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Compile the kernels of common commands now, in --jobs processes: no first run waits for them.",
        ),
    ] = False,
) -> None:
    """Show what this machine has: versions, threads, memory, devices, disk."""
    if warm:
        _warm(common)
        return
    disk = shutil.disk_usage(here(path, "cannot show a disk"))
    values: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": cores(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free": disk.free,
        "devices": _devices(),
        "problems": _problems(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    shown = {
        **{k: values[k] for k in ("python", "platform", "threads")},
        "memory": size(values["memory"]),
        "disk free": f"{size(disk.free)} at {path.absolute()}",
        "devices": values["devices"],
        **{k: v or "not installed" for k, v in values["versions"].items()},
    }
    common.answer(values, shown, *(f"problem: {p}" for p in values["problems"]))


def _warm(common: Common) -> None:
    from ensemble_kit.cli import warming

    processes = cores() if common.jobs is None else common.jobs
    if common.dry_run:
        common.answer({"commands": list(warming.COMMANDS)}, "\n".join(f"ensk {line}" for line in warming.COMMANDS))
        return
    begin = time.monotonic()
    warming.warm(processes, common.say)
    seconds = round(time.monotonic() - begin, 1)
    values = {"commands": list(warming.COMMANDS), "processes": processes, "seconds": seconds}
    common.answer(values, f"compiled the kernels of {len(warming.COMMANDS)} commands in {seconds} s")


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    try:
        import torch
    except ImportError:
        return ["cpu"]
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{k} {torch.cuda.get_device_name(k)}" for k in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _problems() -> list[str]:
    found = []
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        fix = "pip install --force-reinstall --no-deps opencv-python-headless"
        found.append(f"OpenCV cannot be loaded ({error}); fix: {fix}")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        found.append(f"torch cannot be loaded ({error}), which dump-logits needs; fix: pip install torch")
    return found
