"""Where a dump's values come from: `Source`, the seam between networks and folders of arrays.

A source yields one piece for each sample, in the order asked for, and a failure where a file cannot be read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ensemble_kit.dumping.images import image_size
from ensemble_kit.dumping.preprocess import Size
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, ResourceError, UsageError
from ensemble_kit.execution.resident import PLAIN, used
from ensemble_kit.files import sha256
from ensemble_kit.spec.geometry import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble_kit.dumping.arrays import ArrayForm

_T = TypeVar("_T")


@dataclass(frozen=True)
class Piece:
    """One sample's values, float (C, h, w).

    Parameters
    ----------
    image, box : size of its image, and where that lies on the grid.
    source : digest of the file that it is made from.
    """

    sample: str
    values: NDArray[np.float32]
    image: Size
    box: Box
    source: str = ""


@dataclass(frozen=True)
class Failure:
    """One sample whose file cannot be read."""

    sample: str
    error: EnskError


class Source(Protocol):
    """What yields the values of samples."""

    def learn(self, todo: Sequence[str]) -> Size:
        """Find the grid (h, w) from the first sample that can be read."""

    def pieces(self, todo: Sequence[str]) -> Generator[Piece | Failure, None, None]:
        """Yield one piece or failure for each sample, in the order of `todo`."""

    def record(self) -> dict[str, Any]:
        """Return what the values come from, for the store's provenance."""

    def path(self, sample: str) -> Path:
        """Return the file that a sample is made from."""

    def check_memory(self, budget: int) -> None:
        """Refuse work that would hold more bytes than `budget`, after `learn`."""


class ArraySource:
    """Pieces from a folder of arrays."""

    def __init__(
        self,
        name: str,
        arrays: Mapping[str, Path],
        images: Mapping[str, Path],
        form: ArrayForm,
        recipe: Recipe,
        jobs: int,
    ) -> None:
        self._arrays, self._images, self._form, self._jobs = arrays, images, form, jobs
        self._name, self._recipe = name, recipe
        self._grid: Size | None = None

    def record(self) -> dict[str, Any]:
        """Return what is read."""
        import numpy as np

        return {"model": f"arrays in {self._name}", "versions": {"numpy": np.__version__}}

    def path(self, sample: str) -> Path:
        """Return a sample's array."""
        return self._arrays[sample]

    def check_memory(self, budget: int) -> None:
        """Refuse where the arrays that are read ahead would not fit."""
        assert self._grid is not None
        each = 4 * len(self._form.classes) * self._grid[0] * self._grid[1]
        needed = max(used(), PLAIN) + 5 * self._jobs * each  # two a thread wait, and one is read and converted
        if needed > budget:
            item = f"about {needed / 1e6:,.0f} MB are needed, --memory allows {budget / 1e6:,.0f} MB"
            fix = f"pass --memory {-int(-needed * 1.1 // 10_000_000)}0MB or more, or fewer --jobs"
            raise ResourceError("memory-budget", "cannot dump within the memory budget", item=item, fix=fix)

    def learn(self, todo: Sequence[str]) -> Size:
        """Read the first array that can be read."""
        failures = []
        for sample in todo:
            try:
                values = self._form.read(self._arrays[sample])
            except DamagedError as error:
                failures.append(Failure(sample, error))
                continue
            self._grid = values.shape[1], values.shape[2]
            return self._grid
        raise unreadable("arrays", failures, "dump the arrays again")

    def pieces(self, todo: Sequence[str]) -> Generator[Piece | Failure, None, None]:
        """Read ahead in threads and yield one piece for each sample."""
        with closing(read_ahead(todo, self._read, self._jobs, 2 * self._jobs)) as stream:
            for sample, future in stream:
                try:
                    yield future.result()
                except DamagedError as error:
                    yield Failure(sample, error)

    def _read(self, sample: str) -> Piece:
        source = digest_of(self._arrays[sample])
        image = image_size(self._images[sample], self._recipe.preprocess.arrays)
        values = self._form.read(self._arrays[sample])
        grid = values.shape[1], values.shape[2]
        if grid != self._grid:
            item = f"sample {sample!r} has {grid[0]} x {grid[1]}, the first had {self._grid}"
            fix = "resize the arrays to one size, or dump them at the network's own grid"
            raise MismatchError("array-shape", "cannot store arrays of two sizes", item=item, fix=fix)
        box = replace(self._recipe.preprocess, size=grid).place(image)
        return Piece(sample, values, image, box, source)


def array_source(
    folder: Path,
    recipe: Recipe,
    classes: Sequence[str],
    paths: Mapping[str, Path],
    root: Path,
    jobs: int,
    memory: int | None,
    weights: str | Path | None,
) -> ArraySource:
    """Open a folder of arrays; options that need a network that runs are refused."""
    from ensemble_kit.dumping.arrays import DEFAULT_LIMIT, ArrayForm, match

    given = {"--tta": recipe.tta or None, "--tile": recipe.tile, "--half": recipe.half or None, "--weights": weights}
    given |= {"--output": recipe.output}
    useless = ", ".join(option for option, value in given.items() if value is not None)
    if useless:
        fix = f"leave {useless} out, or pass a model that runs"
        raise UsageError("option-invalid", "cannot run arrays", item=f"{useless} with {str(folder)!r}", fix=fix)
    limit = DEFAULT_LIMIT if memory is None else memory // jobs
    form = ArrayForm(classes, recipe.key, recipe.scale, recipe.axes, limit)
    return ArraySource(folder.resolve().name, match(paths, folder, root), paths, form, recipe, jobs)


def read_ahead(
    items: Sequence[str], work: Callable[[str], _T], jobs: int, depth: int
) -> Generator[tuple[str, Future[_T]], None, None]:
    """Do `work` on items in threads, at most `depth` ahead of the caller; yield them in order."""
    queue: deque[tuple[str, Future[_T]]] = deque()
    pool = ThreadPoolExecutor(max(1, jobs), thread_name_prefix="ensk-read")
    try:
        for item in items:
            queue.append((item, pool.submit(work, item)))
            if len(queue) >= max(1, depth):
                yield queue.popleft()
        while queue:
            yield queue.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def digest_of(path: Path) -> str:
    """Digest a file, 32 hexadecimal digits; "" where it cannot be read, which its reader reports."""
    try:
        return sha256(path)[:32]
    except OSError:
        return ""


def unreadable(kind: str, failures: Sequence[Failure], fix: str) -> DamagedError:
    """Make the error of samples none of which can be read."""
    item = "; ".join(f"{f.sample!r}: {f.error.item}" for f in failures[:5])
    own = {f.error.fix for f in failures}
    fix = own.pop() if len(own) == 1 else fix
    return DamagedError("images-unreadable", f"cannot read any of {len(failures)} {kind}", item=item, fix=fix)
