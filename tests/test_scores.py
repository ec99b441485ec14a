"""Ensembles on real stores against the oracle: every order, grid, box, mean and temperature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.decisions.thresholds import Thresholds
from ensemble_kit.kernels import reference as ref
from ensemble_kit.spec.fusion import integer_weights

Make = Callable[..., ek.LogitStore]


def cells(store: ek.LogitStore, sample: str, c: int, scale: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Scores of one class on the member's own box."""
    box = store.box(sample)
    return scale(store.read(sample))[c][box.slices]


def effective_levels(ens: ek.Ensemble, sample: str, c: int) -> np.ndarray:
    """The oracle's effective levels of a image."""
    f, image, weights = ens.fusion, ens.image_size(sample), list(ens.fusion.weights[c])

    def scale(temperature: float) -> Callable[[np.ndarray], np.ndarray]:
        if ens.activation == "softmax":
            return lambda z: ref.softmax_level(z, temperature)
        if f.upsample == "logits" or f.mean.of_logits:
            return lambda z: ref.q(z, temperature)
        return lambda z: ref.level(z, temperature)

    own = [
        cells(m, sample, m.classes.index(ens.classes[c]), scale(t))
        for m, t in zip(ens.members, f.temperatures, strict=True)
    ]
    if f.upsample == "logits":
        return ref.image_from_logits(own, weights, image, str(f.mean))
    places = [m.placement(sample) for m in ens.members]
    if len({(p.grid, p.box) for p in places}) > 1:
        finest = max(places, key=lambda p: p.grid[0] * p.grid[1]).box.shape
        own = [ref.rounded(ref.interpolate(g, finest)) for g in own]
    return ref.image_from_scores(ref.fuse(own, weights), image)


CASES: dict[str, dict[str, Any]] = {
    "one member": {"grids": [(16, 16)], "image": (64, 64)},
    "weights": {"grids": [(16, 20)] * 3, "image": (61, 83), "weights": [3, 1, 2]},
    "upsample scores": {"grids": [(16, 20)] * 2, "image": (61, 83), "upsample": "scores"},
    "mean logit": {"grids": [(16, 20)] * 2, "image": (61, 83), "mean": "logit"},
    "mean logit, upsample scores": {"grids": [(16, 20)] * 2, "image": (61, 83), "mean": "logit", "upsample": "scores"},
    "three grids": {"grids": [(8, 8), (16, 16), (13, 7)], "image": (50, 33)},
    "three grids, upsample scores": {"grids": [(8, 8), (16, 16), (13, 7)], "image": (50, 33), "upsample": "scores"},
    "boxes on two grids": {"grids": [(24, 24), (12, 12)], "image": (40, 60), "boxes": [(4, 0, 20, 24), (2, 0, 10, 12)]},
    "boxes on one grid, upsample scores": {"grids": [(24, 24), (24, 24)], "image": (40, 60), "boxes": [(4, 0, 20, 24), (0, 0, 24, 24)], "upsample": "scores"},
    "image smaller than the grid": {"grids": [(40, 50)], "image": (17, 9)},  # a image smaller than the grid
    "grids of one row": {"grids": [(1, 1), (1, 7)], "image": (5, 33)},
    "softmax": {"grids": [(16, 16)] * 2, "image": (64, 70), "activation": "softmax", "upsample": "scores"},
    "softmax, two grids and temperatures": {"grids": [(16, 16), (9, 9)], "image": (64, 70), "activation": "softmax", "upsample": "scores", "temperatures": [1.5, 0.5]},
    "temperatures": {"grids": [(16, 16)] * 2, "image": (64, 70), "temperatures": [2.0, 0.3]},
    "weights per class": {"grids": [(16, 16)] * 2, "image": (64, 70), "weights": [[1, 0, 2], [1, 1, 1]]},
}  # fmt: skip


def check_counts(counted: tuple[Any, ...], pixels: np.ndarray, hits: np.ndarray, low: int, high: int) -> None:
    """Compare counts at and above the levels that occur with the oracle's, at and above every level."""
    levels, pred, tp, above, above_tp = counted
    if high < 65536:
        assert (above, above_tp) == (pixels[high], hits[high])
    assert levels.dtype == np.uint16
    assert np.array_equal(levels, low + np.flatnonzero(-np.diff(pixels[low:high], append=above)))
    assert np.array_equal(pred, pixels[levels])
    assert np.array_equal(tp, hits[levels])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_masks_are_the_oracles(case: dict[str, Any], make_store: Make, rng: np.random.Generator) -> None:
    classes = ("ulna", "radius", "any")
    stores = []
    for k, grid in enumerate(case["grids"]):
        names = classes if k % 2 == 0 else classes[::-1]  # members list their classes in any order
        logits = {s: smooth_logits(rng, (3, *grid)) for s in ("a", "b")}
        boxes = None if "boxes" not in case else dict.fromkeys(logits, case["boxes"][k])
        activation = case.get("activation", "sigmoid")
        stores.append(make_store(logits, case["image"], names, boxes=boxes, activation=activation))
    options = {k: case[k] for k in ("weights", "mean", "upsample", "temperatures") if k in case}
    ens = ek.Ensemble(stores, **options)
    for c, name in enumerate(ens.classes):
        for sample in ens.samples:
            wanted = effective_levels(ens, sample, c)
            levels = [0, 1, 20000, 32768, 65535, *rng.choice(wanted.reshape(-1), 3).tolist()]
            for level in levels:
                assert ens.sample(sample).runs(c, level) == ek.encode(wanted >= level), (name, sample, level)
            truth = rng.random(ens.image_size(sample)) < 0.3
            pixels, hits = ref.level_counts(wanted, truth)
            for low, high in ((0, 65536), (3277, 62260)):
                counted = ens.sample(sample).counts({c: (low, high)}, [ek.encode(truth)])
                check_counts(counted.of(0), pixels, hits, low, high)


def test_levels_on_the_finest_grid(make_store: Make, rng: np.random.Generator) -> None:
    logits = [{"a": smooth_logits(rng, (2, 12, 12))} for _ in range(2)]
    for mean, scale in (("probability", ref.level), ("logit", ref.q)):
        ens = ek.Ensemble([make_store(z, (48, 48), ("x", "y")) for z in logits], weights=[1, 3], mean=mean)
        wanted = ref.fuse([scale(m.read("a")) for m in ens.members], list(ens.fusion.weights[0]))
        assert ens.levels("a").dtype == np.uint16
        assert np.array_equal(ens.levels("a"), wanted)


def test_levels_bring_members_to_the_finest_grid(make_store: Make, rng: np.random.Generator) -> None:
    fine = make_store({"a": smooth_logits(rng, (1, 16, 16))}, (64, 64), ("x",))
    coarse = make_store({"a": smooth_logits(rng, (1, 4, 8))}, (64, 64), ("x",))
    moved = ref.rounded(ref.interpolate(ref.level(coarse.read("a"))[0], (16, 16)))
    wanted = ref.fuse([ref.level(fine.read("a"))[0], moved], [32768, 32768])
    assert np.array_equal(ek.Ensemble([coarse, fine]).levels("a")[0], wanted)


def test_one_member_gives_what_its_framework_gives(make_store: Make, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    z = smooth_logits(rng, (2, 32, 32))
    ens = ek.Ensemble([make_store({"a": z}, (128, 128), ("x", "y"))])
    up = torch.nn.functional.interpolate(torch.tensor(z, dtype=torch.float32)[None], (128, 128), mode="bilinear")
    theirs = (torch.sigmoid(up)[0] >= 0.5).numpy()
    masks = ens.vote(0.5)
    for c, name in enumerate(ens.classes):
        ours = masks["a", name].decode()
        assert (ours != theirs[c]).mean() < 1e-3  # 16-bit scores against float32: boundary pixels only


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any))
def test_weights_add_up_and_ignore_order(weights: list[int]) -> None:
    names = [f"m{k}" for k in range(len(weights))]
    made = integer_weights(weights, names)
    assert sum(made) == 65536
    assert all(abs(m - w * 65536 / sum(weights)) < 1 for m, w in zip(made, weights, strict=True))
    backwards = integer_weights(weights[::-1], names[::-1])
    assert dict(zip(names, made, strict=True)) == dict(zip(names[::-1], backwards, strict=True))


def test_decimal_weights_are_exact() -> None:
    assert integer_weights([0.1, 0.1, 0.1], ["c", "a", "b"]) == (21845, 21846, 21845)
    assert integer_weights([2, 1], ["b", "a"]) == integer_weights([0.2, 0.1], ["b", "a"])


def test_results_do_not_depend_on_order_or_threads(make_store: Make, rng: np.random.Generator) -> None:
    samples = [f"s{k}" for k in range(7)]
    stores = [make_store({s: smooth_logits(rng, (2, 16, 16)) for s in samples}, (64, 64), ("x", "y")) for _ in range(3)]
    wanted = ek.Ensemble(stores, weights=[1, 2, 3]).vote(0.4, jobs=1)
    for jobs in (2, 5):
        assert ek.Ensemble(stores[::-1], weights=[3, 2, 1]).vote(0.4, jobs=jobs) == wanted


def test_thresholds_of_every_kind(make_store: Make, rng: np.random.Generator) -> None:
    ens = ek.Ensemble([make_store({"a": smooth_logits(rng, (2, 16, 16))}, (64, 64), ("x", "y"))])
    assert ens.decision(0.5) == ens.decision() == Thresholds(32768)
    assert ens.decision([0.0, 1.0]) == Thresholds({"x": 0, "y": 65535})
    assert ens.decision({"y": 0.25, "x": 0.5}) == Thresholds({"x": 32768, "y": 16384})
    assert ens.vote([0.0, 1.0])["a", "x"].area == 64 * 64
    for bad in (-0.1, 1.1, float("nan"), "0.5", True):
        with pytest.raises(ek.UsageError, match="cannot decide"):
            ens.vote(bad)
    for bad in ([0.5], {"x": 0.5}, [0.5] * 3):
        with pytest.raises(ek.MismatchError, match="thresholds"):
            ens.vote(bad)


def test_thresholds_of_a_logit_mean_are_probabilities(make_store: Make, rng: np.random.Generator) -> None:
    store = make_store({"a": smooth_logits(rng, (1, 16, 16))}, (64, 64), ("x",))
    ens = ek.Ensemble([store], mean="logit")
    assert ens.level_of(0.5) == 32768
    assert (ens.level_of(0.0), ens.level_of(1.0)) == (0, 65535)
    one, other = ens.vote(0.3), ek.Ensemble([store]).vote(0.3)
    assert (one["a", "x"] ^ other["a", "x"]).area <= 4  # with one member only rounding can differ


def test_what_does_not_fit_is_refused(make_store: Make, rng: np.random.Generator) -> None:
    def logits(*samples: str) -> dict[str, np.ndarray]:
        return {s: smooth_logits(rng, (2, 8, 8)) for s in samples}

    base = make_store(logits("a", "b"), (32, 32), ("x", "y"), name="base")
    others = {
        "classes": (make_store(logits("a", "b"), (32, 32), ("x", "z")), ek.MismatchError, "'z'"),
        "samples": (make_store(logits("a", "c"), (32, 32), ("x", "y")), ek.MismatchError, "lacks 1 of 3"),
        "activation": (make_store(logits("a", "b"), (32, 32), ("x", "y"), activation="softmax"), ek.MismatchError, "softmax"),
    }  # fmt: skip
    for other, kind, words in others.values():
        with pytest.raises(kind, match=words):
            ek.Ensemble([base, other])
    sized = make_store(logits("a", "b"), (32, 33), ("x", "y"), name="sized")
    with pytest.raises(ek.MismatchError, match="32 x 32 in 'base', 32 x 33 in 'sized'"):
        ek.Ensemble([base, sized]).vote()
    common = ek.Ensemble([base, others["samples"][0]], samples="common")
    assert (common.samples, common.dropped) == (("a",), 2)
    with pytest.raises(ek.IncompleteError, match="no sample in common"):
        ek.Ensemble([base, make_store(logits("q"), (32, 32), ("x", "y"))], samples="common")


@pytest.mark.parametrize(
    "options",
    [
        {"weights": [0, 0]}, {"weights": [1]}, {"weights": [-1, 2]}, {"weights": [float("nan"), 1]},
        {"weights": [float("inf"), 1]}, {"weights": ["a", "b"]}, {"temperatures": [0, 1]}, {"temperatures": [1]},
        {"mean": "median"}, {"upsample": "masks"}, {"samples": "all"},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_mean_nothing(options: dict[str, Any], make_store: Make, rng: np.random.Generator) -> None:
    stores = [make_store({"a": smooth_logits(rng, (1, 8, 8))}, (32, 32), ("x",)) for _ in range(2)]
    with pytest.raises(ek.UsageError):
        ek.Ensemble(stores, **options)


def test_namesakes(make_store: Make, rng: np.random.Generator) -> None:
    stores = [make_store({"a": smooth_logits(rng, (1, 8, 8))}, (32, 32), ("x",), member="unet") for _ in range(2)]
    assert ek.Ensemble(stores).vote() == ek.Ensemble(stores[::-1]).vote()
    with pytest.raises(ek.MismatchError, match="two are called 'unet'"):
        ek.Ensemble(stores, weights=[1, 2])
