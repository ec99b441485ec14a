"""A second stage over members: what it learns, that it is the same on every road, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.cli.app import app
from ensemble_kit.execution.events import Progress
from ensemble_kit.kernels import logistic, reference_logistic
from ensemble_kit.recipes.stack import Stack
from ensemble_kit.recipes.stack_fitting import Stacking, fit_stack
from ensemble_kit.recipes.stack_store import equal
from ensemble_kit.stacking import features
from ensemble_kit.stacking.features import SampleFeatures
from ensemble_kit.stacking.fit import fit
from ensemble_kit.stacking.rows import PER_STRATUM, STRATA, Rows, coverage, draw, per_stratum

CLASSES = ("w", "x", "y", "z")
GOOD = {"a": (0, 2), "b": (1, 3)}
"""Each member is right about half of the classes, and sees nothing of the others."""


def ensk(*arguments: object) -> None:
    app([*map(str, arguments)], standalone_mode=False)


def scene(seed: int, samples: int, name: str = "s") -> dict[str, np.ndarray]:
    """Draw the truth: a disc of each class somewhere in its own quarter, bool (4, 24, 24), sometimes absent."""
    rng, out = np.random.default_rng(seed), {}
    y, x = np.mgrid[:24, :24]
    for k in range(samples):
        centres = rng.uniform(4, 8, (4, 2)) + np.array([[0, 0], [0, 12], [12, 0], [12, 12]])
        discs = [(y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(5, 16) for cy, cx in centres]
        out[f"{name}{k:02}"] = np.stack([d & (rng.random() < 0.9) for d in discs])
    return out


def write_members(folder: Path, masks: dict[str, np.ndarray], seed: int) -> list[Path]:
    """Write the two members' stores of a scene."""
    folder.mkdir(exist_ok=True)
    paths = []
    for m, good in GOOD.items():
        rng, logits = np.random.default_rng([seed, ord(m)]), {}
        for sample, truth in masks.items():
            logits[sample] = rng.normal(-1, 1.5, truth.shape)
            for c in good:
                logits[sample][c] += np.where(truth[c], 5, -3)
        paths.append(folder / f"{m}.zarr")
        write_store(paths[-1], {s: z.astype(np.float16) for s, z in logits.items()}, (24, 24), CLASSES, member=m)
    return paths


def masks_of(masks: dict[str, np.ndarray]) -> ek.MaskSet:
    return ek.MaskSet({(s, name): ek.encode(m[c]) for s, m in masks.items() for c, name in enumerate(CLASSES)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Members and truth of 18 samples, of 9 others, and a stack that was fitted on the first."""
    folder = tmp_path_factory.mktemp("stack")
    val, test = scene(0, 18), scene(1, 9, "t")
    members, others = write_members(folder / "val", val, 0), write_members(folder / "test", test, 1)
    stack = fit_stack(ek.Ensemble(members), masks_of(val), folder / "stacked.zarr", jobs=1)
    stack.apply(ek.Ensemble(others), folder / "test_stacked.zarr", jobs=1)
    return folder, members, others, masks_of(val), masks_of(test), stack


def content(path: Path) -> list[bytes]:
    """Return the logits of every sample."""
    store = ek.LogitStore(path)
    return [store.read(s).tobytes() for s in store.samples]


@pytest.mark.slow
def test_it_learns_who_is_right(made: Any) -> None:
    folder, _, others, _, truth, stack = made
    assert stack.scores.stack_tuned > 0.97
    assert stack.scores.mean_tuned < 0.9
    assert stack.scores.gain.low > 0.1
    assert stack.scores.warnings() == []
    members, stacked = ek.Ensemble(others), ek.Ensemble([folder / "test_stacked.zarr"])
    assert ek.dice(stacked.vote(0.5), truth).mean > ek.dice(members.vote(0.5), truth).mean + 0.1
    for c in range(4):  # the class's own member is heard, the other is not
        own, other = stack.model.of_all[c][:2] if c in GOOD["a"] else stack.model.of_all[c][1::-1]
        assert own > 2 * abs(other)


def test_a_set_tuned_on_the_out_of_fold_store_fits_the_other_one(made: Any, tmp_path: Path) -> None:
    folder, members, _, val, truth, _ = made
    stacked, test = ek.Ensemble([folder / "stacked.zarr"]), ek.Ensemble([folder / "test_stacked.zarr"])
    tuned = ek.tune_thresholds(stacked, val, folds=3)
    assert tuned.overlap_told(test.samples, test.records) is None
    assert ek.dice(test.vote(tuned), truth).mean > 0.9
    assert stacked.members[0].provenance["stacked"]["applied"] == "out of fold"
    assert test.members[0].provenance["stacked"]["applied"] == "fitted on all samples"
    assert {r.model for r in (*stacked.records, *test.records)} == {test.records[0].model}
    mixed = ek.Ensemble([folder / "stacked.zarr", *members])
    assert len(ek.tune_thresholds(mixed, val, folds=3).members) == 3


@pytest.mark.slow
def test_results_do_not_depend_on_jobs_order_or_memory(made: Any, tmp_path: Path) -> None:
    folder, members, _, val, _, stack = made
    ensemble = ek.Ensemble(members[::-1], weights=[3, 1])
    again = fit_stack(ensemble, val, tmp_path / "again.zarr", jobs=3)
    assert again.digest == stack.digest
    assert content(tmp_path / "again.zarr") == content(folder / "stacked.zarr")
    one_by_one = Stacking(equal(ensemble), tmp_path / "few.zarr")
    object.__setattr__(one_by_one, "_room", lambda jobs, memory: (1, 2))
    assert one_by_one.run(val)[0].digest == stack.digest


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "done"), [("fitting", 2), ("stacking", 5)], ids=["while fitting", "while writing"])
def test_an_ended_run_is_resumed_to_the_same_bytes(made: Any, tmp_path: Path, verb: str, done: int) -> None:
    folder, members, _, val, _, stack = made

    def end(event: Progress) -> None:
        if (event.verb, event.done) == (verb, done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_stack(ek.Ensemble(members), val, tmp_path / "s.zarr", jobs=1, listener=end)
    seen: list[Progress] = []
    resumed = fit_stack(ek.Ensemble(members), val, tmp_path / "s.zarr", jobs=1, listener=seen.append)
    totals = {event.verb: event.total for event in seen}
    assert (totals.get("fitting"), totals["stacking"]) == ((3, 18) if verb == "fitting" else (None, 14))
    assert resumed.digest == stack.digest
    assert content(tmp_path / "s.zarr") == content(folder / "stacked.zarr")
    assert (tmp_path / "s.stack.json").read_bytes() == (folder / "stacked.stack.json").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.stack.json", "s.zarr"]


def damaged(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        d = json.loads(text)
        change(d)
        return json.dumps(d)

    return apply


FAULTS: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[: len(text) // 2],
    "a pickle": lambda text: "\x80\x04K\x01.",
    "another format": damaged(lambda d: d.update(format="ensk.thresholds/1")),
    "not finite": lambda text: text.replace('"strengths":[[', '"strengths":[[1e999,'),
    "a class too many": damaged(lambda d: d["classes"].append("more")),
    "a coefficient short": damaged(lambda d: d["coefficients"]["all"][0].pop()),
    "text for a number": damaged(lambda d: d["coefficients"]["folds"][0][0].__setitem__(0, "x")),
    "other features": damaged(lambda d: d["features"].__setitem__(0, "x")),
    "members in another order": damaged(lambda d: d["members"].reverse()),
    "numbers that add up to none": damaged(lambda d: d["coefficients"]["all"].__setitem__(0, [1e308, -1e308] * 10)),
    "no class": damaged(lambda d: d.update(classes=[])),
    "no members": damaged(lambda d: d.pop("members")),
    "a list": lambda text: "[]",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_model_is_refused(made: Any, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(FAULTS[fault]((made[0] / "stacked.stack.json").read_text()), encoding="latin-1")
    with pytest.raises(ek.DamagedError) as caught:
        Stack.load(path)
    assert (caught.value.code, caught.value.exit_code) == ("stack-model-invalid", 3)
    assert str(caught.value).count("fix: ") == 1
    assert str(caught.value).count(str(path)) == 1


def test_a_model_survives_its_file(made: Any, tmp_path: Path) -> None:
    stack = made[-1]
    stack.save(tmp_path / "m.json")
    loaded = ek.Stack.load(tmp_path / "m.json")
    assert loaded.digest == stack.digest
    assert (loaded.members, loaded.classes) == (("a", "b"), CLASSES)
    with pytest.raises(ek.IncompleteError):
        ek.Stack.load(tmp_path / "none.json")


def test_what_does_not_fit_is_refused(made: Any, tmp_path: Path) -> None:
    folder, members, others, val, _, stack = made
    rng, z = np.random.default_rng(0), {"q": np.zeros((4, 24, 24), np.float16) - 1}
    exclusive = [
        write_store(tmp_path / f"{m}.zarr", {"q": smooth_logits(rng, (4, 24, 24))}, (24, 24), CLASSES, member=m,
                    activation="softmax") for m in "ab"
    ]  # fmt: skip
    named = [write_store(tmp_path / f"n{m}.zarr", z, (24, 24), ("w", "x", "y", "v"), member=m) for m in "ab"]
    cases: list[tuple[str, list[Any]]] = [
        ("stack-does-not-fit", others[:1]),
        ("stack-does-not-fit", exclusive),
        ("stack-does-not-fit", named),
        ("stack-in-sample", members),
    ]
    for code, stores in cases:
        with pytest.raises(ek.EnskError) as caught:
            stack.apply(ek.Ensemble(stores), tmp_path / "no.zarr")
        assert caught.value.code == code
    same_ids = write_members(tmp_path / "again", scene(5, 3), 5)
    with pytest.warns(UserWarning, match="3 of 3 samples are called like"):
        stack.applied(ek.Ensemble(same_ids), tmp_path / "no.zarr")
    for wanted, options in {
        "groups-few": {"groups": {s: "one" if s[-1] > "4" else "two" for s in val.samples}},
        "folds-invalid": {"folds": 2},
        "output-is-input": {"out": members[0]},
        "stack-model-path": {"out": "s3://bucket/s.zarr"},
    }.items():
        with pytest.raises(ek.UsageError) as caught:
            fit_stack(ek.Ensemble(members), val, **{"out": tmp_path / "no.zarr", **options})  # type: ignore[arg-type]
        assert caught.value.code == wanted
    with pytest.raises(ek.MismatchError, match="stack of another run"):
        fit_stack(ek.Ensemble(members), val, folder / "stacked.zarr", seed=1)
    with pytest.raises(ek.ResourceError, match="memory budget"):
        fit_stack(ek.Ensemble(members), val, tmp_path / "no.zarr", memory=1_000_000)
    twins = [write_store(tmp_path / f"twin{k}.zarr", {"q": z["q"] - k}, (24, 24), CLASSES, member="a") for k in (0, 1)]
    with pytest.raises(ek.UsageError, match="one name"):
        fit_stack(ek.Ensemble([t.path for t in twins]), val, tmp_path / "no.zarr")
    assert not (tmp_path / "no.zarr").exists()


def test_a_stack_that_gains_nothing_is_said(tmp_path: Path) -> None:
    """Members and truth are noise: there is nothing to learn."""
    rng = np.random.default_rng(0)
    masks = {f"s{k}": rng.random((4, 24, 24)) < 0.3 for k in range(9)}
    stores = [
        write_store(tmp_path / f"{m}.zarr", {s: rng.normal(0, 1, (4, 24, 24)).astype(np.float16) for s in masks},
                    (24, 24), CLASSES, member=m) for m in "ab"
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="the stack"):
        stack = fit_stack(ek.Ensemble([s.path for s in stores]), masks_of(masks), tmp_path / "s.zarr", jobs=1)
    assert stack.scores is not None
    assert stack.scores.gain.low <= 0


def test_exclusive_classes_put_out_probabilities_that_add_up(tmp_path: Path) -> None:
    rng, masks = np.random.default_rng(3), scene(3, 9)
    names = ("none", *CLASSES)
    whole = {s: np.concatenate([~m.any(0)[None], m]) for s, m in masks.items()}
    stores = [
        write_store(tmp_path / f"{m}.zarr", {s: (rng.normal(0, 1.5, t.shape) + 2 * t).astype(np.float16)
                    for s, t in whole.items()}, (24, 24), names, member=m, activation="softmax") for m in "ab"
    ]  # fmt: skip
    truth = ek.MaskSet({(s, n): ek.encode(t[c]) for s, t in whole.items() for c, n in enumerate(names)})
    stack = fit_stack(ek.Ensemble([s.path for s in stores]), truth, tmp_path / "s.zarr", jobs=1)
    store = ek.LogitStore(tmp_path / "s.zarr")
    assert store.activation == "softmax"
    assert np.allclose(np.exp(store.read("s00").astype(float)).sum(0), 1, atol=0.01)
    assert stack.scores is not None
    assert stack.scores.gain.low > 0


@pytest.mark.slow
def test_the_command_fits_applies_tunes_and_votes(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, members, others, val, truth, stack = made
    val.write(tmp_path / "val.npz")
    out, to = tmp_path / "stacked.zarr", tmp_path / "test.zarr"
    words = (*members, "--val", tmp_path / "val.npz", "--out", out, "--apply", *others, "--to", to, "--jobs", 1)
    from ensemble_kit.cli.app import _spread

    app(_spread(["stack", *map(str, words), "--dry-run", "--json"]), standalone_mode=False)
    plan = json.loads(capsys.readouterr().out)
    assert (plan["bytes"], plan["folds"], out.exists()) == (2 * 4 * 24 * 24 * (18 + 9), 5, False)
    app(_spread(["stack", *map(str, words), "--json", "-q"]), standalone_mode=False)
    said = capsys.readouterr()
    assert json.loads(said.out)["digest"] == stack.digest
    assert said.err == ""
    assert content(to) == content(folder / "test_stacked.zarr")
    ensk("tune-thresholds", out, "--val", tmp_path / "val.npz", "--out", tmp_path / "set.json", "-q")
    ensk("vote", to, "--thresholds", tmp_path / "set.json", "--out", tmp_path / "masks.npz")
    assert "tuned on" not in capsys.readouterr().err  # nor is another model refused
    assert ek.dice(ek.read_masks(tmp_path / "masks.npz"), truth).mean > 0.9
    later = [
        "stack",
        "--model",
        out.with_suffix(".stack.json"),
        "--apply",
        *others,
        "--to",
        tmp_path / "later.zarr",
        "-q",
    ]
    app(_spread([*map(str, later)]), standalone_mode=False)
    assert content(tmp_path / "later.zarr") == content(to)


@pytest.mark.parametrize(
    "words",
    [
        ("a.zarr",),
        ("--model", "m.json"),
        ("--val", "v.npz"),
        ("a.zarr", "--val", "v.npz", "--out", "o.zarr", "--to", "t"),
    ],
    ids=["stores alone", "a model alone", "a truth alone", "to without apply"],
)
def test_the_command_names_what_is_missing(words: tuple[str, ...]) -> None:
    with pytest.raises(ek.UsageError) as caught:
        ensk("stack", *words)
    assert caught.value.code == "stack-usage"


def test_members_of_two_grids_and_boxes_are_brought_to_the_finest(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    fine = {"s": smooth_logits(rng, (2, 24, 32))}
    coarse = {"s": smooth_logits(rng, (2, 12, 12), 3)}  # within ±16
    stores = [
        write_store(tmp_path / "a.zarr", fine, (48, 48), ("p", "q"), {"s": (0, 4, 24, 28)}, member="a"),
        write_store(tmp_path / "b.zarr", coarse, (48, 48), ("p", "q"), member="b"),
    ]
    inputs = equal(ek.Ensemble([s.path for s in stores])).inputs
    seen = SampleFeatures(inputs, "s")
    names = features.names(["a", "b"], ("p", "q"))
    found = dict(zip(names, seen.of(1), strict=True))
    assert seen.shape == (24, 24)
    assert np.abs(np.asarray(found["a"]) - fine["s"][1, :, 4:28]).max() < 1e-3  # 32 / 65535 apart
    big = np.clip((np.arange(24) + 0.5) / 2 - 0.5, 0, 11)
    low, share = np.floor(big).astype(int), big % 1
    high = np.minimum(low + 1, 11)
    rows = (
        coarse["s"][1].astype(float)[low] * (1 - share)[:, None] + coarse["s"][1].astype(float)[high] * share[:, None]
    )
    wanted = rows[:, low] * (1 - share) + rows[:, high] * share
    assert np.abs(np.asarray(found["b"]) - wanted).max() < 0.02
    assert np.allclose(found["disagreement"], np.abs(np.asarray(found["a"]) - np.asarray(found["b"])))
    assert len(names) == len(found)


def test_features_of_other_classes_and_of_the_fused_mask(tmp_path: Path) -> None:
    z = {"s": np.full((3, 8, 8), -2, np.float16)}
    z["s"][0, :2], z["s"][1, :, :2], z["s"][2, 0, 0] = 3, 4, 1
    store = write_store(tmp_path / "a.zarr", z, (8, 8), ("p", "q", "r"), member="a")
    seen = SampleFeatures(equal(ek.Ensemble([store.path])).inputs, "s")
    names = features.names(["a"], ("p", "q", "r"))
    for c, others in enumerate(((1, 2), (0, 2), (0, 1))):
        found = dict(zip(names, seen.of(c), strict=True))
        best = z["s"].astype(float)[list(others)].max(0)
        assert np.abs(np.asarray(found["others"]) - best).max() < 0.01
        assert np.isclose(float(found["area"]), np.log1p((z["s"][c] >= 0).sum() / 64 * 1e4))
        assert np.isclose(float(found["peak"]), z["s"][c].max(), atol=0.01)
        lead = np.maximum(z["s"][c].astype(float) - best, 0)
        assert np.abs(np.asarray(found["lead"]) - lead).max() < 0.01
        assert np.isclose(np.asarray(found["near:p"])[4, 4], 1 / (1 + np.exp(2)), atol=1e-3)


@given(st.integers(0, 2**32), st.sampled_from([(5, 7), (24, 24), (16, 9), (48, 30)]))
def test_coverage_is_the_share_of_the_cell(seed: int, image: tuple[int, int]) -> None:
    """Against every pixel cut into as many pieces as there are cells."""
    mask = np.random.default_rng(seed).random(image) < 0.4
    found = coverage(ek.encode(mask), (8, 6))
    pieces = np.repeat(np.repeat(mask, 8, axis=0), 6, axis=1).reshape(8, image[0], 6, image[1])
    assert np.allclose(found, pieces.mean(axis=(1, 3)), atol=1e-6)


@pytest.mark.parametrize("most", [150, 7, 1])
def test_drawn_cells_stand_for_all(most: int) -> None:
    rng = np.random.default_rng(0)
    fused, on, counts = rng.normal(-4, 4, 5000).astype(np.float32), rng.random(5000) < 0.3, rng.random(5000) < 0.9
    which, share = draw(fused, on, counts, np.random.default_rng(1), most)
    assert which.size <= STRATA * most
    assert (np.diff(which) > 0).all()
    assert counts[which].all()
    assert share.sum() == pytest.approx(counts.sum())
    assert (share * on[which]).sum() == pytest.approx((counts & on).sum())
    assert most < 150 or (share[(np.abs(fused[which]) < 1) & on[which]] < share.mean()).all()


def test_more_samples_give_fewer_cells_each() -> None:
    """So that the cells of a class fit into memory, however many samples there are."""
    assert per_stratum(85) == per_stratum(2000) == PER_STRATUM
    assert all(1e6 < n * STRATA * per_stratum(n) <= 4e6 for n in (3000, 20_000, 300_000))
    assert per_stratum(10**7) == 1


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 9))
def test_sums_are_the_oracles(seed: int, n: int, f: int) -> None:
    rng = np.random.default_rng(seed)
    rows, (a, b), c = rng.normal(size=(n, f)).astype(np.float32), rng.normal(size=(2, n)), rng.normal(size=f)
    for ours, theirs in zip(
        logistic.gram(rows, a, b), reference_logistic.weighted_sums(rows.astype(float), a, b), strict=True
    ):
        assert np.array_equal(ours, theirs)
    assert np.array_equal(logistic.linear(rows, c), np.cumsum(rows.astype(float) * c, axis=1)[:, -1])


@pytest.mark.parametrize("strength", [1e-5, 1e-2, 1e3])
def test_a_fit_is_the_minimum(strength: float) -> None:
    """Against SciPy's BFGS on the formula of the module; a strong penalty gives the prior."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(400, 4)), np.ones((400, 1))], axis=1).astype(np.float32)
    y = (rng.random(400) < 1 / (1 + np.exp(-x @ [1, -2, 0, 0.5, -1]))).astype(np.float32)
    w, prior = rng.uniform(1, 9, 400), np.array([0.5, 0.5, 0, 0, 0])

    def objective(b: np.ndarray) -> float:
        s = x.astype(float) @ b
        loss = (w * (np.logaddexp(0, s) - y * s)).sum() / w.sum()
        return float(loss + strength / 2 * (x.std(0, dtype=float) ** 2 * (b - prior) ** 2).sum())

    found = fit(Rows(x, y, w), prior, strength)
    wanted = minimize(objective, prior, method="BFGS", options={"gtol": 1e-9}).x
    assert objective(found) <= objective(wanted) + 1e-12
    assert np.allclose(found, wanted, atol=1e-3)
    if strength > 1:
        assert np.allclose(found[:4], prior[:4], atol=1e-2)


PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "the store over a member that it is applied to": ("output-is-input", {"out": "test/a.zarr", "model": "m.json"}),
    "the model over such a member": ("output-kind", {"model": "test/a.zarr"}),
    "one path for both stores": ("output-is-input", {"out": "new.zarr", "to": "new.zarr"}),
    "the other store where the model comes": ("output-is-input", {"out": "new.zarr", "to": "new.stack.json"}),
    "the other store over a member": ("output-is-input", {"to": "val/a.zarr"}),
    "the store where the model comes": ("output-is-input", {"out": "new.json", "model": "new.json"}),
    "a folder of other things": ("output-foreign", {"out": "others"}),
    "the other store in a folder of other things": ("output-foreign", {"to": "others"}),
}


@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
@pytest.mark.parametrize(("code", "paths"), PLACES.values(), ids=PLACES)
def test_no_input_is_written_over(made: Any, tmp_path: Path, code: str, paths: dict[str, str], force: bool) -> None:
    """Whatever --force says, and before anything is fitted."""
    folder, *_ = made
    for part in ("val", "test"):
        shutil.copytree(folder / part, tmp_path / part)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "notes.txt").write_text("mine")
    made[3].write(tmp_path / "val.npz")
    before = tree(tmp_path)
    options = {"out": "new.zarr", "to": "newer.zarr", **paths}
    val, test = ([tmp_path / part / f"{m}.zarr" for m in GOOD] for part in ("val", "test"))
    words = ["stack", *val, "--val", tmp_path / "val.npz", "--apply", *test, *["--force"] * force]
    for option, path in options.items():
        words += [f"--{option}", tmp_path / path]
    from ensemble_kit.cli.app import _spread

    with pytest.raises(ek.UsageError) as caught:
        app(_spread([*map(str, words)]), standalone_mode=False)
    assert caught.value.code == code
    assert tree(tmp_path) == before


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_another_store_is_refused_before_the_fit(made: Any, tmp_path: Path) -> None:
    """Neither a member's store nor a stack of other samples is resumed, and no model is left beside it."""
    folder, members, others, val, _, _ = made
    for there in ("val/a.zarr", "test_stacked.zarr"):
        shutil.copytree(folder / there, tmp_path / "there.zarr", dirs_exist_ok=True)
        with pytest.raises(ek.MismatchError) as caught:
            fit_stack(ek.Ensemble(members), val, tmp_path / "there.zarr", jobs=1)
        assert caught.value.code == "store-differs"
        assert [p.name for p in tmp_path.iterdir()] == ["there.zarr"]
        shutil.rmtree(tmp_path / "there.zarr")
    with pytest.raises(ek.MismatchError, match="store of another run"):
        Stacking(ek.Ensemble(members), tmp_path / "new.zarr").applied(ek.Ensemble(others), folder / "stacked.zarr")


@pytest.mark.slow
def test_void_samples_and_absent_classes_say_nothing(made: Any, tmp_path: Path) -> None:
    """Of truth that is void everywhere nothing is learnt: the prior; a class that no sample has counts in no gain."""
    _, members, _, val, _, _ = made
    ensemble, none = ek.Ensemble(members), ek.encode(np.zeros((24, 24), bool))
    every = ek.encode(np.ones((24, 24), bool))
    void = ek.MaskSet(
        dict.fromkeys(((s, c) for s in val.samples for c in CLASSES), none), void=dict.fromkeys(val.samples, every)
    )
    with pytest.warns(UserWarning, match="does not beat the soft mean"):
        stack = fit_stack(ensemble, void, tmp_path / "void.zarr", jobs=1)
    assert np.array_equal(stack.model.of_all, np.tile(features.prior(["a", "b"], CLASSES), (4, 1)))
    lacking = ek.MaskSet({(s, c): none if c == "w" else val[s, c] for s in val.samples for c in CLASSES})
    found, full = fit_stack(ensemble, lacking, tmp_path / "lacking.zarr", jobs=1).scores, made[-1].scores
    assert found is not None
    assert found.gain.value == pytest.approx(full.gain.value, abs=0.1)  # not the 1 that each empty pair of masks counts
    assert found.stack_tuned - found.mean_tuned > found.gain.value + 0.1


@pytest.mark.parametrize(
    "options",
    [{"seed": -1}, {"seed": "x"}, {"seed": 1.5}, {"jobs": 0}, {"memory": "2GB"}, {"memory": 0}, {"model": 3}],
    ids=str,
)
def test_options_of_a_wrong_kind_are_refused(made: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ek.UsageError):
        fit_stack(ek.Ensemble(made[1]), made[3], tmp_path / "no.zarr", **options)


def test_a_seed_below_zero_is_no_bug(made: Any, tmp_path: Path) -> None:
    made[3].write(tmp_path / "val.npz")
    with pytest.raises(ek.UsageError, match="--seed -1"):
        ensk("stack", *made[1], "--val", tmp_path / "val.npz", "--out", tmp_path / "no.zarr", "--seed", -1)
