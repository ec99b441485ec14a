"""Members of other classes (N9) and folds (N8) beside every other feature: the right value, or a refusal with the mend.

Grids are as large as images, so that the oracle in NumPy needs no interpolation.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy import ndimage

import ensemble_kit as ek
from cases.running import ensk, refused
from conftest import smooth_logits, write_store
from ensemble_kit.tuning.search.plan import Search

SHAPE, SAMPLES, LACKING = (24, 30), ("s0", "s1", "s2", "s3", "s4", "s5"), -65504.0
OWN = {"sigmoid": {"A": ("x", "y", "z"), "B": ("z", "w")}, "softmax": {"A": ("bg", "x", "y"), "B": ("y", "bg", "w")}}
EVERY = {"sigmoid": ("x", "y", "z", "w"), "softmax": ("bg", "x", "y", "w")}
UNION = ("A.zarr", "B.zarr", "--member-classes", "union")
Logits = dict[str, dict[str, np.ndarray]]


def fixed_point(z: np.ndarray, softmax: bool) -> np.ndarray:
    """Rules 1, 3 and 9 of docs/concepts.md at a pixel that is a cell: logits float16 (C, h, w) to levels."""
    z = z.astype(np.float64)
    if not softmax:
        q = np.floor((np.clip(z, -16, 16) + 16) / 32 * 65535 + 0.5)
        return np.floor(65535 / (1 + np.exp(-(32 * q / 65535 - 16))) + 0.5).astype(np.int64)
    q = np.floor((np.maximum(z - z.max(0), -32) + 32) / 32 * 65535 + 0.5).astype(np.int64)
    e = np.floor(2.0**30 * np.exp(32 * (q - q.max(0)) / 65535) + 0.5).astype(np.int64)
    return np.asarray((131070 * e + e.sum(0)) // (2 * e.sum(0)))


def shares(weights: dict[str, float], having: Sequence[str]) -> dict[str, int]:
    """Rule 2 over the members that have a class: integers that add up to 65536, the rest to the largest remainders."""
    exact = {name: weights[name] / sum(weights[n] for n in having) * 65536 for name in having}
    whole = {name: int(value) for name, value in exact.items()}
    for name in sorted(having, key=lambda n: (whole[n] - exact[n], n))[: 65536 - sum(whole.values())]:
        whole[name] += 1
    return whole


def fused(logits: Logits, kind: str, sample: str, weights: dict[str, float] | None = None) -> np.ndarray:
    """The sum of rule 10, Σ W S over the members that have a class: int64 (C, h, w), in the order of `EVERY`."""
    out = np.zeros((len(EVERY[kind]), *SHAPE), np.int64)
    levels = {name: fixed_point(own[sample], kind == "softmax") for name, own in logits.items()}
    for c, name in enumerate(EVERY[kind]):
        having = [m for m in OWN[kind] if name in OWN[kind][m]]
        for member, weight in shares(weights or {"A": 1, "B": 1}, having).items():
            out[c] += weight * levels[member][OWN[kind][member].index(name)]
    return out


def decided(sums: np.ndarray, kind: str, thresholds: Sequence[int] = (32768,) * 4) -> np.ndarray:
    """Masks of rule 4 at levels, or of rule 10."""
    if kind == "softmax":
        return sums.argmax(0) == np.arange(len(sums))[:, None, None]
    return (sums + 32768 >> 16) >= np.array(thresholds)[:, None, None]


def as_set(kind: str, of: Callable[[str], np.ndarray]) -> ek.MaskSet:
    return ek.MaskSet({(s, c): ek.encode(m) for s in SAMPLES for c, m in zip(EVERY[kind], of(s), strict=True)})


@pytest.fixture(params=["sigmoid", "softmax"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A.zarr and B.zarr in the current folder, of classes of their own; A is also there as two folds of halves."""
    monkeypatch.chdir(tmp_path)
    return str(request.param)


@pytest.fixture
def logits(kind: str) -> Logits:
    rng, out = np.random.default_rng(7), Logits()
    for name, own in OWN[kind].items():
        out[name] = {s: np.float16(smooth_logits(rng, (len(own), *SHAPE))) for s in SAMPLES}
        write_store(Path(f"{name}.zarr"), out[name], SHAPE, own, member=name, activation=kind)
    for k in range(2):
        halves = {s: out["A"][s] for s in SAMPLES[k::2]}
        write_store(Path(f"fold{k}.zarr"), halves, SHAPE, OWN[kind]["A"], member=f"fold{k}", activation=kind)
        moved = {s: np.float16(v + (2 * k - 1) * np.float16(0.5)) for s, v in out["A"].items()}
        write_store(Path(f"same{k}.zarr"), moved, SHAPE, OWN[kind]["A"], member=f"same{k}", activation=kind)
    truth = as_set(kind, lambda s: decided(fused(out, kind, SAMPLES[-1 - SAMPLES.index(s)]) * 2 // 3
                   + fused(out, kind, s), kind, (60000,) * 4))  # fmt: skip
    truth.write("truth.npz")
    return out


def test_n9_a_vote_and_its_rules(kind: str, logits: Logits) -> None:
    weights = {"A": 2.0, "B": 1.0}
    wanted = as_set(kind, lambda s: decided(fused(logits, kind, s, weights), kind))
    ensk("vote", *UNION, "--weights", "2,1", "--out", "masks.npz")
    assert ek.read_masks("masks.npz") == wanted
    for k in (1, 2):
        ensk("vote", *UNION, "--weights", "2,1", "--part", f"{k}/2", "--out", "part.npz")
    ensk("merge", "part.npz.part-1-of-2", "part.npz.part-2-of-2", "--out", "part.npz")
    assert Path("part.npz").read_bytes() == Path("masks.npz").read_bytes()

    def cleaned(s: str) -> np.ndarray:
        out = decided(fused(logits, kind, s, weights), kind)
        for mask in out:
            labels, _ = ndimage.label(mask, np.ones((3, 3)))
            mask &= np.bincount(labels.ravel())[labels] >= 40
        return out

    if kind == "sigmoid":  # pixels of exclusive classes go to a neighbour
        ensk("vote", *UNION, "--weights", "2,1", "--rule", "drop-small:40", "--out", "cleaned.npz")
        assert ek.read_masks("cleaned.npz") == as_set(kind, cleaned)
    ensk("vote", *UNION, "--weights", "2,1", "--decide", "argmax", "--out", "argmax.npz")
    assert ek.read_masks("argmax.npz") == as_set(kind, lambda s: decided(fused(logits, kind, s, weights), "softmax"))


def test_n9_a_hard_vote_is_refused_and_its_mends_work(kind: str, logits: Logits) -> None:
    told = refused("classes-differ", 6, "vote", "--hard", "A.zarr", "B.zarr", "--out", "h.npz")
    assert "vote STORE... --soft --member-classes union" in told
    common = [c for c in OWN[kind]["A"] if c in OWN[kind]["B"]]
    assert f"ensk convert FILE --only {','.join(common)}" in told
    for name in "AB":
        ensk("vote", f"{name}.zarr", "--out", f"{name}.npz")
        ensk("convert", f"{name}.npz", "--only", ",".join(common), "--out", f"{name}_common.npz")
    ensk("vote", "--hard", "A_common.npz", "B_common.npz", "--quorum", "2", "--out", "h.npz")
    alone = {m: {s: fixed_point(v, kind == "softmax") for s, v in own.items()} for m, own in logits.items()}
    for s in SAMPLES:
        for c in common:
            own = [decided(alone[m][s] * 65536, kind, (32768,) * len(OWN[kind][m])) for m in "AB"]
            both = [on[OWN[kind][m].index(c)] for m, on in zip("AB", own, strict=True)]
            assert np.array_equal(ek.read_masks("h.npz")[s, c].decode(), both[0] & both[1])


def test_n9_fused_scores(kind: str, logits: Logits) -> None:
    ensk("fuse", *UNION, "--format", "npz", "--out", "fused", "--uncertainty")
    ensk("fuse", *UNION, "--out", "fused.zarr")
    store = ek.LogitStore("fused.zarr")
    assert store.classes == EVERY[kind]
    for s in SAMPLES:
        levels = fused(logits, kind, s) + 32768 >> 16
        with np.load(f"fused/{s}.npz") as kept:
            assert np.array_equal(kept["probabilities"], np.float32(levels / 65535))
            alone = [k for k, c in enumerate(EVERY[kind]) if sum(c in own for own in OWN[kind].values()) == 1]
            if kind == "sigmoid":  # a class of one member: nobody disagrees
                assert kept["variance"].any() and not kept["variance"][alone].any()
        kept, p = store.read(s).astype(np.float64), levels / 65535  # of exclusive classes shares of their sum
        found = np.exp(kept) / np.exp(kept).sum(0) if kind == "softmax" else 1 / (1 + np.exp(-kept))
        assert np.abs(found - (p / p.sum(0) if kind == "softmax" else p)).max() < 13 / 65535


def test_n9_a_set_records_what_it_took_of_its_members(kind: str, logits: Logits) -> None:
    """Tuned with `union`, a vote needs no repetition; another word is refused with both."""
    ensk("tune-thresholds", *UNION, "--val", "truth.npz", "--out", "set.json", "--folds", "0")
    schema = json.loads((Path(__file__).parents[2] / "thresholds" / "schema.json").read_text())
    written = json.loads(Path("set.json").read_text())
    jsonschema.validate(written, schema)
    assert written["fusion"]["member_classes"] == "union"
    tuned, truth = ek.ThresholdSet.load("set.json"), ek.read_masks("truth.npz")
    assert tuned.member_classes == "union"
    sums = {s: fused(logits, kind, s) for s in SAMPLES}
    if kind == "sigmoid":
        for c, name in enumerate(EVERY[kind]):  # the maximum over all levels
            wanted = np.stack([truth[s, name].decode() for s in SAMPLES])
            levels = np.stack([sums[s][c] for s in SAMPLES]) + 32768 >> 16
            best = 0.0
            for level in np.unique(levels):
                on = levels >= level
                hits, areas = (on & wanted).sum((1, 2)), on.sum((1, 2)) + wanted.sum((1, 2))
                best = max(best, float(np.where(areas, 2 * hits / np.maximum(areas, 1), 1.0).mean()))
            assert tuned.per_class[name] == pytest.approx(best, abs=1e-12)
        own = as_set(kind, lambda s: decided(sums[s], kind, [tuned.levels[c] for c in EVERY[kind]]))
    else:
        factors = np.array([next(f.factor for f in tuned.factors if f.name == c) for c in EVERY[kind]])
        own = as_set(kind, lambda s: decided(sums[s] * factors[:, None, None], kind))
    for options in ((), ("--member-classes", "union")):
        ensk("vote", "A.zarr", "B.zarr", *options, "--thresholds", "set.json", "--out", "m.npz", "--force")
        assert ek.read_masks("m.npz") == own
    assert ek.Ensemble.of_set(tuned, ["A.zarr", "B.zarr"]).vote(tuned) == own
    for command in (("fuse", "--out", "f.zarr"), ("review", "--out", "r.csv")):
        ensk(command[0], "A.zarr", "B.zarr", "--thresholds", "set.json", *command[1:])
    assert set(ek.LogitStore("f.zarr").classes) == set(EVERY[kind])
    for other in ("common", "same"):
        told = refused("set-does-not-fit", 6, "vote", "A.zarr", "B.zarr", "--member-classes", other, "--thresholds",
                       "set.json", "--out", "n.npz")  # fmt: skip
        assert "set.json: classes of members: tuned for 'union', asked for" in told and repr(other) in told
    with pytest.raises(ek.MismatchError, match="classes of members: tuned for 'union', asked for 'common'"):
        ek.Ensemble(["A.zarr", "B.zarr"], classes="common").vote(tuned)
    with pytest.raises(ek.MismatchError, match="classes='union'"):
        ek.Ensemble(["A.zarr", "B.zarr"])


def test_a_set_of_members_of_one_class_set_takes_any_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that always pass `--member-classes union` go on to work where all members have all classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for name in "AB":
        write_store(Path(f"{name}.zarr"), {s: smooth_logits(rng, (2, *SHAPE)) for s in SAMPLES}, SHAPE, ("x", "y"))
    ek.Ensemble("A.zarr").vote(0.6).write("truth.npz")
    ensk("tune-thresholds", *UNION, "--val", "truth.npz", "--out", "set.json")
    assert "member_classes" not in json.loads(Path("set.json").read_text())["fusion"]
    for how in ("same", "common", "union"):
        ensk("vote", "A.zarr", "B.zarr", "--member-classes", how, "--thresholds", "set.json", "--out", f"{how}.npz")
        assert Path(f"{how}.npz").read_bytes() == Path("same.npz").read_bytes()


def test_a_set_with_another_word_for_it_is_damaged(tmp_path: Path) -> None:
    values = json.loads((Path(__file__).parents[2] / "thresholds" / "demo.json").read_text())
    values["fusion"]["member_classes"] = "every"
    (tmp_path / "set.json").write_text(json.dumps(values))
    with pytest.raises(ek.DamagedError, match="'every'"):
        ek.ThresholdSet.load(tmp_path / "set.json")


def full(logits: Logits, kind: str) -> ek.Ensemble:
    """The same members with all classes, whose logits are −∞ and whose weight is 0 in those that they lack."""
    paths, weights = [], []
    for name, own in OWN[kind].items():
        rows = [own.index(c) if c in own else None for c in EVERY[kind]]
        values = {
            s: np.stack([np.full(SHAPE, LACKING, np.float16) if r is None else v[r] for r in rows])
            for s, v in logits[name].items()
        }
        paths.append(Path(f"full_{name}.zarr"))
        write_store(paths[-1], values, SHAPE, EVERY[kind], member=name, activation=kind)
        weights.append([float(r is not None) for r in rows])
    return ek.Ensemble(paths, weights=weights)


SEARCHES: dict[str, tuple[str | Search, ...]] = {
    "sigmoid": ("auto", "compete", "least-area", Search(("post",), trials=40)),
    "softmax": ("auto",),
}


@pytest.mark.slow
def test_n9_searches_and_risk(kind: str, logits: Logits) -> None:
    """What keeps the weights is found as for members of all classes; what fuses anew is refused."""
    union, wanted = ek.Ensemble(["A.zarr", "B.zarr"], classes="union"), full(logits, kind)
    truth = ek.read_masks("truth.npz")
    for search in SEARCHES[kind]:
        found = [ek.tune_thresholds(e, truth, folds=3, search=search) for e in (union, wanted)]
        ours, theirs = (t.to_dict() for t in found)
        assert ours["fusion"].pop("member_classes") == "union"
        for part in ("classes", "rules", "validation"):
            assert ours[part] == theirs[part], search
        assert ours["fusion"]["weights"] == theirs["fusion"]["weights"]
        assert union.as_tuned(found[0]).vote(found[0]) == wanted.as_tuned(found[1]).vote(found[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "weights, temperatures or a mean are given")
        theirs_risk = ek.control_risk(wanted, truth, alpha=0.3)
    risk = ek.control_risk(union, truth, alpha=0.3), theirs_risk  # which warns of nothing: no weights were given
    assert risk[0].levels == risk[1].levels and risk[0].member_classes == "union"
    for what in ("weights", "greedy", "mean"):
        told = refused("classes-differ", 6, "tune-thresholds", *UNION, "--val", "truth.npz", "--search", what)
        assert "--member-classes common" in told
    assert np.array_equal(union.review().expected, wanted.review().expected)


def test_given_weights_are_not_dropped_by_a_search(kind: str, logits: Logits) -> None:
    """Trials begin with equal weights: `--weights` beside them was ignored without a word."""
    both = "A.zarr", "B.zarr", "--member-classes", "common", "--weights", "3,1"
    ek.Ensemble(["A.zarr", "B.zarr"], classes="common", weights=[3, 1]).vote().write("common.npz")
    for what in ("weights", "greedy", "mean"):
        told = refused("option-idle", 2, "tune-thresholds", *both, "--val", "common.npz", "--search", what)
        assert "A 3, B 1" in told
    if kind == "sigmoid":
        common = ek.Ensemble(["A.zarr", "B.zarr"], classes="common", weights=[3, 1])
        tuned = ek.tune_thresholds(common, ek.read_masks("common.npz"), search=Search(("post",), trials=10))
        assert tuned.fusion.weights == common.fusion.weights and tuned.member_classes == "common"


def test_n9_a_stack_takes_the_common_classes(kind: str, logits: Logits) -> None:
    told = refused("classes-differ", 6, "stack", *UNION, "--val", "truth.npz", "--out", "st.zarr")
    assert "--member-classes common" in told
    cut = []
    for name, own in OWN[kind].items():
        rows = [k for k, c in enumerate(own) if all(c in other for other in OWN[kind].values())]
        values = {s: v[rows] for s, v in logits[name].items()}
        cut.append(Path(f"cut_{name}.zarr"))
        write_store(cut[-1], values, SHAPE, [own[k] for k in rows], member=name, activation=kind)
    ours, wanted = ek.Ensemble(["A.zarr", "B.zarr"], classes="common"), ek.Ensemble(cut)
    truth = ek.read_masks("truth.npz").arranged(SAMPLES, ours.classes)
    for name, ensemble in (("ours", ours), ("wanted", wanted)):
        with pytest.warns(UserWarning, match="does not beat the soft mean"):
            ek.fit_stack(ensemble, truth, f"{name}.zarr", folds=3)
    first, second = ek.LogitStore("ours.zarr"), ek.LogitStore("wanted.zarr")
    assert all(np.array_equal(first.read(s), second.read(s)) for s in SAMPLES)


@pytest.mark.slow
def test_n8_folds_beside_members_of_other_classes(kind: str, logits: Logits) -> None:
    """Joined folds are the store of all samples, averaged ones members of half the weight, in every command."""
    joined, same = ("A=fold0.zarr", "A=fold1.zarr", *UNION[1:]), ("A=same0.zarr", "A=same1.zarr", *UNION[1:])
    for name, members in (("whole", UNION), ("joined", joined)):
        ensk("vote", *members, "--out", f"{name}.npz")
        ensk("tune-thresholds", *members, "--val", "truth.npz", "--out", f"{name}.json")
        ensk("fuse", *members, "--out", f"{name}.zarr", "--member", "f")
        ensk("review", *members, "--out", f"{name}.csv")
    for suffix in ("npz", "csv"):
        assert Path(f"whole.{suffix}").read_bytes() == Path(f"joined.{suffix}").read_bytes()
    ours, theirs = (json.loads(Path(f"{name}.json").read_text()) for name in ("joined", "whole"))
    assert ours["classes"] == theirs["classes"] and ours["fusion"]["member_classes"] == "union"
    stores = [ek.LogitStore(f"{name}.zarr") for name in ("whole", "joined")]
    assert all(np.array_equal(*(store.read(s) for store in stores)) for s in SAMPLES)
    ensk("vote", *same, "--thresholds", "joined.json", "--out", "same.npz")
    tuned = ek.ThresholdSet.load("joined.json")
    levels = {s: [fixed_point(np.float16(v + d), kind == "softmax") for d in (np.float16(-0.5), np.float16(0.5))]
              for s, v in logits["A"].items()}  # fmt: skip

    def averaged(s: str) -> np.ndarray:
        own = fixed_point(logits["B"][s], kind == "softmax")
        out = np.zeros((len(EVERY[kind]), *SHAPE), np.int64)
        for c, name in enumerate(EVERY[kind]):
            has_a, has_b = (name in OWN[kind][m] for m in "AB")
            a, b = (16384, 32768) if has_a and has_b else (32768 * has_a, 65536 * has_b)
            if has_a:
                out[c] += a * sum(level[OWN[kind]["A"].index(name)] for level in levels[s])
            if has_b:
                out[c] += b * own[OWN[kind]["B"].index(name)]
        return out

    if kind == "sigmoid":
        wanted = as_set(kind, lambda s: decided(averaged(s), kind, [tuned.levels[c] for c in EVERY[kind]]))
    else:
        factors = np.array([next(f.factor for f in tuned.factors if f.name == c) for c in EVERY[kind]])
        wanted = as_set(kind, lambda s: decided(averaged(s) * factors[:, None, None], kind))
    assert ek.read_masks("same.npz") == wanted


ALONE: dict[str, tuple[Any, ...]] = {
    "verify": ("verify", "u=A.zarr"),
    "repair": ("repair", "u=A.zarr"),
    "score": ("score", "u=A.npz", "--val", "A.npz"),
    "convert": ("convert", "u=A.npz", "--out", "n.npz"),
}


@pytest.mark.parametrize("command", ALONE.values(), ids=ALONE)
def test_n8_a_name_where_one_path_is_taken(
    command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    write_store(Path("A.zarr"), {s: smooth_logits(rng, (1, *SHAPE)) for s in SAMPLES}, SHAPE, ("x",))
    ek.Ensemble("A.zarr").vote().write("A.npz")
    assert f"pass {command[1][2:]}" in refused("path-named", 2, *command)
    ensk(*(command[0], command[1][2:], *command[2:]))
