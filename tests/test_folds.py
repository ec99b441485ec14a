"""Folds as one member (docs/concepts.md#rule-18-folds): joined where samples differ, averaged where they are the same."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.logits.folds import Folds
from ensemble_kit.recipes.hard_vote import HardVote
from ensemble_kit.recipes.members import members_of
from ensemble_kit.spec.fusion import Fusion, fold_weights, integer_weights
from ensemble_kit.spec.mean import PROBABILITY
from ensemble_kit.thresholds.members import FoldRecord, MemberRecord
from toy_executor import Processes

Make = Callable[..., ek.LogitStore]
CLASSES, SAMPLES, IMAGE = ("x", "y", "z"), tuple("abcdef"), (40, 50)
GRID = (3, 16, 20)


def logits(rng: np.random.Generator, samples: Any = SAMPLES, grid: tuple[int, ...] = GRID) -> dict[str, np.ndarray]:
    return {s: smooth_logits(rng, grid) for s in samples}


def thirds(every: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [{s: every[s] for s in list(every)[k::3]} for k in range(3)]


KINDS = {
    "sigmoid": {}, "sigmoid, scores": {"upsample": "scores"}, "softmax": {"activation": "softmax"},
    "softmax, scores": {"activation": "softmax", "upsample": "scores"}, "mean of logits": {"mean": "logit"},
    "weights by class": {"weights": {"unet": [3, 1, 0], "seg": [1, 2, 5]}},
    "temperatures": {"temperatures": {"unet": 1.7, "seg": 0.8}},
}  # fmt: skip


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_joined_folds_are_one_store(options: dict[str, Any], make_store: Make, rng: np.random.Generator) -> None:
    """Also where a fold has its classes in another order, and another grid."""
    options = dict(options)
    activation = options.pop("activation", "sigmoid")
    every, turned = logits(rng), [2, 0, 1]
    folds = [make_store(own, IMAGE, CLASSES, activation=activation) for own in thirds(every)[:2]]
    last = {s: own[turned] for s, own in thirds(every)[2].items()}
    folds.append(make_store(last, IMAGE, tuple(CLASSES[k] for k in turned), activation=activation))
    whole = make_store(every, IMAGE, CLASSES, activation=activation)
    other = make_store(logits(rng, grid=(3, 24, 22)), IMAGE, CLASSES, activation=activation)
    joined, one = (ek.Ensemble({"unet": own, "seg": other}, **options) for own in (folds, whole))
    assert set(joined.samples) == set(SAMPLES)
    assert joined.vote() == one.vote()
    assert all(np.array_equal(joined.levels(s), one.levels(s)) for s in SAMPLES)
    member = joined.members[1]
    assert isinstance(member, Folds) and member.joined and joined.inputs.fusion == joined.fusion


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_averaged_folds_are_members_of_a_share(
    options: dict[str, Any], make_store: Make, rng: np.random.Generator
) -> None:
    """Each of three folds weighs a third of the member's weight, by rule 2 over all of them, whatever their order."""
    options = dict(options)
    activation = options.pop("activation", "sigmoid")
    grids = [GRID, GRID, (3, 24, 22)]
    folds = [make_store(logits(rng, grid=g), IMAGE, CLASSES, member="unet", activation=activation) for g in grids]
    seg = make_store(logits(rng), IMAGE, CLASSES, member="seg", activation=activation)
    voted = [ek.Ensemble({"seg": seg, "unet": list(own)}, **options).vote() for own in permutations(folds)]
    weights = options.pop("weights", {"unet": [1, 1, 1], "seg": [1, 1, 1]})
    heat = options.pop("temperatures", {"unet": 1, "seg": 1})
    flat = ek.Ensemble(
        [*folds, seg], weights=[*[weights["unet"]] * 3, [3 * w for w in weights["seg"]]],
        temperatures=[*[heat["unet"]] * 3, heat["seg"]], **options,
    )  # fmt: skip
    assert all(masks == flat.vote() for masks in voted)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 6)), min_size=1, max_size=5).filter(
        lambda m: any(w for w, _ in m)
    )
)
def test_folds_weigh_by_rule_2(members: list[tuple[int, int]]) -> None:
    """The integers of folds are those of members whose weights are scaled to whole numbers; they add up to 65536."""
    names = tuple(f"m{k}" for k in range(len(members)))
    weights, folds = zip(*members, strict=True)
    scale = int(np.lcm.reduce(folds))
    flat = [w * scale // k for w, k in members for _ in range(k)]
    own = [name for name, k in zip(names, folds, strict=True) for _ in range(k)]
    wanted = integer_weights(flat, own)
    whole = integer_weights(weights, names)
    fusion = Fusion(PROBABILITY, "logits", names, (whole,), (1.0,) * len(names), (tuple(map(float, weights)),))
    assert fusion.spread(folds).weights == (wanted,)
    assert fold_weights(weights, folds, own) == wanted and sum(wanted) == 65536
    assert fusion.spread([1] * len(names)) is fusion


@pytest.mark.parametrize("part", [(0, 1), (0, 2)])
def test_windows_leave_the_folds_that_have_a_say(
    part: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Outside the window of a fold the others are fused by rule 2 on the shares that they have."""

    def store(name: str, window: tuple[int, ...] | None) -> ek.LogitStore:
        size = IMAGE if window is None else (window[2] - window[0], window[3] - window[1])
        with ek.LogitWriter(tmp_path / f"{name}.zarr", CLASSES, ["a"], member=name) as out:
            out.write("a", smooth_logits(rng, (3, *size)), IMAGE, window=window)
        return ek.LogitStore(tmp_path / f"{name}.zarr")

    folds = [store(f"f{k}", (0, 0, 20, 50) if k in part else None) for k in range(3)]
    seg = store("seg", None)
    folded = ek.Ensemble({"unet": folds, "seg": seg})
    flat = ek.Ensemble({**{f"unet {s.fingerprint}": s for s in folds}, "seg": seg},
                       weights={**{f"unet {s.fingerprint}": 1 for s in folds}, "seg": 3})  # fmt: skip
    assert folded.vote() == flat.vote()


def test_volumes_are_joined_and_averaged(tmp_path: Path) -> None:
    def store(name: str, samples: str, seed: int) -> ek.LogitStore:
        own = np.random.default_rng(seed)
        with ek.LogitWriter(
            tmp_path / f"{name}.zarr", CLASSES, list(samples), activation="softmax", member=name
        ) as out:
            for s in samples:
                out.write(s, own.normal(0, 4, (3, 4, 8, 9)), (6, 16, 18))
        return ek.LogitStore(tmp_path / f"{name}.zarr")

    one = store("one", "abc", 0)
    with ek.LogitWriter(tmp_path / "f0.zarr", CLASSES, ["a"], activation="softmax") as out:
        out.write("a", one.read("a"), (6, 16, 18))
    with ek.LogitWriter(tmp_path / "f1.zarr", CLASSES, ["b", "c"], activation="softmax") as out:
        for s in "bc":
            out.write(s, one.read(s), (6, 16, 18))
    joined = ek.Ensemble({"net": [tmp_path / "f1.zarr", tmp_path / "f0.zarr"]})
    assert joined.vote() == ek.Ensemble([one]).vote()
    others = [store(f"o{k}", "abc", k + 1) for k in range(2)]
    assert ek.Ensemble({"net": others}).vote() == ek.Ensemble(others).vote()


def test_stores_that_each_declare_all_samples_and_hold_their_own_are_joined(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    every = logits(rng)
    for k, own in enumerate(thirds(every)):
        with ek.LogitWriter(tmp_path / f"f{k}.zarr", CLASSES, SAMPLES, GRID[1:]) as out:
            for s, values in own.items():
                out.write(s, values, IMAGE)
    paths = [tmp_path / f"f{k}.zarr" for k in range(3)]
    ens = ek.Ensemble({"net": paths})
    assert ens.samples == SAMPLES and ens.members[0].complete
    assert ens.vote() == ek.Ensemble([write_store(tmp_path / "one.zarr", every, IMAGE, CLASSES)]).vote()
    with pytest.raises(ek.IncompleteError, match="not dumped yet"):  # an unfinished fold is no reason to join
        ek.Ensemble({"net": paths[:2]}).vote()


def test_a_mixture_is_refused_with_its_counts(make_store: Make, rng: np.random.Generator) -> None:
    every = logits(rng)
    whole, part = make_store(every, IMAGE, CLASSES), make_store(thirds(every)[0], IMAGE, CLASSES)
    with pytest.raises(ek.MismatchError) as caught:
        ek.Ensemble({"net": [whole, part]})
    assert caught.value.code == "folds-mixed"
    for words in ("2 of 6", "'a', 'd'", "holds 6", "holds 2", "samples='common'"):
        assert words in str(caught.value)
    both = ek.Ensemble({"net": [whole, part]}, samples="common")
    assert both.samples == ("a", "d")
    assert both.vote() == ek.Ensemble([whole, part], samples="common").vote()


def test_a_hard_vote_averages_mixed_folds_on_their_common_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    """As the error of mixed folds says: --samples common."""
    every = logits(rng)
    given = {"whole": every, "part": thirds(logits(rng))[0], "seg": logits(rng)}
    paths = {name: tmp_path / f"{name}.zarr" for name in given}
    for name, own in given.items():
        write_store(paths[name], own, IMAGE, CLASSES)
    members = tuple(members_of([Path(f"unet={paths['whole']}"), Path(f"unet={paths['part']}"), paths["seg"]]))
    with pytest.raises(ek.MismatchError, match="--samples common"):
        HardVote(members, (0.4,), {"quorum": 1}, {})
    voted = HardVote(members, (0.4,), {"quorum": 1}, {}, common=True).run().whole()
    unet = ek.Ensemble({"unet": [paths["whole"], paths["part"]]}, samples="common").vote(0.4)
    assert set(unet.extent.sizes) == {"a", "d"}
    assert voted == ek.hard_vote([unet, ek.Ensemble([paths["seg"]]).on(unet.extent.sizes).vote(0.4)], quorum=1)


def test_folds_of_different_networks_are_refused(make_store: Make, rng: np.random.Generator) -> None:
    one = make_store(logits(rng, "ab"), IMAGE, CLASSES)
    cases = {
        "classes-differ": make_store(logits(rng, "cd"), IMAGE, ("x", "y", "w")),
        "activation-differs": make_store(logits(rng, "cd"), IMAGE, CLASSES, activation="softmax"),
    }
    for code, other in cases.items():
        with pytest.raises(ek.MismatchError) as caught:
            ek.Ensemble({"net": [one, other]})
        assert caught.value.code == code
    with pytest.raises(ek.UsageError, match="named twice"):
        ek.Ensemble({"net": [one, one]})
    with pytest.raises(ek.MismatchError, match="calls itself so"):
        ek.Ensemble([Folds.of(one.member, [make_store(logits(rng, "ab"), IMAGE, CLASSES)]), one])


@pytest.mark.parametrize("members", [{}, {"net": []}, {"": "a"}, {1: "a"}, {"net": 5}], ids=str)
def test_names_that_mean_nothing(members: dict[Any, Any]) -> None:
    with pytest.raises(ek.UsageError):
        ek.Ensemble(members)


def test_members_of_different_samples_may_be_folds(make_store: Make, rng: np.random.Generator) -> None:
    stores = [make_store(own, IMAGE, CLASSES, member="net") for own in thirds(logits(rng))]
    with pytest.raises(ek.MismatchError, match=r"give them one name: net=\S+ net=") as caught:
        ek.Ensemble(stores)
    assert caught.value.code == "samples-differ"


def test_an_ensemble_of_folds_is_a_value(make_store: Make, rng: np.random.Generator) -> None:
    folds = [make_store(logits(rng), IMAGE, CLASSES) for _ in range(2)]
    ens = ek.Ensemble({"unet": folds, "seg": make_store(logits(rng), IMAGE, CLASSES)})
    assert [m.member for m in ens.members] == ["seg", "unet"] == list(ens.fusion.members)
    again = pickle.loads(pickle.dumps(ens))
    assert again.fusion == ens.fusion and again.vote() == ens.vote()
    assert ek.Ensemble(ens.members).vote() == ens.vote()
    few = ens.on(["a", "b"])
    assert few.vote() == ens.vote().arranged(("a", "b"), CLASSES)
    heavier = ens.with_fusion(weights={"unet": 2, "seg": 1})
    assert heavier.vote() == ek.Ensemble([*folds, ens.members[0].stores[0]], weights=[1, 1, 1]).vote()
    assert next(name for name, _ in ens.stores) == "seg" and len(ens.stores) == 3


@pytest.mark.slow
def test_folds_travel_to_other_processes(make_store: Make, rng: np.random.Generator) -> None:
    every = logits(rng)
    joined = ek.Ensemble({"unet": [make_store(own, IMAGE, CLASSES) for own in thirds(every)]})
    averaged = ek.Ensemble({"unet": [make_store(logits(rng), IMAGE, CLASSES) for _ in range(2)]})
    for ens in (joined, averaged):
        assert ens.vote(executor=Processes()) == ens.vote(jobs=1)


def tuned_on(ens: ek.Ensemble, **options: Any) -> ek.ThresholdSet:
    return ek.tune_thresholds(ens, ens.vote(0.6), **options)


def test_a_set_of_joined_folds_fits_averaged_ones(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    """N8: tuned out of fold, voted over the folds on the test set."""
    joined = ek.Ensemble({
        "unet": [make_store(own, IMAGE, CLASSES) for own in thirds(logits(rng))],
        "seg": make_store(logits(rng), IMAGE, CLASSES),
    }, weights={"unet": 2, "seg": 1}, temperatures={"unet": 1.5, "seg": 1})  # fmt: skip
    tuned_on(joined).save(tmp_path / "set.json")
    tuned = ek.ThresholdSet.load(tmp_path / "set.json")
    assert tuned.members == joined.records and [len(m.folds) for m in tuned.members] == [0, 3]
    test = [make_store(logits(rng, "tuv"), IMAGE, CLASSES) for _ in range(3)]
    seg = make_store(logits(rng, "tuv"), IMAGE, CLASSES)
    ens = ek.Ensemble({"unet": test, "seg": seg}).as_tuned(tuned)
    flat = ek.Ensemble([*test, seg], weights=[2, 2, 2, 3], temperatures=[1.5, 1.5, 1.5, 1])
    assert ens.vote(tuned) == flat.vote(tuned.thresholds)
    assert "3 folds for the 3 folds" in tuned.folds_told(ens.records)[0]
    assert tuned.overlap_told(ens.samples, ens.records) is None
    val = joined.on(joined.members[1].stores[0].samples)
    assert "come from the stores" in str(tuned.overlap_told(val.samples, val.records))


def test_other_folds_are_the_same_member_as_long_as_a_network_is() -> None:
    def record(*models: str | None) -> MemberRecord:
        folds = tuple(FoldRecord(f"store of {m} {k}", m) for k, m in enumerate(models))
        return MemberRecord("net", "all", None, folds) if len(folds) > 1 else MemberRecord("net", "all", models[0])

    tuned = record("a", "b", "c")
    assert not record("a", "b", "c").is_other(tuned) and not record("b").is_other(tuned)
    assert not record(None, "q").is_other(tuned) and not record(None).is_other(tuned)
    assert record("q", "r").is_other(tuned) and record("q").is_other(tuned) and record("q").is_other(record("a"))
    assert "2 of 3 networks" in str(record("a", "b", "q").folds_told(MemberRecord("net", "x", None, tuned.folds)))
    assert record("a").folds_told(record("a")) is None
    for one in (tuned, record("a"), record(None)):
        assert MemberRecord.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert "folds" not in record("a").to_dict()


def test_a_member_that_others_do_not_have_is_named_with_what_to_pass(
    make_store: Make, rng: np.random.Generator
) -> None:
    tuned = tuned_on(ek.Ensemble({"net": [make_store(own, IMAGE, CLASSES) for own in thirds(logits(rng))]}))
    folds = [make_store(logits(rng, "tu"), IMAGE, CLASSES, member="net") for _ in range(3)]
    with pytest.raises(ek.MismatchError, match="NAME=PATH") as caught:
        ek.Ensemble(folds).vote(tuned)
    assert caught.value.code == "set-does-not-fit"
    assert ek.Ensemble({"net": folds}).vote(tuned)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_search_fuses_folds_as_one_member(activation: Any, make_store: Make, rng: np.random.Generator) -> None:
    """The score of the best trial is that of a vote with its weights, whose folds have the member's share."""
    samples = "abcd"
    folds = [make_store(logits(rng, samples), IMAGE, CLASSES, activation=activation) for _ in range(2)]
    seg = make_store(logits(rng, samples), IMAGE, CLASSES, activation=activation)
    ens = ek.Ensemble({"unet": folds, "seg": seg})
    truth = ek.Ensemble([folds[0]]).vote()
    tuned = ek.tune_thresholds(ens, truth, search="weights", folds=None)
    assert tuned.fusion.members == ("seg", "unet")
    masks = ens.as_tuned(tuned).vote(tuned)
    found = ek.dice(masks, truth) if activation == "sigmoid" else ek.iou(masks, truth)
    score = found.mean if activation == "sigmoid" else found.pooled
    assert score == pytest.approx(tuned.score, abs=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the stack does not beat")
def test_a_stack_of_joined_folds_applies_to_averaged_ones(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    samples = [f"p{k}" for k in range(6)]
    every = logits(rng, samples)
    joined = [make_store(own, IMAGE, CLASSES) for own in thirds(every)]
    one = make_store(every, IMAGE, CLASSES)
    truth = ek.Ensemble([one]).vote()
    stacks = [
        ek.fit_stack(ek.Ensemble({"net": own}), truth, tmp_path / f"oof{k}.zarr", folds=3)
        for k, own in enumerate((joined, [one]))
    ]
    assert np.array_equal(stacks[0].model.of_all, stacks[1].model.of_all)
    test = [make_store(logits(rng, ["t"]), IMAGE, CLASSES) for _ in range(2)]
    stacks[0].apply(ek.Ensemble({"net": test}), tmp_path / "t.zarr")
    assert ek.LogitStore(tmp_path / "t.zarr").complete
