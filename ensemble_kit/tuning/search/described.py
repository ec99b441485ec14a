"""What a search found, in sentences."""

from __future__ import annotations

from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.search import cleaning


def describe(tuned: ThresholdSet) -> list[str]:
    """Say in a few sentences what a search found, and what it is worth."""
    s = tuned.search
    if "what" not in s:
        return []
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
    if tuned.rules:
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
