"""The file of a threshold set, JSON with sorted keys and numbers in full.

`ensk.thresholds/1` holds plain thresholds; `ensk.thresholds/2` also says how the set decides, and the risk that it
controls.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.files import atomic_write
from ensemble_kit.scores.class_sets import ClassSets
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.thresholds.class_file import class_dict, class_from, factor_dict, factor_from
from ensemble_kit.thresholds.crossed_file import crossed_dict, crossed_from
from ensemble_kit.thresholds.fields import as_factor, as_level, as_list, as_object, as_text, as_whole, number, stable
from ensemble_kit.thresholds.guarantee import Guarantee
from ensemble_kit.thresholds.members import MemberRecord
from ensemble_kit.thresholds.records import DecisionRecord, SetFields, Validation

FORMAT, DECIDING = "ensk.thresholds/1", "ensk.thresholds/2"


def write(tuned: SetFields, path: Path) -> None:
    """Write a set; complete, or nothing."""
    text = json.dumps(encode(tuned), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as out:
        out.write(text.encode() + b"\n")


def read(path: Path) -> SetFields:
    """Read a set and check it.

    Raises
    ------
    IncompleteError
        There is no such file.
    DamagedError
        It is not a threshold set, or holds impossible values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        item = f"{str(path)!r} is not a file"
        raise IncompleteError(
            "set-missing", "cannot read a threshold set", item=item, fix="make one with ensk tune-thresholds"
        ) from None
    except UnicodeDecodeError:
        raise _invalid(path, "it is not UTF-8 text") from None
    try:
        d = strict_json.parse(text)
        if d.get("format") not in {FORMAT, DECIDING}:
            raise _invalid(path, f"its format is {d.get('format')!r}, not {FORMAT!r} or {DECIDING!r}")
        return decode(d)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, DamagedError):
            raise
        raise _invalid(path, f"{type(error).__name__}: {error}") from None


def encode(tuned: SetFields) -> dict[str, Any]:
    """Return the content of the file."""
    f, v, m = tuned.fusion, tuned.validation, tuned.measure
    plain = tuned.decision == DecisionRecord() and tuned.guarantee is None
    return {
        "format": FORMAT if plain else DECIDING,
        **({} if plain else {"decision": _decision_dict(tuned)}),
        **({} if tuned.guarantee is None else {"risk": tuned.guarantee.to_dict()}),
        "created": tuned.created,
        "classes": [
            *(class_dict(c, f.mean, v.crossed) for c in tuned.classes),
            *(factor_dict(c, v.crossed) for c in tuned.factors),
        ],
        "fusion": {
            "mean": str(f.mean),
            "upsample": f.upsample,
            "members": [r.to_dict() for r in tuned.members],
            "weights": {name: list(w) for name, w in zip(tuned.names, f.weights, strict=True)},
            **({"original": dict(zip(tuned.names, map(list, f.untold), strict=True))} if f.untold else {}),
            "temperatures": list(f.temperatures),
            **({} if tuned.member_classes == "same" else {"member_classes": tuned.member_classes}),
        },
        "rules": list(tuned.rules),
        "metric": {"name": m.metric, "objective": m.objective, "empty": m.convention.empty, "eps": m.convention.eps},
        "validation": {
            "n": v.n,
            "digest": v.digest,
            **({"seen": list(v.seen)} if v.seen else {}),
            "in_sample": stable(v.in_sample),
            "in_sample_at_half": stable(v.in_sample_at_half),
            "folds": v.crossed.folds if v.crossed else None,
            "out_of_fold": crossed_dict(v.crossed) if v.crossed else None,
        },
        "search": tuned.search,
    }


def _decision_dict(tuned: SetFields) -> dict[str, Any]:
    record = tuned.decision
    if record.kind == "argmax":
        factors = {c.name: c.factor for c in tuned.factors}
        return {"kind": "argmax", "factors": factors, "background": record.background, "least": record.least}
    return {"kind": "rank", "temperature": record.temperature} if record.kind == "rank" else {"kind": "threshold"}


def _decision_from(d: dict[str, Any], names: list[str]) -> tuple[DecisionRecord, dict[str, int]]:
    """Return the record, and the factors of argmax by class."""
    kind, factors = d["kind"], {}
    if kind not in {"threshold", "argmax", "rank"}:
        raise ValueError(f"it decides by {kind!r}")
    background = least = temperature = None
    if kind == "argmax":
        factors = {name: as_factor(w) for name, w in as_object(d["factors"]).items()}
        background, least = d["background"], d["least"]
        if set(factors) != set(names) or background not in (*names, None):
            raise ValueError("its factors or its background are of other classes")
        if least is not None and not 0 <= float(least) <= 1:
            raise ValueError(f"its least probability is {least!r}")
    if kind == "rank":
        temperature = d["temperature"]
        if temperature is not None and not 0 < float(temperature) < math.inf:
            raise ValueError(f"its temperature is {temperature!r}")
    return DecisionRecord(kind, background, least, temperature), factors


def decode(d: dict[str, Any]) -> SetFields:
    """Make the set of what `encode` returned; KeyError, TypeError, ValueError, … where it is something else."""
    f, m, v = d["fusion"], d["metric"], d["validation"]
    names = [c["name"] for c in d["classes"]]
    if len(set(names)) != len(names) or set(f["weights"]) != set(names):
        raise ValueError("it names a class twice, or its weights are of other classes")
    decision, factors, guarantee = DecisionRecord(), dict[str, int](), None
    if d["format"] == DECIDING:
        decision, factors = _decision_from(d["decision"], names)
        if "risk" in d:
            guarantee = Guarantee.from_dict(d["risk"], {c["name"]: c["level"] for c in d["classes"]})
            if decision.kind != "threshold":
                raise ValueError(f"it controls a risk but decides by {decision.kind!r}")
    members = [MemberRecord.from_dict(r) for r in f["members"]]
    weights = tuple(tuple(as_whole(w) for w in f["weights"][n]) for n in names)
    temperatures = tuple(float(t) for t in f["temperatures"])
    member_classes = f.get("member_classes", "same")
    if member_classes not in get_args(ClassSets):
        raise ValueError(f"it was tuned for the classes {member_classes!r} of its members")
    original = tuple(tuple(number(w) for w in f["original"][n]) for n in names) if "original" in f else ()
    fusion = Fusion(Mean.of(f["mean"]), f["upsample"], tuple(r.name for r in members), weights, temperatures, original)
    if fusion.upsample not in {"logits", "scores"}:
        raise ValueError(f"its upsampling is {fusion.upsample!r}")
    if any(len(w) != len(members) or sum(w) != LEVELS or min(w) < 0 for w in weights):
        raise ValueError("its weights do not add up to 65536 over its members")
    if len(temperatures) != len(members) or not all(0 < t < math.inf for t in temperatures):
        raise ValueError(f"its temperatures are {list(temperatures)} for {len(members)} members")
    fitted = as_object(d["search"]).get("scaling")
    if fitted is not None and not 0 < float(fitted["temperature"]) < math.inf:
        raise ValueError(f"its fitted temperature is {fitted['temperature']!r}")
    crossed = None
    if v["out_of_fold"] is not None:
        check = as_factor if factors else as_level
        crossed = crossed_from(v["folds"], v["out_of_fold"], {c["name"]: c["folds"] for c in d["classes"]}, check)
    return SetFields(
        () if factors else tuple(class_from(c, fusion.mean) for c in d["classes"]),
        fusion,
        tuple(members),
        Measure(m["objective"], m["name"], Convention(m["eps"], m["empty"])),
        Validation(
            int(v["n"]),
            as_text(v["digest"]),
            number(v["in_sample"]),
            number(v["in_sample_at_half"]),
            crossed,
            tuple(as_text(digest) for digest in as_list(v.get("seen", []))),
        ),
        as_object(d["search"]),
        as_text(d["created"]),
        tuple(as_text(r) for r in as_list(d["rules"])),
        tuple(factor_from(c, factors[c["name"]]) for c in d["classes"] if factors),
        decision,
        guarantee,
        member_classes,
    )


def _invalid(path: Path, why: str) -> DamagedError:
    return DamagedError(
        "set-invalid",
        "cannot read a threshold set",
        item=f"{str(path)!r}: {why}",
        fix="make it again with ensk tune-thresholds; a threshold of your own is a number: --thresholds 0.4",
    )
