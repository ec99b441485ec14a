"""Networks of nnU-Net that are trained once for all tests, and what nnU-Net itself predicts with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from train_nnunet import environment, run


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data, plans and two folds of three models; `ENSK_TOY` names a folder where they are already."""
    given = os.environ.get("ENSK_TOY")
    out = Path(given) if given else tmp_path_factory.mktemp("nnunet")
    os.environ.update(environment(out))
    if not (out / "results").is_dir():
        run(out)
    return out


@pytest.fixture(scope="session")
def model(toy: Path) -> Callable[[str], Path]:
    """Return the folder of a model by its dataset and configuration, such as `Dataset001_Toy/2d`."""

    def of(name: str) -> Path:
        dataset, configuration = name.split("/")
        return toy / "results" / dataset / f"nnUNetTrainerToy__nnUNetPlans__{configuration}"

    return of


@pytest.fixture(scope="session")
def predicted(
    toy: Path, model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, tuple[int, ...]], Path]:
    """Return the folder where nnU-Net wrote answers and probabilities of the test images, by model and folds."""
    known: dict[tuple[str, tuple[int, ...]], Path] = {}

    def of(name: str, folds: tuple[int, ...]) -> Path:
        if (name, folds) not in known:
            import torch
            from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

            torch.set_num_threads(1)
            out = tmp_path_factory.mktemp("predicted")
            network = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            network.initialize_from_trained_model_folder(str(model(name)), folds)
            images = str(toy / "raw" / name.split("/", maxsplit=1)[0] / "imagesTs")
            network.predict_from_files_sequential(images, str(out), save_probabilities=True)
            known[name, folds] = out
        return known[name, folds]

    return of
