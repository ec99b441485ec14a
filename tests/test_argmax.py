"""`Argmax`: one class a pixel, against the frameworks' own pipeline and the oracle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.clean import apply_rules
from ensemble_kit.kernels import reference as ref

Make = Callable[..., ek.LogitStore]
CLASSES = ("background", "liver", "spleen")
IMAGE = (40, 52)


def labels(masks: ek.MaskSet, sample: str) -> np.ndarray:
    """Number of the class of every pixel, -1 without one; no pixel may have two."""
    out = np.full(masks.image_size(sample), -1)
    for k, name in enumerate(masks.classes):
        mask = masks[sample, name].decode()
        assert (out[mask] == -1).all()
        out[mask] = k
    return out


@pytest.fixture
def ens(make_store: Make, rng: np.random.Generator) -> ek.Ensemble:
    stores = [
        make_store({s: smooth_logits(rng, (3, 10, 13)) for s in ("a", "b")}, IMAGE, CLASSES, activation="softmax")
        for _ in range(2)
    ]
    return ek.Ensemble(stores)


@pytest.mark.parametrize(("scale", "most"), [(1.0, 5e-4), (6.0, 1e-4), (20.0, 3e-5)])
def test_one_member_gives_what_its_framework_gives(
    scale: float, most: float, make_store: Make, rng: np.random.Generator
) -> None:
    """SegFormer puts out a quarter of the size; its users interpolate logits, then take softmax and argmax.

    What differs are near-ties: two logits closer than one step of the 16-bit `q`. Measured on 7 and 19 classes: 4e-4
    of the pixels where logits hardly differ, 5e-5 at the spread of a trained network, 2e-5 where it is sure.
    """
    torch = pytest.importorskip("torch")
    z, size = smooth_logits(rng, (7, 64, 96), scale), (256, 384)
    ens = ek.Ensemble([make_store({"a": z}, size, tuple("abcdefg"), activation="softmax")])
    up = torch.nn.functional.interpolate(
        torch.tensor(z, dtype=torch.float32)[None], size, mode="bilinear", align_corners=False
    )[0]
    differ = labels(ens.vote(), "a") != up.softmax(0).argmax(0).numpy()
    best, second = np.sort(up.numpy(), axis=0)[[-1, -2]]
    assert differ.mean() < most
    assert (best - second)[differ].max(initial=0) < 33 / 65535


@pytest.mark.parametrize("format", ["label-map", "csv"])
def test_p_of_a_third_has_a_class_on_the_command_line(
    format: str,  # noqa: A002 - the option's name
    make_store: Make,
    tmp_path: Path,
) -> None:
    """(.4, .35, .25) reaches no threshold of 0.5; by argmax it is background, whose value in a label map is 0."""
    z = np.log(np.array([0.4, 0.35, 0.25]))[:, None, None] * np.ones((1, 6, 8))
    z[:, :, 4:] = z[[2, 0, 1], :, 4:]
    store = make_store({"a.png": z.astype(np.float16)}, (6, 8), CLASSES, activation="softmax")
    app(["vote", str(store.path), "--format", {"csv": "handbone"}.get(format, format), "--out",
         str(tmp_path / ("out.csv" if format == "csv" else "out"))], standalone_mode=False)  # fmt: skip
    wanted = np.repeat([[0] * 4 + [1] * 4], 6, axis=0)
    if format == "csv":
        masks = ek.read_masks(tmp_path / "out.csv", image_size=(6, 8), classes=CLASSES)
        assert np.array_equal(masks.labels("a.png"), wanted)
    else:
        png = PIL.Image.open(next((tmp_path / "out").rglob("*.png")))
        assert np.array_equal(np.asarray(png), wanted)  # the values themselves: an indexed PNG is not mapped to colours


def test_every_pixel_has_one_class(ens: ek.Ensemble) -> None:
    """p = (.4, .35, .25) reaches no threshold of 0.5; by argmax it has a class."""
    masks = ens.vote()
    assert masks.rule == ek.Argmax().told()
    assert (labels(masks, "a") >= 0).all()
    half = ens.vote(0.5)
    assert sum(half["a", c].area for c in CLASSES) < IMAGE[0] * IMAGE[1]


def test_factors_background_and_least(ens: ek.Ensemble) -> None:
    values, factors = ens.sample("b").values(0, IMAGE[0]), {"spleen": 2.5, "liver": 0.25}
    wanted = ref.winners(values, [65536, 16384, 163840])
    assert np.array_equal(labels(ens.vote(ek.Argmax(factors)), "b"), wanted)
    without = ens.vote(ek.Argmax(factors, background="background"))
    assert without.classes == ("liver", "spleen")
    assert np.array_equal(labels(without, "b"), np.where(wanted == 0, -1, wanted - 1))
    sure = ens.vote(ek.Argmax(factors, least=0.6))
    level = np.take_along_axis((values + 32768) >> 16, wanted[None], 0)[0]
    assert np.array_equal(labels(sure, "b"), np.where(level >= round(0.6 * 65535), wanted, -1))
    assert 0 < (level < round(0.6 * 65535)).mean() < 1


def test_rules_clean_what_is_written_and_keep_a_partition(ens: ek.Ensemble) -> None:
    decision = ek.Argmax(background="background")
    cleaned = ens.vote(decision, ["drop-small:60@liver"])
    assert cleaned.classes == ("liver", "spleen")
    assert cleaned == apply_rules(ens.vote(decision), "drop-small:60@liver")
    assert cleaned != ens.vote(decision)
    whole = ens.vote(None, ["drop-small:60@liver"])
    assert (labels(whole, "a") >= 0).all()
    assert "go to the neighbour" in str(whole.rule)
    with pytest.raises(ek.MismatchError, match="background"):
        ens.vote(decision, ["drop-small:30@background"])


def test_mean_of_logits_only_compares_classes(ens: ek.Ensemble) -> None:
    fused = ens.with_fusion(mean="logit")
    values = fused.sample("a").values(0, IMAGE[0])
    assert np.array_equal(labels(fused.vote(), "a"), values.argmax(0))
    offsets = [0, 0, ref.offset(4)]
    assert np.array_equal(labels(fused.vote(ek.Argmax({"spleen": 4})), "a"), ref.winners(values, [], offsets))
    for decision in (0.5, ek.RankRule()):
        with pytest.raises(ek.UsageError, match=r"mean='logit'.*Argmax"):
            fused.vote(decision)
    with pytest.raises(ek.UsageError, match="mean='logit'"):
        fused.vote(None, "gate:0.5,10")
    with pytest.raises(ek.UsageError, match="mean='logit'"):
        ek.tune_thresholds(fused, fused.vote(), decide="threshold")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ek.Argmax({"liver": 0}), ek.UsageError, "factor of 'liver'"),
        (lambda: ek.Argmax({"liver": -1}), ek.UsageError, "factor of 'liver'"),
        (lambda: ek.Argmax({"liver": 128.5}), ek.UsageError, "factor of 'liver'"),
        (lambda: ek.Argmax({"liver": 1 / 129}), ek.UsageError, "factor of 'liver'"),
        (lambda: ek.Argmax({"liver": float("nan")}), ek.UsageError, "factor of 'liver'"),
        (lambda: ek.Argmax(least=1.5), ek.UsageError, "least"),
        (lambda: ek.Argmax({"kidney": 2}), ek.MismatchError, "'kidney'.*'liver'"),
        (lambda: ek.Argmax(background="bg"), ek.MismatchError, "'bg'.*'background'"),
    ],
    ids=["zero", "negative", "large", "small", "nan", "least", "unknown class", "unknown background"],
)
def test_what_means_nothing_is_refused(make: Any, error: type[ek.EnskError], words: str, ens: ek.Ensemble) -> None:
    with pytest.raises(error, match=words):
        ens.vote(make())


def test_one_class_would_take_every_pixel(make_store: Make, rng: np.random.Generator) -> None:
    ens = ek.Ensemble([make_store({"a": smooth_logits(rng, (1, 8, 8))}, (20, 20), ("x",))])
    with pytest.raises(ek.UsageError, match="'x' is the only class"):
        ens.vote(ek.Argmax())


def test_it_is_a_value() -> None:
    a = ek.Argmax({"liver": 2}, "background", 0.5)
    assert a == pickle.loads(pickle.dumps(a))
    assert {a: 1}[ek.Argmax({"liver": 2.0}, "background", 0.5)] == 1
    assert "liver 2" in a.told()
    assert "'background' is not written" in a.told()
    assert a.in_order(CLASSES) == (65536, 131072, 65536)


def test_sigmoid_members_may_be_decided_by_it(make_store: Make, rng: np.random.Generator) -> None:
    ens = ek.Ensemble([make_store({"a": smooth_logits(rng, (3, 10, 13))}, IMAGE, CLASSES, activation="sigmoid")])
    assert ens.decision() == ek.Thresholds(32768)
    values = ens.sample("a").values(0, IMAGE[0])
    assert np.array_equal(labels(ens.vote(ek.Argmax()), "a"), values.argmax(0))
