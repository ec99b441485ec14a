"""Fused scores kept: a store that is a member like others, or a folder of averaged probabilities; for `ensk fuse`.

A store is written by `LogitWriter`, so it resumes and survives kills and power cuts as a dump does; a folder's files
appear whole, one after the other, and a second run writes those that are not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble_kit import __version__, strict_json
from ensemble_kit.dumping.resuming import begun
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import MismatchError, UsageError, check_choice, check_kind, check_path
from ensemble_kit.execution.choosing import Given, chosen
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.execution.executor import Executor, Item, Items
from ensemble_kit.files import atomic_write, check_space, check_target
from ensemble_kit.formats.filenames import file_names
from ensemble_kit.logits.layout import Codec
from ensemble_kit.logits.writer import LogitWriter
from ensemble_kit.recipes import memory as projected
from ensemble_kit.recipes.probabilities import INDEX, Probabilities, empty
from ensemble_kit.scores import fused
from ensemble_kit.scores.inputs import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "ensk.fused/1"
Kind = Literal["store", "npz"]


@dataclass(frozen=True)
class Fused:
    """What `fuse` did, or would do.

    Parameters
    ----------
    path : the store or folder.
    member : name of the store as a member of ensembles.
    samples, resumed, written : how many there are, were there before, and were written.
    bytes : projected, before compression, of the samples that were not there.
    """

    path: str
    member: str
    samples: int
    resumed: int
    written: int
    bytes: int


@dataclass(frozen=True)
class Fusing:
    """A fusion that is ready to be kept; nothing is written yet.

    Parameters
    ----------
    ensemble : members, and how they are fused.
    out : the store's path, or that of a folder.
    kind : "store" or "npz".
    member : name of the store; default: the members' names, joined by "+".
    codec : of the store, as for `LogitWriter`.
    overwrite : replace what is there.

    Raises
    ------
    UsageError
        `out` is a member, a file, or a folder of other things; a power mean of exclusive classes.
    MismatchError
        What is there was fused of other members, or in another way.
    """

    ensemble: Ensemble
    out: str | os.PathLike[str]
    kind: Kind = "store"
    member: str | None = None
    codec: Codec = "none"
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_kind("the ensemble", self.ensemble, Ensemble)
        check_path(self.out)
        check_choice("format", self.kind, ("store", "npz"), "cannot keep fused scores")
        mean = self.ensemble.fusion.mean
        if self.ensemble.activation == "softmax" and mean.power not in {None, 1.0}:
            item = f"mean={str(mean)!r}: its values do not add up to 1 over the classes, as probabilities of a pixel do"
            fix = "pass mean='probability', or 'logit', the normalised geometric mean (--mean)"
            raise UsageError("softmax-option", "cannot keep power means of exclusive classes", item=item, fix=fix)
        same = [m for m in self.ensemble.members if os.path.realpath(m.path) == os.path.realpath(self.out)]
        if same:
            item = f"{os.fspath(self.out)!r} is also the member {same[0].member!r}"
            raise UsageError("output-is-input", "cannot write over a member", item=item, fix="pass another --out")

    @property
    def name(self) -> str:
        """Name of the store as a member."""
        return "+".join(self.ensemble.fusion.members) if self.member is None else self.member

    def record(self) -> dict[str, Any]:
        """Return where the scores come from: members with their fingerprints, and how they were fused."""
        e = self.ensemble
        members = [{"name": r.name, "fingerprint": r.fingerprint, "model": r.model} for r in e.records]
        return {"members": members, **_how(e)}

    def told(self) -> list[str]:
        """Say what is fused, and what is kept of it."""
        f, e = self.ensemble.fusion, self.ensemble
        lines = [f"fused: mean of {f.mean} over {', '.join(f.members)}"]
        if e.dropped:
            lines.append(f"{e.dropped} samples are not in every member and are left out")
        if self.kind == "store":
            lines.append(f"kept: logits on the finest grid, as the member {self.name!r}; thresholds and rules are not")
        else:
            lines.append("kept: probabilities at the image's size, float32")
        return lines

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
        e = self.ensemble
        cells = max(_cells(e.inputs, s, self.kind) for s in e.samples) * len(e.classes)
        each = sum(m.bytes_per_sample for m in e.members) + cells * (6 if self.kind == "store" else 2)
        held = projected.held() + (0 if self.kind == "store" else 8 * cells)  # float32 and its bytes, when written
        projected.check(memory, held + each, "fuse")
        return min(jobs or cores(), int(memory - held) // each)

    def run(self, executor: Executor, listener: Listener = nobody) -> Fused:
        """Fuse and write what is not there yet."""
        return self._store(executor, listener) if self.kind == "store" else self._folder(executor, listener)

    def plan(self) -> Fused:
        """Return what `run` would do, after the same checks."""
        return self._planned(self._in_store()[0] if self.kind == "store" else self._in_folder())

    def _planned(self, there: frozenset[str]) -> Fused:
        e = self.ensemble
        cells = [_cells(e.inputs, s, self.kind) for s in e.samples if s not in there]
        needed = sum(cells) * len(e.classes) * (2 if self.kind == "store" else 4)
        return Fused(os.fspath(self.out), self.name, len(e.samples), len(there), 0, needed)

    def _provenance(self) -> dict[str, Any]:
        """Return what a store records; a set that was tuned on it knows another fusion by `network_sha256`."""
        e = self.ensemble
        models = [[r.name, r.model] for r in e.records]
        network = hashlib.sha256(json.dumps([models, _how(e)], sort_keys=True).encode()).hexdigest()
        told = ", ".join(f"{r.name} {r.fingerprint[:16]}" for r in e.records)
        return {"model": f"fused of {told}", "fused": self.record(), "network_sha256": network, "domain": "logits"}

    def _in_store(self) -> tuple[frozenset[str], bool]:
        """Return the samples that are committed, and whether a store of another fusion, without samples, is there."""
        if self.overwrite:
            return frozenset(), True
        e = self.ensemble
        names = {"classes": list(e.classes), "samples": set(e.samples), "member": self.name, "codec": self.codec}
        earlier = begun(os.fspath(self.out), {**self._provenance(), **names})
        return earlier.committed & set(e.samples), earlier.stale

    def _store(self, executor: Executor, listener: Listener) -> Fused:
        e, (there, replace) = self.ensemble, self._in_store()
        todo, done = [s for s in e.samples if s not in there], self._planned(there)
        if not todo:
            return done
        check_space(self.out, done.bytes, self.overwrite)
        with LogitWriter(
            self.out,
            e.classes,
            e.samples,
            fused.placement(e.inputs, todo[0]).grid,
            activation=e.activation,
            member=self.name,
            overwrite=replace,
            provenance={**self._provenance(), "versions": {"ensemble_kit": __version__}},
            codec=self.codec,
            checked=True,
        ) as out:
            for sample, values in zip(
                todo, executor.map(_Logits(e.inputs), Items(todo), "fusing", listener), strict=True
            ):
                place = fused.placement(e.inputs, sample)
                out.write(sample, values, image_size=place.image, box=tuple(place.box))
        return _written(done, len(todo))

    def _in_folder(self) -> frozenset[str]:
        """Return the samples whose files are there."""
        folder = Path(self.out)
        index = folder / INDEX
        check_target(folder, force=True, folder=True, mark=INDEX)
        if self.overwrite or not index.is_file():
            return frozenset()
        theirs = strict_json.load(index)
        if theirs != self._index():
            raise MismatchError(
                "fused-differs",
                "cannot resume a folder of another fusion",
                item=f"{str(folder)!r} was fused of other members or samples, or with other options",
                fix="run with the options it was begun with, pass another --out, or replace it with --force",
            )
        return frozenset(s for s, file in self._files().items() if (folder / file).is_file())

    def _files(self) -> dict[str, str]:
        return file_names(self.ensemble.samples, ".npz", taken=[INDEX], flat=True)

    def _index(self) -> dict[str, Any]:
        e = self.ensemble
        samples = [{"id": s, "file": file} for s, file in self._files().items()]
        return {"format": FORMAT, "fused": self.record(), "classes": list(e.classes), "samples": samples}

    def _folder(self, executor: Executor, listener: Listener) -> Fused:
        e, folder, there = self.ensemble, Path(self.out), self._in_folder()
        files, done = self._files(), self._planned(there)
        todo = [s for s in e.samples if s not in there]
        if not todo:
            return done
        check_space(folder, done.bytes, self.overwrite)
        folder.mkdir(exist_ok=True)
        if not there:
            empty(folder)
            with atomic_write(folder / INDEX) as out:
                out.write(strict_json.dump(self._index()))
        work = Probabilities(e.inputs, str(folder), tuple(sorted(files.items())))
        for _ in executor.map(work, Items(todo), "fusing", listener):
            pass
        return _written(done, len(todo))


@dataclass(frozen=True)
class _Logits:
    """The work of fusing one sample on the grid."""

    inputs: Inputs

    def __call__(self, item: Item) -> NDArray[np.float16]:
        return fused.logits(self.inputs, item.sample)


def _how(e: Ensemble) -> dict[str, Any]:
    """Write a fusion as plain JSON values."""
    f = e.fusion
    weights = {name: list(row) for name, row in zip(e.classes, f.weights, strict=True)}
    return {"mean": str(f.mean), "upsample": f.upsample, "weights": weights, "temperatures": list(f.temperatures)}


def _cells(inputs: Inputs, sample: str, kind: Kind) -> int:
    place = fused.placement(inputs, sample)
    return int(np.prod(place.grid if kind == "store" else place.image))


def _written(done: Fused, count: int) -> Fused:
    return Fused(done.path, done.member, done.samples, done.resumed, count, done.bytes)


def fuse(
    ensemble: Ensemble,
    out: str | os.PathLike[str],
    format: Kind = "store",  # noqa: A002 - the option's name
    member: str | None = None,
    codec: Codec = "none",
    overwrite: bool = False,
    jobs: int | None = None,
    executor: Given = None,
    listener: Listener = nobody,
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
    format : "store", or "npz": a file for each sample, with `probabilities`, float32 (C, H, W) at the image's size,
        and `classes`.
    member : name of the store as a member; default: the members' names, joined by "+".
    codec : of the store, as for `LogitWriter`.
    overwrite : replace what is there; otherwise what is there is resumed.
    jobs, executor, listener : as for `Ensemble.vote`.

    Raises
    ------
    UsageError
        `out` is a member, a file, or a folder of other things; a power mean of exclusive classes.
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
    return Fusing(ensemble, out, format, member, codec, overwrite).run(where, listener)
