"""Workers of a Dask cluster that read stores from S3: the bytes of threads that read files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.remote.objects import Objects
from trying import ensk, refused

if TYPE_CHECKING:
    from distributed import LocalCluster

pytest.importorskip("obstore")

CLASSES, IDS = ("x", "y", "z"), tuple(f"s{k:02}" for k in range(24))


def write_inputs(base: str) -> None:
    """Two members and a truth, the same wherever they are."""
    rng = np.random.default_rng(3)
    for name in "ab":
        arrays = {s: 3 * smooth_logits(rng, (3, 20, 24)) for s in IDS}
        write_store(f"{base}/{name}.zarr", arrays, (40, 50), CLASSES, member=name)  # type: ignore[arg-type]
    ek.Ensemble([f"{base}/a.zarr", f"{base}/b.zarr"]).vote(0.45).write(f"{base}/val.npz")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    from distributed import LocalCluster

    with LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0) as found:
        yield found


def take(variables: dict[str, str]) -> None:
    """Run on a worker: a bound method of `os.environ` would change a copy."""
    os.environ.update(variables)


def give_keys(cluster: LocalCluster, **changed: str) -> None:
    """Give the workers the variables that this process has for the bucket."""
    from distributed import Client

    with Client(cluster) as client:
        own = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        client.run(take, {**own, **changed})


@pytest.mark.slow
def test_commands_on_a_cluster_over_s3_give_the_bytes_of_files(
    s3: str, tmp_path: Path, cluster: LocalCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    give_keys(cluster)
    told = []
    for base, where in ((str(tmp_path), ("--jobs", "1")), (s3, ("--dask", cluster.scheduler_address))):
        write_inputs(base)
        stores = (f"{base}/a.zarr", f"{base}/b.zarr")
        ensk("tune-thresholds", *stores, "--val", f"{base}/val.npz", "--out", f"{base}/set.json", "-q", *where)
        capsys.readouterr()
        ensk("vote", *stores, "--thresholds", f"{base}/set.json", "--out", f"{base}/out.csv", *where, "--json", "-q")
        told.append({**json.loads(capsys.readouterr().out), "out": ""})
    assert told[0] == told[1]
    folder = Objects(s3)
    for name in ("set.json", "out.csv"):
        assert folder.get(name) == (tmp_path / name).read_bytes(), name


@pytest.mark.slow
def test_a_worker_that_may_not_read_what_the_command_may_is_told(s3: str, cluster: LocalCluster) -> None:
    """R20."""
    write_inputs(s3)
    give_keys(cluster, AWS_SECRET_ACCESS_KEY="another")
    with refused(ek.ResourceError, "remote", f"{s3}/a.zarr", "the credentials are refused"):
        ensk("vote", f"{s3}/a.zarr", "--out", f"{s3}/out.csv", "-q", "--dask", cluster.scheduler_address)
    assert Objects(s3).get("out.csv") is None
