"""Label fusion: STAPLE against SimpleITK and pixel by pixel, SIMPLE by hand, and what is told and refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.cli.app import app
from ensemble_kit.decisions.label_fusion import method_of
from ensemble_kit.errors import EnskWarning
from trying import ensk

MOST = 300  # iterations: of noise ITK makes many more, some for ever
HALF = 1e-6  # a probability that close to a half is one or the other by the rounding of a sum over pixels
Z, T, F = np.zeros((3, 4), bool), np.eye(3, 4, dtype=bool), np.ones((3, 4), bool)


def members(*masks: np.ndarray) -> list[ek.MaskSet]:
    return [ek.MaskSet({("s", "x"): ek.encode(np.atleast_2d(m))}) for m in masks]


def maps_of(*maps: np.ndarray, classes: int) -> list[ek.MaskSet]:
    """Members of label maps: 0 is no class."""
    names = [f"c{k}" for k in range(1, classes + 1)]
    return [ek.MaskSet({("s", n): ek.encode(m == k) for k, n in enumerate(names, 1)}) for m in maps]


def labels_of(masks: ek.MaskSet) -> np.ndarray:
    """The label map of a fusion by label, 255 where it is undecided."""
    return np.where(masks.void("s").decode(), 255, masks.labels("s"))


def raters(rng: np.random.Generator, size: int, count: int) -> list[np.ndarray]:
    """A disc as annotators of different care draw it."""
    y, x = np.mgrid[:size, :size] / size
    distance = 0.3 - np.hypot(y - 0.5, x - 0.45)
    waves = rng.normal(size=(count, 3, 2)) * 12
    noise = [sum(np.sin(a * x + b * y + k) for k, (a, b) in enumerate(own)) for own in waves]
    return [distance + rng.uniform(0.01, 0.06) * n + rng.normal() * 0.02 > 0 for n in noise]


def itk(masks: list[np.ndarray]) -> tuple[np.ndarray, Any, Any]:
    one = sitk.STAPLEImageFilter()
    one.SetForegroundValue(1)
    one.SetMaximumIterations(MOST)
    probability = one.Execute([sitk.GetImageFromArray(m.astype(np.uint8)) for m in masks])
    return sitk.GetArrayFromImage(probability), one.GetSensitivity(), one.GetSpecificity()


def itk_labels(maps: list[np.ndarray]) -> np.ndarray:
    one = sitk.MultiLabelSTAPLEImageFilter()
    one.SetLabelForUndecidedPixels(255)
    return sitk.GetArrayFromImage(one.Execute([sitk.GetImageFromArray(m.astype(np.uint8)) for m in maps]))


def itk_counts_ties() -> bool:
    """Whether this SimpleITK puts a majority's ties into the next label's row of its first matrices (ITK #6579)."""
    one = sitk.MultiLabelSTAPLEImageFilter()
    one.SetMaximumNumberOfIterations(0)
    one.Execute([sitk.GetImageFromArray(np.array([m], np.uint8)) for m in ([0, 0, 1, 1], [0, 1, 1, 0])])
    return one.GetConfusionMatrix(0)[2] != 0


# --- against others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["random", "drawn"])
@pytest.mark.parametrize("count", [1, 3, 5, 8])
def test_binary_staple_decides_as_simpleitk(kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    for size in (9, 40, 96):
        noise = [rng.random((size, size)) < rng.uniform(0.05, 0.95) for _ in range(count)]
        masks = noise if kind == "random" else raters(rng, size, count)
        wanted, sensitivity, specificity = itk(masks)
        fused = ek.hard_vote(members(*masks), fusion=ek.Staple(iterations=MOST))
        clear = np.abs(wanted - 0.5) > HALF
        assert clear.mean() > 0.99
        assert np.array_equal(fused["s", "x"].decode()[clear], (wanted >= 0.5)[clear])
        assert fused.quality.figures["sensitivity"][0, 0] == pytest.approx(sensitivity, abs=1e-6)
        assert fused.quality.figures["specificity"][0, 0] == pytest.approx(specificity, abs=1e-6)


def pixelwise(maps: list[np.ndarray], labels: int, ties: bool) -> np.ndarray:
    """Multi-label STAPLE at every pixel; 255 is undecided. ties: as an ITK that counts them."""
    said = np.stack([m.reshape(-1) for m in maps])
    votes = np.stack([(said == t).sum(0) for t in range(labels)])
    major, tied = votes.argmax(0), (votes == votes.max(0)).sum(0) > 1
    prior, theta = votes.sum(1) / votes.sum(), np.zeros((len(maps), labels + 1, labels))
    for own, s in zip(theta, said, strict=True):
        np.add.at(own, (s[~tied], major[~tied]), 1)
        np.add.at(own, (s[tied] + 1, 0), float(ties))
        own /= np.maximum(own.sum(1, keepdims=True), 1)
    while True:
        weights = prior[:, None] * np.prod([own[s].T for own, s in zip(theta, said, strict=True)], axis=0)
        last, theta = theta, np.zeros_like(theta)
        shares = np.divide(weights, weights.sum(0), out=np.zeros_like(weights), where=weights.sum(0) > 0)
        for own, s in zip(theta, said, strict=True):
            np.add.at(own, s, shares.T)
            total = own.sum(0)
            np.divide(own, total, out=own, where=total > 0)
        if np.abs(theta - last).max() < 1e-5:
            break
    weights = prior[:, None] * np.prod([own[s].T for own, s in zip(theta, said, strict=True)], axis=0)
    undecided = (weights == weights.max(0)).sum(0) > 1
    return np.where(undecided, 255, weights.argmax(0)).reshape(maps[0].shape)


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_multi_label_staple_decides_as_simpleitk(count: int) -> None:
    """SimpleITK 2.5 spoils its seed where the majority ties; a pixel-by-pixel twin of both seeds is the bridge."""
    rng = np.random.default_rng(count)
    for kinds in (2, 3, 5):
        truth = rng.integers(0, kinds, (6, 6)).repeat(6, 0).repeat(6, 1)
        care = rng.uniform(0.05, 0.6, count)
        maps = [np.where(rng.random(truth.shape) < c, rng.integers(0, kinds, truth.shape), truth) for c in care]
        assert np.array_equal(itk_labels(maps), pixelwise(maps, kinds, ties=itk_counts_ties()))
        fused = ek.hard_vote(maps_of(*maps, classes=kinds - 1), fusion="staple", by="label")
        assert np.array_equal(labels_of(fused), pixelwise(maps, kinds, ties=False))


@pytest.mark.parametrize("count", [3, 5])
def test_multi_label_staple_is_simpleitks_where_no_majority_ties(count: int) -> None:
    rng = np.random.default_rng(7)
    for kinds in (2, 4):
        truth = rng.integers(0, kinds, (8, 8)).repeat(8, 0).repeat(8, 1)
        maps = [
            np.where(rng.random(truth.shape) < 0.3, rng.integers(0, kinds, truth.shape), truth) for _ in range(count)
        ]
        votes = np.stack([np.sum([m == t for m in maps], axis=0) for t in range(kinds)])
        tied = (votes == votes.max(0)).sum(0) > 1
        maps = [np.where(tied, truth, m) for m in maps]
        assert np.array_equal(
            labels_of(ek.hard_vote(maps_of(*maps, classes=kinds - 1), fusion="staple", by="label")), itk_labels(maps)
        )


def by_pixels(maps: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Binary STAPLE of maps (M, n), -1 is void, estimated over the pixels `within`: probability, p and q."""
    on, able = (maps == 1).astype(float), (maps >= 0).astype(float)
    prior = on[:, within].sum() / able[:, within].sum()
    weight, last = on.sum(0) / np.maximum(able.sum(0), 1), np.full((2, len(maps)), np.inf)
    while True:
        w, d, a = weight[within], on[:, within], able[:, within]
        with np.errstate(invalid="ignore"):
            p, q = (d @ w) / (a @ w), ((a - d) @ (1 - w)) / (a @ (1 - w))
        p, q = np.nan_to_num(p)[:, None], np.nan_to_num(q)[:, None]
        yes = prior * np.prod(np.where(able == 0, 1, np.where(on == 1, p, 1 - p)), axis=0)
        no = (1 - prior) * np.prod(np.where(able == 0, 1, np.where(on == 1, 1 - q, q)), axis=0)
        weight = np.divide(yes, yes + no, out=np.zeros_like(yes), where=yes + no > 0)
        now = np.stack([p[:, 0], q[:, 0]])
        if np.abs(now - last).max() <= 1e-7:
            return weight, p[:, 0], q[:, 0]
        last = now


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data())
def test_staple_pixel_by_pixel(data: st.DataObject) -> None:
    """Void pixels count for no member, pooled samples are one sample, a region leaves pixels out of the estimate."""
    count, samples = data.draw(st.integers(3, 5)), data.draw(st.integers(1, 3))
    scope, region = (
        data.draw(st.sampled_from(["sample", "pooled"])),
        data.draw(st.sampled_from(["all", "disagreement"])),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    truth = rng.random((samples, 1, 6, 8)) < 0.4
    maps = np.where(rng.random((samples, count, 6, 8)) < rng.uniform(0.05, 0.4, (count, 1, 1)), ~truth, truth).astype(
        int
    )
    maps[rng.random(maps.shape) < data.draw(st.sampled_from([0, 0.1]))] = -1
    ids = [f"s{k}" for k in range(samples)]
    sets = [
        ek.MaskSet({(s, "x"): ek.encode(own[j] == 1) for s, own in zip(ids, maps, strict=True)},
                   void={s: ek.encode(own[j] == -1) for s, own in zip(ids, maps, strict=True)})
        for j in range(count)
    ]  # fmt: skip
    method = ek.Staple(scope, region, iterations=100_000)
    fused = ek.hard_vote(sets, fusion=method)
    assert not fused.has_void
    for group in [range(samples)] if scope == "pooled" else [[k] for k in range(samples)]:
        flat = np.concatenate([maps[k].reshape(count, -1) for k in group], axis=1)
        heard, on = (flat >= 0).sum(0), (flat == 1).sum(0)
        agreed = (on == 0) | (on == heard)
        within = (heard > 0) & ~(agreed & (region == "disagreement"))
        if not within.any() or not on[within].any() or not (heard - on)[within].any():
            continue
        probability, p, q = by_pixels(flat, within)
        wanted = np.where(within, probability >= 0.5, on > 0)
        got = np.concatenate([fused[ids[k], "x"].decode().reshape(-1) for k in group])
        clear = ~within | (np.abs(probability - 0.5) > 1e-3)
        assert np.array_equal(got[clear], wanted[clear])
        row = 0 if scope == "pooled" else group[0]
        assert np.nan_to_num(fused.quality.figures["sensitivity"][row, 0]) == pytest.approx(p, abs=1e-3)
        assert np.nan_to_num(fused.quality.figures["specificity"][row, 0]) == pytest.approx(q, abs=1e-3)


pytestmark = pytest.mark.filterwarnings(
    "ignore:label inversion", "ignore:.*had not converged", "ignore:only one member votes"
)


# --- what is degenerate --------------------------------------------------------------------------------------

DEGENERATE = {
    "one member": ([T], T, [1], [1]),
    "all empty": ([Z, Z, Z], Z, [np.nan] * 3, [1] * 3),
    "all full": ([F, F, F], F, [1] * 3, [np.nan] * 3),
    "all the same": ([T, T, T], T, [1] * 3, [1] * 3),
    "two, of whom one marks all": ([T, F], F, [0.4, 1], [1, 0]),
    "two, of whom one marks nothing: a tie, which is on": ([T, Z], T, [1, 0], [6 / 7, 1]),
    "two opposites: a tie": ([T, ~T], F, [0.25, 0.75], [0.75, 0.25]),
}


@pytest.mark.parametrize(("masks", "wanted", "p", "q"), DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("fusion", ["staple", "staple:pooled"])
def test_degenerate_members(masks: list[np.ndarray], wanted: np.ndarray, p: Any, q: Any, fusion: str) -> None:
    fused = ek.hard_vote(members(*masks), fusion=fusion)
    assert np.array_equal(fused["s", "x"].decode(), wanted)
    assert fused.quality.figures["sensitivity"][0, 0] == pytest.approx(p, nan_ok=True)
    assert fused.quality.figures["specificity"][0, 0] == pytest.approx(q, nan_ok=True)


def test_a_store_that_votes_by_two_thresholds_has_two_figures(
    make_store: Callable[..., ek.LogitStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = np.linspace(-3, 3, 64).reshape(1, 8, 8)
    one, two = (
        make_store({"s": logits}, (8, 8), ("x",), name=n).path
        for n, logits in (("a", levels), ("b", levels[:, ::-1, ::-1]))
    )
    sets = [text for t in (0.3, 0.6, 0.5) for text in ("--thresholds", t)]
    vote = ["vote", one, one, two, "--hard", "--fusion", "simple", *sets]
    ensk(*vote, "--out", tmp_path / "o.npz", "--json", "-q")
    told = json.loads(capsys.readouterr().out)["quality"]
    assert told["members"] == [f"{one} (1)", f"{one} (2)", str(two)]
    assert len(told["dice"]["x"]) == 3 and told["dice"]["x"][f"{one} (1)"] != told["dice"]["x"][f"{one} (2)"]


def test_one_member_is_not_called_perfect_without_a_word() -> None:
    with pytest.warns(EnskWarning, match="only one member votes"):
        ek.hard_vote(members(T), fusion="simple")


@pytest.mark.parametrize("count", [63, 64, 100])
def test_as_many_members_as_there_are(count: int) -> None:
    rng = np.random.default_rng(count)
    truth = np.zeros((40, 50), bool)
    truth[5:30, 8:40] = True
    masks = [truth ^ (rng.random(truth.shape) < 0.25) for _ in range(count)]
    fused = ek.hard_vote(members(*masks), fusion="staple")
    assert fused["s", "x"] == ek.encode(truth)
    assert fused.quality.mean("sensitivity").min() > 0.7


def test_nothing_to_estimate() -> None:
    """Where all agree, no pixel is in the region of disagreement: the masks are known, the members' quality is not."""
    fused = ek.hard_vote(members(T, T, T), fusion="staple:region=disagreement")
    assert fused["s", "x"] == ek.encode(T)
    assert np.isnan(fused.quality.figures["sensitivity"]).all()
    assert "-" in fused.quality.report().rows[0]
    void = [ek.MaskSet({("s", "x"): ek.encode(T)}, void={"s": ek.encode(F)}) for _ in range(3)]
    assert ek.hard_vote(void, fusion="staple")["s", "x"].area == 0
    assert ek.hard_vote(void, fusion="simple")["s", "x"].area == 0


@pytest.mark.parametrize("options", [{"by": "class"}, {"by": "label"}], ids=str)
@pytest.mark.parametrize("fusion", ["staple", "staple:pooled"])
def test_no_sample(fusion: str, options: Any) -> None:
    assert len(ek.hard_vote([ek.MaskSet({})] * 3, fusion=fusion, **options)) == 0


def test_a_member_against_all_others_is_told() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((20, 20)) < 0.5
    masks = [truth ^ (rng.random(truth.shape) < 0.1) for _ in range(4)] + [~truth]
    with pytest.warns(EnskWarning, match="label inversion: 1 of 5 times .* eve, class x, s · fix: look at"):
        fused = ek.hard_vote(members(*masks), fusion="staple", names=["ann", "bob", "cat", "dan", "eve"])
    assert fused.quality.inverted == [("s", "x", "eve")]


def test_an_estimate_that_was_cut_short_is_told() -> None:
    masks = raters(np.random.default_rng(0), 30, 4)
    with pytest.warns(EnskWarning, match="1 of 1 estimates had not converged .* --fusion staple:iterations=20 "):
        fused = ek.hard_vote(members(*masks), fusion="staple:iterations=2")
    assert fused.quality.stopped == 1


def test_classes_that_exclude_each_other_but_are_fused_by_class_are_told() -> None:
    maps = [np.array([m]) for m in ([1, 1, 1, 1, 0, 0], [2, 2, 1, 2, 0, 0])]
    with pytest.warns(EnskWarning, match="some pixels have several · fix: pass --by label"):
        fused = ek.hard_vote(maps_of(*maps, classes=2), fusion="staple")
    assert not fused.exclusive
    assert ek.hard_vote(maps_of(*maps, classes=2), fusion="staple", by="label").exclusive


# --- label maps ----------------------------------------------------------------------------------------------


def test_a_background_class_is_a_label_and_no_class_abstains() -> None:
    """As in a vote by label: with a background, a pixel without a class says nothing."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, (6, 6)).repeat(4, 0).repeat(4, 1)
    maps = [np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 3, truth.shape), truth) for _ in range(4)]
    names = ("background", "road", "sky")
    sets = [ek.MaskSet({("s", n): ek.encode(m == k) for k, n in enumerate(names)}) for m in maps]
    fused = ek.hard_vote(sets, fusion="staple", by="label")
    plain = ek.hard_vote(maps_of(*maps, classes=2), fusion="staple", by="label")
    assert np.array_equal(fused.labels("s"), np.where(plain.void("s").decode(), 255, plain.labels("s")))
    assert fused.quality.labels == names
    assert plain.quality.labels == ("no class", "c1", "c2")
    silent = [
        ek.MaskSet({("s", n): ek.encode((m == k) & ~(j == 0)) for k, n in enumerate(names)}) for j, m in enumerate(maps)
    ]
    assert np.array_equal(
        ek.hard_vote(silent, fusion="staple", by="label").labels("s"),
        ek.hard_vote(sets[1:], fusion="staple", by="label").labels("s"),
    )


def test_void_pixels_of_label_maps_count_for_no_member() -> None:
    """A member whose pixels are void is as one that is not there; where all are void, the result is."""
    truth = np.repeat(np.array([[0, 1, 2, 1]]), 12, axis=1)
    wrong = np.where(np.arange(48) % 7 == 0, 2, truth)
    void = np.zeros(truth.shape, bool)
    void[0, :9] = True

    def member(labels: np.ndarray, hidden: np.ndarray) -> ek.MaskSet:
        masks = {("s", f"c{k}"): ek.encode((labels == k) & ~hidden) for k in (1, 2)}
        return ek.MaskSet(masks, void={"s": ek.encode(hidden)})

    hidden = np.ones(truth.shape, bool)
    four = [member(m, void) for m in (truth, wrong, truth)] + [member(wrong, hidden)]
    fused = ek.hard_vote(four, fusion="staple", by="label")
    assert fused.void("s") == ek.encode(void)
    assert np.array_equal(labels_of(fused), np.where(void, 255, truth))
    assert np.isnan(fused.quality.figures["sensitivity"][0, :, 3]).all()
    three = ek.hard_vote([member(m[:, 9:], void[:, 9:]) for m in (truth, wrong, truth)], fusion="staple", by="label")
    assert fused.quality.confusion[0, :3] == pytest.approx(three.quality.confusion[0])


def test_confusion_of_members_on_label_maps() -> None:
    """Member 2 takes a third of the 2s for 1s: its matrix says so, and the others' are diagonal."""
    truth = np.array([[0] * 30 + [1] * 30 + [2] * 30])
    wrong = np.where((truth == 2) & (np.arange(90) % 3 == 0), 1, truth)
    fused = ek.hard_vote(maps_of(truth, wrong, truth, truth, classes=2), fusion="staple", by="label")
    assert np.array_equal(labels_of(fused), truth)
    assert np.allclose(fused.quality.confusion[0, 1], [[1, 0, 0], [0, 1, 1 / 3], [0, 0, 2 / 3]])
    assert np.allclose(fused.quality.confusion[0, 0], np.eye(3))
    assert fused.quality.mean("sensitivity")[1] == pytest.approx([1, 2 / 3, 1, 1])
    assert fused.quality.mean("specificity")[0, 1] == pytest.approx(1 - 1 / 6, abs=0.01)  # of the prior's shares
    assert fused.quality.to_dict()["confusion"]["member 1"][0][0] == pytest.approx(1)


# --- SIMPLE --------------------------------------------------------------------------------------------------


def test_simple_by_hand() -> None:
    """Five draw eight pixels; of the last, the Dice with the majority is 0.4, and it is out in the first round."""
    good = [np.array([[1, 1, 1, 1, 0, 0, 0, 0]])] * 4
    bad = np.array([[1, 0, 0, 0, 0, 0, 0, 0]])
    fused = ek.hard_vote(members(*good, bad), fusion="simple")
    assert fused["s", "x"].text() == "1 4"
    assert fused.quality.figures["dice"][0, 0].tolist() == [1, 1, 1, 1, 0.4]
    assert fused.quality.figures["dropped"][0, 0].tolist() == [0, 0, 0, 0, 1]
    assert fused.rule.startswith("SIMPLE of 5 members, for each sample and class")
    assert ek.hard_vote(members(*good, bad), fusion="simple:least=5").quality.figures["dropped"].max() == 0


def test_simple_weights_members_by_their_dice() -> None:
    """Of two against two the better agreeing pair decides, where a majority is off."""
    masks = [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 1]]
    majority, fused = (ek.hard_vote(members(*map(np.array, masks)), fusion=f) for f in ("majority", "simple:alpha=9"))
    assert majority["s", "x"].text() == "1 4"
    dice = [2 * 4 / 9, 2 * 4 / 9, 6 / 7, 8 / 9]  # with pixels 1 … 4
    assert sum(dice[:2]) > sum(dice[2:])
    assert fused["s", "x"].text() == "1 5"


def test_simple_pooled_drops_a_member_everywhere() -> None:
    rng = np.random.default_rng(0)
    truth = {f"s{k}": rng.random((12, 12)) < 0.4 for k in range(4)}
    care = [0.02, 0.02, 0.02, 0.02, 0.4]
    sets = [ek.MaskSet({(s, "x"): ek.encode(t ^ (rng.random(t.shape) < c)) for s, t in truth.items()}) for c in care]
    fused = ek.hard_vote(sets, fusion="simple:pooled")
    assert (fused.quality.figures["dropped"] > 0).tolist() == [[[False, False, False, False, True]]]
    assert fused.quality.samples == ("all samples",)
    assert ek.dice(fused, ek.MaskSet({(s, "x"): ek.encode(t) for s, t in truth.items()})).mean > 0.99


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=6))
def test_simple_ends_and_keeps_what_all_agree_on(masks: list[list[bool]]) -> None:
    stack = np.array(masks)
    fused = ek.hard_vote(members(*stack), fusion="simple")["s", "x"].decode()[0]
    assert fused[stack.all(0)].all()
    assert not fused[~stack.any(0)].any()


# --- options and words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        ek.Staple(),
        ek.Staple("pooled"),
        ek.Staple("pooled", "disagreement", 50, 1e-4),
        ek.Simple(),
        ek.Simple("pooled", 2.0, 4),
    ],
    ids=str,
)
def test_a_method_is_read_from_its_text(method: ek.Staple | ek.Simple) -> None:
    assert method_of(str(method)) == method
    assert method_of(method) is method


def test_majority_is_the_default() -> None:
    given_ = members(T, F, Z)
    assert ek.hard_vote(given_, fusion="majority") == ek.hard_vote(given_) == ek.hard_vote(given_, fusion=None)
    assert ek.hard_vote(given_, quorum=1, fusion="majority").quality is None


REFUSED = {
    "another method": ({"fusion": "mean"}, "fusion-invalid", "fusion='mean' · fix: pass majority, staple, simple"),
    "another option": ({"fusion": "staple:alpha=2"}, "fusion-invalid", "staple has no 'alpha' · fix: give each once: scope=…"),
    "an option twice": ({"fusion": "staple:pooled,sample"}, "fusion-invalid", "scope is given twice"),
    "no number": ({"fusion": "simple:alpha=high"}, "fusion-invalid", "pass a number as alpha"),
    "another scope": ({"fusion": "staple:class"}, "option-invalid", "pass 'sample' or 'pooled'"),
    "another region": ({"fusion": "staple:region=box"}, "option-invalid", "pass 'all' or 'disagreement'"),
    "an empty option": ({"fusion": "staple:"}, "fusion-invalid", "fusion='staple:'"),
    "no iteration": ({"fusion": "staple:iterations=0"}, "option-invalid", "pass 1 or more"),
    "another type": ({"fusion": 5}, "argument-kind", "pass 'majority', 'staple'"),
    "weights": ({"fusion": "staple", "weights": [1, 1]}, "fusion-option-idle", "what a member weighs is what it estimates"),
    "quorum": ({"fusion": "simple", "quorum": 1}, "fusion-option-idle", "not by a number of members"),
    "ties": ({"fusion": "staple", "ties": "on"}, "fusion-option-idle", "a rule of its own"),
    "empty": ({"fusion": "staple", "empty": "abstain"}, "fusion-option-idle", "says how well a member votes"),
    "SIMPLE by label": ({"fusion": "simple", "by": "label"}, "fusion-invalid", "decides each class by itself"),
    "names of others": ({"fusion": "staple", "names": ["ann"]}, "fusion-invalid", "1 names of 2 members"),
    "one name twice": ({"fusion": "staple", "names": ["ann", "ann"]}, "fusion-invalid", "pass names that differ"),
    "two who disagree": ({"fusion": "staple:region=disagreement"}, "fusion-invalid", "pass 3 members or more"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "code", "told"), REFUSED.values(), ids=REFUSED)
def test_refused(options: dict[str, Any], code: str, told: str) -> None:
    with pytest.raises(ek.UsageError, match=re.escape(told)) as found:
        ek.hard_vote(members(T, F), **options)
    assert found.value.code == code


def test_overlapping_classes_have_no_labels() -> None:
    both = ek.MaskSet({("s", name): ek.encode(T) for name in "ab"})
    with pytest.raises(ek.MismatchError, match="two classes of member 1 overlap"):
        ek.hard_vote([both, both], fusion="staple", by="label")


def test_quality_as_a_table() -> None:
    sets = [ek.MaskSet({(s, c): ek.encode(m) for s in "pq" for c in "ab"}) for m in (T, T, T | (np.arange(4) == 3))]
    quality = ek.hard_vote(sets, fusion="staple").quality.named(["ann", "bob", "eve"])
    frame = quality.table()
    assert list(frame) == ["sample", "class", "member", "sensitivity", "specificity"]
    assert len(frame) == 2 * 2 * 3
    eve = frame[(frame.member == "eve") & (frame["sample"] == "q") & (frame["class"] == "b")]
    assert eve.specificity.item() == pytest.approx(6 / 9)
    lines = str(quality).splitlines()
    assert lines[0] == "quality of members by staple, means over 2 samples"
    assert lines[-3:][0].split() == ["all", "eve", "1.0000", "0.6667"]
    assert quality.to_dict()["specificity"]["a"] == pytest.approx({"ann": 1, "bob": 1, "eve": 6 / 9})


# --- the command ---------------------------------------------------------------------------------------------


def vote(*arguments: Any) -> None:
    app(["vote", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def team(tmp_path: Path) -> list[Path]:
    """Four annotators, as a CSV, two stacks and a folder of PNGs."""
    truth = np.zeros((20, 24), bool)
    truth[4:15, 5:18] = True
    rng = np.random.default_rng(3)
    paths = []
    for name, format_, care in (
        ("ann.csv", "handbone", 0.02),
        ("bob.npz", None, 0.05),
        ("cat", "png", 0.1),
        ("eve.npz", None, 0.3),
    ):
        masks = ek.MaskSet({(s, "x"): ek.encode(truth ^ (rng.random(truth.shape) < care)) for s in ("p.png", "q.png")})
        masks.write(tmp_path / name, format=format_)
        paths.append(tmp_path / name)
    return paths


@pytest.mark.slow
def test_the_command_prints_the_quality_of_members(
    team: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.npz"
    vote(*team, "--hard", "--fusion", "staple:pooled", "--out", out)
    told = capsys.readouterr()
    assert "rule: STAPLE of 4 members, estimated for all samples together, class by class over all pixels" in told.err
    rows = {
        line.split()[1]: [float(v) for v in line.split()[2:]] for line in told.out.splitlines() if line.startswith("x ")
    }
    assert list(rows) == ["ann.csv", "bob.npz", "cat", "eve.npz"]
    assert max(rows["eve.npz"]) < 0.8 < min(min(rows[name]) for name in list(rows)[:3])
    sets = [ek.read_masks(p, image_size=(20, 24), classes=["x"]) for p in team]
    assert dict(ek.read_masks(out)) == dict(ek.hard_vote(sets, fusion="staple:pooled"))
    vote(*team, "--hard", "--fusion", "simple", "--rule", "keep-largest:1", "--json", "--force", "--out", out)
    answer = json.loads(capsys.readouterr().out)
    assert answer["quality"]["method"] == "simple"
    assert answer["quality"]["dice"]["x"]["ann.csv"] > 0.9
    assert answer["quality"]["dropped"]["x"]["eve.npz"] == 1
    assert "the share of the votes" in answer["quality"]["legend"]


def test_the_command_keeps_standard_output_for_the_masks(team: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    vote(*team, "--hard", "--fusion", "staple", "--format", "handbone", "--out", "-")
    told = capsys.readouterr()
    assert told.out.startswith("image_name,class,rle\n")
    assert "sensitivity" in told.err
    assert "sensitivity" not in told.out


@pytest.mark.parametrize(
    "option", [["--weights", "1,1,1,1"], ["--quorum", "2"], ["--ties", "off"], ["--empty", "vote"]], ids=str
)
def test_the_command_refuses_what_would_have_no_effect(team: list[Path], tmp_path: Path, option: list[str]) -> None:
    with pytest.raises(ek.UsageError, match=rf"cannot use {option[0][2:]} beside fusion='staple'"):
        vote(*team, "--fusion", "staple", *option, "--out", tmp_path / "o.npz")


def test_a_soft_vote_has_no_fusion_of_labels(tmp_path: Path) -> None:
    with pytest.raises(ek.UsageError, match="--fusion here: it has no effect with --soft"):
        vote(tmp_path, "--soft", "--fusion", "staple", "--out", tmp_path / "o.npz")
