"""What a dump of stores did, in words and as the answer of `--json`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from ensemble_kit.cli.plain import size

if TYPE_CHECKING:
    from ensemble_kit.cli.common import Common
    from ensemble_kit.dumping.run import Dumped


def tell(stores: Iterable[Dumped], common: Common) -> None:
    """Say what each store got, as it is done; then answer."""
    told = []
    for done in stores:
        verb, count = ("would write", done.samples - done.resumed) if common.dry_run else ("wrote", done.written)
        common.say(f"{verb} {count} samples, {size(done.bytes)}, to {done.store}")
        told.append({**asdict(done), "dry_run": common.dry_run})
    common.answer(told[0] if len(told) == 1 else {"stores": told})
