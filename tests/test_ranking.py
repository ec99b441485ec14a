"""The rank rule against the paper's formula pixel by pixel, and against its authors' package."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.rank import NOTHING, RankRule, probabilities, rank_level
from ensemble_kit.errors import EnskError
from ensemble_kit.execution.executor import Threads
from ensemble_kit.kernels import reference as ref
from ensemble_kit.spec.mean import Mean
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning import calibration as ranking
from ensemble_kit.tuning.calibration import fit_temperature, rank_scores
from ensemble_kit.tuning.statistics import count

Make = Callable[..., ek.LogitStore]
DATA = Path(ek.__file__).parent / "demo" / "data"
IMAGE = (40, 50)


def images(seed: int) -> np.ndarray:
    """Levels of every kind: anything, sure ones, few distinct ones (ties), a faint object."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 30, 2))
    kinds = (
        rng.integers(0, 65536, shape),
        65535 * rng.beta(0.05, 0.4, shape),
        rng.choice(rng.integers(0, 65536, 4), shape),
        np.where(rng.random(shape) < 0.9, 0, rng.integers(0, 400, shape)),
    )
    return kinds[seed % 4].astype(np.uint16)


def histogram(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    levels, counts = np.unique(image, return_counts=True)
    return levels, counts


def mask(image: np.ndarray, **options: Any) -> np.ndarray:
    return image >= rank_level(*histogram(image), **options)


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 7]))
def test_the_formula_pixel_by_pixel(seed: int, eps: int) -> None:
    """Exact rationals over every number of pixels, so inside ties too: no cut is better than the level found."""
    image = images(seed)
    ranked = sorted(image.reshape(-1).tolist(), reverse=True)
    total, held = Fraction(sum(ranked), 65535), Fraction(0)
    values = [eps / (total + eps) if total + eps else Fraction(0)]
    for size, level in enumerate(ranked, start=1):
        held += Fraction(level, 65535)
        smooth = eps / (total + size + eps) if eps else Fraction(0)
        values.append(2 * held / (total + size + 1 + eps) + smooth)
    found = mask(image, convention=Convention(eps, 0))
    assert float(values[found.sum()]) == pytest.approx(float(max(values)), rel=1e-12)
    assert found.sum() <= values.index(max(values)) or values[found.sum()] == max(values)


@pytest.mark.parametrize("temperature", [None, 0.7, 2.0])
@pytest.mark.parametrize("mean", ["probability", "logit"])
def test_rankseg_agrees_on_random_planes(mean: Any, temperature: float | None) -> None:
    torch, rankseg = pytest.importorskip("torch"), pytest.importorskip("rankseg")
    chances = probabilities(Mean.of(mean), temperature)
    for seed in range(100):
        image, eps = images(seed), (0.0, 1e-4, 1.0, 50.0)[seed // 4 % 4]
        p = torch.from_numpy(chances[image][None, None])
        theirs = rankseg.rankseg_rma(p, metric="dice", smooth=eps, output_mode="multilabel", pruning_prob=0.0)
        assert np.array_equal(mask(image, chances=chances, convention=Convention(eps, 0)), theirs[0, 0].numpy())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[ek.Ensemble, ek.MaskSet]:
    """Two of the demo's networks on six of its images."""
    folder = tmp_path_factory.mktemp("real")
    images = sorted((DATA / "val" / "images").iterdir())[:6]
    (folder / "images").mkdir()
    for image in images:
        (folder / "images" / image.name).symlink_to(image)
    for name in ("unet", "fpn"):
        options = {
            "--weights": DATA / "weights" / f"{name}.pt",
            "--images": folder / "images",
            "--classes": DATA / "classes.txt",
            "--preprocess": DATA / "preprocess.json",
            "--member": name,
            "--out": folder / f"{name}.zarr",
        }
        words = [str(word) for pair in options.items() for word in pair]
        app(["dump-logits", f"ensemble_kit.demo.networks:{name}", *words, "-q"], standalone_mode=False)
    ens = ek.Ensemble([folder / "unet.zarr", folder / "fpn.zarr"], weights=[2, 1])
    every = ek.read_masks(DATA / "val" / "masks")
    return ens, ek.MaskSet({(s, c): every[s, c] for s in ens.samples for c in ens.classes})


def plane_of(ens: ek.Ensemble, sample: str, c: int) -> np.ndarray:
    codes = [ref.q(m.read(sample)[m.classes.index(ens.classes[c])]) for m in ens.members]
    return ref.image_from_logits(codes, list(ens.fusion.weights[c]), ens.image_size(sample), str(ens.fusion.mean))


@pytest.mark.slow
def test_rankseg_agrees_on_real_images(real: tuple[ek.Ensemble, ek.MaskSet]) -> None:
    torch, rankseg = pytest.importorskip("torch"), pytest.importorskip("rankseg")
    ens, _ = real
    masks = ens.vote(RankRule(convention=Convention(0.0, 0)))
    for sample in ens.samples:
        p = torch.from_numpy(np.stack([probabilities()[plane_of(ens, sample, c)] for c in range(len(ens.classes))]))
        theirs = rankseg.rankseg_rma(p[None], metric="dice", output_mode="multilabel", pruning_prob=0.0)[0].numpy()
        assert np.array_equal(np.stack([masks[sample, c].decode() for c in ens.classes]), theirs)


@pytest.mark.parametrize("empty", [1, 0, "skip"])
@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_scores_are_those_of_the_vote(real: tuple[ek.Ensemble, ek.MaskSet], objective: Any, empty: Any) -> None:
    ens, truth = real
    measure = Measure(objective, "dice", Convention(1e-4, empty))
    found = rank_scores(ens, truth, measure, temperature=1.4)
    scored = ek.dice(ens.vote(RankRule(1.4, measure.convention)), truth, 1e-4, empty)
    assert found.score == (scored.mean if objective == "mean" else scored.pooled)
    assert found.per_class == {
        c: (scored.per_class if objective == "mean" else scored.pooled_per_class)[c] for c in ens.classes
    }
    assert found.values.shape == (len(ens.classes), len(ens.samples))


def ensemble(make_store: Make, rng: np.random.Generator, **options: Any) -> tuple[ek.Ensemble, ek.MaskSet]:
    logits = [{s: smooth_logits(rng, (2, 12, 15)) for s in ("a", "b", "c")} for _ in range(2)]
    names = [{"member": n} for n in ("m", "n")]
    activation = options.pop("activation", "sigmoid")
    stores = [make_store(z, IMAGE, ("x", "y"), activation=activation, **n) for z, n in zip(logits, names, strict=True)]
    truth = {(s, c): ek.encode(rng.random(IMAGE) < 0.3) for s in ("a", "b", "c") for c in ("x", "y")}
    return ek.Ensemble(stores, **options), ek.MaskSet(truth)


@pytest.mark.parametrize("upsample", ["logits", "scores"])
def test_exclusive_classes_share_out_their_pixels(make_store: Make, rng: np.random.Generator, upsample: Any) -> None:
    """Masks as rankseg's; what several claim goes to the larger score, where rankseg weighs increments of Dice."""
    torch, rankseg = pytest.importorskip("torch"), pytest.importorskip("rankseg")
    names, size = ("rest", "x", "y", "z"), (60, 75)
    z = smooth_logits(rng, (4, 20, 25), 2.0)
    ens = ek.Ensemble([make_store({"a": z}, size, names, activation="softmax")], upsample=upsample)
    scores, convention = ens.sample("a"), Convention(0.0, 0)
    values = scores.values(0, size[0])
    levels = (values + (32768 if upsample == "logits" else 0)) >> 16
    p = torch.from_numpy(probabilities()[levels][None])
    options = {"metric": "dice", "pruning_prob": 0.0}
    each = rankseg.rankseg_rma(p, output_mode="multilabel", **options)[0].numpy().astype(bool)
    theirs = rankseg.rankseg_rma(p, output_mode="multiclass", unassigned_policy="void", **options)[0].numpy()
    masks = ens.vote(RankRule(convention=convention))
    assert masks.exclusive
    ours = np.full(size, 255)
    for k, name in enumerate(names):
        ours[masks["a", name].decode()] = k
    claimed = each.sum(0)
    assert (claimed > 1).any()
    assert (claimed == 0).any()
    assert np.array_equal(ours, np.where(claimed == 0, 255, np.where(each, values, -1).argmax(0)))
    assert np.array_equal(ours[claimed < 2], theirs[claimed < 2])
    assert (ours == theirs)[claimed > 1].mean() > 0.5
    truth = ek.MaskSet({("a", name): ek.encode(rng.random(size) < 0.3) for name in names})
    found = rank_scores(ens, truth, Measure("mean", "dice", convention))
    assert found.score == ek.dice(masks, truth, 0.0, 0).mean


@pytest.mark.parametrize(
    "options",
    [{}, {"upsample": "scores"}, {"mean": "logit"}, {"activation": "softmax"}],
    ids=["sigmoid", "upsample scores", "mean logit", "softmax"],
)
def test_statistics_and_stores_give_the_same(make_store: Make, rng: np.random.Generator, options: Any) -> None:
    ens, truth = ensemble(make_store, rng, **options)
    whole = count(ens, truth, {0: (0, 65536), 1: (0, 65536)})
    full = ranking.full_statistics(ens, truth)
    everything = full.widened(whole)
    one = rank_scores(ens, truth, temperature=[1, 2, 0.5])
    for statistics in (full, everything):
        other = rank_scores(ens, truth, temperature=[1, 2, 0.5], statistics=statistics)
        assert all(np.array_equal(getattr(one, k), getattr(other, k)) for k in ("levels", "tp", "pred", "truth"))
        parts = [np.array([0, 2]), np.array([1])]
        assert np.array_equal(
            ranking.level_histogram(ens, truth, parts, statistics),
            ranking.level_histogram(ens, truth, parts, executor=Threads(2)),
        )
    assert ens.vote(RankRule(), jobs=1) == ens.vote(RankRule(), jobs=3)


def test_what_does_not_fit_is_refused(make_store: Make, rng: np.random.Generator) -> None:
    ens, truth = ensemble(make_store, rng)
    other, _ = ensemble(make_store, rng)
    band = ranking.full_statistics(ens, truth).widened(count(ens, truth, {1: (3277, 62260)}))
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: rank_scores(ens, truth, statistics=band), "statistics-narrow"),
        (lambda: rank_scores(other, truth, statistics=band), "statistics-differ"),
        (lambda: rank_scores(ens, truth, temperature=[1.0]), "temperature-invalid"),
        (lambda: RankRule(0), "temperature-invalid"),
        (lambda: RankRule(float("nan")), "temperature-invalid"),
        (lambda: fit_temperature(np.zeros((2, 65536), np.int64)), "temperature-unfit"),
    ]
    for call, code in cases:
        with pytest.raises(EnskError) as caught:
            call()
        assert caught.value.code == code


def test_an_empty_mask_is_worth_what_the_convention_says() -> None:
    faint = np.array([7], np.uint16), np.array([100])  # 100 pixels of 1e-4: the truth is empty with chance 0.99
    assert rank_level(*faint, convention=Convention(0.0, 1)) == NOTHING
    assert rank_level(*faint, convention=Convention(0.0, 0)) == 7
    assert rank_level(*faint, convention=Convention(0.0, "skip")) == 7
    assert rank_level(*faint, convention=Convention(5.0, 0)) == NOTHING
    nothing = np.array([], np.uint16), np.array([], np.int64)
    assert rank_level(*nothing) == rank_level(np.array([0], np.uint16), np.array([9])) == NOTHING
    assert rank_level(np.array([65535], np.uint16), np.array([9])) == 65535


def test_rules_clean_the_rank_rules_masks(make_store: Make, rng: np.random.Generator) -> None:
    ens, _ = ensemble(make_store, rng)
    assert all(not runs for runs in ens.vote(RankRule(), "gate:1.0,2000").values())
    assert ens.vote(RankRule(), ["drop-small:1"]) == ens.vote(RankRule())
    assert "rank rule, temperature 2" in str(ens.vote(RankRule(2)).rule)


def test_a_temperature_is_found_again(rng: np.random.Generator) -> None:
    """Hits drawn from σ(z / T) at every level: the likelihood's maximum is T."""
    for mean in ("probability", "logit"):
        for truly in (0.5, 1.0, 1.8):
            pixels = rng.integers(0, 4000, 65536)
            hits = rng.binomial(pixels, probabilities(Mean.of(mean), truly))
            found = fit_temperature(np.stack([hits, pixels]), Mean.of(mean))
            assert found.temperature == pytest.approx(truly, rel=0.01)
            assert found.nll <= found.nll_before
            assert found.ece < 0.001
            assert not found.at_edge
            assert found.pixels == pixels[1:-1].sum()
            assert str(found).startswith(f"temperature {found.temperature:.3f}: NLL ")
            assert set(found.to_dict()) == {
                "temperature",
                "nll",
                "nll_before",
                "ece",
                "ece_before",
                "pixels",
                "at_edge",
            }
    sure = np.stack([np.where(np.arange(65536) > 32767, 5, 0), np.full(65536, 5)])  # separable: sharper is likelier
    assert fit_temperature(sure).at_edge


def test_temperatures_never_reorder_levels() -> None:
    """So no threshold's decision changes; and a fold's temperature comes from the other folds alone."""
    for temperature in (0.1, 1.0, 7.3):
        for mean in ("probability", "logit"):
            table = probabilities(Mean.of(mean), temperature)
            assert (np.diff(table) >= 0).all()
            assert (table[0], table[-1]) == (0.0, 1.0)
    assert np.array_equal(probabilities(), np.arange(65536) / 65535)
    pixels = np.full((3, 65536), 40)
    hits = np.stack([np.round(pixels[0] * probabilities(temperature=t)).astype(int) for t in (1, 2, 4)])
    parts = [np.array([2, 0]), np.array([1]), np.array([3])]
    found = ranking.fold_temperatures(np.stack([hits, pixels], axis=1), parts)
    assert found[0] == found[2] == fit_temperature(np.stack([hits, pixels], axis=1)[1:]).temperature
    assert found[0] > found[1] > found[3]


def test_the_command_line_votes_by_rank(real: tuple[ek.Ensemble, ek.MaskSet], tmp_path: Path) -> None:
    ens, truth = real
    stores = [str(Path(str(m.path))) for m in ens.members]
    tuned = tmp_path / "set.json"
    ek.tune_thresholds(ens, truth, empty=0).save(tuned)
    ranked = ["--decide", "rank", "--thresholds", str(tuned), "--rank-temperature", "1.5"]
    app(["vote", *stores, *ranked, "--out", str(tmp_path / "rank.csv"), "-q"], standalone_mode=False)
    sizes = {s: ens.image_size(s) for s in ens.samples}
    got = ek.read_masks(tmp_path / "rank.csv", image_size=sizes, classes=ens.classes)
    assert got == ens.vote(RankRule(1.5, Convention(0.0, 0)))
    out = ["--out", str(tmp_path / "no.csv")]
    for options in (
        ["--decide", "best"],
        ["--decide", "rank", "--thresholds", "0.4"],
        ["--decide", "rank", "--rank-temperature", "0"],
        ["--rank-temperature", "2"],
    ):
        with pytest.raises(ek.UsageError):
            app(["vote", *stores, *options, *out], standalone_mode=False)
