"""`DescribedStore`: what a store's description and manifest say of it and of its samples; none is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ensemble_kit.errors import DamagedError, IncompleteError, check_kind, some
from ensemble_kit.logits import records
from ensemble_kit.logits.layout import Layout, StoreSpec
from ensemble_kit.logits.lines import Records
from ensemble_kit.once import once
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.spec.geometry import Box, Placement, Shape
from ensemble_kit.spec.georeference import WorldGeometry
from ensemble_kit.spec.mosaic import Mosaic
from ensemble_kit.spec.void import Pixels, unpack

T = TypeVar("T")


class DescribedStore:
    """A store's description, and the line of the manifest that counts of every committed sample.

    Parameters
    ----------
    path : the store's file or folder, or its URL.
    spec, how : its description, and how its chunks are stored.
    known : of every committed sample.

    Raises
    ------
    MismatchError
        There are images and volumes among the samples.
    """

    def __init__(self, path: Path | str, spec: StoreSpec, how: Layout, known: Records) -> None:
        self.path, self._spec, self._layout, self._records = path, spec, how, known
        arrays = known.arrays()
        ranks = {len(array.grid) for array in arrays}
        if len(ranks) > 1:
            raise records.ranks_differ(str(path))
        self._rank = ranks.pop() if ranks else len(spec.grid or (0, 0))
        declared = [spec.array(Placement.of(spec.grid, spec.grid))] if spec.grid is not None else []
        self._largest = max([a.size for a in (*arrays, *declared)], default=0)
        self._largest_chunk = max([a.payload for a in (*arrays, *declared)], default=0)
        self._total = sum(array.size * count for array, count in arrays.items())

    @property
    def member(self) -> str:
        """Name of the network."""
        return self._spec.member

    @property
    def uuid(self) -> str:
        """The store's own id, made when it was begun; a copy of it has the same, and so has its `.zip`."""
        return self._spec.store

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the array's axis."""
        return self._spec.classes

    @property
    def samples(self) -> tuple[str, ...]:
        """All declared samples, in order, committed or not."""
        return self._spec.samples

    @property
    def grid(self) -> Shape | None:
        """(h, w) or (d, h, w) of the raster that the network put out; None where each sample has its own."""
        return self._spec.grid

    @property
    def rank(self) -> int:
        """Axes of the samples' grids: 2 of images, 3 of volumes."""
        return self._rank

    @property
    def activation(self) -> Activation:
        """What turns these logits into probabilities: "sigmoid" or "softmax"."""
        return self._spec.activation

    @property
    def codec(self) -> str:
        """How samples are stored: "none", "lossless", or "other", which zarr's reader reads."""
        return self._layout.codec

    @property
    def clamp(self) -> float | None:
        """The bound that logits were limited to when they were written, if any."""
        return self._spec.clamp

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the logits come from, as the writer recorded it."""
        return self._spec.provenance

    @once
    def fingerprint(self) -> str:
        """Hex digest of what the store says and holds; equal content gives equal fingerprints."""
        return records.fingerprint(self._spec, self._records.digests())

    @property
    def missing(self) -> list[str]:
        """Declared samples that are not committed, in order."""
        return self._records.missing()

    def declares(self, sample: str) -> bool:
        """Tell whether a sample is one of the store's, committed or not."""
        return sample in self._spec.rows

    def holds(self, sample: str) -> bool:
        """Tell whether a sample is committed."""
        return sample in self._records

    @property
    def complete(self) -> bool:
        """Every declared sample is committed."""
        return len(self._records) == len(self._spec.samples)

    @property
    def bytes_per_sample(self) -> int:
        """Size of a sample's logits; of the largest one where grids differ."""
        return self._largest

    @property
    def bytes_per_chunk(self) -> int:
        """Size of what is read at once: an image's logits, or a slab of a volume's; the largest one."""
        return self._largest_chunk

    @property
    def total_bytes(self) -> int:
        """Size of the committed samples' logits."""
        return self._total

    @property
    def stored_bytes(self) -> int:
        """Size of the committed samples as they are stored."""
        return self._records.stored_bytes()

    def placement(self, sample: str) -> Placement:
        """Return where a sample's image lies on the grid, and how large it is."""
        return self._asked(self._records.array, sample).placement

    def mosaic(self, sample: str) -> Mosaic | None:
        """Return which cells of a scene's grid each of its tiles covers; None of a sample that is one array."""
        return self._asked(self._records.array, sample).mosaic

    def void(self, sample: str) -> Pixels | None:
        """Return the runs of pixels at which a scene's image holds no data; None where it has all.

        Raises
        ------
        DamagedError
            The store's record of them is no such runs.
        """
        array = self._asked(self._records.array, sample)
        if not array.void:
            return None
        try:
            return unpack(array.void, array.placement.image)
        except ValueError as error:
            item, fix = f"sample {sample!r}: {error}", "dump the sample again"
            raise DamagedError("void-invalid", "cannot read which pixels hold no data", item=item, fix=fix) from None

    def geometry(self, sample: str) -> WorldGeometry | None:
        """Return where a volume lies in the world, or a scene on the Earth; None where nobody said it."""
        return self._asked(self._records.array, sample).geometry

    def image_size(self, sample: str) -> Shape:
        """Return (H, W) of a sample's image in pixels."""
        return self.placement(sample).image

    def box(self, sample: str) -> Box:
        """Return the cells of the grid that cover a sample's image."""
        return self.placement(sample).box

    def saturated(self, sample: str) -> int:
        """Count the values that were cut to ±65504."""
        return self._asked(self._records.saturated, sample)

    def source(self, sample: str) -> str:
        """Return the digest of the file that a sample's logits were made from; "" where none was recorded."""
        return self._asked(self._records.source, sample)

    @property
    def twins(self) -> list[tuple[str, ...]]:
        """Samples whose logits are equal to the last bit: the same image under two names, or two blank ones."""
        return self._records.twins()

    def same_logits(self, other: DescribedStore) -> bool:
        """Tell whether another store holds the same samples with logits that are equal to the last bit."""
        return bool(self._records) and self.classes == other.classes and self._records.same_crcs(other._records)

    def _asked(self, known: Callable[[str], T], sample: str) -> T:
        """Ask what is known of a sample; say why nothing is."""
        check_kind("a sample", sample, str, "pass the id of one sample")
        try:
            return known(sample)
        except KeyError:
            raise self._not_there(sample) from None

    def _not_there(self, sample: str) -> IncompleteError:
        if sample not in self._spec.rows:
            what, known = "cannot read a sample that a store does not have", some(self.samples, 3)
            item = f"{sample!r} in {self.path} ({len(self.samples)} samples: {known})"
            return IncompleteError("sample-unknown", what, item=item, fix="check the id, or dump the store with it")
        what, counts = "cannot read a sample that is not dumped yet", f"{len(self._records)} of {len(self.samples)}"
        item = f"{sample!r} in {self.path}, which holds {counts}"
        return IncompleteError("sample-missing", what, item=item, fix=self.again)

    @property
    def again(self) -> str:
        """What writes the samples that are missing: the command that made the store."""
        made = {"fused": "fuse", "stacked": "stack"}
        command = next((made[key] for key in made if key in self.provenance), "dump-logits")
        return f"run the same `ensk {command} … --out {self.path}` again; it writes what is missing"
