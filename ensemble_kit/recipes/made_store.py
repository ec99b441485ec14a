"""A store of logits that are made of members' logits, sample by sample: it resumes as a dump does."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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
    ) -> int:
        """Write those of some samples that are not there yet, and return how many they are.

        Parameters
        ----------
        work : makes a sample's logits.
        samples : of the ensemble; the store declares all of the ensemble's, whichever are written.
        needed : projects the bytes of samples that are to be written.

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
        with LogitWriter(
            self.out,
            self.classes,
            e.samples,
            fused.placement(e.inputs, todo[0]).grid,
            activation=self.activation,
            member=self.member,
            overwrite=stale,
            provenance={**self.provenance, "versions": {"ensemble_kit": __version__}},
            codec=self.codec,
            checked=True,
        ) as out:
            for sample, values in zip(todo, executor.map(work, Items(todo), verb, listener), strict=True):
                place = fused.placement(e.inputs, sample)
                out.write(sample, values, image_size=place.image, box=tuple(place.box))
        return len(todo)

    def _begun(self, unknown: Collection[str] = ()) -> tuple[frozenset[str], bool]:
        """Return what is committed, and whether a store of another making, without samples, is there."""
        if self.overwrite:
            return frozenset(), True
        e = self.ensemble
        names = {"classes": list(self.classes), "samples": set(e.samples), "member": self.member, "codec": self.codec}
        earlier = begun(os.fspath(self.out), {**self.provenance, **names}, unknown)
        return earlier.committed & set(e.samples), earlier.stale


def record_of(ensemble: Ensemble) -> dict[str, Any]:
    """Say as JSON values where fused scores come from: members with their fingerprints, and how they are fused."""
    members = [{"name": r.name, "fingerprint": r.fingerprint, "model": r.model} for r in ensemble.records]
    return {"members": members, **how_fused(ensemble)}


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
    same = [m for m in ensemble.members if os.path.realpath(m.path) == os.path.realpath(out)]
    if same:
        item = f"{os.fspath(out)!r} is also the member {same[0].member!r}"
        raise UsageError("output-is-input", "cannot write over a member", item=item, fix="pass another path as --out")
