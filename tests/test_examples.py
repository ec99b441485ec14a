"""The examples run: training for one epoch, the demo's data, and the comparison of ways to choose thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
import warm

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DATA = Path(ek.__file__).parent / "demo" / "data"


@pytest.fixture(scope="module")
def usgra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the authors' data: the demo's images, twice over in `train`, so that some are not held out.

    A quarter as wide and high: networks of one epoch leave nearly every pixel to be counted.
    """
    root = tmp_path_factory.mktemp("usgra")
    for part, copies in (("train", 2), ("test", 1)):
        for folder in ("images", "masks"):
            (root / part / folder).mkdir(parents=True)
        for source in ("val", "test") if part == "train" else ("test",):
            for image in (DATA / source / "images").glob("*.png"):
                nerve, vessel = (
                    np.asarray(Image.open(DATA / source / "masks" / c / image.name)) > 0 for c in ("nerve", "vessel")
                )
                for k in range(copies):
                    name = f"{k}{image.name}" if copies > 1 else image.name
                    Image.open(image).reduce(4).save(root / part / "images" / name)
                    labels = np.where(vessel, 2, nerve).astype(np.uint8)[::4, ::4]
                    Image.fromarray(labels).save(root / part / "masks" / name)
    return root


SCRIPT = """
import runpy, sys
commands, script = sys.argv[1:3]
sys.executable = f"{commands}/python"  # beside it lies the `ensk` that a script runs
sys.path[0], sys.argv[:] = script.rpartition("/")[0], sys.argv[2:]
runpy.run_path(script, run_name="__main__")
"""
"""What `python SCRIPT …` does, in a warm process, and with commands in warm ones."""


def run(script: Path, *arguments: object) -> str:
    ran = warm.run("-c", SCRIPT, warm.commands(), script, *arguments, timeout=None)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_training_for_one_epoch(usgra: Path, tmp_path: Path) -> None:
    script = ROOT / "examples/usgra/train.py"
    told = run(
        script,
        "--data",
        usgra / "train",
        "--out",
        tmp_path,
        "--log",
        tmp_path / "log",
        "--epochs",
        1,
        "--only",
        "dilated",
        "--threads",
        1,
    )
    assert "16 images to train on, 40 to validate" in told
    assert (tmp_path / "dilated.pt").exists()


def test_the_comparison_writes_its_table(usgra: Path, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- usgra -->\nold\n<!-- /usgra -->\nafter\n")
    run(ROOT / "examples/usgra/compare.py", "--data", usgra, "--trials", 2, "--page", page)
    text = page.read_text()
    assert text.startswith("before\n<!-- usgra -->\n| mean of the three networks")
    assert text.count("\n| ") == 9
    assert text.endswith("<!-- /usgra -->\nafter\n")


def test_label_maps_from_training_to_miou(usgra: Path, tmp_path: Path) -> None:
    folder = ROOT / "examples" / "label_maps"
    weights, out = tmp_path / "weights", tmp_path / "out"
    options = ("--epochs", 1, "--only", "dilated", "--threads", 1)
    told = run(folder / "train.py", "usgra", "--data", usgra / "train", "--out", weights, *options)
    assert "validation mIoU" in told
    told = run(folder / "run.py", "usgra", "--data", usgra, "--weights", weights, "--out", out, "--only", "dilated")
    assert "| their mean, factors tuned |" in told
    assert ek.ThresholdSet.load(out / "factors.json").measure.is_miou
    assert ek.read_masks(out / "answer_1").exclusive
