"""What commands say of the members that they opened, and what they call a set of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ensemble_kit.errors import Caution

if TYPE_CHECKING:
    from ensemble_kit.cli.common import Common
    from ensemble_kit.ensemble import Ensemble
    from ensemble_kit.spec.risk import Risk


def tell_members(ensemble: Ensemble, common: Common) -> None:
    """Say which members have folds or other classes, and warn of samples that are left out."""
    from ensemble_kit.recipes.members import told_members

    for line in told_members(ensemble):
        common.say(line)
    if ensemble.dropped:
        doubt = f"{ensemble.dropped} samples are not held by every member and are left out"
        common.warn(Caution(doubt, "dump them for every member, if they should count"))


def default_out(ensemble: Ensemble, risk: Risk | None, common: Common) -> Path:
    """Name a set after the members, in the folder of sets, which is made."""
    from ensemble_kit.thresholds.finding import FOLDER

    if not common.dry_run:
        FOLDER.mkdir(exist_ok=True)
    suffix = "" if risk is None else f"-{risk.kind}-{risk.alpha:g}"
    return FOLDER / f"{'+'.join(ensemble.fusion.members)}{suffix}.json"
