"""The same jobs as other people's code does them, each at its best; what is not installed is left out."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
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


COCO_LIBRARIES = ("pycocotools", "faster-coco-eval", "hotcoco", "ultrafast-pycocotools")


def coco_library(name: str) -> Any:
    """Import the part of a library that does what `pycocotools.mask` does, or give None."""
    modules = {"pycocotools": "pycocotools.mask", "faster-coco-eval": "faster_coco_eval.core.mask"}
    return optional(modules.get(name, f"{name.replace('-', '_')}.mask"))


def scaled(job: Job, factor: float) -> Job:
    """Mark a job that does one part in `factor` of the work; its time is multiplied by it."""
    job.factor = factor  # type: ignore[attr-defined]
    return job


def together(parts: Sequence[dict[str, Job]]) -> dict[str, Job]:
    """Make of each part's jobs those that do all parts, one after the other."""
    out = {}
    for name, first in parts[0].items():
        every = [part[name] for part in parts]
        out[name] = scaled(lambda every=every: [job() for job in every], getattr(first, "factor", 1.0))
    return out


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
    return counts_text(optional("rlemasklib").RLEMask.from_array(mask.T).counts)


def counts_text(counts: Any) -> str:
    """Write counts of zeros and ones in turn as starts and lengths, by NumPy."""
    counts = np.asarray(counts)
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
    members: Sequence[NDArray[np.float16]], plane: tuple[int, int], upsample: str, text: Callable[[NDArray[Any]], str]
) -> dict[str, Job]:
    """Members (C, h, w) → mean of sigmoids at `plane` (H, W) → one RLE text a class."""
    torch, cv2, monai = optional("torch"), optional("cv2"), optional("monai.transforms")
    jobs: dict[str, Job] = {}
    C = members[0].shape[0]
    few = min(C, 4)
    finest = max((m.shape[1:] for m in members), key=lambda shape: shape[0] * shape[1])
    one_grid = all(m.shape[1:] == finest for m in members)

    if torch is not None:
        tensors = [torch.from_numpy(m) for m in members]
        interpolate = torch.nn.functional.interpolate

        def up(t: Any, size: tuple[int, int] = plane) -> Any:
            return interpolate(t, size, mode="bilinear", align_corners=False)

        def naive() -> list[str]:
            stack = torch.stack([torch.sigmoid(up(t[None, :few].float()))[0] for t in tensors])
            return [classic_text(m) for m in (stack.mean(0) > 0.5).numpy().astype(np.uint8)]

        def best_scores() -> list[str]:
            out = []
            for c in range(C):
                p = torch.zeros(finest)
                for t in tensors:
                    own = torch.sigmoid(t[c].float())
                    p += own if own.shape == p.shape else up(own[None, None], finest)[0, 0]
                out.append(text((up(p[None, None])[0, 0] >= 0.5 * len(tensors)).numpy()))
            return out

        def best_logits() -> list[str]:
            out = []
            for c in range(C):
                z = torch.cat([up(t[None, c : c + 1].float()) for t in tensors])
                out.append(text((z.sigmoid_().mean((0, 1)) >= 0.5).numpy()))
            return out

        jobs["torch, as people write it"] = scaled(naive, C / few)  # all 29 classes at once take 8 GB
        jobs["torch, class by class"] = best_scores if upsample == "scores" else best_logits

    if cv2 is not None and upsample == "scores" and one_grid:

        def opencv() -> list[str]:
            out = []
            for c in range(C):
                p = np.zeros(members[0].shape[1:], np.float32)
                for m in members:
                    z = m[c].astype(np.float32)
                    p += 1 / (1 + np.exp(-z))
                out.append(text(cv2.resize(p, plane[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5 * len(members)))
            return out

        jobs["NumPy + OpenCV"] = opencv

    if monai is not None and torch is not None and upsample == "scores" and one_grid:
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


# --- rules ---------------------------------------------------------------------------------------------------


def drop_small(masks: Sequence[NDArray[np.bool_]], least: int) -> dict[str, Job]:
    """Masks without their components of fewer than `least` pixels."""
    jobs = _on_bitmaps(masks, lambda areas: areas >= least)
    if rlemasklib := optional("rlemasklib"):
        coded = [rlemasklib.RLEMask.from_array(m) for m in masks]
        jobs["rlemasklib"] = lambda: [m.remove_small_components(least, connectivity=8) for m in coded]
    return jobs


def keep_largest(masks: Sequence[NDArray[np.bool_]]) -> dict[str, Job]:
    """The largest component of each mask."""
    jobs = _on_bitmaps(masks, lambda areas: areas == areas.max(initial=0))
    if rlemasklib := optional("rlemasklib"):
        coded = [rlemasklib.RLEMask.from_array(m) for m in masks]
        jobs["rlemasklib"] = lambda: [m.largest_connected_component(connectivity=8) for m in coded]
    return jobs


def fill_holes(masks: Sequence[NDArray[np.bool_]]) -> dict[str, Job]:
    """Masks with their holes filled; rlemasklib knows no border, so that it fills what is smaller than 1000 pixels."""
    jobs: dict[str, Job] = {}
    ndimage, cv2, rlemasklib = optional("scipy.ndimage"), optional("cv2"), optional("rlemasklib")
    if ndimage is not None:
        jobs["scipy"] = scaled(lambda: ndimage.binary_fill_holes(masks[0]), len(masks))
    if cv2 is not None:

        def contours() -> list[Any]:
            out = []
            for mask in masks[:2]:
                found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                out.append(cv2.drawContours(mask.astype(np.uint8), found, -1, 1, cv2.FILLED))
            return out

        jobs["OpenCV"] = scaled(contours, len(masks) / len(masks[:2]))
    if rlemasklib is not None:
        coded = [rlemasklib.RLEMask.from_array(m) for m in masks]
        jobs["rlemasklib"] = lambda: [m.fill_small_holes(1000, connectivity=4) for m in coded]
    return jobs


def _on_bitmaps(
    masks: Sequence[NDArray[np.bool_]], choose: Callable[[NDArray[Any]], NDArray[np.bool_]], count: int = 2
) -> dict[str, Job]:
    """Components of the first `count` masks by scipy and OpenCV; `choose` tells by their areas which stay."""
    jobs: dict[str, Job] = {}
    ndimage, cv2 = optional("scipy.ndimage"), optional("cv2")
    few = masks[:count]
    part = len(masks) / len(few)
    if ndimage is not None:

        def scipy() -> list[Any]:
            out = []
            for mask in few:
                labels, n = ndimage.label(mask, np.ones((3, 3)))
                out.append(np.append(False, choose(np.bincount(labels.reshape(-1), minlength=n + 1)[1:]))[labels])
            return out

        jobs["scipy"] = scaled(scipy, part)
    if cv2 is not None:

        def opencv() -> list[Any]:
            out = []
            for mask in few:
                _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
                out.append(np.append(False, choose(stats[1:, cv2.CC_STAT_AREA]))[labels])
            return out

        jobs["OpenCV"] = scaled(opencv, part)
    return jobs


# --- files ---------------------------------------------------------------------------------------------------


def pandas_csv(masks: Any, path: Path) -> Job:
    """Write a submission as people write it: texts by Python, the file by pandas."""

    def job() -> None:
        import pandas as pd

        texts = [
            " ".join(map(str, np.stack([m.starts + 1, m.ends - m.starts], 1).reshape(-1).tolist()))
            for m in masks.values()
        ]
        keys = list(masks)
        rows = {"image_name": [k[0] for k in keys], "class": [k[1] for k in keys], "rle": texts}
        pd.DataFrame(rows).to_csv(path, index=False)

    return job


def csv_votes(paths: Sequence[Path], size: tuple[int, int], total: int) -> dict[str, Job]:
    """Submissions of one row order → the rows of their majority; a part of the `total` rows, read by pandas."""
    import pandas as pd

    few, H, W = min(total, 29), *size

    def rows(count: int) -> list[list[str]]:
        tables = [pd.read_csv(p, keep_default_na=False, nrows=count) for p in paths]
        return [list(texts) for texts in zip(*(t["rle"] for t in tables), strict=True)]

    def naive() -> list[str]:
        votes = (np.sum([notebook_parse(t, size) for t in texts], axis=0) for texts in rows(few))
        return [classic_text((v > len(paths) // 2).astype(np.uint8)) for v in votes]

    jobs = {"NumPy, as people write it": scaled(naive, total / few)}
    if rlemasklib := optional("rlemasklib"):

        def of_text(text: str) -> Any:
            starts, ends = numpy_parse(text)
            edges = np.stack([starts, ends], 1).reshape(-1)
            return rlemasklib.RLEMask.from_counts(np.diff(np.concatenate([[0], edges, [H * W]])), (W, H))

        def merged() -> list[str]:
            out = []
            for texts in rows(10 * few):
                voted = rlemasklib.RLEMask.merge_count([of_text(t) for t in texts], len(paths) // 2 + 1)
                out.append(counts_text(voted.counts))
            return out

        jobs["rlemasklib"] = scaled(merged, total / min(total, 10 * few))
    return jobs


# --- thresholds ----------------------------------------------------------------------------------------------


def threshold_rivals(levels: NDArray[np.uint16], truth: NDArray[np.bool_], total: int) -> dict[str, Job]:
    """Levels (samples, C, h, w) and truth (samples, C, H, W), of a few of `total` samples."""
    factor, jobs = total / len(truth), {}
    if levels.shape == truth.shape:
        jobs["NumPy, one trial"] = scaled(threshold_trial(levels, truth), factor)
        if study := optuna_study(levels[:2], truth[:2], 5):
            jobs["Optuna, 200 trials"] = scaled(study, 40 * total / 2)
        if curve := sklearn_curve(levels[:1], truth[:1]):
            jobs["sklearn, pooled, all thresholds"] = scaled(curve, levels.shape[1] * total)
    elif trial := upsampled_trial(levels[:1, :4], truth[:1, :4]):
        jobs["torch, one trial"] = scaled(trial, total * levels.shape[1] / len(truth[0, :4]))
    return jobs


def upsampled_trial(levels: NDArray[np.uint16], truth: NDArray[np.bool_]) -> Job | None:
    """Score one vector of thresholds at the size of the truth from scores on a smaller grid."""
    torch = optional("torch")
    if torch is None:
        return None
    scores = torch.from_numpy(levels.astype(np.float32) / 65535)

    def trial() -> float:
        up = torch.nn.functional.interpolate(scores, truth.shape[2:], mode="bilinear", align_corners=False)
        on, wanted = up > 0.5, torch.from_numpy(truth)
        both, pixels = (on & wanted).sum((2, 3)), on.sum((2, 3)) + wanted.sum((2, 3))
        return float((2 * both / pixels.clamp(min=1)).mean())

    return trial


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


def size_trials(levels: NDArray[np.uint16], truth: NDArray[np.bool_], total: int) -> dict[str, Job]:
    """Score one vector of thresholds and one size from ready scores (samples, C, H, W), as a study's objective does."""
    few = [(own >= 32768, wanted) for own, wanted in zip(levels[0, :4], truth[0, :4], strict=True)]
    planes, factor = [on for on, _ in few], total * levels.shape[1] / len(few)

    def trial(clean: Job) -> float:
        pairs = zip(clean(), (wanted for _, wanted in few), strict=True)
        return float(np.mean([2 * (m & t).sum() / max(m.sum() + t.sum(), 1) for m, t in pairs]))

    cleaners = _on_bitmaps(planes, lambda areas: areas >= 100, len(planes))
    return {f"{name}, one trial": scaled(lambda clean=clean: trial(clean), factor) for name, clean in cleaners.items()}


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
