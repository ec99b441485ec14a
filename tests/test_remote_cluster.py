"""Workers of a Dask cluster that read stores from S3: the bytes of threads that read files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.remote.objects import Objects
from trying import ensk

pytest.importorskip("obstore")

CLASSES, IDS = ("x", "y", "z"), tuple(f"s{k:02}" for k in range(24))


def write_inputs(base: str) -> None:
    """Two members and a truth, the same wherever they are."""
    rng = np.random.default_rng(3)
    for name in "ab":
        arrays = {s: 3 * smooth_logits(rng, (3, 20, 24)) for s in IDS}
        write_store(f"{base}/{name}.zarr", arrays, (40, 50), CLASSES, member=name)  # type: ignore[arg-type]
    ek.Ensemble([f"{base}/a.zarr", f"{base}/b.zarr"]).vote(0.45).write(f"{base}/val.npz")


@pytest.mark.slow
def test_commands_on_a_cluster_over_s3_give_the_bytes_of_files(s3: str, tmp_path: Path) -> None:
    from distributed import LocalCluster

    here = str(tmp_path)
    for base in (here, s3):
        write_inputs(base)

    def run(base: str, *where: str) -> dict[str, object]:
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            stores = (f"{base}/a.zarr", f"{base}/b.zarr")
            ensk("tune-thresholds", *stores, "--val", f"{base}/val.npz", "--out", f"{base}/set.json", "-q", *where)
            vote = ("vote", *stores, "--thresholds", f"{base}/set.json", "--out", f"{base}/out.csv")
            ensk(*vote, *where, "--json", "-q")
        return dict(json.loads(told.getvalue().splitlines()[-1]))

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0)
    with cluster:
        far, near = run(s3, "--dask", cluster.scheduler_address), run(here, "--jobs", "1")
    assert {**far, "out": ""} == {**near, "out": ""}
    folder = Objects(s3)
    for name in ("set.json", "out.csv"):
        assert folder.get(name) == (tmp_path / name).read_bytes(), name
