"""Train networks of nnU-Net on the volumes of make_cases.py, on a CPU in a minute or two.

    python examples/volumes/train_nnunet.py nnunet-out

makes nnunet-out/{raw,preprocessed,results}: two folds of each of the two datasets in `3d_fullres`, and of the first in
`2d`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from make_cases import DATASETS, write_dataset

HERE = Path(__file__).resolve().parent
MODELS = [("Dataset001_Toy", "3d_fullres"), ("Dataset001_Toy", "2d"), ("Dataset002_ToyRegions", "3d_fullres")]


def environment(out: Path) -> dict[str, str]:
    """Return the variables by which nnU-Net finds folders and trainers, and keeps to one thread."""
    folders = {f"nnUNet_{name}": str(out.resolve() / name) for name in ("raw", "preprocessed", "results")}
    one = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "nnUNet_compile": "f"}
    return {**folders, **one, "nnUNet_extTrainer": str(HERE / "trainers")}


def plan(dataset: str) -> None:
    """Plan and preprocess a dataset, with a network of few channels."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    class TinyPlanner(ExperimentPlanner):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.UNet_base_num_features, self.UNet_max_features_2d, self.UNet_max_features_3d = 8, 16, 16
            self.UNet_blocks_per_stage_encoder = (1,) * 14
            self.UNet_blocks_per_stage_decoder = (1,) * 13
            self.UNet_reference_val_3d = self.UNet_reference_val_2d = 3_000_000

    number = int(dataset[7:10])
    api.extract_fingerprints([number], num_processes=1, verbose=False, show_progress_bar=False)
    api.plan_experiment_dataset(number, TinyPlanner)
    configurations = [c for d, c in MODELS if d == dataset]
    api.preprocess([number], configurations=configurations, num_processes=[1], show_progress_bar=False)


def train(dataset: str, configuration: str, fold: int) -> None:
    """Train one fold and write the probabilities of its validation cases."""
    import torch
    from nnunetv2.run.run_training import run_training

    os.environ.update(nnUNet_n_proc_DA="0")  # augment in this process; planning needs at least 1
    torch.set_num_threads(1)
    torch.manual_seed(fold)
    how = {"export_validation_probabilities": True, "device": torch.device("cpu")}
    run_training(dataset, configuration, fold, "nnUNetTrainerToy", **how)


def run(out: Path) -> None:
    """Make data, plans and networks."""
    os.environ.update(environment(out))
    for dataset in DATASETS:
        write_dataset(out / "raw", dataset)
        plan(dataset)
    for dataset, configuration in MODELS:
        for fold in (0, 1):
            train(dataset, configuration, fold)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    run(parser.parse_args().out)
