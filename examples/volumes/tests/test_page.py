"""The commands of docs/nnunet.md, run as they are written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

PAGE = Path(__file__).parents[3] / "docs/nnunet.md"


def test_the_page_runs_as_written(toy: Path, model: Callable, predicted: Callable, tmp_path: Path) -> None:
    blocks = re.findall(r"```bash not-run: make nnunet-test.*?\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    ensk = tmp_path / "bin" / "ensk"
    ensk.parent.mkdir()
    ensk.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ensemble_kit "$@"\n')
    ensk.chmod(0o755)
    names = {"MODEL": "Dataset001_Toy/3d_fullres", "REGIONS": "Dataset002_ToyRegions/3d_fullres"}
    env = os.environ | {key: str(model(name)) for key, name in names.items()}
    env |= {"RAW": str(toy / "raw/Dataset001_Toy"), "REGIONS_RAW": str(toy / "raw/Dataset002_ToyRegions")}
    env |= {f"PREDICTED_{k.upper()[:2]}": str(predicted(f"Dataset001_Toy/{k}", (0, 1))) for k in ("3d_fullres", "2d")}
    env["PATH"] = f"{ensk.parent}:{env['PATH']}"
    for block in blocks:
        done = subprocess.run(["bash", "-e", "-c", block], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for folder, reference in (("answer", "labelsTr"), ("predicted", "labelsTs")):
        found = sorted((tmp_path / folder).glob("*.nii.gz"))
        assert len(found) == (6 if folder == "answer" else 2)
        for path in found:
            ours, theirs = nibabel.load(path), nibabel.load(toy / "raw/Dataset001_Toy" / reference / path.name)
            assert ours.shape == theirs.shape
            assert np.allclose(ours.affine, theirs.affine, atol=1e-4)
    summary = json.loads((tmp_path / "answer/summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] > 0.4
    painted = json.loads((tmp_path / "painted/summary.json").read_text())
    assert set(painted["mean"]) == {"(1, 2)", "2", "3"}


def test_nnunet_evaluates_the_answer(toy: Path, model: Callable, predicted: Callable, tmp_path: Path) -> None:
    """Its own tool reads the folder that a vote wrote, and comes to the figures that are in summary.json."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2

    own, truth = model("Dataset001_Toy/3d_fullres"), toy / "raw/Dataset001_Toy/labelsTs"
    about = own / "dataset.json"
    for words in (
        ["dump-logits", f"nnunet:{predicted('Dataset001_Toy/3d_fullres', (0, 1))}", "--out", "net.zarr"],
        [
            "vote",
            "net.zarr",
            "--background",
            "background",
            "--rule",
            "keep-largest",
            "--out",
            "answer",
            "--format",
            "nifti",
        ],
        ["score", "answer", "--val", truth, "--labels", about, "--format", "nnunet", "--out", "summary.json"],
    ):
        subprocess.run([sys.executable, "-m", "ensemble_kit", *map(str, words)], cwd=tmp_path, check=True)
    shutil.copy(own / "plans.json", tmp_path)
    files = str(truth), str(tmp_path / "answer"), str(about)
    compute_metrics_on_folder2(*files, str(tmp_path / "plans.json"), str(tmp_path / "theirs.json"), num_processes=1)
    ours, theirs = (json.loads((tmp_path / name).read_text()) for name in ("summary.json", "theirs.json"))
    assert ours["foreground_mean"] == theirs["foreground_mean"]
