"""What decides: options, sets and defaults, from Python and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.recorded import recorded
from ensemble_kit.masks.cover import cover
from ensemble_kit.recipes.deciding import Deciding
from ensemble_kit.recipes.hard_vote import HardVote
from ensemble_kit.recipes.members import members_of
from ensemble_kit.recipes.vote import SoftVote
from ensemble_kit.thresholds.comparison import SetComparison
from ensemble_kit.thresholds.records import ClassFactor, DecisionRecord

Make = Callable[..., ek.LogitStore]
CLASSES = ("background", "liver", "spleen")
IMAGE = (40, 52)
FACTORS = {"background": 65536, "liver": 32768, "spleen": 131072}


def ensk(*arguments: object) -> None:
    app([*map(str, arguments)], standalone_mode=False)


@pytest.fixture
def stores(make_store: Make, rng: np.random.Generator) -> list[ek.LogitStore]:
    samples = ("a", "b", "c")
    return [
        make_store(
            {s: smooth_logits(rng, (3, 10, 13)) for s in samples},
            IMAGE,
            CLASSES,
            activation="softmax",
            name=n,
            member=n,
        )
        for n in ("m", "n")
    ]


@pytest.fixture
def ens(stores: list[ek.LogitStore]) -> ek.Ensemble:
    return ek.Ensemble(stores)


@pytest.fixture
def thresholds(ens: ek.Ensemble) -> ek.ThresholdSet:
    return ek.tune_thresholds(ens, ens.vote(), decide="threshold")


@pytest.fixture
def factors(thresholds: ek.ThresholdSet) -> ek.ThresholdSet:
    own = tuple(ClassFactor(c, w, 0.5, 0.25, (w, w + 9), 3, 3) for c, w in FACTORS.items())
    return replace(thresholds, classes=(), factors=own, decision=DecisionRecord("argmax", "background", 0.4))


def read(path: Path, ens: ek.Ensemble, classes: tuple[str, ...] = CLASSES) -> ek.MaskSet:
    return ek.read_masks(path, image_size={s: ens.image_size(s) for s in ens.samples}, classes=classes)


def test_softmax_stores_are_decided_by_argmax_and_it_is_said(
    stores: list[ek.LogitStore], ens: ek.Ensemble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensk("vote", *(s.path for s in stores), "--out", tmp_path / "out.csv")
    assert "decided by argmax: the stores are softmax" in capsys.readouterr().err
    assert read(tmp_path / "out.csv", ens) == ens.vote()


def test_thresholds_of_softmax_stores_tell_what_they_leave(
    stores: list[ek.LogitStore], ens: ek.Ensemble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensk("vote", *(s.path for s in stores), "--decide", "threshold", "--out", tmp_path / "out.csv", "--json")
    out, err = capsys.readouterr()
    masks = ens.vote(0.5)
    assert read(tmp_path / "out.csv", ens) == masks
    count = np.array([[masks[s, c].decode() for c in CLASSES] for s in ens.samples]).sum(1)
    found = cover(masks)
    assert found == ((count == 0).mean(), (count > 1).mean())
    assert found.none > 0
    assert f"{found.none:.2%} of the pixels have no class" in err
    assert json.loads(out)["without_class"] == found.none


def test_background_and_least(stores: list[ek.LogitStore], ens: ek.Ensemble, tmp_path: Path) -> None:
    """A submission of the foreground alone: the background takes its pixels and is not written."""
    like = tmp_path / "like.csv"
    like.write_text("image_name,class,rle\n" + "".join(f"{s},{c},\n" for s in "abc" for c in CLASSES[1:]))
    options = "--background", "background", "--least", "0.5", "--like", like
    ensk("vote", *(s.path for s in stores), *options, "--out", tmp_path / "out.csv")
    wanted = ens.vote(ek.Argmax(background="background", least=0.5))
    assert read(tmp_path / "out.csv", ens, CLASSES[1:]) == wanted


def test_a_set_decides_as_it_says(
    stores: list[ek.LogitStore], ens: ek.Ensemble, factors: ek.ThresholdSet, thresholds: ek.ThresholdSet, tmp_path: Path
) -> None:
    path = tmp_path / "set.json"
    factors.save(path)
    wanted = ens.vote(ek.Argmax({c: w / 65536 for c, w in FACTORS.items()}, "background", 0.4))
    assert ens.vote(factors) == wanted
    assert wanted.classes == CLASSES[1:]
    ensk("vote", *(s.path for s in stores), "--thresholds", path, "--out", tmp_path / "out.csv")
    assert read(tmp_path / "out.csv", ens, CLASSES[1:]) == wanted
    ranked = replace(thresholds, decision=DecisionRecord("rank", temperature=1.5))
    assert ens.vote(ranked) == ens.vote(ek.RankRule(1.5, thresholds.measure.convention))


DECIDED: dict[str, tuple[dict[str, Any], Callable[[ek.ThresholdSet, ek.ThresholdSet], object]]] = {
    "default": ({}, lambda t, f: ek.Argmax()),
    "number": ({"threshold": 0.25}, lambda t, f: ek.Thresholds(16384)),
    "threshold": ({"kind": "threshold"}, lambda t, f: ek.Thresholds(32768)),
    "argmax": ({"kind": "argmax", "least": 0.1}, lambda t, f: ek.Argmax(least=0.1)),
    "rank": ({"kind": "rank", "temperature": 2.0}, lambda t, f: ek.RankRule(2.0)),
    "set of thresholds": ({"threshold": "t"}, lambda t, f: ek.Thresholds(t.levels)),
    "set of thresholds, argmax": ({"threshold": "t", "kind": "argmax"}, lambda t, f: ek.Argmax()),
    "set of factors": ({"threshold": "f"}, lambda t, f: recorded(f)),
    "set of factors, another background": (
        {"threshold": "f", "background": "liver"},
        lambda t, f: ek.Argmax({c: w / 65536 for c, w in FACTORS.items()}, "liver", 0.4),
    ),
    "set of factors, rank": ({"threshold": "f", "kind": "rank"}, lambda t, f: ek.RankRule()),
}


@pytest.mark.parametrize("case", DECIDED.values(), ids=DECIDED)
def test_words_and_sets_become_a_decision(
    case: Any, ens: ek.Ensemble, thresholds: ek.ThresholdSet, factors: ek.ThresholdSet
) -> None:
    options, wanted = case
    sets = {"t": thresholds, "f": factors}
    given = {k: sets.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    assert Deciding(**given).of(ens) == wanted(thresholds, factors)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "best"}, "--decide 'best'"),
        ({"kind": "argmax", "threshold": 0.5}, "cannot decide by argmax"),
        ({"kind": "rank", "threshold": 0.5}, "cannot decide by rank"),
        ({"threshold": 0.5, "background": "liver"}, "--background"),
        ({"kind": "rank", "least": 0.5}, "--least"),
        ({"kind": "argmax", "temperature": 2.0}, "--rank-temperature"),
        ({"kind": "threshold", "threshold": "f"}, "the set decides by argmax"),
    ],
    ids=["unknown", "argmax of a number", "rank of a number", "background", "least", "temperature", "no thresholds"],
)
def test_what_does_not_go_together(
    options: dict[str, Any], words: str, ens: ek.Ensemble, factors: ek.ThresholdSet
) -> None:
    given = {k: factors if v == "f" else v for k, v in options.items()}
    with pytest.raises(ek.UsageError, match=words):
        Deciding(**given).of(ens)


def test_hard_votes_decide_stores_as_soft_ones_do(stores: list[ek.LogitStore], ens: ek.Ensemble) -> None:
    paths = tuple(members_of([Path(str(s.path)) for s in stores]))
    deciding = Deciding(kind="argmax", background="background")
    voted = HardVote(paths, (None,), {"quorum": 1}, {}, deciding=deciding).run().whole()
    own = [ek.Ensemble([s]).vote(ek.Argmax(background="background")) for s in stores]
    assert voted == ek.hard_vote(own, quorum=1)
    assert SoftVote.of(ens, Deciding()).names().extent == ens.vote().extent


# --- the file --------------------------------------------------------------------------------------------------


def schema() -> Any:
    return json.loads((Path(__file__).parent.parent / "thresholds/schema.json").read_text())


def test_sets_say_how_they_decide(thresholds: ek.ThresholdSet, factors: ek.ThresholdSet, tmp_path: Path) -> None:
    import jsonschema

    ranked = replace(thresholds, decision=DecisionRecord("rank", temperature=1.5))
    for number, made in ((1, thresholds), (2, factors), (2, ranked)):
        made.save(tmp_path / "set.json")
        raw = json.loads((tmp_path / "set.json").read_text())
        jsonschema.validate(raw, schema())
        assert raw["format"] == f"ensk.thresholds/{number}"
        again = ek.ThresholdSet.load(tmp_path / "set.json")
        assert again == made
        assert again.decision == made.decision
        assert (again.classes, again.factors) == (made.classes, made.factors)
    assert factors.to_dict()["decision"] == {
        "kind": "argmax", "factors": FACTORS, "background": "background", "least": 0.4,
    }  # fmt: skip
    assert factors.per_class == dict.fromkeys(CLASSES, 0.5)
    assert "factor" in str(factors.report())


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "vote"}, {"factors": {"liver": 1}}, {"factors": {**FACTORS, "liver": 0}},
        {"factors": {**FACTORS, "liver": 1.5}}, {"background": "kidney"}, {"least": 2},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_decisions_are_damage(change: dict[str, Any], factors: ek.ThresholdSet, tmp_path: Path) -> None:
    raw = factors.to_dict()
    raw["decision"] = {**raw["decision"], **change}
    (tmp_path / "set.json").write_text(json.dumps(raw))
    with pytest.raises(ek.DamagedError):
        ek.ThresholdSet.load(tmp_path / "set.json")


def test_sets_of_two_kinds_are_compared(
    thresholds: ek.ThresholdSet, factors: ek.ThresholdSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = SetComparison(thresholds, factors)
    assert compared.differences["decision"] == ("threshold", "argmax")
    assert "threshold" not in compared.to_dict()["classes"][0]
    own = SetComparison(factors, factors).to_dict()["classes"][1]
    assert own["factor"] == [0.5, 0.5]
    factors.save(tmp_path / "f.json")
    thresholds.save(tmp_path / "t.json")
    ensk("inspect", tmp_path / "f.json")
    ensk("inspect", tmp_path / "f.json", tmp_path / "t.json")
    shown = "".join(capsys.readouterr())
    assert "'background' is not written" in shown
    assert "factor A" in shown
