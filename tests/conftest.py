"""Real stores, drawn by seed; nothing here is mocked."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side; threads of torch and BLAS wait by spinning

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import ensemble_kit as ek

collect_ignore = ["trainers", "exports"]
"""Tests that `make trainers-test` and `make exports-test` run, in environments of their own."""

KINDS = ["memory", "s3", *(["az"] if shutil.which("azurite-blob") else [])]
"""Of object stores; Azure's where its emulator is installed."""

EXAMPLES = int(os.environ.get("ENSK_EXAMPLES", "60"))
"""Of each property; fewer for mutation testing, more for a night's soak."""

OF_OTHERS = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
for name in list(os.environ):  # of a terminal, a launcher, a batch system: tests of them set their own
    if name in OF_OTHERS or name.startswith(("SLURM_", "OMPI_")):
        del os.environ[name]
os.environ["SOURCE_DATE_EPOCH"] = "1700000000"  # a set that is made twice is the same at midnight too

pytest.register_assert_rewrite(
    "forms", "harness", "pseudo", "followups", "trying", "warm"
)  # their assertions hold under `python -O` too, as those of tests do
import followups  # noqa: E402 - behind the line before

LONGEST = ("test_argmax_kernels", "test_pages", "test_volume_argmax", "test_memory", "test_writing", "test_anywhere",
           "test_many_processes", "test_search", "test_cluster", "test_release", "test_load", "test_found",
           "test_examples", "test_dump_logits", "test_sizes", "test_member_features", "test_stack", "test_void",
           "test_auto")  # fmt: skip
"""Files that take half of the time: they begin first, so that no worker is left alone with one at the end.

On a fresh clone the first two workers compile other kernels than each other: the one those of exclusive classes, a minute
of them, the other those of the commands, which are cached when the first one comes to them.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else last)


settings.register_profile("kit", deadline=None, max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
settings.load_profile("kit")


def smooth_logits(rng: np.random.Generator, shape: tuple[int, int, int], scale: float = 6.0) -> np.ndarray:
    """Logits (C, h, w) with regions, boundaries and ties, as networks put them out: fp16."""
    C, h, w = shape
    coarse = rng.normal(size=(C, h // 4 + 2, w // 4 + 2)) * scale
    rows = np.linspace(0, coarse.shape[1] - 1.001, h)
    cols = np.linspace(0, coarse.shape[2] - 1.001, w)
    y, x = rows.astype(int), cols.astype(int)
    fy, fx = (rows - y)[:, None], (cols - x)[None, :]
    top = coarse[:, y][:, :, x] * (1 - fx) + coarse[:, y][:, :, x + 1] * fx
    foot = coarse[:, y + 1][:, :, x] * (1 - fx) + coarse[:, y + 1][:, :, x + 1] * fx
    return (top * (1 - fy) + foot * fy).astype(np.float16)


def write_store(
    path: Path,
    logits: dict[str, np.ndarray],
    image_size: tuple[int, int] | dict[str, tuple[int, int]],
    classes: tuple[str, ...],
    boxes: dict[str, tuple[int, int, int, int]] | None = None,
    **options: Any,
) -> ek.LogitStore:
    """Write a store of {sample: (C, h, w)} and open it."""
    grid = next(iter(logits.values())).shape[1:]
    with ek.LogitWriter(path, classes=classes, samples=list(logits), grid=grid, **options) as out:
        for sample, array in logits.items():
            size = image_size[sample] if isinstance(image_size, dict) else image_size
            out.write(sample, array, image_size=size, box=None if boxes is None else boxes[sample])
    return ek.LogitStore(path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261123)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., ek.LogitStore]:
    """Write stores into a folder of the test's own, each under a name of its own."""
    count = iter(range(10**6))

    def make(*args: Any, name: str | None = None, **options: Any) -> ek.LogitStore:
        return write_store(tmp_path / f"{name or f'm{next(count)}'}.zarr", *args, **options)

    return make


@pytest.fixture(scope="module", params=["one grid", "grids", "volumes", "scenes"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """The formats of stores, for tests of the store that hold in each: `harness` makes and hurts stores of this one."""
    import harness

    harness.use(request.param)
    yield request.param
    harness.use("one grid")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real S3 server, started once a session; skipped where it is not installed."""
    import s3

    with s3.running(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix on the S3 server, to which the environment points."""
    import s3

    s3.environment(monkeypatch, server)
    return f"s3://probe/{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server for Azure's blobs, started once a session."""
    import az

    with az.running(tmp_path_factory.mktemp("az")) as url:
        yield url


@pytest.fixture
def az(azurite: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix on the server for Azure's blobs, to which the environment points."""
    import az

    az.environment(monkeypatch, azurite)
    return f"az://probe/{secrets.token_hex(4)}"


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest) -> str:
    """A fresh prefix on each kind of object store."""
    if request.param != "memory":
        return str(request.getfixturevalue(request.param))
    return f"memory://test/{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def followed() -> Iterator[followups.Collector]:
    """What every test's command lines ended in."""
    collector = followups.Collector()
    with pytest.MonkeyPatch.context() as patch:
        collector.listen(patch)
        yield collector


@pytest.fixture(autouse=True)
def printed_fixes_work(followed: followups.Collector, request: pytest.FixtureRequest) -> Iterator[None]:
    """Follow each fix that a test's command lines printed, once it has ended, to the letter."""
    place = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    followed.follow(place)
