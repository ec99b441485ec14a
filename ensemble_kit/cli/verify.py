"""`ensk verify`: every checksum of a store."""

from __future__ import annotations

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
    from ensemble_kit.logits.spare import copy_fault
    from ensemble_kit.logits.store import LogitStore
    from ensemble_kit.recipes import memory

    opened = LogitStore(store)
    memory.check(common.memory, memory.of_store(store) + 2 * opened.bytes_per_sample, "verify")
    shown = opened.path
    if common.dry_run:
        held = len(opened.samples) - len(opened.missing)
        total = held * opened.bytes_per_sample
        common.answer(
            {"store": str(shown), "samples": held, "bytes": total}, f"would read {held} samples, {size(total)}"
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
    fault = copy_fault(Path(found.path)) if Path(found.path).is_dir() else ""
    if fault:
        raise DamagedError(
            "store-copy",
            "cannot trust the copy of a store's description",
            item=f"{shown}, logits/manifest/description.json: {fault}; the samples are sound",
            fix=f"run `ensk repair {shown}`, which writes it again",
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
    if found.damaged:
        raise DamagedError(
            "store-damaged",
            "cannot trust a store",
            item=f"{store}: {len(found.damaged)} of {found.samples} samples are damaged: "
            f"{some([d.sample for d in found.damaged])} ({', '.join(d.key for d in found.damaged[:5])})",
            fix=opened.mending([d.key for d in found.damaged]),
        )
    if found.missing:
        raise IncompleteError(
            "store-incomplete",
            "cannot call a store complete",
            item=f"{store}: {len(found.missing)} of {found.samples} samples are missing: {some(found.missing)}",
            fix=f"run the same `ensk dump-logits … --out {store}` again; it dumps what is missing",
        )
