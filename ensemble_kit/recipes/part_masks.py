"""The masks of a vote, by parts: each votes on its share of the samples, and together they are the whole's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit import __version__
from ensemble_kit.decisions.clean import apply_rules
from ensemble_kit.errors import EnskError
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.execution.parts import joined
from ensemble_kit.masks import stream
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.recipes.hard_vote import HardVote
from ensemble_kit.recipes.made_store import record_of
from ensemble_kit.recipes.part_file import PartFile, fitting
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.spec.geometry import Shape
from ensemble_kit.spec.georeference import fields_of, geometry_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "masks"


def plan_of(vote: SoftVote | HardVote, writing: Mapping[str, Any]) -> dict[str, Any]:
    """Say what all parts of a vote are asked for: equal plans give equal masks.

    Parameters
    ----------
    writing : how the whole is to be written.
    """
    overlaps = isinstance(vote, SoftVote) and vote.may_overlap
    plan = {"command": "vote", **recorded(vote), "overlaps": overlaps, "writing": writing, "version": __version__}
    return dict(json.loads(json.dumps(plan)))  # as the file of another part has it


def vote_part(
    own: SoftVote | HardVote, files: Mapping[str, str], executor: Executor, listener: Listener
) -> tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]:
    """Vote on a share of the samples, and return the head and arrays of its `PartFile`.

    Rules of a hard vote are left to `merged`: whether classes exclude each other is told by the masks of all samples.

    Parameters
    ----------
    own : the vote on the share.
    files : where the files are that the whole is written with; `plan_of` knows their digests.
    """
    asked = own.without_rules() if isinstance(own, HardVote) else own
    head, arrays = packed(asked.run(executor, listener).whole())
    return {**head, "files": files}, arrays


def merged(parts: Sequence[PartFile]) -> MaskSet:
    """Put the masks of all parts together; `parts` are those of one plan, in order."""
    with fitting("merge masks"):
        whole = whole_of([unpacked(p.head, p.arrays) for p in parts])
        plan = parts[0].plan
        return apply_rules(whole, plan["rules"]) if "votes" in plan else whole


def whole_of(shares: Sequence[MaskSet]) -> MaskSet:
    """Put the masks of all shares, in the order of their parts, back into the order of the samples."""
    classes = shares[0].classes
    whole = stream.joined([s.arranged(s.samples, classes) for s in shares], classes, shares[0].rule)
    return whole.arranged(joined([s.samples for s in shares]), classes)


def packed(masks: MaskSet) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Write masks as JSON values and arrays; the inverse of `unpacked`."""
    many, void = ManyRuns.of([*masks.values()]), ManyRuns.of([masks.void(s) for s in masks.samples])
    arrays: dict[str, NDArray[Any]] = {**many._asdict(), **{f"void_{k}": v for k, v in void._asdict().items()}}
    arrays["sizes"] = np.array([masks.image_size(s) for s in masks.samples], np.int64)
    head: dict[str, Any] = {"samples": list(masks.samples), "classes": list(masks.classes), "rule": masks.rule}
    if geometries := masks.extent.geometry:
        head["geometry"] = {sample: fields_of(own) for sample, own in geometries.items()}
    return head, arrays


def unpacked(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> MaskSet:
    """Read what `packed` wrote; ValueError, or an error of the kit, where it is something else."""
    samples, classes = [str(s) for s in head["samples"]], [str(c) for c in head["classes"]]
    sizes = [tuple(map(int, size)) for size in arrays["sizes"].tolist()]
    shapes = [size for size in sizes for _ in classes]
    keys = [(sample, name) for sample in samples for name in classes]
    try:
        masks = dict(zip(keys, _runs(arrays, "", shapes), strict=True))
        void = dict(zip(samples, _runs(arrays, "void_", sizes), strict=True))
        found = {s: geometry_of(own) for s, own in head.get("geometry", {}).items()}
        geometries = {s: own for s, own in found.items() if own is not None}
        return MaskSet(masks, None if head["rule"] is None else str(head["rule"]), void).with_geometry(geometries)
    except EnskError as error:
        raise ValueError(str(error)) from None


def _runs(arrays: Mapping[str, NDArray[Any]], prefix: str, shapes: Sequence[Shape]) -> Iterable[Runs]:
    """Read checked runs of masks of these sizes."""
    starts, ends, offsets = (arrays[prefix + name] for name in ManyRuns._fields)
    if offsets.shape != (len(shapes) + 1,) or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError("its arrays do not fit each other")
    cuts = [slice(a, b) for a, b in pairwise(offsets.tolist())]
    return [Runs(starts[cut], ends[cut], shape) for cut, shape in zip(cuts, shapes, strict=True)]


def recorded(vote: SoftVote | HardVote) -> dict[str, Any]:
    """Say as JSON values what is voted on, and how."""
    rules = list(map(str, vote.rules))
    if isinstance(vote, SoftVote):
        e = vote.ensemble
        names = {"classes": list(e.classes), "samples": digest_of_names(e.samples)}
        return {**record_of(e), **names, "decision": repr(vote.decision), "rules": rules}
    own = [recorded(v) if isinstance(v, SoftVote) else {"masks": digest_of(v)} for v in vote.votes]
    return {"votes": own, "voting": dict(vote.voting), "rules": rules, "common": vote.common}


def digest_of(masks: MaskSet) -> str:
    """Digest masks: names, sizes, geometries, runs and void."""
    head, arrays = packed(masks)
    names = [head[key] for key in ("samples", "classes", "geometry") if key in head]
    found = hashlib.sha256(json.dumps(names).encode())
    for array in arrays.values():
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digest_of_names(names: Sequence[str]) -> str:
    """Digest names in their order."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()
