"""Weights in checkpoints, weights of windows, and what becomes of a dump whose files change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ensemble_kit as ek
from cases.dumps import GREY, arrays, dump, first_channel, put, refused, stored
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe

# --- weights in checkpoints -----------------------------------------------------------------------------------


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
        ({"state_dict": behind("net.", STATE) | behind("ema.module.", EMA)}, "ema", 3, "the prefix 'ema.module.'"),
    ],
    ids=["ema beside", "ema asked for", "ema of module", "ema of shadow", "ema alone", "teacher alone", "swa", "unet",
         "compiled", "compiled inside", "three deep", "teacher behind a prefix", "ema behind two"],
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


# --- weights of windows ---------------------------------------------------------------------------------------


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


# --- faults of dumps ------------------------------------------------------------------------------------------


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


def test_N2_logits_that_the_kit_made_are_not_doubted(tmp_path) -> None:
    """Fused scores may all lie in [0, 1] on the logit scale."""
    for name, logit in (("a", 2.0), ("b", -1.0)):
        with ek.LogitWriter(tmp_path / f"{name}.zarr", ["x"], ["s"], (2, 2)) as out:
            out.write("s", np.full((1, 2, 2), logit), image_size=(4, 4))
    fused = ek.fuse(ek.Ensemble([tmp_path / "a.zarr", tmp_path / "b.zarr"]), tmp_path / "f.zarr")
    p = np.mean(1 / (1 + np.exp([-2.0, 1.0])))
    assert np.allclose(ek.LogitStore(fused.path).read("s"), np.log(p / (1 - p)), atol=1e-3)
    out = ek.LogitWriter(tmp_path / "c.zarr", ["x"], ["s"], (2, 2), checked=True)
    with out, pytest.raises(ek.DamagedError, match="NaN"):
        out.write("s", np.full((1, 2, 2), np.nan), image_size=(4, 4))
