"""The log of a run: a CSV file with an epoch a row, and a run of Weights & Biases."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ensemble_kit import ResourceError
from hand_bones.config import Config
from hand_bones.experiment import replacing

Row = Mapping[str, float | None]


class Log:
    """Writes `log.csv` and, unless the configuration says "disabled", a W&B run; a context manager.

    W&B's "offline" needs neither a network nor an account: `wandb sync FOLDER/wandb/offline-run-*` uploads later.
    Training that goes on goes on with its run there, and logs the epochs before once more: uploaded one after the
    other, a run's files replace each other.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._folder = folder
        self._run: Any = None
        self._logged = 0
        if config.wandb != "disabled":
            import wandb

            before = sorted(folder.glob("wandb/*run-*/run-*.wandb"))
            try:
                self._run = wandb.init(
                    project="hand-bones",
                    name=config.name,
                    dir=folder,
                    config=asdict(config),
                    mode=config.wandb,
                    id=before[-1].stem.removeprefix("run-") if before else None,
                    resume="allow",
                    settings=wandb.Settings(silent=True),
                )
            except wandb.Error as error:
                raise ResourceError(
                    "wandb-unavailable",
                    "cannot begin a run of Weights & Biases",
                    item=f"wandb = {config.wandb!r}: {error}",
                    fix='run: wandb login; or use "wandb": "offline" or "disabled"',
                ) from error

    def write(self, history: Sequence[Row]) -> None:
        """Write all epochs so far, and to W&B those that this run has not logged."""
        write_table(self._folder, history)
        if self._run is not None:
            for step, row in enumerate(history[self._logged :], start=self._logged + 1):
                self._run.log({k: v for k, v in row.items() if v is not None}, step=step)
            self._logged = len(history)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)


def write_table(folder: Path, history: Sequence[Row]) -> None:
    """Write `log.csv`, all epochs so far: whole at every moment, and no row twice after a resume."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, columns, lineterminator="\n")
    rows.writeheader()
    rows.writerows(history)
    with replacing(folder / "log.csv") as out:
        out.write(text.getvalue().encode())
