"""Dump cases, each with a grid of its own, slab by slab: exports and networks of nnU-Net, and arrays of volumes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ensemble_kit.dumping.resuming import Begun, begun, changed
from ensemble_kit.dumping.run import HALF, MAX_READERS, Dumped, report, versions
from ensemble_kit.dumping.sources import Failure
from ensemble_kit.errors import DamagedError, UsageError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.execution.parts import Part
from ensemble_kit.files import check_space
from ensemble_kit.logits.layout import Codec
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Placement, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation


@dataclass(frozen=True)
class Case:
    """One case's values.

    Parameters
    ----------
    slabs : arrays (C, n, h, w) of consecutive slices; of an image of two axes one array (C, h, w).
    placement : where they lie on the image.
    geometry : of the image; None where its file has none.
    """

    slabs: Iterable[NDArray[Any]]
    placement: Placement
    geometry: Geometry | None


class Heads(Protocol):
    """The classes of cases, in the order of their values; nnU-Net's `Dataset` is one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""

    @property
    def activation(self) -> Activation:
        """What turns logits into probabilities."""

    @property
    def painting(self) -> str:
        """What `--paint` takes to draw overlapping classes; "" where nothing says it."""


class Cases(Protocol):
    """Where cases come from."""

    @property
    def dataset(self) -> Heads:
        """Names of the classes, and whether they exclude each other."""

    @property
    def domain(self) -> Domain:
        """What the values are."""

    @property
    def samples(self) -> Sequence[str]:
        """All samples, sorted."""

    @property
    def member(self) -> str:
        """The model's name in ensembles, where none is given."""

    def record(self) -> dict[str, Any]:
        """Return what the values come from, for the store's provenance."""

    def digest(self, sample: str) -> str:
        """Digest the files that a sample is made from; "" where they cannot be read."""

    def grid(self, sample: str) -> Shape:
        """Return the grid of a case, without its values; what a network will put out may be smaller."""

    def read(self, sample: str) -> Case:
        """Read one case."""


def dump_cases(
    cases: Cases,
    out: str | Path,
    *,
    member: str | None = None,
    part: tuple[int, int] = (1, 1),
    codec: Codec = "none",
    checked: bool = False,
    jobs: int | None = None,
    force: bool = False,
    redo: bool = False,
    dry_run: bool = False,
    listen: Listener = nobody,
    say: Callable[[str], None] = lambda _: None,
) -> Dumped:
    """Write cases into a store; resume where an earlier run stopped.

    Parameters are those of `dump_logits`.

    Raises
    ------
    DamagedError
        Files cannot be read, after all other cases are committed.
    MismatchError
        Another recipe began the store, or the file of a case changed since it was dumped.
    """
    if force and part[1] > 1:
        item = f"part {part[0]}/{part[1]} would remove what the other parts wrote"
        fix = "pass another --out, and run the parts without --force"
        raise UsageError("option-invalid", "cannot replace a store by parts", item=item, fix=fix)
    from ensemble_kit.logits.writer import LogitWriter

    dataset, member = cases.dataset, member or cases.member
    names, samples = dataset.classes, list(cases.samples)
    record = cases.record()
    provenance = {**record, "activation": dataset.activation, "domain": cases.domain, "versions": versions(record)}
    ours = {**provenance, "classes": list(names), "samples": set(samples), "member": member, "codec": codec}
    if dataset.painting:
        provenance["paint"] = ours["paint"] = dataset.painting
        say(f"regions overlap: label maps are written with --paint {dataset.painting}")
    earlier = Begun() if force else begun(out, ours)
    mine = Part(*part).checked().share(samples)
    again = frozenset(changed(earlier, mine, cases.digest, jobs or min(cores(), MAX_READERS), redo, out))
    todo = [s for s in mine if s not in earlier.committed or s in again]
    done = Dumped(str(out), len(mine), len(mine) - len(todo), 0, len(names), None, 0)
    if not todo:
        say(f"{out}: all {len(mine)} samples are there already")
        return done
    projected = sum(len(names) * math.prod(cases.grid(sample)) * HALF for sample in todo)
    say(f"{out}: {len(todo)} of {len(mine)} samples to dump, {len(names)} classes, {projected / 1e6:.1f} MB")
    check_space(out, projected, force)
    if dry_run:
        return replace(done, bytes=projected)
    failures: list[Failure] = []
    with LogitWriter(
        os.fspath(out),
        names,
        samples,
        grid=None,
        activation=dataset.activation,
        member=member,
        domain=cases.domain,
        overwrite=force or earlier.stale,
        provenance=provenance,
        codec=codec,
        checked=checked,
    ) as writer:
        listen(Progress("dumping", done.resumed, done.samples))
        for sample in todo:
            try:
                size = _write(writer, sample, cases.read(sample), cases.digest(sample), sample in again)
            except DamagedError as error:
                failures.append(Failure(sample, error))
                continue
            done = replace(done, written=done.written + 1, bytes=done.bytes + len(names) * size * HALF)
            listen(Progress("dumping", done.resumed + done.written, done.samples, done.written, sample, done.bytes))
    report(failures, done, out)
    return done


def _write(writer: Any, sample: str, case: Case, source: str, again: bool) -> int:
    """Write a case; return the cells of its grid."""
    placed = case.placement
    where = {"box": placed.box, "window": placed.window, "axes": placed.kinds, "geometry": case.geometry}
    how = {**where, "source": source, "again": again}
    if len(placed.grid) == 2:
        for array in case.slabs:
            writer.write(sample, array, placed.image, **how)
    else:
        writer.write_slabs(sample, case.slabs, placed.grid, placed.image, **how)
    return math.prod(placed.grid)
