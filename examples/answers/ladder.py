"""Run the rows of a set, each once: what was found is kept beside the set's stores."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench import Bench
from checks import CHECKS, check
from rows import ROWS, Row


def measured(bench: Bench, row: Row) -> dict[str, Any]:
    """Run a row and judge it."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of doubts, which the page tells in its own words
        found = row.run(bench)
    seconds = time.perf_counter() - start
    gain = bench.gain(found.masks)
    test = bench.score(found.masks, "test")
    return {
        "fold": found.fold,
        "test": test,
        "gain": [gain.value, gain.low, gain.high],
        "seconds": seconds,
        "told": found.told,
    }


def kept(path: Path, work: Callable[[], Any], again: bool, told: str, say: Callable[[str], None]) -> Any:
    """Return what an earlier run left in a file, else do the work and leave it there; None where that fails."""
    if path.exists() and not again:
        return json.loads(path.read_text(encoding="utf-8"))
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - one row's failure must not lose the others
        say(f"{told}: left out: {type(error).__name__}: {error}")
        return None
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def climb(
    folder: Path,
    say: Callable[[str], None] = print,
    rows: Sequence[Row] = ROWS,
    again: Sequence[str] = (),
    without: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Measure every row that suits the set and that no earlier run measured.

    A row that fails is told and left out, and the next run tries it again.

    Parameters
    ----------
    folder : of the set, with its stores.
    again : keys of rows to measure anew.
    without : keys of rows that are not measured; what an earlier run found is taken.
    """
    bench, found = Bench(folder), {}
    for row in (row for row in rows if row.suits(bench)):
        told = f"{folder.name} {row.key}"
        path = folder / "rows" / f"{row.key}.json"
        if row.key in without and not path.exists():
            say(f"{told}: not measured")
            continue
        values = kept(path, partial(measured, bench, row), row.key in again, told, say)
        if values is not None:
            found[row.key] = values
            fold, test = (100 * values[part] for part in ("fold", "test"))
            say(f"{told}: out of fold {fold:.2f}, test {test:.2f}, {values['seconds']:.1f} s {values['told']}")
    return found


def verify(
    folder: Path, say: Callable[[str], None] = print, keys: Sequence[str] = tuple(CHECKS), again: Sequence[str] = ()
) -> dict[str, Any]:
    """Run the checks that no earlier run did; None stands for one that the set cannot have."""
    bench, found = Bench(folder), {}
    for key in keys:
        told = f"{folder.name} {key}"
        found[key] = kept(folder / "checks" / f"{key}.json", partial(check, bench, key), key in again, told, say)
        say(f"{told}: {found[key]}")
    return found
