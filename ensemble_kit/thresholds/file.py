"""The file of a threshold set, JSON with sorted keys and numbers in full.

`ensk.thresholds/1` holds plain thresholds; `ensk.thresholds/2` also says how the set decides.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json
from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.files import atomic_write
from ensemble_kit.spec.factors import LEAST, MOST
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.mean import LEVELS, Mean
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.thresholds.crossed import UNKNOWN, ClassFolds, CrossValidation, Interval
from ensemble_kit.thresholds.records import (
    Calibration,
    ClassFactor,
    ClassThreshold,
    DecisionRecord,
    MemberRecord,
    SetFields,
    Validation,
)

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
        return _decode(d)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, DamagedError):
            raise
        raise _invalid(path, f"{type(error).__name__}: {error}") from None


def encode(tuned: SetFields) -> dict[str, Any]:
    """Return the content of the file."""
    f, v, m = tuned.fusion, tuned.validation, tuned.measure
    plain = tuned.decision == DecisionRecord()
    return {
        "format": FORMAT if plain else DECIDING,
        **({} if plain else {"decision": _decision_dict(tuned)}),
        "created": tuned.created,
        "classes": [
            *(_class_dict(c, f.mean, v.crossed) for c in tuned.classes),
            *(_factor_dict(c, v.crossed) for c in tuned.factors),
        ],
        "fusion": {
            "mean": str(f.mean),
            "upsample": f.upsample,
            "members": [{"name": r.name, "fingerprint": r.fingerprint, "model": r.model} for r in tuned.members],
            "weights": {name: list(w) for name, w in zip(tuned.names, f.weights, strict=True)},
            "temperatures": list(f.temperatures),
        },
        "rules": list(tuned.rules),
        "metric": {"name": m.metric, "objective": m.objective, "empty": m.convention.empty, "eps": m.convention.eps},
        "validation": {
            "n": v.n,
            "digest": v.digest,
            "in_sample": _stable(v.in_sample),
            "in_sample_at_half": _stable(v.in_sample_at_half),
            "folds": v.crossed.folds if v.crossed else None,
            "out_of_fold": _crossed_dict(v.crossed) if v.crossed else None,
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
        factors = {name: _factor(w) for name, w in _object(d["factors"]).items()}
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


def _factor_dict(c: ClassFactor, crossed: CrossValidation | None) -> dict[str, Any]:
    return {
        "name": c.name,
        "factor": c.factor / 65536,
        "score": _stable(c.score),
        "score_at_one": _stable(c.score_at_one),
        "plateau": list(c.plateau),
        "positives": c.positives,
        "samples": c.samples,
        "folds": _folds_dict(c.name, crossed),
    }


def _factor_from(c: dict[str, Any], factor: int) -> ClassFactor:
    _check_told(c, "factor", factor, lambda told: math.floor(65536 * told + 0.5), factor / 65536)
    return ClassFactor(
        c["name"],
        factor,
        _number(c["score"]),
        _number(c["score_at_one"]),
        (_factor(c["plateau"][0]), _factor(c["plateau"][1])),
        int(c["positives"]),
        int(c["samples"]),
    )


def _class_dict(c: ClassThreshold, mean: Mean, crossed: CrossValidation | None) -> dict[str, Any]:
    return {
        "name": c.name,
        "level": c.level,
        "threshold": _stable(mean.probability_of(c.level)),
        "score": _stable(c.score),
        "score_at_half": _stable(c.score_at_half),
        "plateau": list(c.plateau),
        "positives": c.positives,
        "samples": c.samples,
        "band": list(c.band),
        "calibration": {"threshold": _stable(c.calibration.threshold), "half_dice": _stable(c.calibration.half_dice)},
        "folds": _folds_dict(c.name, crossed),
    }


def _folds_dict(name: str, crossed: CrossValidation | None) -> dict[str, Any] | None:
    if crossed is None:
        return None
    own = crossed.classes[name]
    return {
        "levels": list(own.levels),
        "gain": _interval_list(own.gain),
        "keeps": own.keeps,
        "score": _stable(own.score),
    }


def _decode(d: dict[str, Any]) -> SetFields:
    f, m, v = d["fusion"], d["metric"], d["validation"]
    names = [c["name"] for c in d["classes"]]
    if len(set(names)) != len(names) or set(f["weights"]) != set(names):
        raise ValueError("it names a class twice, or its weights are of other classes")
    decision, factors = DecisionRecord(), dict[str, int]()
    if d["format"] == DECIDING:
        decision, factors = _decision_from(d["decision"], names)
    members = [
        MemberRecord(_text(r["name"]), _text(r["fingerprint"]), None if r["model"] is None else _text(r["model"]))
        for r in f["members"]
    ]
    weights = tuple(tuple(_whole(w) for w in f["weights"][n]) for n in names)
    temperatures = tuple(float(t) for t in f["temperatures"])
    fusion = Fusion(Mean.of(f["mean"]), f["upsample"], tuple(r.name for r in members), weights, temperatures)
    if fusion.upsample not in {"logits", "scores"}:
        raise ValueError(f"its upsampling is {fusion.upsample!r}")
    if any(len(w) != len(members) or sum(w) != LEVELS or min(w) < 0 for w in weights):
        raise ValueError("its weights do not add up to 65536 over its members")
    if len(temperatures) != len(members) or not all(0 < t < math.inf for t in temperatures):
        raise ValueError(f"its temperatures are {list(temperatures)} for {len(members)} members")
    fitted = _object(d["search"]).get("scaling")
    if fitted is not None and not 0 < float(fitted["temperature"]) < math.inf:
        raise ValueError(f"its fitted temperature is {fitted['temperature']!r}")
    crossed = None
    if v["out_of_fold"] is not None:
        check = _factor if factors else _level
        crossed = _crossed_from(v["folds"], v["out_of_fold"], {c["name"]: c["folds"] for c in d["classes"]}, check)
    return SetFields(
        () if factors else tuple(_class_from(c, fusion.mean) for c in d["classes"]),
        fusion,
        tuple(members),
        Measure(m["objective"], m["name"], Convention(m["eps"], m["empty"])),
        Validation(int(v["n"]), _text(v["digest"]), _number(v["in_sample"]), _number(v["in_sample_at_half"]), crossed),
        _object(d["search"]),
        _text(d["created"]),
        tuple(_text(r) for r in _list(d["rules"])),
        tuple(_factor_from(c, factors[c["name"]]) for c in d["classes"] if factors),
        decision,
    )


def _class_from(c: dict[str, Any], mean: Mean) -> ClassThreshold:
    level = _level(c["level"])
    _check_told(c, "threshold", level, mean.level_of, mean.probability_of(level))
    return ClassThreshold(
        _text(c["name"]),
        level,
        _number(c["score"]),
        _number(c["score_at_half"]),
        (_level(c["plateau"][0]), _level(c["plateau"][1])),
        int(c["positives"]),
        int(c["samples"]),
        (int(c["band"][0]), int(c["band"][1])),
        Calibration(_number(c["calibration"]["threshold"]), _number(c["calibration"]["half_dice"])),
    )


def _check_told(c: dict[str, Any], key: str, decides: int, meant: Callable[[float], int], value: float) -> None:
    """Refuse a number beside the integer that decides and not the same: somebody has edited one of the two."""
    told = c.get(key)
    if told is not None and meant(float(told)) != decides and not math.isclose(float(told), value, rel_tol=1e-9):
        raise ValueError(f"class {c['name']!r} has {key} {told!r}, but {decides} decides, which is {value!r}")


def _crossed_dict(crossed: CrossValidation) -> dict[str, Any]:
    return {
        "groups": crossed.groups,
        "shrink": crossed.shrink,
        "scores": {name: _stable(score) for name, score in crossed.scores.items()},
        "gain": _interval_list(crossed.gain),
        "as_decided": None if crossed.as_decided is None else _interval_list(crossed.as_decided),
        "score": None if crossed.score is None else _interval_list(crossed.score),
        "common_level": crossed.common_level,
    }


def _crossed_from(
    folds: int, d: dict[str, Any], classes: dict[str, dict[str, Any]], check: Callable[[object], int]
) -> CrossValidation:
    return CrossValidation(
        int(folds),
        int(d["groups"]),
        bool(d["shrink"]),
        {name: _number(score) for name, score in d["scores"].items()},
        _interval_from(d["gain"]),
        check(d["common_level"]),
        {
            name: ClassFolds(
                tuple(check(v) for v in c["levels"]), _interval_from(c["gain"]), bool(c["keeps"]), _number(c["score"])
            )
            for name, c in classes.items()
        },
        _interval_or_none(d["as_decided"]) if "as_decided" in d else UNKNOWN if d["shrink"] else None,
        _interval_or_none(d.get("score")),
    )


def _interval_list(interval: Interval) -> list[float | None]:
    return [_stable(interval.value), _stable(interval.low), _stable(interval.high)]


def _interval_from(values: list[float | None]) -> Interval:
    value, low, high = (_number(v) for v in values)
    return Interval(value, low, high)


def _interval_or_none(values: list[float | None] | None) -> Interval | None:
    return None if values is None else _interval_from(values)


def _stable(value: float) -> float | None:
    """Return a number in full, since a loaded score must still equal the vote's; None for NaN."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _level(value: object) -> int:
    if type(value) is not int or not 0 <= value < LEVELS:
        raise ValueError(f"level {value!r} is not in 0 … 65535")
    return value


def _factor(value: object) -> int:
    if type(value) is not int or not LEAST <= value <= MOST:
        raise ValueError(f"factor {value!r} is not in {LEAST} … {MOST}")
    return value


def _invalid(path: Path, why: str) -> DamagedError:
    return DamagedError(
        "set-invalid",
        "cannot read a threshold set",
        item=f"{str(path)!r}: {why}",
        fix="make it again with ensk tune-thresholds; a threshold of your own is a number: --thresholds 0.4",
    )
