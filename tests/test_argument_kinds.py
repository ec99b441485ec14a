"""An argument of a wrong type is refused in the words of the kit, whichever public name it is passed to."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.errors import check_choice

Made = SimpleNamespace
IMAGE = (12, 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("kinds")
    path, rng = folder / "a.zarr", np.random.default_rng(5)
    with ek.LogitWriter(path, ["x", "y"], ["s", "t"], (8, 10)) as writer:
        for sample in ("s", "t"):
            writer.write(sample, smooth_logits(rng, (2, 8, 10)), IMAGE)
    ensemble = ek.Ensemble([path])
    masks = ensemble.vote(0.5)
    tuned = ek.tune_thresholds(ensemble, masks)
    masks.write(folder / "m.npz")
    exclusive = ek.MaskSet({("s", "x"): ek.Runs([0], [2], (2, 4)), ("s", "y"): ek.Runs([3], [4], (2, 4))})
    return Made(
        folder=folder,
        exclusive=exclusive,
        store=ek.LogitStore(path),
        ensemble=ensemble,
        masks=masks,
        tuned=tuned,
        runs=masks["s", "x"],
    )


def writer_of(made: Made, **changes: Any) -> None:
    given = {"path": made.folder / "w.zarr", "classes": ["x"], "samples": ["s"], "grid": (8, 8)} | changes
    ek.LogitWriter(**given, overwrite=True)


def write(made: Made, **changes: Any) -> None:
    given = {"ids": "s", "array": np.zeros((1, 8, 8)), "image_size": IMAGE} | changes
    with ek.LogitWriter(made.folder / "v.zarr", ["x"], ["s"], (8, 8), overwrite=True) as writer:
        writer.write(**given)


def tune(made: Made, **changes: Any) -> None:
    ek.tune_thresholds(**{"ensemble": made.ensemble, "truth": made.masks} | changes)


CALLS: dict[str, Callable[[Made, Any], Any]] = {
    "Ensemble(members)": lambda m, v: ek.Ensemble(v),
    **{
        f"Ensemble({name})": lambda m, v, name=name: ek.Ensemble([m.store], **{name: v})
        for name in ("weights", "mean", "upsample", "temperatures", "samples")
    },
    "Ensemble.vote(decision)": lambda m, v: m.ensemble.vote(v),
    **{
        f"Ensemble.vote({name})": lambda m, v, name=name: m.ensemble.vote(0.5, **{name: v})
        for name in ("rules", "jobs", "executor", "listener")
    },
    "Ensemble.on(samples)": lambda m, v: m.ensemble.on(v),
    **{
        f"Ensemble.with_fusion({name})": lambda m, v, name=name: m.ensemble.with_fusion(**{name: v})
        for name in ("fusion", "weights", "mean", "upsample", "temperatures")
    },
    "Ensemble.as_tuned(tuned)": lambda m, v: m.ensemble.as_tuned(v),
    "Ensemble.levels(sample)": lambda m, v: m.ensemble.levels(v),
    "Ensemble.level_of(threshold)": lambda m, v: m.ensemble.level_of(v),
    "LogitStore(path)": lambda m, v: ek.LogitStore(v),
    "LogitStore.read(sample)": lambda m, v: m.store.read(v),
    "LogitStore.placement(sample)": lambda m, v: m.store.placement(v),
    **{
        f"LogitWriter({name})": lambda m, v, name=name: writer_of(m, **{name: v})
        for name in (
            *("path", "classes", "samples", "grid", "activation", "member", "domain", "provenance", "codec", "clamp"),
        )
    },
    **{
        f"LogitWriter.write({name})": lambda m, v, name=name: write(m, **{name: v})
        for name in ("ids", "array", "image_size", "box")
    },
    "Runs(starts)": lambda m, v: ek.Runs(v, [2], (2, 4)),
    "Runs(shape)": lambda m, v: ek.Runs([0], [2], v),
    "Runs.parse(text)": lambda m, v: ek.Runs.parse(v, (2, 4)),
    "Runs.parse(order)": lambda m, v: ek.Runs.parse("1 2", (2, 4), order=v),
    "Runs.text(order)": lambda m, v: m.runs.text(order=v),
    "Runs.from_coco(rle)": lambda m, v: ek.Runs.from_coco(v),
    "Runs.overlap(other)": lambda m, v: m.runs.overlap(v),
    "encode(mask)": lambda m, v: ek.encode(v),
    "MaskSet(masks)": lambda m, v: ek.MaskSet(v),
    "MaskSet(void)": lambda m, v: ek.MaskSet(m.masks, void=v),
    **{
        f"MaskSet.labels({name})": lambda m, v, name=name: m.exclusive.labels(**{"sample": "s", name: v})
        for name in ("sample", "values")
    },
    **{
        f"MaskSet.from_labels({name})": lambda m, v, name=name: ek.MaskSet.from_labels(
            **{"labels": {"s": [[0, 1]]}, "classes": ["background", "x"], name: v}
        )
        for name in ("labels", "classes", "void")
    },
    "MaskSet.image_size(sample)": lambda m, v: m.masks.image_size(v),
    "MaskSet.void(sample)": lambda m, v: m.masks.void(v),
    "MaskSet.write(path)": lambda m, v: m.masks.write(v),
    "MaskSet.write(format)": lambda m, v: m.masks.write(m.folder / "o.csv", format=v),
    "MaskSet.write(like)": lambda m, v: m.masks.write(m.folder / "o.csv", like=v),
    "read_masks(path)": lambda m, v: ek.read_masks(v),
    **{
        f"read_masks({name})": lambda m, v, name=name: ek.read_masks(m.folder / "m.npz", **{name: v})
        for name in ("format", "image_size", "classes")
    },
    "hard_vote(masks)": lambda m, v: ek.hard_vote(v),
    **{
        f"hard_vote({name})": lambda m, v, name=name: ek.hard_vote([m.masks, m.masks], **{name: v})
        for name in ("weights", "quorum", "ties", "empty", "by", "fusion")
    },
    **{
        f"{score.__name__}({name})": lambda m, v, score=score, name=name: score(**{"a": m.masks, "b": m.masks, name: v})
        for score in (ek.dice, ek.iou)
        for name in ("a", "b", "eps", "empty")
    },
    "confusion(a)": lambda m, v: ek.confusion(v, m.exclusive),
    "confusion(b)": lambda m, v: ek.confusion(m.exclusive, v),
    **{
        f"tune_thresholds({name})": lambda m, v, name=name: tune(m, **{name: v})
        for name in (
            *("ensemble", "truth", "objective", "empty", "eps", "folds", "groups", "search", "metric"),
            *("statistics", "jobs", "executor", "listener"),
        )
    },
    "ThresholdSet.load(path)": lambda m, v: ek.ThresholdSet.load(v),
    "ThresholdSet.save(path)": lambda m, v: m.tuned.save(v),
}
WRONG = {"number": -7.5, "list": [[3], None], "mapping": {3: [1]}, "object": object()}
CASES = [
    pytest.param(call, value, id=f"{name}, {kind}")
    for name, call in CALLS.items()
    for kind, value in WRONG.items()
    if (name, kind) != ("LogitWriter(provenance)", "mapping")
]


@pytest.mark.parametrize(("call", "value"), CASES)
def test_a_wrong_type_is_an_error_of_the_kit(call: Callable[[Made, Any], Any], value: Any, made: Made) -> None:
    with pytest.raises(ek.EnskError):
        call(made, value)


def test_one_mask_set_is_no_list_of_members(made: Made) -> None:
    with pytest.raises(ek.UsageError, match=r"of type MaskSet · fix: pass a list of MaskSets"):
        ek.hard_vote(made.masks)


def test_an_array_is_no_choice() -> None:
    with pytest.raises(ek.UsageError, match="pass 'on' or 'off'"):
        check_choice("ties", np.array(["on", "off"]), ("on", "off"))
