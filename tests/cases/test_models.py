"""What users' networks did to former versions (N1 to N3, N12), each with its right value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ensemble_kit as ek
from cases.dumps import GREY, dump, onnx_of, refused, stored
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.tuning.folds import make_folds

# --- N1: classes that flips exchange --------------------------------------------------------------------------


class Position(nn.Module):
    """Tells left from right by the half of the image, as a network trained without flips does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = torch.arange(x.shape[3]) < x.shape[3] / 2
        return torch.stack([torch.where(left, x[:, 0] + 1, -8.0), torch.where(left, -8.0, x[:, 0] + 1)], 1)


class Handed(nn.Module):
    """Tells left from right by shape: a bright spot left of the middle of the object, wherever the object lies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skew = (x * torch.linspace(1, -1, x.shape[3])).sum((1, 2, 3), keepdim=True)
        skew = skew * torch.sign((x * torch.linspace(1, -1, x.shape[2])[:, None]).sum((1, 2, 3), keepdim=True))
        return torch.cat([skew * x[:, :1], -skew * x[:, :1]], 1)


def flips(group: str, swap: Any) -> Recipe:
    return Recipe(Preprocess(16), tta=tuple(group.split(",")), swap=swap)


@pytest.mark.parametrize("group", ["hflip", "vflip", "hflip,vflip"])
def test_N1_position_swaps_where_left_and_right_are_flipped(tmp_path, group) -> None:
    dump(tmp_path, Position(), flips(group, {"hflip": {"lung_left": "lung_right"}}))
    with torch.inference_mode():
        once = Position()(torch.from_numpy(np.repeat(GREY[None, None] / np.float32(255), 3, axis=1)))[0].numpy()
    assert np.array_equal(stored(tmp_path), once.astype(np.float16))
    assert [(one > 0).sum() for one in stored(tmp_path)] == [128, 128]
    kept = ek.LogitStore(tmp_path / "m.zarr").provenance["swap_classes"]
    assert kept == {"hflip": {"lung_left": "lung_right"}}


@pytest.mark.parametrize("group", ["hflip", "vflip", "hflip,vflip", "hflip,rot90"])
def test_N1_handedness_swaps_in_every_mirror_image(tmp_path, group) -> None:
    dump(tmp_path, Handed(), flips(group, {"handedness": {"lung_left": "lung_right"}}))
    x = torch.from_numpy(np.repeat(GREY[None, None] / np.float32(255), 3, axis=1))
    images = {"": x, "h": x.flip(3), "v": x.flip(2), "hv": x.flip(2, 3)}
    if "rot90" not in group:
        flip = {"h": lambda y: y.flip(3)[:, [1, 0]], "v": lambda y: y.flip(2)[:, [1, 0]], "hv": lambda y: y.flip(2, 3)}
        used = [k for k in ("h", "v", "hv") if set(k) <= {one[0] for one in group.split(",")}]
        outputs = [Handed()(x), *(flip[k](Handed()(images[k])) for k in used)]
        right = torch.stack(outputs).mean(0)[0].numpy()
        assert np.allclose(stored(tmp_path), right, rtol=2e-3, atol=0.02)
        assert np.allclose(right, Handed()(x)[0].numpy(), atol=1e-3)  # the network is handed indeed
    assert np.allclose(stored(tmp_path)[0], -stored(tmp_path)[1])


@pytest.mark.parametrize("group", ["vflip", "hflip,vflip", "rot90", "hflip,rot90"])
def test_N1_pairs_alone_are_asked_about(tmp_path, group) -> None:
    error = refused("swap-ambiguous", tmp_path, Position(), flips(group, {"lung_left": "lung_right"}))
    assert error.exit_code == 2
    assert "--swap-classes 'handedness:lung_left=lung_right'" in error.fix
    assert ("leave rot90 out" if "rot90" in group else "--swap-classes 'hflip:lung_left=lung_right'") in error.fix


def test_N1_pairs_alone_are_plain_under_horizontal_flips(tmp_path) -> None:
    dump(tmp_path, Position(), flips("hflip", {"lung_left": "lung_right"}))
    assert [(one > 0).sum() for one in stored(tmp_path)] == [128, 128]
    assert ek.LogitStore(tmp_path / "m.zarr").provenance["swap_classes"] == {"lung_left": "lung_right"}


@pytest.mark.parametrize(
    ("group", "swap", "code", "text"),
    [
        ("hflip,vflip", None, "sides-merge", "'hflip:lung_left=lung_right' if their position"),
        ("rot90", None, "sides-merge", "leave rot90 out"),
        ("hflip,rot90", {"hflip": {"lung_left": "lung_right"}}, "option-invalid", "handedness"),
        ("vflip", {"lung_left": "lung_right", "vflip": {}}, None, ""),
        ("", {"handedness": {"lung_left": "lung_right"}}, "option-invalid", "--tta hflip"),
        ("hflip", {"vflip": {"lung_left": 3}}, "swap-classes", "none, or a file"),
    ],
    ids=["not said", "turned, not said", "position, turned", "an empty kind", "no flips", "not names"],
)
def test_N1_what_is_refused(tmp_path, group, swap, code, text) -> None:
    if code is None:
        code, text = "swap-ambiguous", "--swap-classes"
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, Position(), Recipe(Preprocess(16), tta=tuple(group.split(",")) if group else (), swap=swap))
    assert caught.value.code == code
    assert text in caught.value.fix


def test_N1_quadrants_swap_by_axis_and_contradictions_are_refused(tmp_path) -> None:
    """The eight quadrants of teeth, and any other classes that both flips exchange."""

    class Quadrants(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, z = (torch.arange(n) < n / 2 for n in x.shape[2:])
            halves = [y[:, None] & z, y[:, None] & ~z, ~y[:, None] & z, ~y[:, None] & ~z]
            return torch.stack([torch.where(half, x[:, 0] + 1, -8.0) for half in halves], 1)

    names = ("UL", "UR", "LL", "LR")
    swap = {"hflip": {"UL": "UR", "LL": "LR"}, "vflip": {"UL": "LL", "UR": "LR"}}
    dump(tmp_path, Quadrants(), flips("hflip,vflip", swap), names)
    assert [(one > 0).sum() for one in stored(tmp_path)] == [64] * 4
    swap["vflip"] = {"UL": "LL"}
    with pytest.raises(ek.MismatchError, match="another order of classes"):
        dump(tmp_path, Quadrants(), flips("hflip,vflip", swap), names)


# --- N3: several outputs --------------------------------------------------------------------------------------


class Several(nn.Module):
    """A network with deep supervision: constant maps of 1, 2, 3, each on its own share of the grid."""

    def __init__(self, strides: tuple[int, ...], names: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.strides, self.names = strides, names

    def forward(self, x: torch.Tensor) -> Any:
        maps = [x[:, :2, ::s, ::s] * 0 + k + 2 for k, s in enumerate(self.strides)]
        return dict(zip(self.names, maps, strict=True)) if self.names else maps


@pytest.mark.parametrize(
    ("network", "output", "value", "said"),
    [
        (Several((1, 1, 1)), None, 2, "although 1, 2 have the same shape"),
        (Several((1, 1, 1)), -1, 4, ""),
        (Several((1, 1, 1)), 1, 3, ""),
        (Several((1, 2, 4)), None, 2, "0 is taken; pass --output 2"),
        (Several((1, 2, 4)), 2, 4, ""),
        (Several((4, 2, 1)), 2, 4, ""),
        (Several((1, 1), ("aux", "out")), None, 3, "'out' is taken, although 'aux' has the same shape"),
        (Several((1, 1), ("aux", "out")), "aux", 2, ""),
        (Several((1, 1), ("main", "side")), "side", 3, ""),
        (Several((1,)), None, 2, ""),
    ],
    ids=["alike: the first", "the last", "the second", "finest first: the first", "the coarsest", "finest last: asked",
         "out before aux", "aux", "a name of its own", "a list of one"],
)  # fmt: skip
def test_N3_the_output_that_is_taken(tmp_path, network, output, value, said) -> None:
    told: list[str] = []
    dump(tmp_path, network, Recipe(Preprocess(16), output=output), say=told.append)
    assert (stored(tmp_path) == value).all()
    lines = [line for line in told if "is taken" in line]
    assert len(lines) == bool(said)
    assert said in "".join(lines)
    assert ek.LogitStore(tmp_path / "m.zarr").provenance.get("output") == output


@pytest.mark.parametrize(
    ("network", "output", "code", "fix"),
    [
        (Several((4, 2, 1)), None, "output-ambiguous", "--output 2 for the finest, or --output 0 for the first"),
        (Several((1, 1), ("main", "side")), None, "model-output", "--output main or --output side"),
        (Several((1, 1)), 2, "output-missing", "--output 0"),
        (Several((1, 1)), "out", "output-missing", "--output 0"),
        (nn.Conv2d(3, 2, 1), 1, "output-missing", "--output 0"),
    ],
    ids=["finest last", "two names of their own", "beyond the list", "a name of a list", "a tensor"],
)
def test_N3_what_cannot_be_told_is_refused(tmp_path, network, output, code, fix) -> None:
    assert fix in refused(code, tmp_path, network, Recipe(Preprocess(16), output=output)).fix


@pytest.mark.parametrize(
    ("outputs", "output", "value"),
    [
        ({"497": 1, "501": 1}, None, 2),
        ({"497": 1, "501": 1}, 501, 3),
        ({"497": 1, "501": 1}, -1, 3),
        ({"aux": 1, "logits": 1}, None, 3),
        ({"aux": 1, "logits": 1}, "aux", 2),
    ],
    ids=["the first", "a number for a name", "the last", "logits", "aux"],
)
def test_N3_outputs_of_onnx(tmp_path, outputs, output, value) -> None:
    model = onnx_of(tmp_path / "net.onnx", outputs)
    told: list[str] = []
    dump(tmp_path, str(model), Recipe(Preprocess(16), output=output), say=told.append)
    assert (stored(tmp_path) == value).all()
    assert any("is taken" in line for line in told) == (output is None)


def test_N3_the_finest_output_of_onnx_is_seen_when_it_runs(tmp_path) -> None:
    model = onnx_of(tmp_path / "net.onnx", {"497": 4, "501": 1})
    assert (
        "--output 501 for the finest" in refused("output-ambiguous", tmp_path, str(model), Recipe(Preprocess(16))).fix
    )


# --- N12: classes that validation does not have ---------------------------------------------------------------


def absent_case(make_store: Any, *names: str) -> tuple[ek.Ensemble, ek.MaskSet]:
    """`bone` in all 12 samples, `rare`, which looks alike, in two of them, and `ghost`, noise that has no pixels."""
    rng = np.random.default_rng(3)
    logits, truth = {}, {}
    for k in range(12):
        mask = np.zeros((16, 16), bool)
        mask[3:9, 2 + k % 5 : 9] = True
        z = np.where(mask, -1.0, -3.5) + rng.normal(0, 0.7, (16, 16))
        maps = {"bone": z, "ghost": np.where(rng.random((16, 16)) < 0.02, 6.0, -6.0), "rare": z}
        true = {"bone": mask, "ghost": mask & False, "rare": mask & (k < 2)}
        logits[f"s{k}"] = np.stack([maps[name] for name in names]).astype(np.float16)
        truth |= {(f"s{k}", name): ek.encode(true[name]) for name in names}
    return ek.Ensemble([make_store(logits, (16, 16), names)]), ek.MaskSet(truth)


@pytest.mark.slow
@pytest.mark.parametrize("choose", ["bagged", "shrunk", "own"])
@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_N12_a_class_without_positives_takes_the_common_threshold(make_store, choose, objective) -> None:
    tuned = ek.tune_thresholds(*absent_case(make_store, "bone", "ghost", "rare"), objective, folds=4, choose=choose)
    alone = ek.tune_thresholds(*absent_case(make_store, "bone", "rare"), objective, folds=4, choose=choose)
    crossed, other = tuned.validation.crossed, alone.validation.crossed
    assert tuned.levels["ghost"] == crossed.common_level
    assert tuned.thresholds["ghost"] < 0.6
    ghost = crossed.classes["ghost"]
    assert (ghost.keeps, ghost.gain.value, ghost.gain.low, ghost.gain.high) == (False, 0, 0, 0)
    assert (crossed.common_level, crossed.gain) == (other.common_level, other.gain)  # as if it were not there
    assert {**alone.levels, "ghost": crossed.common_level} == tuned.levels
    told = tuned.report()
    doubts = [str(w) for w in told.warnings if "the common threshold is taken, and no gain counted" in str(w)]
    assert len(doubts) == 1
    assert "ghost" in doubts[0]
    row, last = next(row for row in told.rows if row[0] == "ghost"), told.rows[-1]
    gain = told.columns.index("gain")
    assert row[gain] == "–"
    assert last[gain] == alone.report().rows[-1][gain]


@pytest.mark.slow
def test_N12_a_fold_whose_training_lacks_a_class_takes_its_common_threshold(make_store) -> None:
    ens, truth = absent_case(make_store, "bone", "rare")
    groups = {f"s{k}": "abc"[(k >= 2) + (k >= 7)] for k in range(12)}
    tuned = ek.tune_thresholds(ens, truth, folds=3, groups=groups, shrink=False)
    held = [{groups[ens.samples[k]] for k in fold} for fold in make_folds(ens.samples, 3, groups, 0)].index({"a"})
    rare, bone = (tuned.validation.crossed.classes[name].levels for name in ("rare", "bone"))
    assert rare[held] == bone[held]  # the common level of the classes that are there


@pytest.mark.slow
def test_N12_factors_of_absent_classes_are_one(make_store) -> None:
    rng = np.random.default_rng(3)
    logits, truth = {}, {}
    for k in range(9):
        mask = np.zeros((16, 16), bool)
        mask[3:9, 2 + k % 5 : 9] = True
        z = np.stack([mask * -2.0, mask * 1.5 - 1, rng.normal(0, 1, (16, 16))])
        logits[f"s{k}"] = z.astype(np.float16)
        truth |= {(f"s{k}", "bg"): ek.encode(~mask), (f"s{k}", "bone"): ek.encode(mask)}
        truth[f"s{k}", "ghost"] = ek.encode(mask & False)
    names = ("bg", "bone", "ghost")
    ens = ek.Ensemble([make_store(logits, (16, 16), names, activation="softmax")])
    tuned = ek.tune_thresholds(ens, ek.MaskSet(truth), folds=3, shrink=False)
    assert next(c.factor for c in tuned.factors if c.name == "ghost") == 65536
    assert tuned.validation.crossed.classes["ghost"].levels == (65536,) * 3
