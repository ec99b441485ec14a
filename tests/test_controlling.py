"""The calibration of thresholds that control a risk: what a vote then misses, what is refused, what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.controlling import Controlling
from ensemble_kit.spec.risk import Risk
from ensemble_kit.tuning.statistics import Statistics, count, source_of
from trying import ensk, put, refused

Make = Callable[..., ek.LogitStore]
CLASSES = ("bone", "joint")


@pytest.fixture
def members(make_store: Make, rng: np.random.Generator) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Twelve samples of two classes by two members, and a truth that follows the scores loosely; one sample is empty."""
    ids = [f"p{k // 2}_{k}" for k in range(12)]
    stores = [make_store({s: smooth_logits(rng, (2, 8, 8)) for s in ids}, (24, 24), CLASSES, name=n) for n in "ab"]
    ens = ek.Ensemble(stores)
    masks = {}
    for s in ids:
        for c, name in enumerate(CLASSES):
            level = ens.sample(s).runs(c, int(rng.integers(20000, 40000))).decode()
            masks[s, name] = ek.encode(level & (rng.random((24, 24)) < 0.9) & (s != ids[3] or c == 1))
    return ens, ek.MaskSet(masks)


def risk_of(masks: ek.MaskSet, truth: ek.MaskSet, name: str, group: Callable[[str], str]) -> float:
    """The mean over groups of the mean over images of the share of the truth that masks miss."""
    by_group: dict[str, list[float]] = {}
    for s in truth.samples:
        area = truth[s, name].area
        by_group.setdefault(group(s), []).append((truth[s, name] - masks[s, name]).area / area if area else 0.0)
    return float(np.mean([np.mean(own) for own in by_group.values()]))


@pytest.mark.parametrize("rules", [(), ("drop-small:12", "fill-holes@bone")], ids=["plain", "after rules"])
@pytest.mark.parametrize("over", ["class", "all"])
def test_a_vote_has_the_risk_that_the_set_tells(
    members: tuple[ek.Ensemble, ek.MaskSet], over: Any, rules: tuple[str, ...], tmp_path: Path
) -> None:
    ens, truth = members
    found = ek.control_risk(ens, truth, 0.3, over=over, groups=r"^(p\d+)", rules=rules)
    found.save(tmp_path / "risk.json")
    again = ek.ThresholdSet.load(tmp_path / "risk.json")
    assert again == found and again.guarantee == found.guarantee and again.to_dict()["format"] == "ensk.thresholds/2"
    assert found.guarantee is not None and found.guarantee.groups == 6 and again.rules == rules
    masks, n = ens.vote(again), 6
    for c, name in enumerate(CLASSES):
        own = found.guarantee.classes[name]
        assert risk_of(masks, truth, name, lambda s: s[:2]) == pytest.approx(own.risk)
        higher = [k.level + (j == c or over == "all") for j, k in enumerate(found.classes)]
        after = ens.vote(ek.Thresholds(dict(zip(CLASSES, higher, strict=True))), rules)
        missed = [risk_of(after, truth, m, lambda s: s[:2]) for m in CLASSES]
        if over == "class":  # the next level misses too much
            assert own.bound == pytest.approx((n * own.risk + 1) / (n + 1)) and own.bound <= 0.3
            assert (n * missed[c] + 1) / (n + 1) > 0.3 or found.classes[c].level == 65535
    if over == "all":
        assert len({c.level for c in found.classes}) == 1 and own.bound is None
        assert (
            max(c.risk for c in found.guarantee.classes.values())
            <= found.guarantee.value
            <= found.guarantee.bound
            <= 0.3
        )
    assert found.score == pytest.approx(ek.dice(masks, truth).mean)


def test_tuning_samples_are_refused(members: tuple[ek.Ensemble, ek.MaskSet], tmp_path: Path) -> None:
    ens, truth = members
    first, last = ens.on(ens.samples[:6]), ens.on(ens.samples[6:])
    halves = [truth.arranged(e.samples, CLASSES) for e in (first, last)]
    tuned = ek.tune_thresholds(first, halves[0], search="greedy")
    tuned.save(tmp_path / "tuned.json")
    tuned = ek.ThresholdSet.load(tmp_path / "tuned.json")
    found = ek.control_risk(last, halves[1], 0.3, base=tuned)
    assert found.fusion == tuned.fusion and found.guarantee is not None and found.guarantee.groups == 6
    for samples, told in [(ens.samples[:6], "6 of 6"), (ens.samples[5:], "1 of 7")]:
        some = ens.on(samples)
        with pytest.raises(
            ek.MismatchError, match=rf"{told} samples chose the fusion or the rules of .*tuned\.json: 'p"
        ):
            ek.control_risk(some, truth.arranged(samples, CLASSES), 0.3, base=tuned)
        ek.control_risk(some, truth.arranged(samples, CLASSES), 0.3)  # as the fix says


def test_groups_of_tuning_samples_are_refused(members: tuple[ek.Ensemble, ek.MaskSet]) -> None:
    ens, truth = members
    even, odd = ens.on(ens.samples[::2]), ens.on(ens.samples[1::2])  # of each patient one image
    by_patient = r"^(p\d+)"
    tuned = ek.tune_thresholds(even, truth.arranged(even.samples, CLASSES), groups=by_patient)
    with pytest.raises(ek.MismatchError, match="6 of 6 groups chose the fusion or the rules of the set: 'p0', 'p1'"):
        ek.control_risk(odd, truth.arranged(odd.samples, CLASSES), 0.3, groups=by_patient, base=tuned)
    two_a_group = {s: f"p{k // 2}" for k, s in enumerate(odd.samples)}
    with pytest.raises(ek.MismatchError, match="3 of 3 groups chose"):
        ek.control_risk(odd, truth.arranged(odd.samples, CLASSES), 0.3, groups=two_a_group, base=tuned)


def test_too_few_groups_are_refused_with_both_numbers(members: tuple[ek.Ensemble, ek.MaskSet]) -> None:
    ens, truth = members
    with pytest.raises(ek.IncompleteError, match=r"there are 12, alpha = 0\.05 takes 19"):
        ek.control_risk(ens, truth, 0.05)
    with pytest.raises(ek.IncompleteError, match=r"there are 6, alpha = 0\.1 takes 9"):
        ek.control_risk(ens, truth, 0.1, groups=r"^(p\d+)")
    with pytest.raises(ek.IncompleteError, match=r"there are 12, alpha = 0\.1 at delta = 0\.1 takes 22"):
        ek.control_risk(ens, truth, 0.1, 0.1)


def test_rules_that_are_not_monotone_or_remove_too_much_are_refused(members: tuple[ek.Ensemble, ek.MaskSet]) -> None:
    ens, truth = members
    with pytest.raises(ek.UsageError, match="with 'keep-largest' a lower threshold can miss more"):
        ek.control_risk(ens, truth, 0.3, rules="keep-largest")
    with pytest.raises(
        ek.IncompleteError, match=r"of 'bone' they remove more than 0\.3 of the truth at every threshold"
    ):
        ek.control_risk(ens, truth, 0.3, rules="gate:1,500@bone")


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a level that was raised": lambda d: d["classes"][0].update(level=60000, threshold=60000 / 65535),
    "alpha that was lowered": lambda d: d["risk"].update(alpha=0.01),
    "groups that are too few": lambda d: d["risk"].update(groups=1),
    "another risk": lambda d: d["risk"].update(kind="fpr"),
    "a class that is gone": lambda d: d["risk"]["classes"].pop("bone"),
    "a bound that is no share": lambda d: d["risk"].update(bound=-1),
    "a decision by rank": lambda d: d.update(decision={"kind": "rank", "temperature": None}),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_set_whose_guarantee_was_edited_is_refused(
    members: tuple[ek.Ensemble, ek.MaskSet], edit: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    ens, truth = members
    raw = json.loads(json.dumps(ek.control_risk(ens, truth, 0.3).to_dict()))
    schema = json.loads((Path(__file__).parent.parent / "thresholds/schema.json").read_text())
    jsonschema.validate(raw, schema)
    edit(raw)
    with refused(ek.DamagedError, "set-invalid"):
        ek.ThresholdSet.load(put(tmp_path / "risk.json", raw))


def test_the_command_says_what_it_guarantees(
    members: tuple[ek.Ensemble, ek.MaskSet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ens, truth = members
    stores, out = [m.path for m in ens.members], tmp_path / "risk.json"
    truth.write(tmp_path / "truth.npz")
    tune: list[object] = ["tune-thresholds", *stores, "--val", tmp_path / "truth.npz", "--out", out]
    risk = ["--risk", "fnr", "--alpha", "0.3", "--groups", r"^(p\d+)"]
    ensk(*tune, *risk, "--calibration", "--json", "-q")
    told = json.loads(capsys.readouterr().out)
    found = ek.ThresholdSet.load(out)
    assert found == ek.control_risk(ens, truth, 0.3, groups=r"^(p\d+)")
    assert told["risk"]["classes"]["bone"]["bound"] <= 0.3 and told["risk"]["groups"] == 6
    assert told["calibration"] == ek.measure_calibration(ens, truth).to_dict()
    sentence = "at most 0.3 of each class's true pixels, in expectation over calibration and new groups"
    for command in (["inspect", out], ["vote", *stores, "--thresholds", out, "--out", tmp_path / "masks.npz"]):
        ensk(*command)
        shown = capsys.readouterr()
        assert sentence in shown.out + shown.err and "exchangeable" in shown.out + shown.err
    ensk("vote", *stores, "--thresholds", out, "--out", tmp_path / "cleaned.npz", "--rule", "keep-largest")
    assert "the set's guarantee does not hold, since masks are decided or cleaned otherwise" in capsys.readouterr().err
    ensk("vote", "--hard", *stores, tmp_path / "masks.npz", "--thresholds", 0.5, "--out", tmp_path / "hard.npz")
    assert "guarantee" not in capsys.readouterr().err
    with refused(ek.MismatchError, "risk-seen", "12 of 12 samples", str(out)):
        ensk(*tune[:-1], tmp_path / "again.json", *risk, "--thresholds", out)
    with refused(ek.UsageError, "option-idle", "--search, --no-shrink", "with --risk"):
        ensk(*tune, *risk, "--search", "weights", "--no-shrink", "--force")
    with refused(ek.UsageError, "option-idle", "--alpha", "without --risk"):
        ensk(*tune, "--alpha", "0.1", "--force")
    with refused(ek.UsageError, "option-invalid", "--risk without --alpha"):
        ensk(*tune[:-2], "--risk", "fnr")
    with refused(ek.UsageError, "option-idle", "--storage, --sampler", "with --risk"):
        ensk(*tune, *risk, "--storage", "sqlite:///s.db", "--sampler", "grid", "--force")
    with refused(ek.UsageError, "option-idle", "--trials, --timeout", "without a search"):
        ensk(*tune, "--trials", "5", "--timeout", "3", "--force")
    capsys.readouterr()
    ensk(*tune, *risk, "--force", "--dry-run", "--json")
    planned = json.loads(capsys.readouterr().out)
    assert planned["risk"] == {"alpha": 0.3, "delta": None, "over": "class", "kind": "fnr"}
    assert planned["method"] == "risk"
    with refused(ek.ResourceError, "memory-budget", "cannot measure calibration"):
        ensk(*tune, *risk, "--force", "--calibration", "--memory", "1MB")


def test_calibration_that_cannot_be_measured_is_refused_before_the_tuning(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    store = make_store({"a": smooth_logits(rng, (2, 8, 8))}, (24, 24), CLASSES, activation="softmax")
    half = rng.random((24, 24)) < 0.5
    truth = ek.MaskSet({("a", "bone"): ek.encode(half), ("a", "joint"): ek.encode(~half)})
    truth.write(tmp_path / "truth.npz")
    tune = ["tune-thresholds", store.path, "--val", tmp_path / "truth.npz", "--mean", "logit", "--calibration"]
    counts = tmp_path / "counts.npz"
    with refused(ek.UsageError, "softmax-option", "(--mean probability)", "leave --calibration out"):
        ensk(*tune, "--statistics", counts, "--folds", "0", "--out", tmp_path / "set.json")
    assert not counts.exists()
    with refused(ek.UsageError, "softmax-option", "cannot compare", "leave --compare out"):
        ensk(*tune[:-1], "--compare", store.path, "--folds", "0", "--out", tmp_path / "set.json")
    with refused(ek.UsageError, "softmax-option", "cannot measure"):
        ek.measure_calibration(ek.Ensemble([store], mean="logit"), truth)


def test_what_cannot_be_used_is_refused_before_the_calibration(
    members: tuple[ek.Ensemble, ek.MaskSet], make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    ens, truth = members
    truth.write(tmp_path / "truth.npz")
    counts, other = (
        tmp_path / "counts.npz",
        make_store({"a": smooth_logits(rng, (2, 8, 8))}, (24, 24), CLASSES, name="c"),
    )
    tune: list[object] = ["tune-thresholds", *(m.path for m in ens.members), "--val", tmp_path / "truth.npz"]
    tune += ["--risk", "fnr", "--alpha", "0.3", "--out", tmp_path / "risk.json", "--statistics", counts]
    with refused(ek.MismatchError, "ensembles-differ", "members: a, b in validation, c in test"):
        ensk(*tune, "--compare", other.path)
    with refused(ek.IncompleteError, "input-missing", "patients.csv does not exist"):
        ensk(*tune, "--groups", tmp_path / "patients.csv")
    assert not counts.exists()


def test_fixes_for_classes_without_truth_do_not_lead_nowhere(members: tuple[ek.Ensemble, ek.MaskSet]) -> None:
    ens, truth = members
    nothing = ek.encode(np.zeros((24, 24), bool))
    blank = ek.MaskSet({(s, c): nothing if c == "joint" else mask for (s, c), mask in truth.items()})
    found = ek.control_risk(ens, blank, 0.3)
    told = str(found.report())
    assert "no calibration sample has 'joint'" in told
    assert "--except" not in told, "no option leaves a class of the stores out"


@pytest.mark.parametrize("rules", [(), ("drop-small:4",)], ids=["plain", "after a rule"])
def test_void_pixels_cannot_be_missed(
    members: tuple[ek.Ensemble, ek.MaskSet], rules: tuple[str, ...], rng: np.random.Generator
) -> None:
    ens, truth = members
    void = {s: ek.encode(rng.random((24, 24)) < 0.3) for s in ens.samples[:8]}
    found = ek.control_risk(ens, ek.MaskSet(dict(truth), void=void), 0.3, rules=rules)
    masks = ens.vote(found)
    seen = ek.MaskSet({(s, c): m - void[s] if s in void else m for (s, c), m in truth.items()})
    assert found.guarantee is not None
    for name in CLASSES:
        assert found.guarantee.classes[name].risk == pytest.approx(risk_of(masks, seen, name, str))


@pytest.mark.slow
def test_softmax_members_get_thresholds(make_store: Make, rng: np.random.Generator) -> None:
    ids = [f"s{k}" for k in range(6)]
    logits = {s: smooth_logits(rng, (2, 8, 8)) for s in ids}
    ens = ek.Ensemble([make_store(logits, (24, 24), CLASSES, activation="softmax")])
    labels = {s: (rng.random((24, 24)) < 0.5).astype(np.uint8) for s in ids}
    truth = ek.MaskSet({(s, c): ek.encode(labels[s] == k) for s in ids for k, c in enumerate(CLASSES)})
    found = ek.control_risk(ens, truth, 0.2)
    assert set(found.levels) == set(CLASSES) and found.decision.kind == "threshold"
    told = Controlling(ens, Risk(0.2)).run(truth).report.lines
    assert "Softmax stores by thresholds: a pixel can have several classes, or none." in told
    assert found.guarantee is not None
    for name in CLASSES:
        assert risk_of(ens.vote(found), truth, name, str) == pytest.approx(found.guarantee.classes[name].risk)


def test_kept_counts_are_used_where_they_reach(members: tuple[ek.Ensemble, ek.MaskSet]) -> None:
    ens, truth = members
    plain = Controlling(ens, Risk(0.3)).run(truth)
    kept: list[Any] = []
    narrow = Statistics(ens.samples, ens.classes, tuple(count(ens, truth, {0: (60000, 60001), 1: (0, 3)}).values()), "")
    narrow = replace(narrow, source=source_of(ens, truth))
    assert Controlling(ens, Risk(0.3)).run(truth, narrow, kept.append).set == plain.set and len(kept) == 1
    assert Controlling(ens, Risk(0.3)).run(truth, kept[0], kept.append).set == plain.set and len(kept) == 1
    budget = int(memory.held()) + 1_000_000_000  # whatever the tests before this one left in the process
    assert Controlling(ens, Risk(0.3)).run(truth, budget=budget).set == plain.set
    with pytest.raises(ek.MismatchError, match="counted from other stores"):
        Controlling(ens.on(ens.samples[1:]), Risk(0.3)).run(truth.arranged(ens.samples[1:], CLASSES), kept[0])


def test_sets_that_do_not_record_their_samples_are_warned_of(
    members: tuple[ek.Ensemble, ek.MaskSet], tmp_path: Path
) -> None:
    ens, truth = members
    half = ens.on(ens.samples[:6])
    raw = json.loads(json.dumps(ek.tune_thresholds(half, truth.arranged(half.samples, CLASSES)).to_dict()))
    assert len(raw["validation"].pop("seen")) == 6
    old = ek.ThresholdSet.load(put(tmp_path / "old.json", raw))
    with pytest.raises(ek.MismatchError, match="6 of 6 samples chose"):  # they come from the stores of the tuning
        Controlling(half, Risk(0.3), base=old)
    raw["fusion"]["members"] = [{**m, "fingerprint": "0" * 64} for m in raw["fusion"]["members"]]
    other = ek.ThresholdSet.load(put(tmp_path / "other.json", raw))
    with pytest.raises(ek.MismatchError, match="6 of 6 samples chose"):
        Controlling(half, Risk(0.3), base=other)
    told = Controlling(ens.on(ens.samples[6:]), Risk(0.3), base=other).warnings()
    assert any("does not record which samples" in str(t) for t in told)


def test_fusions_that_somebody_chose_are_warned_of(members: tuple[ek.Ensemble, ek.MaskSet], tmp_path: Path) -> None:
    ens, _ = members
    assert not Controlling(ens, Risk(0.3)).warnings()
    given = [ens.with_fusion(weights=[2, 1]), ens.with_fusion(mean="logit"), ens.with_fusion(temperatures=[1, 2])]
    for one in given:
        assert "only holds if other samples chose them" in str(Controlling(one, Risk(0.3)).warnings()[0])
    for weights, told in (([2, 1], 1), ([1, 1], 0)):
        ek.fuse(ens.with_fusion(weights=weights), tmp_path / f"{told}.zarr")
        assert len(Controlling(ek.Ensemble([tmp_path / f"{told}.zarr"]), Risk(0.3)).warnings()) == told
