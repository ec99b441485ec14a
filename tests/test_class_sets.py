"""Members of other class sets (docs/concepts.md#rule-17-members-of-other-class-sets): common classes, and the union."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.scores.class_sets import joined_classes
from ensemble_kit.spec.scoring import Convention

Make = Callable[..., ek.LogitStore]
IMAGE, SAMPLES = (40, 50), ("a", "b")
LACKING = -65504.0
OWN = {"A": ("bg", "p", "q"), "B": ("q", "bg", "r"), "C": ("r", "bg")}
EVERY = ("bg", "p", "q", "r")


def filled(logits: np.ndarray, own: Sequence[str]) -> np.ndarray:
    """The logits of a network that puts out −∞ for the classes that it lacks."""
    out = np.full((len(EVERY), *logits.shape[1:]), LACKING, np.float32)
    for k, name in enumerate(own):
        out[EVERY.index(name)] = logits[k]
    return out


def members(folder: Path, activation: str, shape: tuple[int, ...], grids: Sequence[tuple[int, ...]]) -> tuple[Any, Any]:
    """Three stores of classes of their own, and the same with all classes."""
    rng, few, full = np.random.default_rng(4), [], []
    for (name, own), grid in zip(OWN.items(), grids, strict=True):
        logits = {s: np.float32(rng.normal(0, 4, (len(own), *grid))) for s in SAMPLES}
        for stores, classes, values in (
            (few, own, logits),
            (full, EVERY, {s: filled(v, own) for s, v in logits.items()}),
        ):
            path = folder / f"{name}{len(classes)}{activation}.zarr"
            with ek.LogitWriter(path, classes, SAMPLES, grid, activation=activation, member=name) as out:
                for s in SAMPLES:
                    out.write(s, values[s], shape)
            stores.append(path)
    return few, full


GRIDS = {"one grid": [(16, 20)] * 3, "two grids": [(16, 20), (24, 22), (16, 20)]}
HELD = [[float(name in own) for name in EVERY] for own in OWN.values()]


@pytest.mark.parametrize("upsample", ["logits", "scores"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_a_class_is_fused_over_the_members_that_have_it(
    grids: Any, activation: str, upsample: Any, tmp_path: Path
) -> None:
    """N9: as members of all classes that weigh nothing in those that they lack, whose logits are there −∞."""
    few, full = members(tmp_path, activation, IMAGE, grids)
    ours = ek.Ensemble(few, weights=[1, 2, 3], classes="union", upsample=upsample)
    weights = [[w * held for held in row] for w, row in zip((1, 2, 3), HELD, strict=True)]
    wanted = ek.Ensemble(full, weights=weights, upsample=upsample)
    assert ours.classes == EVERY and ours.fusion == wanted.fusion
    assert ours.fusion.weights[3] == (0, 26214, 39322)
    assert ours.lacking == {"A": ("r",), "B": ("p",), "C": ("p", "q")} and ours.left_out == {}
    for decision in (None, 0.4, RankRule(None, Convention()), ek.Argmax({"p": 1.5}, least=0.3)):
        assert ours.vote(decision) == wanted.vote(decision)
    assert all(np.array_equal(ours.levels(s), wanted.levels(s)) for s in SAMPLES)
    truth = wanted.vote(None if activation == "softmax" else 0.6)
    assert (
        ek.tune_thresholds(ours, truth).to_dict()["classes"] == ek.tune_thresholds(wanted, truth).to_dict()["classes"]
    )
    assert pickle.loads(pickle.dumps(ours)).vote() == wanted.vote()
    assert ek.Ensemble(few[::-1], weights=[3, 2, 1], classes="union", upsample=upsample).vote() == wanted.vote()


@pytest.mark.parametrize("upsample", ["logits", "scores"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_common_classes_are_those_of_a_network_without_the_others(
    activation: str, upsample: Any, make_store: Make, rng: np.random.Generator
) -> None:
    own = {name: {s: smooth_logits(rng, (3, 16, 20)) for s in SAMPLES} for name in "AB"}
    few = [make_store(own[n], IMAGE, OWN[n], member=n, activation=activation) for n in "AB"]
    cut = []
    for n in "AB":
        rows = [k for k, name in enumerate(OWN[n]) if name in ("bg", "q")]
        logits = {s: values[rows] for s, values in own[n].items()}
        cut.append(make_store(logits, IMAGE, [OWN[n][k] for k in rows], member=n, activation=activation))
    ours, wanted = (ek.Ensemble(s, classes=c, upsample=upsample) for s, c in ((few, "common"), (cut, "same")))
    assert set(ours.classes) == {"bg", "q"} and ours.left_out == {"A": ("p",), "B": ("r",)} and ours.lacking == {}
    for mean in ("probability", "logit"):
        assert ours.with_fusion(mean=mean).vote() == wanted.with_fusion(mean=mean).vote()
    assert ours.vote(ek.Argmax(least=0.4)) == wanted.vote(ek.Argmax(least=0.4))


@pytest.mark.parametrize("how", ["same", "common", "union"])
def test_members_of_the_same_classes_are_fused_alike(how: Any, make_store: Make, rng: np.random.Generator) -> None:
    stores = [make_store({"a": smooth_logits(rng, (3, 16, 20))}, IMAGE, tuple(own)) for own in ("xyz", "zxy")]
    ens, same = ek.Ensemble(stores, classes=how), ek.Ensemble(stores)
    assert ens.classes == same.classes and ens.fusion == same.fusion and ens.vote() == same.vote()
    assert ens.inputs.members == same.members


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_volumes_of_other_classes(activation: str, tmp_path: Path) -> None:
    few, full = members(tmp_path, activation, (6, 16, 18), [(4, 8, 9)] * 3)
    ours, wanted = ek.Ensemble(few, classes="union"), ek.Ensemble(full, weights=HELD)
    assert ours.vote() == wanted.vote()


@pytest.mark.slow
def test_a_wrist_crop_decides_its_bones_alone_in_its_window(tmp_path: Path) -> None:
    """A network that saw the wrist and knows its bones, beside one that saw the hand: union and window together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "examples/hand_bones"))
        from hand_bones.classes import CARPALS
        from hand_bones.generator import generate
        from hand_bones.layout import read_layout
        from hand_bones.truth import truth_masks
    generate(tmp_path / "data", people=2, size=256)
    truth, rng = truth_masks(read_layout(tmp_path / "data", "train")), np.random.default_rng(5)
    wrist = (*CARPALS, "Radius", "Ulna")

    def logits(sample: str, classes: Sequence[str], box: tuple[slice, slice], noise: float) -> np.ndarray:
        drawn = np.stack([truth[sample, c].decode()[box] for c in classes]).astype(np.float32)
        cells = drawn.reshape(len(classes), drawn.shape[1] // 4, 4, drawn.shape[2] // 4, 4).mean((2, 4))
        return 12 * cells - 6 + noise * smooth_logits(rng, cells.shape, 1.0).astype(np.float32)

    with (
        ek.LogitWriter(tmp_path / "full.zarr", truth.classes, truth.samples, (64, 64), member="full") as full,
        ek.LogitWriter(tmp_path / "crop.zarr", wrist, truth.samples, member="crop") as crop,
    ):
        for sample in truth.samples:
            rows, cols = np.nonzero(np.any([truth[sample, c].decode() for c in wrist], axis=0))
            top, left, bottom, right = (
                int(v)
                for v in (rows.min() // 4 * 4, cols.min() // 4 * 4, -(-rows.max() // 4) * 4, -(-cols.max() // 4) * 4)
            )
            whole, window = (slice(None), slice(None)), (top, left, bottom, right)
            full.write(sample, logits(sample, truth.classes, whole, 3.0), (256, 256))
            crop.write(
                sample, logits(sample, wrist, (slice(top, bottom), slice(left, right)), 0.5), (256, 256), window=window
            )
    both = ek.Ensemble(
        [tmp_path / "full.zarr", tmp_path / "crop.zarr"], weights={"full": 1, "crop": 2}, classes="union"
    )
    masks, alone = both.vote(), ek.Ensemble([tmp_path / "full.zarr"]).vote()
    assert both.classes == truth.classes
    for sample in truth.samples:
        place = ek.LogitStore(tmp_path / "crop.zarr").placement(sample)
        window = np.zeros((256, 256), bool)
        window[place.covered.slices] = True
        for name in truth.classes:
            found, own = masks[sample, name].decode(), alone[sample, name].decode()
            if name not in wrist:
                assert np.array_equal(found, own), name
            assert np.array_equal(found & ~window, own & ~window), name
    better = [
        ek.dice(m.arranged(truth.samples, wrist), truth.arranged(truth.samples, wrist)).mean for m in (masks, alone)
    ]
    assert better[0] > better[1]


def test_the_order_of_classes_is_that_of_the_member_with_the_most(make_store: Make, rng: np.random.Generator) -> None:
    def store(name: str, classes: Sequence[str]) -> ek.LogitStore:
        return make_store({"a": smooth_logits(rng, (len(classes), 8, 8))}, (16, 16), tuple(classes), member=name)

    a, b, c = store("a", ["w"]), store("b", "xyz"), store("c", "zwv")
    assert joined_classes([a, b, c], "union") == tuple("xyzwv")
    assert ek.Ensemble([c, a, b], classes="union").classes == tuple("xyzwv")


def refused(code: str, *stores: ek.LogitStore, **options: Any) -> str:
    with pytest.raises(ek.EnskError) as caught:
        ek.Ensemble(stores, **options)
    assert caught.value.code == code
    return str(caught.value)


def test_what_is_refused(make_store: Make, rng: np.random.Generator) -> None:
    def store(classes: Sequence[str], activation: str = "softmax") -> ek.LogitStore:
        return make_store(
            {"a": smooth_logits(rng, (len(classes), 8, 8))}, (16, 16), tuple(classes), activation=activation
        )

    a, b, c = (
        store(["background", "liver", "spleen"]),
        store(["background", "liver", "kidney"]),
        store(["liver", "spleen"]),
    )
    told = refused("classes-differ", a, b)
    for words in ("'spleen'", "'kidney'", "classes='union'", "--member-classes union"):
        assert words in told
    assert "each of its pixels" in refused("classes-not-common", a, c, classes="common")
    assert "only 'liver'" in refused(
        "classes-not-common", store(["liver", "x"]), store(["liver", "y"]), classes="common"
    )
    refused("classes-not-common", store("x", "sigmoid"), store("y", "sigmoid"), classes="common")
    assert "mean='probability'" in refused("softmax-option", a, b, classes="union", mean="logit")
    assert "'kidney' is only in" in refused("weights-invalid", a, b, classes="union", weights=[1, 0])
    refused("option-invalid", a, classes="all")
    both = ek.Ensemble([a, b], classes="union")
    with pytest.raises(ek.MismatchError, match=r"'spleen'|'kidney'"):
        both.with_fusion(ek.Ensemble([a, a_like(make_store, rng, both)], classes="union").fusion)


def a_like(make_store: Make, rng: np.random.Generator, both: ek.Ensemble) -> ek.LogitStore:
    """A store called as the ensemble's second member, of all classes."""
    logits = {"a": smooth_logits(rng, (len(both.classes), 8, 8))}
    return make_store(logits, (16, 16), both.classes, member=both.members[1].member, activation="softmax")


@pytest.mark.parametrize("search", ["weights", "greedy", "mean"])
def test_trials_are_refused_where_members_lack_classes(search: str, make_store: Make, rng: np.random.Generator) -> None:
    stores = [make_store({"a": smooth_logits(rng, (2, 8, 8))}, (16, 16), tuple(own)) for own in ("xy", "yz")]
    ens = ek.Ensemble(stores, classes="union")
    with pytest.raises(ek.MismatchError, match=r"lacks 'z'|lacks 'x'"):
        ek.tune_thresholds(ens, ens.vote(0.6), search=search)


def test_a_set_of_a_union_fits_it(tmp_path: Path) -> None:
    few, _ = members(tmp_path, "sigmoid", IMAGE, GRIDS["one grid"])
    ens = ek.Ensemble(few, classes="union", weights=[1, 2, 3])
    ek.tune_thresholds(ens, ens.vote(0.6)).save(tmp_path / "set.json")
    tuned = ek.ThresholdSet.load(tmp_path / "set.json")
    assert ek.Ensemble(few, classes="union").as_tuned(tuned).vote(tuned) == ens.vote(tuned)
    with pytest.raises(ek.MismatchError, match="classes"):
        ek.Ensemble(few, classes="common").vote(tuned)
