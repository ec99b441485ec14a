"""What a search found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ensemble_kit.decisions.areas import LeastArea
from ensemble_kit.decisions.rules import parse_rules
from ensemble_kit.errors import Caution
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.search import cleaning


def describe(tuned: ThresholdSet) -> list[str]:
    """Say in a few sentences what a search found, and what it is worth."""
    s = tuned.search
    if "what" not in s:
        return rules_told(tuned)
    lines = []
    first = tuned.fusion.weights[0]
    shares = ", ".join(f"{n} {w / sum(first):.3f}" for n, w in zip(tuned.fusion.members, first, strict=True))
    if s.get("taken"):
        lines.append(f"Greedy selection took {' '.join(s['taken'])}.")
    elif "best_trial" in s:
        ended = f", ended by {s['stopped']}" if s.get("stopped") else ""
        lines.append(f"Best of {s['trials']} trials ({s['sampler']}): number {s['best_trial']}{ended}.")
    if "pixels" in s:
        lines.append(f"Weights {shares}; mean {tuned.fusion.mean}; temperatures {list(tuned.fusion.temperatures)}.")
        if s["stride"] > 1:
            lines.append(
                f"Trials looked at one pixel of {s['stride'] ** 2} (every {s['stride']} rows and columns) to stay "
                "within the memory budget; all scores shown are exact, on every pixel."
            )
    if "ruled" in s:
        lines += rules_told(tuned)
    elif tuned.rules:
        lines.append(f"Post-processing: {', then '.join(tuned.rules)}.")
    if "exact" in s.get("post", {}):
        lines.append(cleaning.describe(s["post"]["exact"]))
    uniform = s.get("uniform", {}).get("in_sample")
    if uniform is not None:
        lines.append(f"In-sample {tuned.score:.4f}; the uniform ensemble, tuned alike, {uniform:.4f}.")
    nested = s.get("nested")
    if nested:
        value, low, high = nested["gain_over_uniform"]
        lines.append(
            f"Out of fold, the search repeated without each fold: {nested['out_of_fold']:.4f}; uniform "
            f"{nested['uniform_out_of_fold']:.4f}; gain over uniform {value:+.4f} [{low:+.4f}, {high:+.4f}]."
        )
        if low <= 0:
            lines.append(
                "That gain is not above noise: on unseen images the uniform ensemble, without a search, does as well."
            )
    return lines


def rules_told(tuned: ThresholdSet) -> list[str]:
    """Say which rules go with the thresholds, and what they are worth."""
    s = tuned.search.get("ruled")
    if s is None:
        return []
    areas = [rule for rule in parse_rules(tuned.rules) if isinstance(rule, LeastArea) and len(rule.classes or ()) == 1]
    others = [text for text in tuned.rules if text not in set(map(str, areas))]
    told = [*others, *([f"a least area of {len(areas)} of {len(tuned.names)} classes"] if areas else [])]
    lines = [f"Rules with these thresholds: {', then '.join(told) or 'none'}{_range(areas)}."]
    before, crossed = s["without"], tuned.validation.crossed
    if "compete" in s["searched"] and s["ratios_of_folds"]:
        folds = ", ".join("none" if ratio is None else f"{ratio:g}" for ratio in s["ratios_of_folds"])
        lines.append(f"Ratio of competition that each fold's training samples chose: {folds}.")
    if crossed is not None and before["out_of_fold"] is not None:
        lines.append(
            f"With rules and thresholds chosen without each fold {crossed.scores['tuned']:.4f} out of fold; "
            f"thresholds alone {before['out_of_fold']:.4f}."
        )
    return lines


def doubted_rules(tuned: ThresholdSet) -> list[Caution]:
    """Warn where rules that were chosen with the thresholds score less, out of fold, than what needs none."""
    s, crossed = tuned.search.get("ruled"), tuned.validation.crossed
    if s is None or crossed is None or "uniform" in tuned.search or s["without"]["out_of_fold"] is None:
        return []
    ours, others = crossed.scores["tuned"], {"thresholds alone": s["without"]["out_of_fold"]}
    name, best = max({**others, "0.5": crossed.scores["half"]}.items(), key=lambda pair: pair[1])
    if ours >= best - 1e-9:  # a set's file rounds to 9 digits
        return []
    doubt = f"these rules lose to {name} out of fold: {ours:.4f}, {name} {best:.4f}"
    return [Caution(doubt, "tune without them, or with --search auto, which takes only what gains out of fold")]


def _range(areas: Sequence[LeastArea]) -> str:
    """Say between which sizes some least areas lie."""
    if not areas:
        return ""
    first, *_, last = sorted([*areas, *areas], key=lambda rule: (rule.min_area or 0, rule.min_share or 0.0))
    low, high = (str(replace(rule, classes=None)).partition(":")[2] for rule in (first, last))
    unit = "" if low.endswith("%") else " pixels"
    return f" ({low if low == high else f'{low} to {high}'}{unit})"
