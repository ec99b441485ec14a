"""`ensk dump-logits ARRAYS --images VOLUMES`: options → one call of `dump_cases`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.dumped import tell
from ensemble_kit.errors import UsageError


def dump(
    model: str,
    images: Path,
    classes: Path,
    out: str,
    idle: Mapping[str, object],
    common: Common,
    form: Mapping[str, Any],
    **how: Any,
) -> None:
    """Dump a folder of arrays of volumes.

    Parameters
    ----------
    idle : options that say nothing here, by name; what is given of them is refused.
    form : activation, domain, key, scale, axes and ids.
    how : options of `dump_cases`.

    Raises
    ------
    UsageError
        The model is a network, which is not run on volumes.
    """
    from ensemble_kit.dumping.cases import dump_cases
    from ensemble_kit.dumping.volume_arrays import volume_arrays
    from ensemble_kit.formats.classes import read_classes

    given = [name for name, value in idle.items() if value not in (None, False)]
    if given:
        fix = f"leave {', '.join(given)} out: they are for networks that run"
        raise UsageError("option-idle", "cannot use options with arrays of volumes", item=", ".join(given), fix=fix)
    with common.progress() as listen:
        form = {**form, "memory": common.memory, "jobs": common.jobs}
        cases = volume_arrays(Path(model), images, read_classes(classes), common.say, **form)
        options: dict[str, Any] = {"jobs": common.jobs, "force": common.force, "dry_run": common.dry_run}
        tell([dump_cases(cases, out, **how, **options, listen=listen, say=common.say)], common)
