"""Fused scores kept: a store that is a member like others, or a folder of averaged probabilities; for `ensk fuse`.

A store is written by `LogitWriter`, so it resumes and survives kills and power cuts as a dump does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import Caution, UsageError, check_choice, check_kind, check_path, some, warn
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Item
from ensemble_kit.execution.parts import WHOLE, Part
from ensemble_kit.formats.maskformat import existing
from ensemble_kit.formats.volume_geometries import Geometries
from ensemble_kit.logits.layout import Codec
from ensemble_kit.recipes import memory as projected
from ensemble_kit.recipes.fused_folder import FusedFolder
from ensemble_kit.recipes.made_store import MadeStore, how_fused, record_of, refuse_member
from ensemble_kit.recipes.members import counted, told_members
from ensemble_kit.remote.urls import url_of
from ensemble_kit.scores import fused
from ensemble_kit.scores.inputs import Inputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["store", "npz", "nifti"]


@dataclass(frozen=True)
class Fused:
    """What `fuse` did, or would do.

    Parameters
    ----------
    path : the store or folder.
    member : name of the store as a member of ensembles.
    samples, resumed, written : how many there are (with `part` in its share), were there before, and were written.
    bytes : projected, before compression, of the samples that were not there.
    uncertainty : the folder of what members disagree on; None where that is not kept.
    """

    path: str
    member: str
    samples: int
    resumed: int
    written: int
    bytes: int
    uncertainty: str | None = None


@dataclass(frozen=True)
class Fusing:
    """A fusion that is ready to be kept; nothing is written yet.

    Parameters
    ----------
    ensemble : members, and how they are fused.
    out : the store's path, or that of a folder.
    kind : "store", "npz" or, of volumes, "nifti".
    member : name of the store; default: the members' names, joined by "+".
    codec : of the store, as for `LogitWriter`.
    overwrite : replace what is there.
    uncertainty : whether members' disagreement is kept: beside the probabilities of a sample, or in a folder beside
        the store, `beside`.
    part : the share of the samples to fuse; what all shares write into one store or folder is the whole.
    geometries : what says where volumes lie that are written as NIfTI, where the members do not.

    Raises
    ------
    UsageError
        `out` is a member, a file, or a folder of other things; a power mean of exclusive classes; uncertainty of a
        store behind a URL; a part that replaces what is there, or that no sample is left for.
    MismatchError
        What is there was fused of other members, or in another way.
    """

    ensemble: Ensemble
    out: str | os.PathLike[str]
    kind: Kind = "store"
    member: str | None = None
    codec: Codec = "none"
    overwrite: bool = False
    uncertainty: bool = False
    part: Part = WHOLE
    geometries: Geometries = field(default_factory=Geometries)

    def __post_init__(self) -> None:
        check_kind("the ensemble", self.ensemble, Ensemble)
        check_path(self.out)
        check_choice("format", self.kind, get_args(Kind), "cannot keep fused scores")
        mean, e = self.ensemble.fusion.mean, self.ensemble
        for sample in e.samples:
            fused.check_placed(e.inputs, sample)
        if self.geometries != Geometries() and self.kind != "nifti":
            item = f"like_image and spacing with format={self.kind!r}, which keeps the place of the members, or none"
            fix = "leave them out (--like-image, --spacing), or pass format='nifti' (--format nifti)"
            raise UsageError("option-idle", "cannot place fused scores", item=item, fix=fix)
        if self.ensemble.activation == "softmax" and mean.power not in {None, 1.0}:
            item = f"mean={str(mean)!r}: its values do not add up to 1 over the classes, as probabilities of a pixel do"
            fix = "pass mean='probability', or 'logit', the normalised geometric mean (--mean)"
            raise UsageError("softmax-option", "cannot keep power means of exclusive classes", item=item, fix=fix)
        if self._folder is not None:
            self._folder.check()
        refuse_member(self.ensemble, self.out)
        self.part.check_has(len(self.ensemble.samples))
        if self.overwrite and self.part.of > 1:
            item = f"part {self.part} would remove what the other parts wrote"
            fix = "pass another --out, and run the parts without --force"
            raise UsageError("option-invalid", "cannot replace fused scores by parts", item=item, fix=fix)
        if self.uncertainty and url_of(self.out) is not None:
            item = f"{os.fspath(self.out)!r} is a URL, and the disagreement of members is kept in a folder"
            fix = "pass a path of this machine as --out, or leave --uncertainty out"
            raise UsageError("uncertainty-remote", "cannot keep uncertainty here", item=item, fix=fix)

    @property
    def name(self) -> str:
        """Name of the store as a member."""
        return "+".join(self.ensemble.fusion.members) if self.member is None else self.member

    def told(self) -> list[str]:
        """Say what is fused, and what is kept of it."""
        f, e = self.ensemble.fusion, self.ensemble
        lines = [f"fused: mean of {f.mean} over {', '.join(counted(e))}", *told_members(e)]
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        if self.kind == "store":
            where = "on the finest grid"
            if apart := self._apart:
                where += f", of {len(apart)} samples at the image's size, since members saw different windows"
            lines.append(f"kept: logits {where}, as the member {self.name!r}; thresholds and rules are not")
            if e.activation == "softmax" and e.lacking:
                lines.append("a vote with it divides scores by their sum: argmax is the same, --least is not")
        else:
            lines.append("kept: probabilities at the image's size, float32")
        if self.uncertainty:
            beside = f"in the folder {self.beside}" if self.kind == "store" else "beside them"
            lines.append(f"kept: variance of the members' probabilities and mutual information in bits, {beside}")
        return lines

    @property
    def _apart(self) -> list[str]:
        """The samples whose members saw different windows of the image."""
        return [s for s in self.ensemble.samples if not fused.share_window(self.ensemble.inputs, s)]

    def doubts(self) -> list[Caution]:
        """Say where no members disagree, since there is only one; and which folder beside the store is of another."""
        if not self.uncertainty:
            return self._left_beside()
        fusion, classes = self.ensemble.fusion, self.ensemble.classes
        alone = [name for name, row in zip(classes, fusion.weights, strict=True) if sum(w > 0 for w in row) == 1]
        if not alone:
            return []
        of = "every class" if len(alone) == len(classes) else f"the classes {some(alone)}"
        doubt = f"only one member weighs in {of}: its disagreement is 0 everywhere"
        return [Caution(doubt, "fuse two or more members")]

    def _left_beside(self) -> list[Caution]:
        """Warn of what an earlier fusion of other members left beside the store."""
        if self.kind != "store":
            return []
        apart = FusedFolder(self.ensemble, self.beside, record_of(self.ensemble), False, True, False).differences
        if not apart:
            return []
        doubt = f"{self.beside} is of another fusion: {'; '.join(apart)}"
        return [Caution(doubt, "pass --uncertainty and --force to replace it too, or another --out")]

    @property
    def beside(self) -> str:
        """The folder of what members disagree on, beside a store: `fused.uncertainty` of `fused.zarr`."""
        return os.fspath(self.out).rstrip("/").removesuffix(".zarr") + ".uncertainty"

    def threads(self, jobs: int | None, memory: int | None) -> int | None:
        """Return how many samples may be fused at once within a budget of bytes; `jobs` without one.

        A thread holds a sample of every member and its result, and one result more may wait to be written.

        Raises
        ------
        ResourceError
            One sample does not fit.
        """
        if memory is None:
            return jobs
        each = max(map(self._bytes_at_work, self.ensemble.samples))
        held = projected.held()
        projected.check(memory, held + each, "fuse")
        return min(jobs or cores(), int((memory - held) // each))

    def _bytes_at_work(self, sample: str) -> float:
        """Project what a thread holds of a sample, or of a volume's slab."""
        e, classes, place = self.ensemble, len(self.ensemble.classes), fused.placement(self.ensemble.inputs, sample)
        rows = 1024 * classes * place.image[-1]
        if len(place.grid) == 3:  # codes of a whole volume go to a file
            return projected.at_work(e) + 3 * fused.SLAB + rows + 8 * math.prod(place.image[1:])
        each = sum(m.bytes_per_sample for m in e.members) * (2 if e.activation == "softmax" else 1)  # as codes, too
        if self.kind == "store":
            return each + classes * math.prod(place.grid) * (8 if self.uncertainty else 6)
        # codes of 16 bits, some rows of 64, and a class in float32 with its bytes, when it is written
        return (
            each + classes * (4 if self.uncertainty else 2) * math.prod(place.image) + rows + 8 * math.prod(place.image)
        )

    def run(self, executor: Executor, listener: Listener = nobody) -> Fused:
        """Fuse and write what is not there yet."""
        done = self.plan()
        if self.kind == "store":
            work = _Logits(self.ensemble.inputs)
            self._store.write(work, self.samples, self._store_bytes, "fusing", executor, listener)
        if (folder := self._folder) is not None:
            folder.run(self.samples, executor, listener)
        return replace(done, written=done.samples - done.resumed)

    def plan(self) -> Fused:
        """Return what `run` would do, after the same checks."""
        samples, folder, needed = self.samples, self._folder, 0
        there = set(samples)
        if self.kind == "store":
            committed = self._store.there()
            there, needed = there & committed, self._store_bytes([s for s in samples if s not in committed])
        if folder is not None:
            files = folder.there
            there, needed = there & files, needed + sum(folder.bytes_of(s) for s in samples if s not in files)
        kept = os.fspath(folder.path) if folder is not None and self.uncertainty else None
        return Fused(os.fspath(self.out), self.name, len(samples), len(there), 0, needed, kept)

    @property
    def samples(self) -> list[str]:
        """The samples of this part."""
        return self.part.share(self.ensemble.samples)

    @property
    def _folder(self) -> FusedFolder | None:
        """The folder that is written: of probabilities, or of uncertainty beside a store; None if there is neither."""
        images = self.kind != "store"
        if not (images or self.uncertainty):
            return None
        path, record = self.out if images else self.beside, record_of(self.ensemble)
        geometries = self.geometries if self.kind == "nifti" else None
        return FusedFolder(self.ensemble, path, record, images, self.uncertainty, self.overwrite, geometries)

    def _store_bytes(self, samples: Sequence[str]) -> int:
        cells = sum(math.prod(fused.placement(self.ensemble.inputs, s).grid) for s in samples)
        return 2 * cells * len(self.ensemble.classes)

    def _provenance(self) -> dict[str, Any]:
        """Return what a store records; a set that was tuned on it knows another fusion by `network_sha256`."""
        e = self.ensemble
        models = [[r.name, r.model] for r in e.records]
        network = hashlib.sha256(json.dumps([models, how_fused(e)], sort_keys=True).encode()).hexdigest()
        told = ", ".join(f"{r.name} {r.fingerprint[:16]}" for r in e.records)
        model, record = f"fused of {told}", record_of(e)
        return {"model": model, "fused": record, "network_sha256": network, "domain": "logits"}

    @property
    def _store(self) -> MadeStore:
        e = self.ensemble
        names = self.out, self.name, e.classes, e.activation
        return MadeStore(e, *names, self._provenance(), self.codec, self.overwrite)


@dataclass(frozen=True)
class _Logits:
    """The work of fusing a sample on its grid, or a slab of it, which an item carries."""

    inputs: Inputs

    def __call__(self, item: Item) -> NDArray[np.float16]:
        whole = len(fused.placement(self.inputs, item.sample).grid) == 2
        return fused.logits(self.inputs, item.sample, None if whole else item.truth)


def fuse(
    ensemble: Ensemble,
    out: str | os.PathLike[str],
    format: Kind = "store",  # noqa: A002 - the option's name
    member: str | None = None,
    codec: Codec = "none",
    overwrite: bool = False,
    uncertainty: bool = False,
    jobs: int | None = None,
    executor: Given = None,
    listener: Listener = nobody,
    like_image: str | os.PathLike[str] | None = None,
    spacing: Sequence[float] | None = None,
) -> Fused:
    """Keep the fused scores of an ensemble: as a store, a member for other ensembles, or as averaged probabilities.

    A store holds the fused level of every cell of the finest member's grid, as a logit (of exclusive classes log p) in
    16 bits: within 7/65535 of the probability, of exclusive classes 13/65535. It is interpolated to the image's size
    after members are averaged, where a vote of the members interpolates each first, so the two differ at boundaries
    (docs/storage.md#fused-stores). Thresholds and rules are not kept.

    Parameters
    ----------
    ensemble : members, and how they are fused; `Ensemble.as_tuned` fuses as a set was tuned.
    out : path of the store; of a folder with format="npz".
    format : "store"; or "npz": a file for each sample, with `probabilities`, float32 (C, H, W) or (C, D, H, W) at the
        image's size, and `classes`; or "nifti", of volumes: `SAMPLE/CLASS.nii.gz`, float32.
    member : name of the store as a member; default: the members' names, joined by "+".
    codec : of the store, as for `LogitWriter`.
    overwrite : replace what is there; otherwise what is there is resumed.
    uncertainty : also keep how far members disagree, float32: `variance` of their probabilities of a class, and
        `mutual_information` in bits, of exclusive classes that of all of them, (H, W). They stand in a sample's file
        beside its probabilities; of a store on its grid, in a folder of such files beside it, `out` with
        `.uncertainty` in place of `.zarr` (docs/concepts.md#how-far-members-disagree).
    jobs, executor, listener : as for `Ensemble.vote`.
    like_image, spacing : of NIfTI, where the volumes lie, as for `MaskSet.write`; default: as the members say.

    Raises
    ------
    UsageError
        `out` is a member, a file, or a folder of other things; a power mean of exclusive classes; uncertainty of a
        store behind a URL.
    MismatchError
        What is there was fused of other members, or in another way.
    ResourceError
        The disk is too small; nothing was written.

    Examples
    --------
    >>> import tempfile, numpy as np, ensemble_kit as ek
    >>> folder = tempfile.mkdtemp()
    >>> for name, logit in (("a", 2.0), ("b", -1.0)):
    ...     with ek.LogitWriter(f"{folder}/{name}.zarr", ["bone"], ["x"], grid=(2, 2)) as store:
    ...         store.write("x", np.full((1, 2, 2), logit), image_size=(4, 4))
    >>> done = ek.fuse(ek.Ensemble([f"{folder}/a.zarr", f"{folder}/b.zarr"]), f"{folder}/both.zarr")
    >>> done.member, float(ek.LogitStore(done.path).read("x")[0, 0, 0])
    ('a+b', 0.3017578125)
    """
    where = chosen(executor, jobs, listener)
    images = None if like_image is None else existing(like_image)
    geometries = Geometries(images, None if spacing is None else tuple(spacing))
    plan = Fusing(ensemble, out, format, member, codec, overwrite, uncertainty, geometries=geometries)
    for doubt in plan.doubts():
        warn(doubt)
    return plan.run(where, listener)
