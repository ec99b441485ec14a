"""`ensk fuse`: what a fused store and averaged probabilities hold, against NumPy; resuming, kills, and what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from conftest import smooth_logits, write_store
from ensemble_kit.cli.app import app
from ensemble_kit.kernels import reference as ref
from ensemble_kit.kernels import tables
from ensemble_kit.recipes import memory
from ensemble_kit.recipes.fusing import Fusing
from ensemble_kit.scores.fused import logit_table
from ensemble_kit.spec.mean import Mean

Make = Callable[..., ek.LogitStore]
CLASSES, IMAGE = ("x", "y", "z"), (40, 50)
SAMPLES = ("a.png", "b.png")
MEANS = ("probability", "logit", "power:0.5", "power:0")
_LOSS, _LOSS_EXCLUSIVE = 7, 13


def ensk(*arguments: object) -> None:
    app([*map(str, arguments), "-q"], standalone_mode=False)


def members(make: Make, rng: np.random.Generator, grids: tuple[tuple[int, int], ...], **options: Any) -> list[Any]:
    return [
        make({s: smooth_logits(rng, (3, *grid)) for s in SAMPLES}, IMAGE, CLASSES, name=f"m{k}", **options)
        for k, grid in enumerate(grids)
    ]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z.astype(np.float64)))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.astype(np.float64).max(0))
    return np.asarray(e / e.sum(0))


@pytest.mark.parametrize("mean", MEANS)
def test_a_level_is_kept_to_within_seven(mean: str) -> None:
    """Every level: what a reader makes of the 16-bit logit, on the scale of the mean."""
    kept, scale = logit_table(Mean.of(mean), "sigmoid").view(np.uint16), Mean.of(mean)
    assert np.array_equal(kept, np.sort(logit_table(scale, "sigmoid")).view(np.uint16))  # ascending
    if mean == "logit":
        assert np.abs(tables.fp16_q(1.0)[kept].astype(int) - np.arange(65536)).max() <= 8
    else:
        wanted = np.floor(65535 * scale.probabilities(np.arange(65536)) + 0.5)
        assert np.abs(tables.fp16_levels(1.0)[kept] - wanted).max() <= _LOSS


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_store_holds_the_mean_probability_of_every_cell(
    activation: str, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    """The oracle is a float64 mean; members of one grid need no interpolation."""
    stores = members(make_store, rng, ((12, 15), (12, 15)), activation=activation)
    done = ek.fuse(ek.Ensemble(stores, weights=[3, 1]), tmp_path / "f.zarr")
    assert (done.member, done.samples, done.written) == ("m0+m1", 2, 2)
    fused, of = ek.LogitStore(tmp_path / "f.zarr"), sigmoid if activation == "sigmoid" else softmax
    assert (fused.activation, fused.classes, fused.grid) == (activation, CLASSES, (12, 15))
    for s in SAMPLES:
        wanted = 0.75 * of(stores[0].read(s)) + 0.25 * of(stores[1].read(s))
        loss = _LOSS if activation == "sigmoid" else _LOSS_EXCLUSIVE
        assert np.abs(of(fused.read(s)) - wanted).max() < (loss + 1) / 65535
        assert fused.image_size(s) == IMAGE


def test_mean_logits_of_exclusive_classes_keep_their_softmax(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)), activation="softmax")
    ek.fuse(ek.Ensemble(stores, mean="logit"), tmp_path / "f.zarr")
    for s in SAMPLES:
        below = [z.astype(np.float64) - z.astype(np.float64).max(0) for z in (m.read(s) for m in stores)]
        wanted = softmax(np.maximum(below, -32).mean(0))
        assert np.abs(softmax(ek.LogitStore(tmp_path / "f.zarr").read(s)) - wanted).max() < 1e-3


@pytest.mark.parametrize(
    ("activation", "mean"),
    [*(("sigmoid", mean) for mean in MEANS), ("softmax", "probability"), ("softmax", "logit")],
    ids=lambda v: v,
)
def test_its_vote_is_that_of_the_members_but_at_their_threshold(
    activation: str, mean: str, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    """With upsample="scores" only the 16 bits of a logit differ: pixels within a few levels of the decision."""
    stores = members(make_store, rng, ((24, 30), (24, 30)), activation=activation)
    ens = ek.Ensemble(stores, mean=mean, upsample="scores")
    ek.fuse(ens, tmp_path / "f.zarr")
    again = ek.Ensemble([tmp_path / "f.zarr"], mean=mean, upsample="scores")
    ours, theirs = again.vote(), ens.vote()
    off = sum((ours[key] ^ theirs[key]).area for key in theirs)
    assert off <= 0.001 * len(theirs) * IMAGE[0] * IMAGE[1]


@pytest.mark.parametrize("upsample", ["scores", "logits"])
def test_members_of_two_grids_meet_on_the_finest(
    upsample: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    stores = members(make_store, rng, ((12, 15), (24, 30)))
    ens = ek.Ensemble(stores, upsample=upsample)
    ek.fuse(ens, tmp_path / "f.zarr")
    fused = ek.LogitStore(tmp_path / "f.zarr")
    assert fused.grid == (24, 30)
    for s in SAMPLES:
        coarse, fine = (m.read(s) for m in stores)
        if upsample == "scores":
            wanted = ens.levels(s).astype(int)
        else:
            wanted = np.stack(
                [
                    ref.image_from_logits([ref.q(coarse)[c], ref.q(fine)[c]], [32768, 32768], (24, 30), "probability")
                    for c in range(3)
                ]
            )
        kept = tables.fp16_levels(1.0)[fused.read(s).view(np.uint16)]
        assert np.abs(kept.astype(int) - wanted).max() <= _LOSS


@pytest.mark.parametrize("grids", [((12, 15), (12, 15)), ((12, 15), (24, 30))], ids=["one grid", "two grids"])
def test_averaged_probabilities_are_the_oracles(
    grids: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    """At the image's size, of the level that decides: a threshold of the file gives the vote's masks."""
    stores = members(make_store, rng, grids)
    ens = ek.Ensemble(stores)
    ek.fuse(ens, tmp_path / "p", format="npz")
    masks = ens.vote(0.3)
    for s in SAMPLES:
        with np.load(tmp_path / "p" / f"{s}.npz", allow_pickle=False) as held:
            found, names = held["probabilities"], held["classes"]
        assert (found.dtype, found.shape, tuple(names)) == (np.float32, (3, *IMAGE), CLASSES)
        for c, name in enumerate(CLASSES):
            q = [ref.q(m.read(s))[c] for m in stores]
            levels = ref.image_from_logits(q, [32768, 32768], IMAGE, "probability")
            assert np.array_equal(found[c], (levels / 65535).astype(np.float32))
            assert np.array_equal(found[c] >= np.float32(ens.level_of(0.3) / 65535), masks[s, name].decode())


@pytest.mark.parametrize("mean", ["probability", "logit"])
def test_probabilities_of_exclusive_classes_add_up_to_one(
    mean: str, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    ens = ek.Ensemble(members(make_store, rng, ((12, 15), (24, 30)), activation="softmax"), mean=mean)
    ek.fuse(ens, tmp_path / "p", format="npz")
    masks = ens.vote()
    for s in SAMPLES:
        with np.load(tmp_path / "p" / f"{s}.npz") as held:
            found = held["probabilities"]
        assert np.abs(found.sum(0) - 1).max() < 4 / 65535
        top = np.sort(found, axis=0)
        clear = top[-1] - top[-2] > 2 / 65535  # closer ones are decided by more than 16 bits
        for c, name in enumerate(CLASSES):
            assert np.array_equal((found.argmax(0) == c)[clear], masks[s, name].decode()[clear])


def test_a_set_tuned_on_one_fusion_fits_its_test_store_and_no_other(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)))
    ens = ek.Ensemble(stores)
    val, test, other = (tmp_path / f"{name}.zarr" for name in ("val", "test", "other"))
    ek.fuse(ens.on(SAMPLES[:1]), val)
    ek.fuse(ens.on(SAMPLES[1:]), test)
    ek.fuse(ens.with_fusion(weights=[2, 1]).on(SAMPLES[1:]), other)
    truth = ek.MaskSet({(SAMPLES[0], c): ens.sample(SAMPLES[0]).runs(k, 20000) for k, c in enumerate(CLASSES)})
    tuned = ek.tune_thresholds(ek.Ensemble([val]), truth)
    assert ek.Ensemble([test]).vote(tuned).samples == SAMPLES[1:]
    with pytest.raises(ek.MismatchError, match="model of member 'm0\\+m1'"):
        ek.Ensemble([other]).vote(tuned)
    third = make_store({SAMPLES[1]: smooth_logits(rng, (3, 12, 15))}, IMAGE, CLASSES, name="third")
    assert ek.Ensemble([test, third], weights=[2, 1]).vote().samples == SAMPLES[1:]  # an ensemble of an ensemble


def test_as_a_set_was_tuned(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)))
    ens = ek.Ensemble(stores, weights=[3, 1], mean="power:0.5", temperatures=[1.5, 1])
    truth = ek.MaskSet({(s, c): ens.sample(s).runs(k, 20000) for s in SAMPLES for k, c in enumerate(CLASSES)})
    ek.tune_thresholds(ens, truth).save(tmp_path / "set.json")
    paths = [tmp_path / "m0.zarr", tmp_path / "m1.zarr"]
    ensk("fuse", *paths, "--thresholds", tmp_path / "set.json", "--out", tmp_path / "f.zarr")
    wanted = logit_table(Mean.of("power:0.5"), "sigmoid")[ens.levels("a.png")]
    assert np.array_equal(ek.LogitStore(tmp_path / "f.zarr").read("a.png"), wanted)
    record = ek.LogitStore(tmp_path / "f.zarr").provenance["fused"]
    assert [m["fingerprint"] for m in record["members"]] == [m.fingerprint for m in stores]
    assert (record["mean"], record["temperatures"]) == ("power:0.5", [1.5, 1.0])


REFUSED = {
    "a number": ("option-idle", ["--thresholds", "0.4"]),
    "two fusions": ("option-idle", ["--thresholds", "set.json", "--mean", "logit"]),
    "a format": ("option-invalid", ["--format", "tiff"]),
    "member of files": ("option-idle", ["--format", "npz", "--member", "m"]),
    "over a member": ("output-is-input", ["--out", "m0.zarr"]),
}


@pytest.mark.parametrize(("code", "options"), REFUSED.values(), ids=list(REFUSED))
def test_refused(
    code: str, options: list[str], make_store: Make, rng: np.random.Generator, tmp_path: Path, monkeypatch: Any
) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)))
    monkeypatch.chdir(tmp_path)
    truth = ek.MaskSet({(s, c): ek.Runs.empty(IMAGE) for s in SAMPLES for c in CLASSES})
    ek.tune_thresholds(ek.Ensemble(stores), truth).save("set.json")
    with pytest.raises(ek.UsageError) as caught:
        ensk("fuse", "m0.zarr", "m1.zarr", "--out", "f.zarr", *options)
    assert caught.value.code == code
    assert not Path("f.zarr").exists()


@pytest.mark.parametrize("kind", ["store", "npz"])
def test_power_means_of_exclusive_classes_are_no_probabilities(
    kind: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    stores = members(make_store, rng, ((12, 15), (12, 15)), activation="softmax")
    with pytest.raises(ek.UsageError, match="add up to 1") as caught:
        ek.fuse(ek.Ensemble(stores, mean="power:0.5"), tmp_path / "f", kind)
    assert caught.value.code == "softmax-option"


@pytest.mark.parametrize("kind", ["store", "npz"])
def test_resumed_by_the_same_fusion_only(
    kind: Any, make_store: Make, rng: np.random.Generator, tmp_path: Path, capsys: Any
) -> None:
    stores, out = members(make_store, rng, ((12, 15), (12, 15))), tmp_path / "f"
    ens = ek.Ensemble(stores)
    assert ek.fuse(ens, out, kind).written == 2
    again = ek.fuse(ens, out, kind)
    assert (again.resumed, again.written, again.bytes) == (2, 0, 0)
    with pytest.raises(ek.MismatchError) as caught:
        ek.fuse(ens.with_fusion(weights=[2, 1]), out, kind)
    assert caught.value.code == {"store": "store-differs", "npz": "fused-differs"}[kind]
    assert ek.fuse(ens.with_fusion(weights=[2, 1]), out, kind, overwrite=True).written == 2
    paths = [tmp_path / "m0.zarr", tmp_path / "m1.zarr"]
    ensk("fuse", *paths, "--out", tmp_path / "new", "--format", kind, "--dry-run", "--json")
    planned = json.loads(capsys.readouterr().out)
    assert planned["bytes"] == 2 * 3 * (12 * 15 * 2 if kind == "store" else 40 * 50 * 4)
    assert not (tmp_path / "new").exists()


def test_a_budget_of_memory_is_kept_or_refused(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    plan = Fusing(ek.Ensemble(members(make_store, rng, ((12, 15), (12, 15)))), tmp_path / "f")
    held, one = int(memory.held()), 3 * 12 * 15 * (2 * 2 + 6)
    assert (plan.threads(4, None), plan.threads(2, held + 100_000_000)) == (4, 2)
    assert 1 <= plan.threads(1_000_000, held + 100_000_000) <= 100_000_000 // one
    with pytest.raises(ek.ResourceError, match="--memory allows"):
        plan.threads(1, one)


def test_a_folder_of_other_things_is_left_alone(make_store: Make, rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    ens = ek.Ensemble(members(make_store, rng, ((12, 15),)))
    for kind in ("store", "npz"):
        with pytest.raises(ek.EnskError):
            ek.fuse(ens, tmp_path / "mine", kind, overwrite=True)  # type: ignore[arg-type]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_a_folder_that_another_process_begins_is_shared(
    make_store: Make, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Its index has no name yet; nor has it where that process was killed."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / f"fused.json.tmp-{'0' * 16}").touch()
    ens = ek.Ensemble(members(make_store, rng, ((12, 15),)))
    ek.fuse(ens, tmp_path / "f", "npz")
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["a.png.npz", "b.png.npz", "fused.json"]
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "fused.json.tmp-notes").touch()
    with pytest.raises(ek.UsageError, match="did not write"):
        ek.fuse(ens, tmp_path / "g", "npz")


def run(out: Path, kind: str, stores: list[Path]) -> warm.Process:
    return warm.Process("ensk", "fuse", *stores, "--out", out, "--format", kind, "--jobs", "1", "-q")


def content(out: Path, kind: str, ids: list[str]) -> list[bytes]:
    if kind == "store":
        held = ek.LogitStore(out)
        assert held.verify().sound
        return [held.read(s).tobytes() for s in ids]
    return [(out / f"{s}.npz").read_bytes() for s in ids]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["store", "npz"])
def test_killed_and_run_again_ends_in_the_same_bytes(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    """A real process, killed once some samples are there: none is half there, none is written twice."""
    ids = [f"s{k:02}" for k in range(40)]
    stores = [tmp_path / f"m{k}.zarr" for k in range(2)]
    for path in stores:
        write_store(path, {s: smooth_logits(rng, (6, 96, 96)) for s in ids}, (192, 192), tuple("abcdef"))
    with run(tmp_path / "whole", kind, stores) as process:
        assert process.communicate(timeout=200)[1] == ""
    out, killed = tmp_path / "cut", 0
    for seed in range(3):
        before = _there(out, kind)
        with run(out, kind, stores) as process:
            late = time.monotonic() + 120
            more = random.Random(seed).randrange(1, 6)
            while process.poll() is None and len(_there(out, kind)) < len(before) + more and time.monotonic() < late:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            killed += process.wait(timeout=60) == -signal.SIGKILL
        assert before <= _there(out, kind)  # what was there stays
    assert killed == 3
    with run(out, kind, stores) as process:
        assert process.communicate(timeout=200)[1] == ""
    assert content(out, kind, ids) == content(tmp_path / "whole", kind, ids)
    assert not [p for p in out.rglob("*") if p.name.endswith(".tmp") or ".tmp-" in p.name]


def _there(out: Path, kind: str) -> set[str]:
    try:
        if kind == "npz":
            return {p.name for p in out.glob("s*.npz")}
        held = ek.LogitStore(out)
        return set(held.samples) - set(held.missing)
    except ek.EnskError:
        return set()
