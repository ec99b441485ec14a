"""What a reader who did not build the kit met: each with the right value, told by plain NumPy or torch."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ensemble_kit as ek
from cases.dumps import GREY, dump, first_channel, put, refused, stored
from ensemble_kit.backends.choosing import Output, choose
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.logits.repair import repair
from ensemble_kit.recipes.doubts import alike

AGAIN = """
import sys
import numpy as np
from ensemble_kit.logits.writer import LogitWriter
with LogitWriter(sys.argv[1], ["x"], ["s", "t"], (8, 8), codec=sys.argv[2]) as out:
    out.write("s", np.full((1, 8, 8), float(sys.argv[3])), (8, 8), source="new", again=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_a_sample_that_is_dumped_again_is_old_or_new_after_any_kill(tmp_path: Path, codec: str) -> None:
    path, values, ends = tmp_path / "m.zarr", {-3.0}, []
    with ek.LogitWriter(path, ["x"], ["s", "t"], (8, 8), codec=codec) as out:  # type: ignore[arg-type]
        for sample in ("s", "t"):
            out.write(sample, np.full((1, 8, 8), -3.0), (8, 8), source="old")
    calls = [*((c, w) for c in ("write", "fsync") for w in (1, 2, 3, 4)), ("rename", 1), ("writev", 1), ("unlink", 1)]
    for k, (call, when) in enumerate(calls):
        value = float(k)
        strace = [
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:signal=SIGKILL:when={when}",
        ]
        done = subprocess.run([*strace, sys.executable, "-c", AGAIN, str(path), codec, str(value)], capture_output=True)
        ends.append(done.returncode)
        store = ek.LogitStore(path)
        assert store.complete
        assert store.verify().sound, (call, when)
        found = set(np.unique(store.read("s").astype(float)))
        assert len(found) == 1
        assert found <= values | {value}, (call, when)
        assert done.returncode != 0 or found == {value}
        values = found
        mended = repair(path, dry_run=True)
        assert (mended.kept, mended.missing) == (2, ())
        assert not [step for step in mended.steps if "lines" in step.what], (call, when)
    if -signal.SIGKILL not in ends:
        pytest.skip("strace may not trace here")
    subprocess.run([sys.executable, "-c", AGAIN, str(path), codec, "99"], check=True)
    assert np.all(ek.LogitStore(path).read("s") == 99)
    assert np.all(ek.LogitStore(path).read("t") == -3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_sample_that_is_dumped_again_and_cannot_take_its_place_leaves_the_old_one(tmp_path: Path) -> None:
    """Its line is there and its chunk is not: no mark may follow when the writer closes."""
    path = tmp_path / "m.zarr"
    with ek.LogitWriter(path, ["x"], ["s", "t"], (8, 8)) as out:
        out.write(["s", "t"], np.full((2, 1, 8, 8), -3.0), (8, 8))
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-e", "inject=rename:error=EIO"]
    done = subprocess.run(
        [*strace, sys.executable, "-c", AGAIN, str(path), "none", "5"], capture_output=True, text=True
    )
    if done.returncode == 0:
        pytest.skip("strace may not trace here")
    assert "cannot write to a store" in done.stderr
    store = ek.LogitStore(path)
    assert store.verify().sound
    assert np.all(store.read("s") == -3)


# --- what values of images mean -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_N5_scans_of_any_depth_in_sixteen_bits_are_asked_for(tmp_path: Path, bits: int) -> None:
    scan = np.random.default_rng(bits).integers(0, 1 << bits, (16, 16)).astype(np.uint16)
    put(tmp_path / "images" / "a.png", scan)
    error = refused("range-ambiguous", tmp_path, first_channel(3), Recipe(Preprocess(16)))
    assert f"--range 0,{(1 << bits) - 1} for {bits} bits" in error.fix
    dump(tmp_path, first_channel(3), Recipe(Preprocess(16, range=(0, (1 << bits) - 1))))
    assert np.allclose(stored(tmp_path)[0], scan / ((1 << bits) - 1), atol=1e-3)


def test_N5_floats_in_hounsfield_units_are_told_to_take_a_range(tmp_path: Path) -> None:
    units = np.random.default_rng(0).uniform(-1000, 2000, (16, 16)).astype(np.float32)
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(units).save(tmp_path / "images" / f"{name}.tif")
        units = units / 2
    error = refused("images-unreadable", tmp_path, first_channel(3), Recipe(Preprocess(16)))
    assert error.fix.startswith("pass --range LO,HI")
    assert "copy" not in error.fix
    dump(tmp_path, first_channel(3), Recipe(Preprocess(16, window=(40, 400))))
    found = ek.LogitStore(tmp_path / "m.zarr").read("b.tif")[0]
    assert np.allclose(found, np.clip((units * 2 + 160) / 400, 0, 1), atol=1e-3)


def test_N5_a_window_below_zero_on_unsigned_images_is_of_other_units(tmp_path: Path) -> None:
    error = refused("window-ambiguous", tmp_path, first_channel(3), Recipe(Preprocess(16, window=(40, 400))))
    assert "pass --range -160,240 if" in error.fix
    dump(tmp_path, first_channel(3), Recipe(Preprocess(16, range=(-160, 240))))
    assert np.allclose(stored(tmp_path)[0], np.clip((GREY + 160.0) / 400, 0, 1), atol=1e-3)
    dump(tmp_path, first_channel(3), Recipe(Preprocess(16, window=(128, 256))), force=True)
    assert np.allclose(stored(tmp_path)[0], GREY / 256, atol=1e-3)


# --- outputs, weights, arrays ---------------------------------------------------------------------------------


def test_N3_the_output_that_is_offered_is_not_the_one_that_is_taken() -> None:
    outputs = [Output("aux", (1, 2, 32, 32)), Output("out", (1, 2, 16, 16))]
    chosen, told = choose(outputs, None, ordered=False)
    assert (chosen, told.endswith("'out' is taken; pass --output aux for the first")) == (1, True)


def normed(value: float) -> nn.Module:
    built = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).eval()
    for parameter in built.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(built[1].bias, value)
    return built


@pytest.mark.parametrize(
    ("make", "key", "value", "said"),
    [
        (lambda a, b: {"net": a, "net_ema": b}, None, 2, "it also holds 'net_ema': pass --weights-key net_ema"),
        (lambda a, b: {"net": a, "net_ema": b}, "net_ema", 3, "took 'net_ema'"),
        (lambda a, b: {"model": a, "averaged_model": b}, None, 2, "it also holds 'averaged_model'"),
        (lambda a, b: {"generator": a, "critic": b}, "critic", 3, "took 'critic'"),
        (lambda a, _: {k: v for k, v in a.items() if "num_batches" not in k}, None, 2, ""),
        (lambda a, _: {f"model.{k}": v for k, v in a.items() if "num_batches" not in k}, None, 2, "'model.'"),
    ],
    ids=["ema of any name", "ema asked for", "averaged", "one of two", "no counters", "no counters behind a prefix"],
)
def test_weights_of_names_that_nobody_listed(tmp_path, make, key, value, said) -> None:
    torch.save(make(normed(2).state_dict(), normed(3).state_dict()), tmp_path / "w.pt")
    told: list[str] = []
    options = {"weights": tmp_path / "w.pt", "weights_key": key, "trust": True, "say": told.append}
    dump(tmp_path, normed(9), Recipe(Preprocess(16)), **options)
    assert np.all(stored(tmp_path) == value)
    assert said in "\n".join(told)


def test_entries_that_could_be_meant_are_offered(tmp_path: Path) -> None:
    torch.save({"generator": normed(2).state_dict(), "critic": normed(3).state_dict()}, tmp_path / "w.pt")
    error = refused("weights-form", tmp_path, normed(9), Recipe(Preprocess(16)), weights=tmp_path / "w.pt", trust=True)
    assert error.fix == "pass --weights-key generator or --weights-key critic"


def test_arrays_of_one_class_need_no_axis_for_it(tmp_path: Path) -> None:
    values = np.linspace(-3, 3, 64, dtype=np.float32).reshape(8, 8)
    put(tmp_path / "images" / "a.png", GREY)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", values)
    dump(tmp_path, tmp_path / "arrays", Recipe(), ("x",))
    assert np.allclose(stored(tmp_path)[0], values, atol=2e-3)


# --- fused stores ---------------------------------------------------------------------------------------------


def test_N10_a_network_inside_a_fused_member_and_beside_it_is_said_to_count_twice(tmp_path: Path) -> None:
    for name, logit in (("a", 2.0), ("b", -1.0), ("c", 2.5)):
        with ek.LogitWriter(tmp_path / f"{name}.zarr", ["x"], ["s"], (2, 2)) as out:
            out.write("s", np.full((1, 2, 2), logit), image_size=(4, 4))
    ek.fuse(ek.Ensemble([tmp_path / "a.zarr", tmp_path / "b.zarr"]), tmp_path / "f.zarr")
    ek.fuse(ek.Ensemble([tmp_path / "b.zarr", tmp_path / "c.zarr"]), tmp_path / "g.zarr")
    stores = {n: ek.LogitStore(tmp_path / f"{n}.zarr") for n in "abcfg"}
    told = {pair: len(alike([(n, stores[n]) for n in pair])) for pair in ("fa", "af", "fg", "fc", "ab")}
    assert told == {"fa": 1, "af": 1, "fg": 1, "fc": 0, "ab": 0}
    assert "'f' and 'a' have a network in common" in str(alike([("f", stores["f"]), ("a", stores["a"])])[0])
