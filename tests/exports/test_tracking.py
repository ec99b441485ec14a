"""examples/tracking logs a real report to MLflow and to Weights & Biases, offline (`make exports-test`)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ensemble_kit as ek
from reported import Files, make_files
from trying import ensk

SCRIPT = Path(__file__).parents[2] / "examples/tracking/log_report.py"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def needs(name: str) -> Any:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}: make exports-test")


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, list[Path]]:
    """A set, its page and its masks."""
    folder = tmp_path_factory.mktemp("answer")
    files = make_files(folder)
    chosen, page, masks = folder / "chosen.json", folder / "report.html", folder / "masks.csv"
    ensk("tune-thresholds", *files.stores, "--val", files.truth, "--out", chosen)
    ensk("report", chosen, *files.stores, "--val", files.truth, "--images", files.images, "--out", page)
    ensk("vote", *files.stores, "--thresholds", chosen, "--out", masks)
    return files, [chosen, page, masks]


def logged(to: str, paths: list[Path], **more: str) -> str:
    env = os.environ | more | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, SCRIPT, to, *paths], env=env, capture_output=True, text=True, cwd=paths[0].parent
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()[-1]


@needs("mlflow")
def test_mlflow_keeps_figures_and_the_page(
    answer: tuple[Files, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    run = logged("mlflow", answer[1], MLFLOW_TRACKING_URI=uri)
    client, tuned = mlflow.MlflowClient(uri), ek.ThresholdSet.load(answer[1][0])
    found = client.get_run(run)
    assert found.data.metrics["in_sample"] == pytest.approx(tuned.score)
    assert found.data.metrics["out_of_fold"] == pytest.approx(tuned.validation.crossed.scores["tuned"])
    assert found.data.params["members"] == "member0, member1, member2"
    assert {f.path for f in client.list_artifacts(run)} == {"classes.json", "chosen.json", "report.html", "masks.csv"}
    page = Path(client.download_artifacts(run, "report.html", str(tmp_path)))
    assert page.read_bytes() == answer[1][1].read_bytes()


@needs("wandb")
def test_wandb_keeps_figures_and_the_page(answer: tuple[Files, list[Path]], tmp_path: Path) -> None:
    run = logged("wandb", answer[1], WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_SILENT="true",
                 WANDB_CACHE_DIR=str(tmp_path / "cache"), WANDB_DATA_DIR=str(tmp_path / "data"))  # fmt: skip
    (kept,) = tmp_path.rglob(f"*{run}.wandb")
    whole = kept.read_bytes()
    for text in (b"member0, member1, member2", b"in_sample", b"out_of_fold", b"chosen.json", b"masks.csv"):
        assert text in whole
    page = answer[1][1].read_bytes()
    pages = [p for p in tmp_path.rglob("*.html") if p.read_bytes() == page]
    assert pages
