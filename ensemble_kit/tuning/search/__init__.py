"""The joint search: weights, mean, temperatures, quorum and rules, with the thresholds always at their optimum.

`joint.py` plans and judges; `undecided.py` makes a trial cheap; `studies.py` asks and tells Optuna; `greedy.py`,
`cleaning.py`, `hardvote.py` and `metric_search.py` are searches of their own kind.
"""

from ensemble_kit.tuning.search.joint import Search, describe, tune

__all__ = ["Search", "describe", "tune"]
