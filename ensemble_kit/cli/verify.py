"""`ensk verify`: every checksum of a store."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble_kit.cli.common import Common
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import Caution, DamagedError, IncompleteError, some

if TYPE_CHECKING:
    from ensemble_kit.logits.store import LogitStore
    from ensemble_kit.logits.verification import Verification


def verify(
    store: Annotated[Path, typer.Argument(help="Logit store.", metavar="STORE")],
    common: Common,
) -> None:
    """Check every checksum of a store; exit 3 if anything is damaged, 4 if anything is missing."""
    from ensemble_kit.logits import coordinates, description
    from ensemble_kit.logits.spare import copy_fault
    from ensemble_kit.logits.store import LogitStore
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.members import unnamed

    opened = LogitStore(unnamed(store))
    memory.check(common.memory, memory.of_store(store) + 2 * opened.bytes_per_chunk, "verify")
    shown = opened.path
    if common.dry_run:
        held = len(opened.samples) - len(opened.missing)
        common.answer(
            {"store": str(shown), "samples": held, "bytes": opened.total_bytes},
            f"would read {held} samples, {size(opened.total_bytes)}",
        )
        return
    with common.progress() as listen:
        found = opened.verify(listen)
    for name in found.unknown:
        common.warn(Caution(f"{shown}: {name!r} does not belong to any sample", "move it out if it is not wanted"))
    sound = (
        f"{shown}: all {found.checked} samples are sound ({size(found.bytes)}), fingerprint {opened.fingerprint[:16]}"
    )
    common.answer(_values(found, opened.fingerprint), sound if found.sound else _listing(found))
    _raise(found, opened)
    root = Path(found.path)
    if not root.is_dir():
        return
    fault = copy_fault(root)
    if fault:
        raise DamagedError(
            "store-copy",
            "cannot trust the copy of a store's description",
            item=f"{shown}, logits/manifest/description.json: {fault}; the samples are sound",
            fix=f"run `ensk repair {shlex.quote(str(shown))}`, which writes it again",
        )
    changed = coordinates.damaged(root, description.describe(root)[0])
    if changed:
        raise DamagedError(
            "store-coordinates",
            "cannot trust the names that xarray reads of a store",
            item=f"{shown}, {some(changed)}: gone or changed; the samples are sound",
            fix=f"run `ensk repair {shlex.quote(str(shown))}`, which writes them again",
        )


def _values(found: Verification, fingerprint: str) -> dict[str, Any]:
    return {
        "store": found.path,
        "sound": found.sound,
        "samples": found.samples,
        "checked": found.checked,
        "bytes": found.bytes,
        "fingerprint": fingerprint,
        "damaged": [{"sample": d.sample, "key": d.key, "reason": d.reason} for d in found.damaged],
        "missing": list(found.missing),
        "unknown": list(found.unknown),
    }


def _listing(found: Verification) -> str:
    lines = [f"damaged  {d.sample}  {d.key}  {d.reason}" for d in found.damaged]
    return "\n".join([*lines, *[f"missing  {sample}" for sample in found.missing]])


def _raise(found: Verification, opened: LogitStore) -> None:
    store = opened.path
    hurt = list(dict.fromkeys(d.sample for d in found.damaged))  # of a volume, several slabs may be
    if hurt:
        raise DamagedError(
            "store-damaged",
            "cannot trust a store",
            item=f"{store}: {len(hurt)} of {found.samples} samples are damaged: "
            f"{some(hurt)} ({', '.join(d.key for d in found.damaged[:5])})",
            fix=opened.mending([d.key for d in found.damaged]),
        )
    if found.missing:
        raise IncompleteError(
            "store-incomplete",
            "cannot call a store complete",
            item=f"{store}: {len(found.missing)} of {found.samples} samples are missing: {some(found.missing)}",
            fix=opened.again,
        )
