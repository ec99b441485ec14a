"""The same jobs as other people's code does them, each at its best; what is not installed is left out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Job = Callable[[], Any]


def optional(name: str) -> Any:
    """Import a module, or give None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# --- RLE text ------------------------------------------------------------------------------------------------


def classic_text(mask: NDArray[Any]) -> str:
    """The snippet of every Kaggle notebook."""
    pixels = np.concatenate([[0], mask.reshape(-1), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def tuned_text(mask: NDArray[Any]) -> str:
    """The same, as a person who knows NumPy writes it."""
    pixels = np.zeros(mask.size + 2, np.bool_)
    pixels[1:-1] = mask.reshape(-1)
    runs = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs[1::2] -= runs[::2]
    return " ".join(map(str, runs.tolist()))


def rlemasklib_text(mask: NDArray[Any]) -> str:
    """rlemasklib counts down columns, so that the transpose of a C-ordered mask is its fast input."""
    counts = np.asarray(optional("rlemasklib").RLEMask.from_array(mask.T).counts)
    ends = np.cumsum(counts)
    pairs = np.empty(2 * (counts.size // 2), np.int64)
    pairs[0::2], pairs[1::2] = ends[0 : 2 * (counts.size // 2) : 2] + 1, counts[1::2]
    return " ".join(map(str, pairs.tolist()))


def notebook_parse(text: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The decoder of the same notebooks."""
    numbers = np.asarray(text.split(), int)
    out = np.zeros(shape[0] * shape[1], np.uint8)
    for start, length in zip(numbers[0::2] - 1, numbers[1::2], strict=True):
        out[start : start + length] = 1
    return out.reshape(shape)


def numpy_parse(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Runs, without drawing them."""
    numbers = np.fromstring(text, np.int64, sep=" ")
    return numbers[0::2] - 1, numbers[0::2] - 1 + numbers[1::2]


# --- soft votes ----------------------------------------------------------------------------------------------


def soft_rivals(
    members: Sequence[NDArray[np.float16]], plane: int, upsample: str, text: Callable[[NDArray[Any]], str]
) -> dict[str, Job]:
    """Members (C, h, w) → mean of sigmoids at `plane` → one RLE text a class."""
    torch, cv2, monai = optional("torch"), optional("cv2"), optional("monai.transforms")
    jobs: dict[str, Job] = {}
    C = members[0].shape[0]
    few, size = min(C, 4), (plane, plane)

    if torch is not None:
        tensors = [torch.from_numpy(m) for m in members]
        interpolate = torch.nn.functional.interpolate

        def up(t: Any) -> Any:
            return interpolate(t, size, mode="bilinear", align_corners=False)

        def naive() -> list[str]:
            stack = torch.stack([torch.sigmoid(up(t[None, :few].float()))[0] for t in tensors])
            return [classic_text(m) for m in (stack.mean(0) > 0.5).numpy().astype(np.uint8)]

        def best_scores() -> list[str]:
            out = []
            for c in range(C):
                p = torch.zeros(members[0].shape[1:])
                for t in tensors:
                    p += torch.sigmoid(t[c].float())
                out.append(text((up(p[None, None])[0, 0] >= 0.5 * len(tensors)).numpy()))
            return out

        def best_logits() -> list[str]:
            out = []
            for c in range(C):
                z = up(torch.stack([t[c] for t in tensors])[:, None].float())
                out.append(text((z.sigmoid_().mean((0, 1)) >= 0.5).numpy()))
            return out

        jobs["torch, as people write it"] = scaled(naive, C / few)  # all 29 classes at once take 8 GB
        jobs["torch, class by class"] = best_scores if upsample == "scores" else best_logits

    if cv2 is not None and upsample == "scores":

        def opencv() -> list[str]:
            out = []
            for c in range(C):
                p = np.zeros(members[0].shape[1:], np.float32)
                for m in members:
                    z = m[c].astype(np.float32)
                    p += 1 / (1 + np.exp(-z))
                out.append(text(cv2.resize(p, size, interpolation=cv2.INTER_LINEAR) >= 0.5 * len(members)))
            return out

        jobs["NumPy + OpenCV"] = opencv

    if monai is not None and torch is not None and upsample == "scores":
        ensemble = monai.MeanEnsemble()

        def mean_ensemble() -> list[str]:
            p = up(ensemble([torch.sigmoid(t.float()) for t in tensors])[None])[0]
            return [text(m) for m in (p >= 0.5).numpy()]

        jobs["MONAI MeanEnsemble"] = mean_ensemble
    return jobs


# --- hard votes ----------------------------------------------------------------------------------------------


def hard_rivals(masks: Sequence[Sequence[NDArray[np.bool_]]]) -> dict[str, Job]:
    """Masks by member and class → the majority of each class; members' masks are in each library's own form."""
    jobs: dict[str, Job] = {}
    M, C = len(masks), len(masks[0])
    rlemasklib, monai, torch = optional("rlemasklib"), optional("monai.transforms"), optional("torch")
    if rlemasklib is not None:
        coded = [[rlemasklib.RLEMask.from_array(masks[m][c].T) for m in range(M)] for c in range(C)]
        jobs["rlemasklib"] = lambda: [rlemasklib.RLEMask.merge_count(row, M // 2 + 1) for row in coded]
    few = range(min(C, 2))  # dense rivals are hundreds of times slower: two classes tell enough
    stacks = [np.stack([masks[m][c] for m in range(M)]).view(np.uint8) for c in few]
    jobs["NumPy bytes"] = scaled(lambda: [s.sum(axis=0, dtype=np.uint8) > M // 2 for s in stacks], C / len(few))
    if monai is not None and torch is not None:
        vote, tensors = monai.VoteEnsemble(), [torch.from_numpy(s) for s in stacks]
        jobs["MONAI VoteEnsemble"] = scaled(lambda: [vote(list(t)) for t in tensors], C / len(few))
    return jobs


def scaled(job: Job, factor: float) -> Job:
    """Mark a job that does one part in `factor` of the work; its time is multiplied by it."""
    job.factor = factor  # type: ignore[attr-defined]
    return job


# --- thresholds ----------------------------------------------------------------------------------------------


def threshold_trial(levels: NDArray[np.uint16], truth: NDArray[np.bool_]) -> Job:
    """Score one vector of thresholds from ready scores (samples, C, h, w), as a study's objective does."""

    def trial() -> float:
        dice = []
        for own, wanted in zip(levels, truth, strict=True):
            on = own >= 32768
            both = np.logical_and(on, wanted).sum((1, 2))
            dice.append(2 * both / np.maximum(on.sum((1, 2)) + wanted.sum((1, 2)), 1))
        return float(np.mean(dice))

    return trial


def sklearn_curve(levels: NDArray[np.uint16], truth: NDArray[np.bool_]) -> Job | None:
    """All thresholds of one class by scikit-learn: of pooled pixels, which is another objective, one class of C."""
    metrics = optional("sklearn.metrics")
    if metrics is None:
        return None
    C = levels.shape[1]
    own, wanted = levels[:, 0].reshape(-1).astype(np.float32), truth[:, 0].reshape(-1)
    return scaled(lambda: metrics.precision_recall_curve(wanted, own), C)


def optuna_study(levels: NDArray[np.uint16], truth: NDArray[np.bool_], trials: int) -> Job | None:
    """A study of `trials` trials that re-thresholds all pixels in each, one threshold a class."""
    optuna = optional("optuna")
    if optuna is None:
        return None

    def study() -> float:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        made = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))

        def objective(trial: Any) -> float:
            at = np.array([trial.suggest_int(f"t{c}", 1, 65535) for c in range(levels.shape[1])], np.uint16)
            on = levels >= at[None, :, None, None]
            both = (on & truth).sum((2, 3))
            return float(np.mean(2 * both / np.maximum(on.sum((2, 3)) + truth.sum((2, 3)), 1)))

        made.optimize(objective, n_trials=trials)
        return float(made.best_value)

    return study
