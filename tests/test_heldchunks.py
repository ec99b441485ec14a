"""A chunk whose slices are looked at is not read again, and one that nobody looks at is not kept."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.logits import layout


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_slices_of_a_chunk_share_its_memory(codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_SLAB", 2 * 2 * 5 * 40 * 3)  # three slices
    logits = np.random.default_rng(0).normal(size=(2, 7, 5, 40)).astype(np.float16)
    with ek.LogitWriter(tmp_path / "m.zarr", ["a", "b"], ["s", "t"], codec=codec) as out:
        for sample, own in (("s", logits), ("t", -logits)):
            out.write(sample, own, image_size=(7, 10, 80))
    store = ek.LogitStore(tmp_path / "m.zarr")

    def taken(sample: str, number: int) -> np.ndarray:
        found = store.read_slab(sample, number, number + 1)
        np.testing.assert_array_equal(found[:, 0], (logits if sample == "s" else -logits)[:, number])
        return found

    held = [taken(sample, number) for number in range(7) for sample in ("s", "t")]
    for k, number in enumerate(range(7)):
        assert np.shares_memory(taken("s", number), held[2 * k])
        assert not np.shares_memory(held[2 * k], held[2 * k + 1])
    first = [h.__array_interface__["data"][0] for h in held]
    assert first[2] - first[0] == first[4] - first[2] == 2 * 5 * 40  # slices of one chunk
    del held
    gc.collect()
    assert not store._chunks._held._known
