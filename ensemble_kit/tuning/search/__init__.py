"""Searches around the exact optimum: weights, mean, temperatures, members and rules, judged out of fold.

`joint.py` plans, `nested.py` judges, `undecided.py` makes a trial cheap, `shared_trials.py` and `kept_counts.py` hold
what folds ask for again, `studies.py` asks and tells Optuna; `greedy.py`, `cleaning.py`, `sizes.py` and
`metric_search.py` are searches of their own kind. Nothing but the facade of `tuning/` and the recipes import from here.
"""
