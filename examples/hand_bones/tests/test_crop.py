"""A network that saw the wrist alone, beside one that saw the whole hand: each counts where it looked."""

import cv2
import numpy as np
import pytest
from hand_bones.classes import CARPALS, CLASSES
from hand_bones.layout import read_layout
from hand_bones.truth import truth_masks

import ensemble_kit as ek
from ensemble_kit.kernels import reference_volumes as oracle

SIZE = 128


@pytest.fixture(scope="module")
def truth(hands):
    return truth_masks(read_layout(hands, "train")[:4])


@pytest.fixture(scope="module")
def windows(truth):
    """A box around the carpals of each hand, with a margin: y0, x0, y1, x1."""
    out = {}
    for sample in truth.samples:
        y, x = np.nonzero(np.any([truth[sample, name].decode() for name in CARPALS], axis=0))
        out[sample] = (max(y.min() - 6, 0), max(x.min() - 6, 0), min(y.max() + 7, SIZE), min(x.max() + 7, SIZE))
    return {sample: tuple(map(int, box)) for sample, box in out.items()}


@pytest.fixture(scope="module")
def stores(truth, windows, tmp_path_factory):
    """What the two networks put out: the truth at their grid, with noise, the wrist's from three times as near."""
    root, rng = tmp_path_factory.mktemp("crop"), np.random.default_rng(1)
    made = []
    for name, grid, noise in (("hand", (32, 32), 2.0), ("wrist", (40, 44), 1.0)):
        path = root / f"{name}.zarr"
        with ek.LogitWriter(path, CLASSES, truth.samples, grid=None, activation="sigmoid", member=name) as out:
            for sample in truth.samples:
                window = windows[sample] if name == "wrist" else None
                y0, x0, y1, x1 = window or (0, 0, SIZE, SIZE)
                seen = [truth[sample, c].decode()[y0:y1, x0:x1].astype(np.float32) for c in CLASSES]
                cells = np.stack([cv2.resize(s, grid[::-1], interpolation=cv2.INTER_AREA) for s in seen])
                logits = 10 * (cells - 0.5) + rng.normal(0, noise, cells.shape)
                out.write(sample, logits.astype(np.float16), (SIZE, SIZE), window=window)
        made.append(path)
    return made


def test_the_vote_is_the_oracles(stores, windows):
    ens = ek.Ensemble(stores, weights={"hand": 1, "wrist": 3})
    masks = ens.vote()
    for sample in ens.samples:
        y0, x0, y1, x1 = windows[sample]
        views = {"hand": ((0, SIZE), (0, SIZE)), "wrist": ((y0, y1), (x0, x1))}
        seen = [
            oracle.Seen(m.read(sample), 1, views[m.member], (False, False), 1.0, (w,) * len(CLASSES), m.member)
            for m, w in zip(ens.members, (1, 3), strict=True)
        ]
        found = oracle.fused(seen, (SIZE, SIZE), softmax=False, upsample="logits")
        for c, name in enumerate(CLASSES):
            assert np.array_equal(masks[sample, name].decode(), found.levels[c] >= 32768), (sample, name)


def test_inside_its_window_the_crop_decides_as_it_would_alone(stores, truth, windows, tmp_path):
    with ek.LogitWriter(tmp_path / "alone.zarr", CLASSES, truth.samples, grid=(40, 44), activation="sigmoid") as out:
        for sample in truth.samples:
            y0, x0, y1, x1 = windows[sample]
            out.write(sample, ek.LogitStore(stores[1]).read(sample), (y1 - y0, x1 - x0))
    alone, placed = ek.Ensemble(tmp_path / "alone.zarr").vote(), ek.Ensemble(stores[1]).vote()
    for sample, (y0, x0, y1, x1) in windows.items():
        for name in CLASSES:
            mask = placed[sample, name].decode()
            assert np.array_equal(mask[y0:y1, x0:x1], alone[sample, name].decode())
            assert mask.sum() == mask[y0:y1, x0:x1].sum()  # outside it is off


def test_the_crop_helps_the_carpals_and_changes_nothing_outside(stores, truth, windows):
    whole, both = (ek.Ensemble(members).vote() for members in (stores[:1], stores))
    gain = {
        name: value - ek.dice(whole, truth).per_class[name] for name, value in ek.dice(both, truth).per_class.items()
    }
    assert min(gain[name] for name in CARPALS) > 0.05
    for sample, (y0, x0, y1, x1) in windows.items():
        for name in CLASSES:
            one, other = whole[sample, name].decode(), both[sample, name].decode()
            one[y0:y1, x0:x1] = other[y0:y1, x0:x1]
            assert np.array_equal(one, other)
