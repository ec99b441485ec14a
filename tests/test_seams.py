"""The four seams: a new decision, executor, member or format is one file, and does all that the built-in ones do.

Formats have a file of their own (`test_formats_registry.py`), backends `test_backends.py`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.decision import Decision, vote
from ensemble_kit.decisions.rank import RankRule
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.execution.executor import Executor, Threads
from ensemble_kit.recipes.deciding import Deciding
from ensemble_kit.recipes.tuning import Tuning
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs, Member
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.search.plan import Search
from toy_decision import Brightest
from toy_executor import Processes, Serial

IMAGE = (40, 50)
CLASSES = ("x", "y")
DECISIONS: dict[str, Decision] = {
    "thresholds": Thresholds({"x": 40000, "y": 20000}), "one level": Thresholds(30000), "rank rule": RankRule(1.3),
    "argmax": Argmax({"y": 1.5}, least=0.3),
    "toy": Brightest(0.2),
}  # fmt: skip
EXECUTORS: dict[str, Executor] = {"one thread": Threads(1), "four threads": Threads(4), "serial": Serial()}


@pytest.fixture(params=[("logits", ((16, 20),) * 2), ("scores", ((16, 20), (24, 22)))], ids=["one grid", "two grids"])
def ens(request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator) -> ek.Ensemble:
    upsample, grids = request.param
    stores = [
        write_store(tmp_path / f"m{k}.zarr", {f"s{s}": smooth_logits(rng, (2, *grid)) for s in range(5)}, IMAGE, CLASSES,
                    member=f"m{k}")
        for k, grid in enumerate(grids)
    ]  # fmt: skip
    return ek.Ensemble(stores, upsample=upsample)


@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
def test_a_decision_is_a_value_that_votes(decision: Decision, ens: ek.Ensemble) -> None:
    masks = ens.vote(decision)
    assert masks.rule == decision.told()
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert {decision: 1}[pickle.loads(pickle.dumps(decision))] == 1
    for sample in ens.samples:
        scores = ens.sample(sample)
        assert [masks[sample, c] for c in CLASSES] == decision(scores).masks(IMAGE)
    cleaned = ens.vote(decision, ["gate:0.5,30", "drop-small:4"])
    assert cleaned.classes == CLASSES
    with pytest.raises(FrozenInstanceError):
        decision.levels = 3  # type: ignore[attr-defined]


def test_the_toy_decides_what_it_says(ens: ek.Ensemble) -> None:
    for runs in ens.vote(Brightest(0.2)).values():
        assert 0 < runs.area <= 0.2 * 40 * 50
    assert not any(ens.vote(Brightest(0)).values())


def test_thresholds_refuse_what_they_cannot_decide(ens: ek.Ensemble) -> None:
    for level in (-1, 65537, 0.5, True, "x"):
        with pytest.raises(ek.UsageError, match=r"level of all classes=.*Ensemble\.level_of"):
            Thresholds(level)  # type: ignore[arg-type]
    with pytest.raises(ek.MismatchError, match="thresholds for 'x', classes 'x', 'y'"):
        ens.vote(Thresholds({"x": 3}))
    assert not any(ens.vote(Thresholds(65536)).values())


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)
def test_an_executor_gives_the_bytes_of_one_thread(executor: Executor, ens: ek.Ensemble) -> None:
    truth = ens.vote(0.45)
    assert ens.vote(0.4, executor=executor) == ens.vote(0.4, jobs=1)
    found = ek.tune_thresholds(ens, truth, folds=3, executor=executor)
    assert found == ek.tune_thresholds(ens, truth, folds=3, jobs=1)
    with pytest.raises(ek.UsageError, match="jobs=2 beside an executor"):
        ens.vote(0.4, jobs=2, executor=executor)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    found = Processes()
    with found.pool:
        yield found


@pytest.mark.slow
def test_work_runs_in_other_processes(ens: ek.Ensemble, processes: Processes) -> None:
    """Every kind of work there is: a vote, counts, components, sizes, undecided pixels, the rank rule, a shift."""
    truth = ens.vote(0.45)
    wanted = Search(("weights", "post"), trials=3)
    run: Callable[[Executor], Any] = Tuning(ens, Measure(), None, search=wanted, rank=True, compared=ens).run  # type: ignore[assignment]
    here = run(truth, executor=Threads(1))  # type: ignore[call-arg]
    there = run(truth, executor=processes)  # type: ignore[call-arg]
    assert there.set == here.set
    assert there.rank == here.rank
    assert there.shift.to_dict() == here.shift.to_dict()
    assert ens.vote(there.set.levels and 0.4, ["drop-small:4"], executor=processes) == ens.vote(0.4, ["drop-small:4"])


class Arrays:
    """A member that holds arrays: what `LogitStore` does, in ten lines."""

    activation = "sigmoid"

    def __init__(self, member: str, logits: dict[str, np.ndarray]) -> None:
        self.member, self.classes, self._logits = member, CLASSES, logits

    def read(self, sample: str) -> np.ndarray:
        return self._logits[sample]

    def placement(self, sample: str) -> Placement:
        return Placement.of(self._logits[sample].shape[1:], IMAGE)


_: list[type[Member]] = [Arrays, ek.LogitStore]  # type: ignore[list-item]


def test_a_member_need_not_be_a_store(ens: ek.Ensemble) -> None:
    members = tuple(Arrays(m.member, {s: m.read(s) for s in ens.samples}) for m in ens.members)
    inputs = Inputs(members, ens.classes, ens.fusion)  # type: ignore[arg-type]
    assert vote(inputs, ens.samples, Thresholds(30000), (), Threads(2)) == ens.vote(Thresholds(30000))
    assert open_sample(inputs, "s0", "scores").levels().tobytes() == ens.levels("s0").tobytes()


def test_an_ensemble_never_changes(ens: ek.Ensemble) -> None:
    with pytest.raises(FrozenInstanceError):
        ens.samples = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        ens.fusion = None  # type: ignore[misc, assignment]
    few, other = ens.on(["s3", "s1"]), ens.with_fusion(weights=[3, 1], mean="power:0.5")
    assert (few.samples, few.fusion) == (("s3", "s1"), ens.fusion)
    assert other.fusion.weights == ((49152, 16384),) * 2
    assert (str(other.fusion.mean), str(ens.fusion.mean)) == ("power:0.5", "probability")
    assert other.with_fusion(ens.fusion).vote(0.4) == ens.vote(0.4)
    assert few.vote(0.4) == ek.MaskSet({k: v for s in few.samples for k, v in ens.vote(0.4).items() if k[0] == s})
    with pytest.raises(ek.IncompleteError, match="no 'nobody'"):
        ens.on(["nobody"])
    with pytest.raises(ek.MismatchError, match="pass a fusion of these members"):
        ek.Ensemble([ens.members[0]]).with_fusion(ens.fusion)


def test_a_set_never_changes(ens: ek.Ensemble) -> None:
    tuned = ek.tune_thresholds(ens, ens.vote(0.45))
    with pytest.raises(FrozenInstanceError):
        tuned.rules = ("fill-holes",)  # type: ignore[misc]


def test_weights_keep_the_order_in_which_members_were_named(ens: ek.Ensemble) -> None:
    named = ek.Ensemble(ens.members[::-1], upsample=ens.fusion.upsample)
    assert named.fusion.members == ens.fusion.members == ("m0", "m1")
    changed = named.with_fusion(weights=[3, 1], temperatures=[2.0, 0.5])
    wanted = ek.Ensemble(ens.members[::-1], [3, 1], upsample=ens.fusion.upsample, temperatures=[2.0, 0.5])
    assert changed.fusion == wanted.fusion == named.with_fusion(weights={"m1": 3, "m0": 1}).with_fusion(
        temperatures=np.array([2.0, 0.5])
    ).fusion  # fmt: skip
    assert changed.fusion.weights[0] == (16384, 49152)
    assert changed.on("s1").with_fusion(mean="logit").fusion.weights == changed.fusion.weights


def test_values_that_cannot_be_are_refused_where_they_are_made(ens: ek.Ensemble) -> None:
    f = ens.fusion
    for weights in (((65536,),) * 2, ((65537, -1),) * 2, ((1, 2),) * 2):
        with pytest.raises(ek.UsageError, match="do not add up to 65536 over 2 members"):
            replace(f, weights=weights)
    with pytest.raises(ek.UsageError, match="temperatures"):
        replace(f, temperatures=(1.0, 0.0))
    with pytest.raises(ek.UsageError, match="more than once"):
        ens.on(["s1", "s1"])
    with pytest.raises(ek.UsageError, match="cannot decide"):
        ens.vote(RankRule)
    with pytest.raises(ek.UsageError, match=r"ThresholdSet\.load"):
        ens.vote("set.json")
    assert ens.vote(np.array(0.5)) == ens.vote(np.float32(0.5)) == ens.vote(0.5)


def test_an_open_sample_fuses_as_the_ensemble_does(ens: ek.Ensemble) -> None:
    for changed in (ens, ens.with_fusion(upsample="logits")):
        assert (changed.sample("s2").levels() == ens.levels("s2")).all()


def test_rules_of_a_set_hold_unless_others_are_passed(ens: ek.Ensemble) -> None:
    tuned = replace(ek.tune_thresholds(ens, ens.vote(0.45)), rules=("drop-small:40",))
    plain = ens.vote(tuned, ())
    assert ens.vote(tuned) == ens.vote(tuned, "drop-small:40") != plain
    assert [str(rule) for rule in SoftVote.of(ens, Deciding(tuned)).rules] == ["drop-small:40"]
    assert SoftVote.of(ens, Deciding(tuned, "rank")).rules == ()
