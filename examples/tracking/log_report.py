"""Log a threshold set, its figures and its report to MLflow or Weights & Biases, as one run.

    ensk report demo.json unet.zarr fpn.zarr --val masks --images images --out report.html
    python log_report.py mlflow demo.json report.html submission.csv
    python log_report.py wandb demo.json report.html submission.csv

Where runs are kept is said as always: MLFLOW_TRACKING_URI, or WANDB_MODE=offline and WANDB_DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ensemble_kit as ek


def parameters(tuned: ek.ThresholdSet) -> dict[str, Any]:
    """What was combined, and how."""
    validation = tuned.validation
    found: dict[str, Any] = {"mean": str(tuned.fusion.mean), "upsample": tuned.fusion.upsample}
    found["members"] = ", ".join(m.name for m in tuned.members)
    found |= {"decision": tuned.decision.kind, "metric": tuned.measure.name, "samples": validation.n}
    return found | {"samples.digest": validation.digest, "created": tuned.created}


def figures(tuned: ek.ThresholdSet) -> dict[str, float]:
    """The score as the set has it: on the samples that chose it, out of fold, and of each class."""
    validation = tuned.validation
    found = {"in_sample": tuned.score, "in_sample_at_half": validation.in_sample_at_half}
    if validation.crossed is not None:
        found["out_of_fold"] = validation.crossed.scores["tuned"]
    for name, interval in (("gain_on_new", tuned.gain_on_new), ("score_on_new", tuned.score_on_new)):
        if interval is not None:
            found |= {name: interval.value, f"{name}.low": interval.low, f"{name}.high": interval.high}
    return found


def table(tuned: ek.ThresholdSet) -> list[list[Any]]:
    """A row for each class: its name, its score, and its threshold or factor."""
    thresholds = tuned.thresholds or {c.name: c.factor / 65536 for c in tuned.factors}
    return [[name, score, thresholds[name]] for name, score in tuned.per_class.items()]


COLUMNS = ["class", "score", "threshold or factor"]


def to_mlflow(tuned: ek.ThresholdSet, files: Mapping[str, Path], name: str) -> str:
    import mlflow

    with mlflow.start_run(run_name=name) as run:
        mlflow.log_params(parameters(tuned))
        mlflow.log_metrics(figures(tuned))
        mlflow.log_dict({"columns": COLUMNS, "data": table(tuned)}, "classes.json")
        for path in files.values():
            mlflow.log_artifact(str(path))  # report.html opens in the tab Artifacts
    return str(run.info.run_id)


def to_wandb(tuned: ek.ThresholdSet, files: Mapping[str, Path], name: str) -> str:
    import wandb

    with wandb.init(project="ensemble", name=name, config=parameters(tuned)) as run:
        classes = wandb.Table(columns=COLUMNS, data=table(tuned))
        page = wandb.Html(str(files["report"]), inject=False)  # its own styles; it runs no script of others
        run.log({"report": page, "classes": classes} | figures(tuned))
        kept = wandb.Artifact(f"{name}-answer", type="answer")
        for path in files.values():
            kept.add_file(str(path))
        run.log_artifact(kept)
    return str(run.id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to", choices=("mlflow", "wandb"))
    parser.add_argument("set", type=Path, help="the threshold set, a JSON of ensk tune-thresholds")
    parser.add_argument("report", type=Path, help="the page of ensk report")
    parser.add_argument("answer", type=Path, nargs="?", help="the submission or masks of ensk vote")
    asked = parser.parse_args()
    files = {"set": asked.set, "report": asked.report}
    if asked.answer is not None:
        files["answer"] = asked.answer
    log = to_mlflow if asked.to == "mlflow" else to_wandb
    print(f"logged as {asked.to} run", log(ek.ThresholdSet.load(asked.set), files, asked.set.stem))


if __name__ == "__main__":
    main()
