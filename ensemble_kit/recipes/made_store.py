"""A store of logits that are made of members' logits, sample by sample, volumes slab by slab: it resumes as a dump."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ensemble_kit import __version__
from ensemble_kit.dumping.resuming import begun
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.files import check_space
from ensemble_kit.logits.layout import Codec
from ensemble_kit.logits.writer import LogitWriter
from ensemble_kit.scores import fused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Activation


@dataclass(frozen=True)
class MadeStore:
    """A store that is ready to be written, on the grid of the finest member; nothing is written yet.

    Parameters
    ----------
    ensemble : members whose logits are read.
    out : path of the store.
    member : its name in ensembles.
    classes, activation : of the logits.
    provenance : what the store records; a run with another one does not resume it.
    codec, overwrite : as for `LogitWriter`.
    """

    ensemble: Ensemble
    out: str | os.PathLike[str]
    member: str
    classes: Sequence[str]
    activation: Activation
    provenance: Mapping[str, Any]
    codec: Codec = "none"
    overwrite: bool = False

    def there(self, unknown: Collection[str] = ()) -> frozenset[str]:
        """Return the samples that are committed.

        Parameters
        ----------
        unknown : names of the provenance that this run cannot tell yet, and that may differ.

        Raises
        ------
        MismatchError
            What is there was made in another way.
        """
        return self._begun(unknown)[0]

    def write(
        self,
        work: Callable[[Item], NDArray[np.float16]],
        samples: Sequence[str],
        needed: Callable[[Sequence[str]], int],
        verb: str,
        executor: Executor,
        listener: Listener,
        by_slab: bool = True,
    ) -> int:
        """Write those of some samples that are not there yet, and return how many they are.

        Parameters
        ----------
        work : makes the logits of one of a sample's `fused.slabs`, which an item carries as its truth; or of all of it.
        samples : of the ensemble; the store declares all of the ensemble's, whichever are written.
        needed : projects the bytes of samples that are to be written.
        by_slab : whether volumes are made slab by slab.

        Raises
        ------
        ResourceError
            The disk is too small; nothing was written.
        """
        e, (there, stale) = self.ensemble, self._begun()
        todo = [s for s in samples if s not in there]
        if not todo:
            return 0
        check_space(self.out, needed(todo), self.overwrite)
        places = [fused.placement(e.inputs, s) for s in e.samples]
        geometry = e.inputs.extent(e.samples, e.classes).geometry
        scenes = geometry and len(places[0].grid) == 2  # a store of one grid of images keeps no geometry
        plain = not scenes and not e.inputs.voids(e.samples)
        plain = plain and not any(p.window is not None or p.axes for p in places)
        one = plain and len({p.grid for p in places}) == 1
        with LogitWriter(
            self.out,
            self.classes,
            e.samples,
            places[0].grid if one else None,
            activation=self.activation,
            member=self.member,
            overwrite=stale,
            provenance={**self.provenance, "versions": {"ensemble_kit": __version__}},
            codec=self.codec,
            checked=True,
        ) as out:
            pieces = _Slabs.of(e.inputs, todo, by_slab)
            made = executor.map(work, pieces, verb, listener)
            for sample, count in zip(todo, pieces.counts, strict=True):
                place = fused.placement(e.inputs, sample)
                where = place.image, place.box, place.window, place.axes, geometry.get(sample)
                if len(place.grid) == 3:
                    out.write_slabs(sample, islice(made, count), place.grid, *where)
                else:
                    out.write(sample, next(made), *where, void=e.inputs.void(sample))
            next(made, None)  # which ends the executor's work
        return len(todo)

    def _begun(self, unknown: Collection[str] = ()) -> tuple[frozenset[str], bool]:
        """Return what is committed, and whether a store of another making, without samples, is there."""
        if self.overwrite:
            return frozenset(), True
        e = self.ensemble
        names = {"classes": list(self.classes), "samples": set(e.samples), "member": self.member, "codec": self.codec}
        earlier = begun(os.fspath(self.out), {**self.provenance, **names}, unknown)
        return earlier.committed & set(e.samples), earlier.stale


@dataclass(frozen=True)
class _Slabs(Items):
    """The items of a pass over slabs, in order; two of one sample follow each other.

    Parameters
    ----------
    parts : of each item, the slab; its `truth`.
    counts : how many slabs each sample has.
    """

    parts: Sequence[tuple[int, int]] = ()
    counts: Sequence[int] = ()

    @classmethod
    def of(cls, inputs: Inputs, samples: Sequence[str], by_slab: bool) -> _Slabs:
        """Cut samples into slabs, or leave each whole."""
        cut = [fused.slabs(inputs, s) if by_slab else [(0, fused.placement(inputs, s).grid[0])] for s in samples]
        ids = [sample for sample, parts in zip(samples, cut, strict=True) for _ in parts]
        return cls(ids, None, [part for parts in cut for part in parts], list(map(len, cut)))

    def __iter__(self) -> Iterator[Item]:
        return (Item(sample, part) for sample, part in zip(self.samples, self.parts, strict=True))


def record_of(ensemble: Ensemble) -> dict[str, Any]:
    """Say as JSON values where fused scores come from: members with their fingerprints, and how they are fused."""
    return {"members": [r.to_dict() for r in ensemble.records], **how_fused(ensemble)}


def how_fused(ensemble: Ensemble) -> dict[str, Any]:
    """Write a fusion as JSON values."""
    f = ensemble.fusion
    weights = {name: list(row) for name, row in zip(ensemble.classes, f.weights, strict=True)}
    return {"mean": str(f.mean), "upsample": f.upsample, "weights": weights, "temperatures": list(f.temperatures)}


def refuse_member(ensemble: Ensemble, out: str | os.PathLike[str]) -> None:
    """Refuse to write a store over one of the members that it is made of.

    Raises
    ------
    UsageError
        It names the member.
    """
    same = [name for name, store in ensemble.stores if os.path.realpath(store.path) == os.path.realpath(out)]
    if same:
        item = f"{os.fspath(out)!r} is also the member {same[0]!r}"
        raise UsageError("output-is-input", "cannot write over a member", item=item, fix="pass another path as --out")
