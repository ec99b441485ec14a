"""`Folds`: the stores of one member, which its folds wrote; a member of another name than its store's is one, too.

Folds that hold different samples are joined, as the out-of-fold logits of a cross-validation are; folds that hold the
same ones are averaged, as on a test set (docs/concepts.md#rule-18-folds).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, differ, some
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.once import once

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.fusion import Activation
    from ensemble_kit.spec.geometry import Placement, Shape
    from ensemble_kit.spec.georeference import WorldGeometry
    from ensemble_kit.spec.mosaic import Mosaic
    from ensemble_kit.spec.void import Pixels

_WHAT = "cannot take stores for folds of one member"


@dataclass(frozen=True, eq=False)
class Folds:
    """The stores of one member, sorted by fingerprint; `of` checks them, and finds how they belong together.

    Parameters
    ----------
    member : the member's name, whatever the stores are called.
    stores : one, or several of the same classes and activation.
    joined : each sample is read from the store that holds it; if not, from all of them, each as a member of its own
        (`apart`).
    """

    member: str
    stores: tuple[LogitStore, ...]
    joined: bool = True

    @classmethod
    def of(cls, member: str, stores: Iterable[LogitStore], common: bool = False) -> Folds:
        """Make them of stores in any order.

        Parameters
        ----------
        common : whether stores that share some of their samples are averaged on those that all of them hold.

        Raises
        ------
        MismatchError
            Stores of different classes, activations or ranks, or that share some of their samples and not all.
        """
        own = tuple(sorted(stores, key=lambda store: store.fingerprint))
        for other in own[1:]:
            _check_alike(member, own[0], other)
        return cls(member, own, _are_joined(member, own, common))

    def __reduce__(self) -> tuple[type[Folds], tuple[str, tuple[LogitStore, ...], bool]]:
        return Folds, (self.member, self.stores, self.joined)

    @property
    def apart(self) -> tuple[Folds, ...]:
        """What is fused: itself, or each of the folds that are averaged."""
        if self.joined:
            return (self,)
        return tuple(Folds(name, (store,)) for name, store in called(self))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits' first axis."""
        return self.stores[0].classes

    @property
    def activation(self) -> Activation:
        """What turns the logits into probabilities."""
        return self.stores[0].activation

    @property
    def rank(self) -> int:
        """Axes of the samples' grids."""
        return self.stores[0].rank

    @property
    def grid(self) -> Shape | None:
        """The grid of all samples; None where each has its own."""
        grids = {store.grid for store in self.stores}
        return grids.pop() if len(grids) == 1 else None

    @once
    def samples(self) -> tuple[str, ...]:
        """Samples that some store declares, of folds that are averaged that all declare; sorted where orders differ."""
        first, *others = [store.samples for store in self.stores]
        if all(other == first for other in others):
            return first
        sets = [set(first), *map(set, others)]
        return tuple(sorted(set.union(*sets) if self.joined else set.intersection(*sets)))

    @once
    def missing(self) -> list[str]:
        """Samples that are not committed, of folds that are averaged not in every store."""
        lacking = [set(store.missing) | (set(self.samples) - set(store.samples)) for store in self.stores]
        out = set.intersection(*lacking) if self.joined else set.union(*lacking)
        return [s for s in self.samples if s in out] if out else []

    @property
    def complete(self) -> bool:
        """Every sample is committed."""
        return not self.missing

    @once
    def fingerprint(self) -> str:
        """Hex digest of what the stores say and hold, whatever their order."""
        if len(self.stores) == 1:
            return self.stores[0].fingerprint
        return hashlib.sha256("\n".join(store.fingerprint for store in self.stores).encode()).hexdigest()

    @property
    def bytes_per_sample(self) -> int:
        """Size of a sample's logits, in all stores that are read for it; of the largest one where grids differ."""
        sizes = [store.bytes_per_sample for store in self.stores]
        return max(sizes) if self.joined else sum(sizes)

    @property
    def twins(self) -> list[tuple[str, ...]]:
        """Samples whose logits are equal to the last bit; of averaged folds, pairs that are so in every one."""
        if self.joined:
            return [group for store in self.stores for group in store.twins]
        first, *others = ({pair for group in store.twins for pair in pairwise(group)} for store in self.stores)
        return sorted(first.intersection(*others))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the logits of the first store come from."""
        return self.stores[0].provenance

    def read(self, sample: str) -> NDArray[np.float16]:
        """Read a sample, verified, as `LogitStore.read`."""
        store = self._of(sample)
        return self._in_order(store, store.read(sample))

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:
        """Read some slices of a volume, verified, as `LogitStore.read_slab`."""
        store = self._of(sample)
        return self._in_order(store, store.read_slab(sample, first, stop))

    def read_tile(self, sample: str, number: int) -> NDArray[np.float16]:
        """Read a tile of a scene, verified, as `LogitStore.read_tile`."""
        store = self._of(sample)
        return self._in_order(store, store.read_tile(sample, number))

    def mosaic(self, sample: str) -> Mosaic | None:
        """Return which cells of a scene's grid each of its tiles covers; None of a sample that is one array."""
        return self._of(sample).mosaic(sample)

    def placement(self, sample: str) -> Placement:
        """Return where a sample's image lies on the grid, and how large it is."""
        return self._of(sample).placement(sample)

    def image_size(self, sample: str) -> Shape:
        """Return the size of a sample's image."""
        return self._of(sample).image_size(sample)

    def void(self, sample: str) -> Pixels | None:
        """Return the runs of pixels at which a scene's image holds no data; None where it has all."""
        return self._of(sample).void(sample)

    def geometry(self, sample: str) -> WorldGeometry | None:
        """Return where a volume or a scene lies, if it is known."""
        return self._of(sample).geometry(sample)

    def _of(self, sample: str) -> LogitStore:
        """Return the store that holds a sample; else one that declares it, which says what is missing."""
        if len(self.stores) == 1:
            return self.stores[0]
        declared = [store for store in self.stores if store.declares(sample)] or list(self.stores)
        return next((store for store in declared if store.holds(sample)), declared[0])

    def _in_order(self, store: LogitStore, logits: NDArray[np.float16]) -> NDArray[np.float16]:
        """Bring the classes of another fold to the order of the first one's."""
        if store.classes == self.classes:
            return logits
        return logits[[store.classes.index(name) for name in self.classes]]

    def __repr__(self) -> str:
        how = f"{len(self.stores)} folds, {'joined' if self.joined else 'averaged'}" if len(self.stores) > 1 else ""
        return f"Folds({self.member!r}: {how or repr(self.stores[0])})"


StoreMember = LogitStore | Folds
"""A member of an ensemble of stores."""


def apart(member: StoreMember) -> tuple[StoreMember, ...]:
    """Return what is fused of a member: itself, or its folds where they are averaged."""
    return member.apart if isinstance(member, Folds) else (member,)


def stores_of(member: StoreMember) -> tuple[LogitStore, ...]:
    """Return the stores of a member."""
    return member.stores if isinstance(member, Folds) else (member,)


def called(member: StoreMember) -> list[tuple[str, LogitStore]]:
    """Return the stores of a member, each with what it is called: the member's name, of folds with the store's."""
    stores = stores_of(member)
    return [(member.member if len(stores) == 1 else f"{member.member} ({_name(s)})", s) for s in stores]


def _name(store: LogitStore) -> str:
    return Path(str(store.path)).name


def _check_alike(member: str, one: LogitStore, other: LogitStore) -> None:
    facts: list[tuple[str, Callable[[LogitStore], object], str]] = [
        ("classes", lambda s: sorted(s.classes), "classes-differ"),
        ("activation", lambda s: s.activation, "activation-differs"),
        ("axes of a grid", lambda s: s.rank, "ranks-differ"),
    ]
    for what, value, code in facts:
        if value(one) != value(other):
            ours, theirs = (f"{value(s)} in {s.path}" for s in (one, other))
            fix = f"give the other network's stores a name of their own in place of {member!r}: NAME=PATH"
            raise differ(_WHAT, f"{what} of {member!r}", ours, theirs, fix, code)


def _are_joined(member: str, stores: Sequence[LogitStore], common: bool) -> bool:
    """Tell whether folds hold different samples; if not, all hold the same ones.

    Where all declare the same samples, and each has committed others until none was missing, they are joined, too: so
    loops over folds write that begin each store with the ids of all.
    """
    if len(stores) == 1:
        return True
    declared = [set(store.samples) for store in stores]
    every, shared = set.union(*declared), set.intersection(*declared)
    if sum(map(len, declared)) == len(every):
        return True
    held = [own - set(store.missing) for own, store in zip(declared, stores, strict=True)]
    if all(held) and sum(map(len, held)) == len(every) == len(set.union(*held)):
        return True
    if len(shared) == len(every) or (common and shared):
        return False
    several = sorted(s for s in every - shared if sum(s in own for own in declared) > 1) or sorted(shared)
    counts = ", ".join(f"{store.path} holds {len(own)}" for store, own in zip(stores, declared, strict=True))
    fix = "let no sample be in two folds (they are joined), or dump all folds on the same samples (they are averaged)"
    if shared:
        fix += f"; or pass samples='common' (--samples common) for the {len(shared)} samples that all of them hold"
    item = f"{member!r}: {len(several)} of {len(every)} samples are in some folds and not in all, or the reverse"
    raise MismatchError("folds-mixed", _WHAT, item=f"{item}: {some(several, 3)}; {counts}", fix=fix)
