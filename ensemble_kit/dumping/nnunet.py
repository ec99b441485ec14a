"""`nnunet:FOLDER` as a MODEL: exported probabilities, or the networks of a model on new images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ensemble_kit.dumping.cases import dump_cases
from ensemble_kit.dumping.nnunet_exports import Exports
from ensemble_kit.dumping.nnunet_networks import Networks, folds_of
from ensemble_kit.dumping.run import MAX_READERS, Dumped
from ensemble_kit.errors import Caution, UsageError, check_choice, some
from ensemble_kit.execution.cores import cores
from ensemble_kit.masks.idforms import IdForm
from ensemble_kit.trainers.nnunet import CHECKPOINT, FoldNetwork

PREFIX = "nnunet:"
FOLD = "{fold}"
"""Stands in the name of a store for the number of each fold."""


def dump_nnunet(
    folder: str | Path,
    out: str,
    images: str | Path | None = None,
    *,
    fold: str | None = None,
    checkpoint: str | None = None,
    ids: IdForm = "name",
    device: str = "auto",
    mirror: bool = True,
    trust: bool = False,
    jobs: int | None = None,
    warn: Callable[[Caution], None] = lambda _: None,
    **how: Any,
) -> Iterator[Dumped]:
    """Dump what nnU-Net exported, or with `images` what a model's networks put out; yield one result a store.

    Parameters
    ----------
    folder : of exported probabilities, or of a model, `TRAINER__PLANS__CONFIGURATION`.
    out : the store; with `{fold}` in it one for each fold of a model.
    images : named as nnU-Net names them; None: probabilities that were exported.
    fold : one fold's validation cases, or one fold's network.
    checkpoint : file in the folder of a fold; default: checkpoint_final.pth.
    ids : "name" (default), which keeps the suffix of images of two axes, as masks are called too, or "stem".
    mirror : whether networks are averaged over flips, as nnU-Net does by default.
    jobs : threads that decode a case and read files.
    warn : is told of answers without probabilities.
    how : further options of `dump_cases`.

    Raises
    ------
    UsageError
        Several folds, and one store; a store for each, and probabilities that were exported.
    """
    check_choice("--id", ids, ("name", "stem"), "cannot name the cases of nnU-Net", "id-form")
    model, stem = Path(folder), ids == "stem"
    if images is None:
        threads = jobs or min(cores(), MAX_READERS)
        exports = Exports(model, fold, stem, threads)
        if FOLD in out:
            item = f"{out!r} asks for a store a fold, and probabilities that were exported make one"
            fix = (
                f"leave {FOLD} out; with --fold one fold's cases are read; with --images networks are run, a store each"
            )
            raise UsageError("nnunet-folds", "cannot dump exported probabilities by folds", item=item, fix=fix)
        if bare := exports.bare:
            doubt = f"{len(bare)} of the answers have no probabilities beside them and are left out: {some(bare)}"
            warn(
                Caution(doubt, "predict or validate these again with --save_probabilities or --npz, if they are wanted")
            )
        yield dump_cases(exports, out, jobs=jobs, **how)
        return
    file = checkpoint or CHECKPOINT
    folds = folds_of(model, file, fold)
    if len(folds) > 1 and FOLD not in out:
        item = f"{str(model)!r} has the folds {', '.join(folds)}, and each is a store of its own"
        fix = f"pass --fold {folds[0]} for one, or an --out with {FOLD} for a store each, such as net_{FOLD}.zarr"
        raise UsageError("nnunet-folds", "cannot dump several networks to one store", item=item, fix=fix)
    for name in folds:
        network = FoldNetwork(model, name, file, device=chosen_device(device), mirror=mirror, trust=trust)
        yield dump_cases(Networks(model, Path(images), network, name, stem), out.replace(FOLD, name), jobs=jobs, **how)


def chosen_device(device: str) -> str:
    """Return the device that `auto` stands for."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
