"""`ensk dump-logits nnunet:FOLDER`: options → one call of `dump_nnunet`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.dumped import tell
from ensemble_kit.errors import UsageError


def dump(
    model: str, images: Path | None, out: str, tta: str | None, idle: Mapping[str, object], common: Common, **how: Any
) -> None:
    """Dump exported probabilities of nnU-Net, or its networks.

    Parameters
    ----------
    model : `nnunet:FOLDER`.
    tta : None, or "none": networks see each image once, not all its flips.
    idle : options that say nothing here, by name; what is given of them is refused.
    how : options of `dump_nnunet`.
    """
    from ensemble_kit.dumping.nnunet import PREFIX, dump_nnunet

    given = [name for name, value in idle.items() if value not in (None, False)]
    if images is None:
        given += [name for name, value in {"--tta": tta, "--weights": how["checkpoint"]}.items() if value is not None]
    if given:
        fix = f"leave {', '.join(given)} out: classes, sizes and activation are those of the model"
        raise UsageError("option-idle", "cannot use options with nnunet:FOLDER", item=", ".join(given), fix=fix)
    if tta not in (None, "none"):
        fix = "leave it out for the flips of the model, or pass --tta none for none"
        raise UsageError("option-invalid", "cannot choose flips of nnU-Net's networks", item=f"--tta {tta}", fix=fix)
    with common.progress() as listen:
        options: dict[str, Any] = {"jobs": common.jobs, "force": common.force, "dry_run": common.dry_run}
        options |= {"listen": listen, "say": common.say, "warn": common.warn, "mirror": tta is None}
        tell(dump_nnunet(model.removeprefix(PREFIX), out, images, **how, **options), common)
