"""What users' networks and images did to former versions (N1 to N6, N12), each with its right value."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ensemble_kit as ek
from ensemble_kit.dumping import Dumped, dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.tuning.folds import make_folds

SIDES = ("lung_left", "lung_right")
GREY = np.random.default_rng(0).integers(40, 256, (16, 16)).astype(np.uint8)


def put(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path.parent


def dump(tmp_path: Path, network: object, recipe: Recipe, classes: Any = SIDES, **options: Any) -> Dumped:
    images = tmp_path / "images"
    if not images.is_dir():
        put(images / "a.png", GREY)
    return dump_logits(network, images, classes, tmp_path / "m.zarr", recipe, device="cpu", **options)


def stored(tmp_path: Path) -> np.ndarray:
    return ek.LogitStore(tmp_path / "m.zarr").read("a.png").astype(np.float32)


def refused(code: str, tmp_path: Path, network: object, recipe: Recipe, **options: Any) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, network, recipe, **options)
    assert caught.value.code == code, caught.value
    assert not (tmp_path / "m.zarr").exists()
    return caught.value


# --- N1: classes that flips exchange ---------------------------------------------------------------------------


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
    assert "--swap-classes handedness:lung_left=lung_right" in error.fix
    assert ("leave rot90 out" if "rot90" in group else "--swap-classes hflip:lung_left=lung_right") in error.fix


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


# --- N3: several outputs ---------------------------------------------------------------------------------------


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


def onnx_of(path: Path, outputs: dict[str, int], channels: int = 3) -> Path:
    """An ONNX file with free lengths whose k-th output is k + 2 on two classes, at its own stride."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes, made, values = [], [], []
    for k, (name, stride) in enumerate(outputs.items()):
        weight = np.zeros((2, channels, 1, 1), np.float32)
        made += [
            numpy_helper.from_array(weight, f"w{k}"),
            numpy_helper.from_array(np.full(2, k + 2, np.float32), f"b{k}"),
        ]
        nodes.append(helper.make_node("Conv", ["x", f"w{k}", f"b{k}"], [name], strides=[stride, stride]))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 2, f"h{k}", f"w{k}"]))
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", channels, "h", "w"])
    graph = helper.make_graph(nodes, "g", [images], values, made)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


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


# --- weights in checkpoints ------------------------------------------------------------------------------------


def net(bias: float = 0.0) -> nn.Module:
    built = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))
    for parameter in built.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(built[1].bias, bias)
    return built


STATE, EMA = net(2).state_dict(), net(3).state_dict()


def behind(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize(
    ("checkpoint", "key", "value", "said"),
    [
        ({"state_dict": STATE, "state_dict_ema": EMA}, None, 2, "it also holds 'state_dict_ema': pass --weights-key"),
        ({"state_dict": STATE, "state_dict_ema": EMA}, "state_dict_ema", 3, "took 'state_dict_ema'"),
        ({"model": STATE, "model_ema": {"module": EMA}}, "model_ema", 3, "took 'module'"),
        ({"model": STATE, "ema": {"shadow": EMA}}, "ema.shadow", 3, "took 'ema.shadow'"),
        ({"ema": EMA, "epoch": 3}, None, 3, "took 'ema'"),
        ({"teacher": EMA}, None, 3, "took 'teacher'"),
        ({"n_averaged": torch.tensor(5), **behind("module.", EMA)}, None, 3, "left out 'n_averaged'"),
        (behind("unet.", STATE), None, 2, "dropped the prefix 'unet.'"),
        (behind("_orig_mod.", STATE), None, 2, "dropped the prefix '_orig_mod.'"),
        ({k.replace(".", "._orig_mod."): v for k, v in STATE.items()}, None, 2, "dropped the prefix '_orig_mod.'"),
        (behind("lit.model.net.", STATE) | {"lit.loss.w": torch.ones(1)}, None, 2, "'lit.model.net.'"),
        (behind("student.", STATE) | behind("teacher.", EMA), "teacher", 3, "dropped the prefix 'teacher.'"),
    ],
    ids=["ema beside", "ema asked for", "ema of module", "ema of shadow", "ema alone", "teacher alone", "swa", "unet",
         "compiled", "compiled inside", "three deep", "teacher behind a prefix"],
)  # fmt: skip
def test_weights_that_are_taken_are_named(tmp_path, checkpoint, key, value, said) -> None:
    torch.save(checkpoint, tmp_path / "w.pt")
    told: list[str] = []
    dump(
        tmp_path, net(), Recipe(Preprocess(16)), weights=tmp_path / "w.pt", weights_key=key, trust=True, say=told.append
    )
    assert (stored(tmp_path) == value).all()
    assert said in "\n".join(told)


def test_weights_of_a_network_that_is_wrapped_itself(tmp_path) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    wrapped = nn.Sequential()
    wrapped.add_module("unet", net())
    told: list[str] = []
    dump(tmp_path, wrapped, Recipe(Preprocess(16)), weights=tmp_path / "w.pt", trust=True, say=told.append)
    assert (stored(tmp_path) == 2).all()
    assert "put the prefix 'unet.' before every key" in "\n".join(told)


@pytest.mark.parametrize(
    ("checkpoint", "key", "code", "text"),
    [
        (behind("student.", STATE) | behind("teacher.", EMA), None, "weights-ambiguous", "--weights-key teacher"),
        ({"state_dict": STATE}, "ema", "weights-key", "no entry 'ema'"),
        (behind("a.", STATE) | {"a.head.w": torch.ones(1)}, None, "weights-mismatch", "5 keys there"),
        (
            behind("a.", {"0.weight": STATE["0.weight"]}),
            None,
            "weights-mismatch",
            "1 keys there: 'a.0.weight'; 4 in the",
        ),
        ({"epoch": 3}, None, "weights-form", "--weights-key"),
    ],
    ids=["two fit", "no such entry", "more behind it", "less", "none"],
)
def test_weights_that_cannot_be_told_are_refused(tmp_path, checkpoint, key, code, text) -> None:
    torch.save(checkpoint, tmp_path / "w.pt")
    options = {"weights": tmp_path / "w.pt", "weights_key": key, "trust": True}
    assert text in str(refused(code, tmp_path, net(), Recipe(Preprocess(16)), **options))


# --- weights of windows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant", "gaussian"])
def test_windows_are_averaged_as_monai_does(tmp_path, kind) -> None:
    inferers = pytest.importorskip("monai.inferers")
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 5, padding=2)  # its padding makes every window differ at its edges
    x = torch.from_numpy(np.repeat(GREY[None, None] / np.float32(255), 3, axis=1))
    with torch.inference_mode():
        right = inferers.sliding_window_inference(x, (8, 8), 2, network, overlap=0.5, mode=kind)[0].numpy()
    recipe = Recipe(Preprocess(), tile=8, overlap=0.5, tile_weights=kind)
    dump(tmp_path, network, recipe)
    assert np.allclose(stored(tmp_path), right, atol=1e-3)
    assert ek.LogitStore(tmp_path / "m.zarr").provenance["tile_weights"] == kind


# --- N2: what a softmax made, for overlapping classes ----------------------------------------------------------


class Softmax(nn.Module):
    """Two classes that exclude each other: as logits, or after an activation."""

    def __init__(self, after: str = "") -> None:
        super().__init__()
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.stack([x[:, 0] * 4 - 2, 1 - x[:, 1] * 3], 1)
        return getattr(torch, self.after)(z, dim=1) if self.after else z


PAIR = ("lesion", "skin")


def right_labels() -> np.ndarray:
    g = GREY / np.float32(255)
    return (1 - g * 3 > g * 4 - 2).astype(np.uint8)


def labels_of(tmp_path: Path) -> np.ndarray:
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert store.activation == "softmax"
    return ek.Ensemble([tmp_path / "m.zarr"]).vote().labels("a.png", {name: k for k, name in enumerate(store.classes)})


@pytest.mark.parametrize(
    ("after", "recipe", "code", "exit_code", "then"),
    [
        ("log_softmax", {}, "logits-exclusive", 3, {"activation": "softmax"}),
        ("log_softmax", {"activation": "sigmoid"}, "logits-exclusive", 3, {"activation": "softmax"}),
        ("softmax", {}, "logits-are-probabilities", 3, {"activation": "softmax", "domain": "probabilities"}),
        ("softmax", {"domain": "probabilities"}, "probabilities-exclusive", 3, {"activation": "softmax"}),
    ],
    ids=["log-softmax", "log-softmax, sigmoid given", "softmax for logits", "softmax for sigmoid"],
)
def test_N2_what_a_softmax_made_is_not_taken_for_sigmoid(tmp_path, after, recipe, code, exit_code, then) -> None:
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, Softmax(after), Recipe(Preprocess(16), **recipe), PAIR)
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    for name, value in then.items():
        assert f"--{name} {value}" in caught.value.fix
    dump(tmp_path, Softmax(after), Recipe(Preprocess(16), **{**recipe, **then}), PAIR)
    assert np.array_equal(labels_of(tmp_path), right_labels())


def test_N2_a_background_among_sigmoid_classes_is_asked_about(tmp_path) -> None:
    names = ("background", "skin")
    error = refused("activation-ambiguous", tmp_path, Softmax(), Recipe(Preprocess(16)), classes=names)
    assert error.exit_code == 2
    assert "--activation softmax" in error.fix
    assert "--activation sigmoid" in error.fix
    dump(tmp_path, Softmax(), Recipe(Preprocess(16), activation="sigmoid"), names)
    assert ek.LogitStore(tmp_path / "m.zarr").activation == "sigmoid"
    dump(tmp_path, Softmax(), Recipe(Preprocess(16), activation="softmax"), names, force=True)
    assert np.array_equal(labels_of(tmp_path), right_labels())


@pytest.mark.parametrize("names", [("bg", "a"), ("_background_", "a"), ("a", "Background"), ("void_0", "a")], ids=str)
def test_N2_a_writer_asks_about_a_background(tmp_path, names) -> None:
    with pytest.raises(ek.UsageError) as caught:
        ek.LogitWriter(tmp_path / "m.zarr", names, ["a"], (4, 4))
    assert caught.value.code == "activation-ambiguous"
    assert not (tmp_path / "m.zarr").exists()
    ek.LogitWriter(tmp_path / "m.zarr", names, ["a"], (4, 4), activation="sigmoid").close()
    ek.LogitWriter(tmp_path / "one.zarr", names[:1], ["a"], (4, 4)).close()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_N2_a_writer_looks_at_its_first_sample(tmp_path, kind) -> None:
    z = np.random.default_rng(0).normal(size=(3, 8, 8))
    log_p = (z - np.log(np.exp(z).sum(0))).astype(np.float32)
    own: Any = torch.from_numpy(log_p) if kind == "torch" else log_p
    with ek.LogitWriter(tmp_path / "m.zarr", list("abc"), ["a"], (8, 8), activation="sigmoid") as out:
        with pytest.raises(ek.DamagedError, match="--activation softmax") as caught:
            out.write("a", own, (8, 8))
        assert caught.value.code == "logits-exclusive"
        assert out.missing == ["a"]
        out.write("a", own + 1, (8, 8))  # shifted: no logarithms of probabilities, and no evidence
    with ek.LogitWriter(tmp_path / "p.zarr", list("abc"), ["a"], (8, 8), domain="probabilities") as out:
        with pytest.raises(ek.DamagedError) as caught:
            out.write("a", np.exp(log_p), (8, 8))
        assert caught.value.code == "probabilities-exclusive"
    with ek.LogitWriter(tmp_path / "s.zarr", list("abc"), ["a"], (8, 8), "sigmoid", domain="probabilities") as out:
        out.write("a", np.exp(log_p), (8, 8))  # each class by itself, as the user said
    with pytest.raises(ek.DamagedError, match="--activation softmax"):
        ek.vote([log_p])
    assert np.array_equal(ek.vote([log_p], activation="softmax"), z.argmax(0))


def test_N2_one_map_more_than_classes_is_explained(tmp_path) -> None:
    error = refused("classes-count", tmp_path, Softmax(), Recipe(Preprocess(16)), classes=("skin",))
    assert "the background" in error.fix
    assert "--activation softmax" in error.fix


# --- N4: networks of other channels ----------------------------------------------------------------------------


def first_channel(channels: int) -> nn.Module:
    """Two classes: the first channel, and one less; the weights are those of a convolution of so many."""
    built = nn.Conv2d(channels, 2, 1)
    nn.init.zeros_(built.weight)
    with torch.no_grad():
        built.weight[:, 0] = 1
        built.bias[:] = torch.tensor([0.0, -1.0])
    return built


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_N4_grey_feeds_one_channel_to_a_network_of_one(tmp_path, kind) -> None:
    network: Any = first_channel(1) if kind == "torch" else str(onnx_of(tmp_path / "net.onnx", {"y": 1}, channels=1))
    dump(tmp_path, network, Recipe(Preprocess(16, channels="grey")))
    right = GREY / np.float32(255) if kind == "torch" else np.full((16, 16), 2)
    assert np.array_equal(stored(tmp_path)[0], right.astype(np.float16))
    kept = ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"]
    assert kept["count"] == 1
    x, _ = Preprocess.from_dict(kept).apply(GREY)
    assert np.array_equal(x, GREY[None] / np.float32(255))
    error = refused_again(tmp_path, network, Recipe(Preprocess(16)))
    assert "the network takes 1 channel, images are given with 3" in error.item
    assert "--channels grey" in error.fix


def refused_again(tmp_path: Path, network: object, recipe: Recipe) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        dump_logits(network, tmp_path / "images", SIDES, tmp_path / "x.zarr", recipe, device="cpu")
    assert (caught.value.code, caught.value.exit_code) == ("model-channels", 6)
    return caught.value


def test_N4_grey_stays_three_channels_for_a_network_of_three(tmp_path) -> None:
    dump(tmp_path, first_channel(3), Recipe(Preprocess(16, channels="grey")))
    assert np.array_equal(stored(tmp_path)[0], (GREY / np.float32(255)).astype(np.float16))
    assert "count" not in ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"]


SPECTRAL = np.random.default_rng(1).integers(0, 200, (16, 12, 5)).astype(np.uint16) * 300


def tiff(path: Path, array: np.ndarray, apart: bool, deflated: bool, tile: int = 0, order: str = "<") -> None:
    """Write (H, W, N) as a TIFF, by the specification of 1992: no library at hand writes more than four samples."""
    H, W, N = array.shape
    maps = np.moveaxis(array, 2, 0)[..., None] if apart else array[None]
    pieces = []
    for one in maps:
        if tile:
            padded = np.zeros((-(-H // tile) * tile, -(-W // tile) * tile, one.shape[2]), array.dtype)
            padded[:H, :W] = one
            pieces += [padded[y : y + tile, x : x + tile] for y in range(0, H, tile) for x in range(0, W, tile)]
        else:
            pieces += [one[y : y + 7] for y in range(0, H, 7)]
    raw = [np.ascontiguousarray(p).astype(array.dtype.newbyteorder(order)).tobytes() for p in pieces]
    raw = [zlib.compress(p) for p in raw] if deflated else raw
    starts = [8 + sum(map(len, raw[:k])) for k in range(len(raw))]
    bits, kind = array.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = {256: [W], 257: [H], 258: [bits] * N, 259: [8 if deflated else 1], 262: [1], 277: [N]}
    tags |= {322: [tile], 323: [tile], 324: starts, 325: [*map(len, raw)]} if tile else {}
    tags |= {} if tile else {273: starts, 278: [7], 279: [*map(len, raw)]}
    tags |= {284: [2 if apart else 1], 339: [kind] * N}
    body, extra, base = b"", b"", 8 + sum(map(len, raw))
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            extra, packed = extra + packed, struct.pack(f"{order}I", base + len(extra))
        body += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", base + len(extra))
    path.parent.mkdir(exist_ok=True)
    directory = struct.pack(f"{order}H", len(tags)) + body + struct.pack(f"{order}I", 0)
    path.write_bytes(head + b"".join(raw) + extra + directory)


def write_spectral(path: Path, form: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if form == "npy, channels last":
        np.save(path.with_suffix(".npy"), SPECTRAL)
    elif form == "npy, channels first":
        np.save(path.with_suffix(".npy"), np.moveaxis(SPECTRAL, 2, 0))
    elif form == "TIFF of pages":
        pages = [Image.fromarray(SPECTRAL[..., k]) for k in range(5)]
        pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:])
    else:
        tiff(path.with_suffix(".tif"), SPECTRAL, "apart" in form, "deflated" in form, 16 * ("tiles" in form),
             ">" if "big" in form else "<")  # fmt: skip


FORMS = ["npy, channels last", "npy, channels first", "TIFF of pages", "TIFF", "TIFF, apart, big-endian",
         "TIFF, deflated", "TIFF, deflated, apart, tiles", "TIFF, tiles"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_N4_folders_of_five_channels(tmp_path, form) -> None:
    write_spectral(tmp_path / "images" / "a", form)
    recipe = Recipe(Preprocess((16, 12), channels=5, mean=(0.1,) * 5))
    said: list[str] = []
    dump_logits(first_channel(5), tmp_path / "images", SIDES, tmp_path / "m.zarr", recipe, ids="stem", device="cpu",
                say=said.append)  # fmt: skip
    store = ek.LogitStore(tmp_path / "m.zarr")
    right = SPECTRAL[..., 0] / np.float32(65535) - np.float32(0.1)
    assert np.allclose(store.read("a")[0], right, atol=1e-3)
    assert store.image_size("a") == (16, 12)
    x, _ = Preprocess.from_dict(store.provenance["preprocessing"]).apply(SPECTRAL)
    assert np.allclose(x, np.moveaxis(SPECTRAL, 2, 0) / np.float32(65535) - np.float32(0.1), atol=1e-6)
    assert "divided by 65535" in "".join(said)
    with pytest.raises(ek.MismatchError) as caught:
        dump_logits(first_channel(5), tmp_path / "images", SIDES, tmp_path / "x.zarr",
                    Recipe(Preprocess(16, channels=4)), device="cpu")  # fmt: skip
    assert (caught.value.code, "--channels 5" in caught.value.fix) == ("image-channels", True)


def test_N4_four_channels_of_a_png_are_colours_and_alpha(tmp_path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (16, 16, 4)).astype(np.uint8)
    put(tmp_path / "images" / "a.png", pixels)
    network = first_channel(4)
    with torch.no_grad():
        network.weight[:] = torch.tensor([0, 0, 0, 1.0])[:, None, None]
    dump(tmp_path, network, Recipe(Preprocess(16, channels=4)))
    assert np.array_equal(stored(tmp_path)[0], (pixels[..., 3] / np.float32(255)).astype(np.float16))


@pytest.mark.parametrize("form", ["TIFF", "TIFF of pages", "npy, channels last"])
def test_N4_what_has_more_channels_than_colours_says_so(tmp_path, form) -> None:
    write_spectral(tmp_path / "images" / "a", form)
    with pytest.raises(ek.EnskError) as caught:
        dump(tmp_path, first_channel(3), Recipe(Preprocess(16)))
    assert ("--channels N" if "npy" in form else "--channels 5") in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "text"),
    [((5, 8, 5), "can be read as"), ((5,), "is read"), ((2, 2, 2, 5), "is read")],
    ids=["two readings", "a row", "four axes"],
)
def test_N4_arrays_that_are_no_images(tmp_path, shape, text) -> None:
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ek.DamagedError, match=text):
        dump(tmp_path, first_channel(5), Recipe(Preprocess(16, channels=5)))


@pytest.mark.parametrize("cut", [0, 3, 100, 1500, -1], ids=str)
def test_N4_a_cut_tiff_is_refused(tmp_path, cut) -> None:
    write_spectral(tmp_path / "images" / "a", "TIFF")
    path = tmp_path / "images" / "a.tif"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ek.DamagedError, match=r"a\.tif"):
        dump(tmp_path, first_channel(5), Recipe(Preprocess(16, channels=5)))


# --- N5: what values mean --------------------------------------------------------------------------------------

SCAN = np.random.default_rng(2).integers(0, 4096, (16, 16)).astype(np.uint16)


def scan(tmp_path: Path, recipe: Recipe, values: np.ndarray = SCAN, **options: Any) -> np.ndarray:
    put(tmp_path / "images" / "a.png", values)
    dump(tmp_path, first_channel(3), recipe, **options)
    return stored(tmp_path)[0]


def test_N5_twelve_bits_are_never_read_as_sixteen(tmp_path) -> None:
    with pytest.raises(ek.UsageError) as caught:
        scan(tmp_path, Recipe(Preprocess(16)))
    assert caught.value.code == "range-ambiguous"
    assert "--range 0,4095" in caught.value.fix
    assert "--range 0,65535" in caught.value.fix
    read = scan(tmp_path, Recipe(Preprocess(16, range=(0, 4095))))
    assert np.allclose(read, SCAN / 4095, atol=1e-3)
    assert abs(read.mean() - 0.5) < 0.05
    kept = ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"]
    assert kept["range"] == [0, 4095]
    x, _ = Preprocess.from_dict(kept).apply(SCAN)
    assert np.allclose(x[0], SCAN / np.float32(4095), atol=1e-6)
    dark = scan(tmp_path, Recipe(Preprocess(16, range=(0, 65535))), force=True)
    assert np.allclose(dark, SCAN / 65535, atol=1e-4)


def test_N5_one_bright_image_settles_sixteen_bits(tmp_path) -> None:
    put(tmp_path / "images" / "b.png", SCAN * 16)
    said: list[str] = []
    assert np.allclose(scan(tmp_path, Recipe(Preprocess(16)), say=said.append), SCAN / 65535, atol=1e-4)
    assert "16-bit images: values are divided by 65535" in "".join(said)


@pytest.mark.parametrize(
    ("prep", "right"),
    [
        (Preprocess(16, window=(2000, 1000)), np.clip((SCAN - 1500.0) / 1000, 0, 1)),
        (Preprocess(16, normalise="zscore"), (SCAN - SCAN.mean()) / SCAN.std()),
        (Preprocess(16, normalise="zscore", range=(1000, 3000)), None),
    ],
    ids=["window", "zscore", "range and zscore"],
)
def test_N5_windows_and_z_scores(tmp_path, prep, right) -> None:
    if right is None:
        cut = np.clip(SCAN, 1000, 3000).astype(np.float64)
        right = (cut - cut.mean()) / cut.std()
    assert np.allclose(scan(tmp_path, Recipe(prep)), right, atol=2e-3)
    kept = Preprocess.from_dict(ek.LogitStore(tmp_path / "m.zarr").provenance["preprocessing"])
    assert kept == prep
    assert np.allclose(kept.apply(SCAN)[0][0], right, atol=1e-5)


def test_N5_values_come_before_resizing_and_padding_is_the_mean(tmp_path) -> None:
    prep = Preprocess((16, 32), "letterbox", normalise="zscore")
    x, box = prep.apply(SCAN)
    assert box == (0, 8, 16, 24)
    assert np.all(x[:, :, :8] == 0)
    assert np.allclose(x[0, :, 8:24], (SCAN - SCAN.mean()) / SCAN.std(), atol=1e-5)
    colours = np.stack([SCAN, SCAN // 2 + 7, SCAN * 3], axis=2)
    y, _ = Preprocess((16, 16), normalise="zscore").apply(colours)
    assert np.allclose(y, x[:, :, 8:24], atol=1e-2)  # each channel by itself, as nnU-Net does it


@pytest.mark.parametrize(
    ("values", "text"),
    [(np.full((4, 5), -500, np.int16), "no scale"), (np.full((4, 5), 300.0, np.float32), "300")],
    ids=["Hounsfield units", "floats"],
)
def test_N5_values_without_a_scale_need_a_range(tmp_path, values, text) -> None:
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "a.npy", values)
    with pytest.raises(ek.DamagedError, match=text) as caught:
        dump(tmp_path, first_channel(1), Recipe(Preprocess(16, channels=1)))
    assert "--range LO,HI" in str(caught.value)
    recipe = Recipe(Preprocess((4, 5), channels=1, range=(-1000, 1000)))
    dump_logits(first_channel(1), tmp_path / "images", SIDES, tmp_path / "m.zarr", recipe, ids="stem", device="cpu")
    assert np.allclose(ek.LogitStore(tmp_path / "m.zarr").read("a")[0], (values + 1000) / 2000, atol=1e-3)


@pytest.mark.parametrize(
    "bad",
    [{"range": (1, 1)}, {"range": (2, 1)}, {"range": 3}, {"window": (1, 0)}, {"range": (0, 1), "window": (1, 2)},
     {"normalise": "minmax"}, {"normalise": "zscore", "mean": (0.5, 0.5, 0.5)}, {"channels": 0}, {"channels": True},
     {"count": 1}, {"channels": "grey", "count": 2}, {"channels": "grey", "count": 1, "mean": (0.1, 0.2, 0.3)},
     {"channels": 4, "mean": (0.1, 0.2, 0.3)}],
    ids=str,
)  # fmt: skip
def test_N5_impossible_preprocessing_is_refused(bad) -> None:
    with pytest.raises(ek.UsageError, match="preprocess"):
        Preprocess(8, **bad)


# --- N6: arrays of other axes ----------------------------------------------------------------------------------


def arrays(tmp_path: Path, array: np.ndarray, **options: Any) -> Any:
    put(tmp_path / "images" / "a.png", GREY)
    (tmp_path / "arrays").mkdir(exist_ok=True)
    np.savez(tmp_path / "arrays" / "a.npz", logits=array)
    dump(tmp_path, tmp_path / "arrays", Recipe(**options), ("u", "v", "w"))
    return stored(tmp_path)


@pytest.mark.parametrize(
    ("shape", "code", "text"),
    [
        ((3, 4, 8, 9), "array-is-volume", "(C, Z, Y, X)"),
        ((4, 4, 8, 9), "array-is-volume", "(C, Z, Y, X)"),
        ((4, 8, 9, 3), "array-is-volume", "(Z, Y, X, C)"),
        ((1, 3, 4, 8, 9), "array-is-volume", "(C, Z, Y, X)"),
        ((2, 3, 8, 9), "array-is-volume", "a batch"),
        ((8, 9, 3), "array-shape", "--axes hwc"),
        ((1, 8, 9, 3), "array-shape", "--axes hwc"),
        ((3, 9, 3), "array-axes", "--axes chw if they stand first, --axes hwc"),
        ((4, 8, 9), "array-shape", "the background"),
        ((8, 9), "array-shape", "(8, 9)"),
    ],
    ids=["volume", "volume of one class more", "volume, classes last", "batch of a volume", "batch", "classes last",
         "batch, classes last", "first and last", "a background", "two axes"],
)  # fmt: skip
def test_N6_arrays_that_are_not_classes_of_an_image(tmp_path, shape, code, text) -> None:
    with pytest.raises(ek.MismatchError) as caught:
        arrays(tmp_path, np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape))
    assert caught.value.code == code
    assert text in str(caught.value)
    assert ("later version" in caught.value.fix) == ("volume" in code and "batch" not in text)


@pytest.mark.parametrize(
    ("shape", "axes", "move"),
    [((8, 9, 3), "hwc", True), ((1, 8, 9, 3), "hwc", True), ((3, 9, 3), "hwc", True), ((3, 9, 3), "chw", False),
     ((3, 8, 9), None, False), ((3, 1, 8, 9), None, False), ((1, 3, 8, 9), "chw", False)],
    ids=str,
)  # fmt: skip
def test_N6_axes_that_are_named_are_read(tmp_path, shape, axes, move) -> None:
    values = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    three = values.reshape([n for n in shape if n > 1])
    right = np.moveaxis(three, 2, 0) if move else three
    assert np.array_equal(arrays(tmp_path, values, axes=axes), right.astype(np.float16))
    assert ek.LogitStore(tmp_path / "m.zarr").provenance.get("axes") == axes


def test_N6_a_writer_says_so_too(tmp_path) -> None:
    out = ek.LogitWriter(tmp_path / "m.zarr", ["a"], ["s"], (8, 9))
    with out, pytest.raises(ek.MismatchError, match="volumes come with a later version"):
        out.write("s", np.zeros((1, 4, 8, 9), np.float32), (8, 9))
    out = ek.LogitWriter(tmp_path / "m.zarr", ["a"], ["s"], (8, 9))
    with out, pytest.raises(ek.MismatchError, match=r"classes first: np\.moveaxis"):
        out.write("s", np.zeros((8, 9, 1), np.float32), (8, 9))


# --- N12: classes that validation does not have ----------------------------------------------------------------


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
@pytest.mark.parametrize("shrink", [True, False])
@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_N12_a_class_without_positives_takes_the_common_threshold(make_store, shrink, objective) -> None:
    tuned = ek.tune_thresholds(*absent_case(make_store, "bone", "ghost", "rare"), objective, folds=4, shrink=shrink)
    alone = ek.tune_thresholds(*absent_case(make_store, "bone", "rare"), objective, folds=4, shrink=shrink)
    crossed, other = tuned.validation.crossed, alone.validation.crossed
    assert tuned.levels["ghost"] == crossed.common_level
    assert tuned.thresholds["ghost"] < 0.6
    ghost = crossed.classes["ghost"]
    assert (ghost.keeps, ghost.gain.value, ghost.gain.low, ghost.gain.high) == (False, 0, 0, 0)
    assert (crossed.common_level, crossed.gain) == (other.common_level, other.gain)  # as if it were not there
    assert {**alone.levels, "ghost": crossed.common_level} == tuned.levels
    told = tuned.report()
    assert any("they take the common threshold, and count in no gain: ghost" in w for w in told.warnings)
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


# --- faults of dumps -------------------------------------------------------------------------------------------


def two(tmp_path: Path) -> Path:
    put(tmp_path / "images" / "a.png", GREY)
    return put(tmp_path / "images" / "b.png", GREY.T.copy())


def test_a_link_that_leads_nowhere_is_named(tmp_path) -> None:
    images = two(tmp_path)
    (images / "c.png").symlink_to(tmp_path / "gone.png")
    (images / "notes.txt").symlink_to(tmp_path / "gone.txt")
    error = refused("image-link", tmp_path, first_channel(3), Recipe(Preprocess(16)))
    assert error.exit_code == 3
    assert "'c.png'" in error.item
    assert "notes" not in error.item
    put(tmp_path / "gone.png", GREY)
    assert dump(tmp_path, first_channel(3), Recipe(Preprocess(16))).written == 3


def test_images_of_formats_that_are_not_read_are_named(tmp_path) -> None:
    images = two(tmp_path)
    Image.fromarray(GREY).save(images / "c.webp")
    warned: list[str] = []
    assert dump(tmp_path, first_channel(3), Recipe(Preprocess(16)), warn=warned.append).written == 2
    assert len(warned) == 1
    assert "1 files of formats that are not read" in str(warned[0])
    assert "'c.webp'" in str(warned[0])


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_an_image_that_was_replaced_is_said_and_dumped_again_on_request(tmp_path, codec) -> None:
    images, recipe = two(tmp_path), Recipe(Preprocess(16))
    dump(tmp_path, first_channel(3), recipe, codec=codec)
    before = stored(tmp_path)
    put(images / "a.png", 255 - GREY)
    with pytest.raises(ek.MismatchError) as caught:
        dump(tmp_path, first_channel(3), recipe, codec=codec)
    assert (caught.value.code, caught.value.exit_code) == ("image-changed", 6)
    assert "'a.png'" in caught.value.item
    assert "--redo" in caught.value.fix
    assert np.array_equal(stored(tmp_path), before)
    done = dump(tmp_path, first_channel(3), recipe, codec=codec, redo=True)
    assert (done.written, done.resumed) == (1, 1)
    assert np.array_equal(stored(tmp_path)[0], ((255 - GREY) / np.float32(255)).astype(np.float16))
    assert ek.LogitStore(tmp_path / "m.zarr").verify().sound
    assert dump(tmp_path, first_channel(3), recipe, codec=codec).written == 0  # the new digest is what counts now
    put(images / "a.png", GREY)
    dump(tmp_path, first_channel(3), recipe, codec=codec, redo=True)
    assert np.array_equal(stored(tmp_path), before)


def test_an_array_that_was_replaced_is_said(tmp_path) -> None:
    values = np.linspace(-3, 3, 3 * 64, dtype=np.float32).reshape(3, 8, 8)
    arrays(tmp_path, values)
    with pytest.raises(ek.MismatchError, match=r"'a\.png'"):
        arrays(tmp_path, -values)


def test_a_writer_of_another_domain_does_not_resume(tmp_path) -> None:
    options: Any = {"classes": ["a"], "samples": ["s", "t"], "grid": (4, 4)}
    with ek.LogitWriter(tmp_path / "m.zarr", **options, domain="probabilities") as out:
        out.write("s", np.full((1, 4, 4), 0.25, np.float32), (4, 4))
    with pytest.raises(ek.MismatchError, match="provenance 'domain' is 'probabilities' there, 'logits' here"):
        ek.LogitWriter(tmp_path / "m.zarr", **options)
    ek.LogitWriter(tmp_path / "m.zarr", **options, domain="probabilities").close()


@pytest.mark.parametrize("inside", ["x.zarr", "logits/x.zarr", "logits/manifest/x.zarr", "deep/er/x.zarr"])
def test_a_store_inside_a_store_is_refused(tmp_path, inside) -> None:
    options: Any = {"classes": ["a"], "samples": ["s"], "grid": (4, 4)}
    ek.LogitWriter(tmp_path / "m.zarr", **options).close()
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(ek.UsageError) as caught:
        ek.LogitWriter(tmp_path / "m.zarr" / inside, **options)
    assert (caught.value.code, sorted(tmp_path.rglob("*"))) == ("path-inside-store", there)
    ek.LogitWriter(tmp_path / "y.zarr", **options).close()
