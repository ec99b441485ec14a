"""Where a dump's values come from: `Source`, the seam between networks and folders of arrays.

A source yields one piece for each sample, in the order asked for, and a failure where a file cannot be read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from ensemble_kit.dumping.images import image_size
from ensemble_kit.dumping.preprocess import Size
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, ResourceError, UsageError
from ensemble_kit.execution.resident import PLAIN, used
from ensemble_kit.files import sha256
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Box, Shape, as_text
from ensemble_kit.spec.georeference import GeoReference

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
class TiledPiece:
    """One scene's values, tile by tile.

    Parameters
    ----------
    tiles : float (C, h, w) each, in the order of `boxes`; made when they are taken.
    boxes, grid : the cells of the scene's grid that each tile covers, and the (h, w) of that grid.
    image : size of the scene.
    reference : where it lies on the Earth, if that is known.
    source : digest of the files that it is made from.
    void : the pixels at which the scene holds no data.
    """

    sample: str
    tiles: Iterable[NDArray[np.float32]]
    boxes: Sequence[tuple[int, int, int, int]]
    grid: Shape
    image: Size
    reference: GeoReference | None = None
    source: str = ""
    void: Runs | None = None

    @property
    def cells(self) -> int:
        """Cells of all tiles."""
        return sum((y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in self.boxes)


@dataclass(frozen=True)
class Failure:
    """One sample whose file cannot be read."""

    sample: str
    error: EnskError


class Grids(NamedTuple):
    """What is known of the outputs before they are there.

    Parameters
    ----------
    grid : (h, w) of every sample, or None where each has its own.
    largest : (h, w), of no sample exceeded.
    cells : of all samples that are to be dumped.
    """

    grid: Size | None
    largest: Size
    cells: int

    @classmethod
    def of(cls, sizes: Collection[Size], todo: Iterable[Size]) -> Grids:
        """Sum up the grids of all samples of a store, and of those that are to be dumped."""
        largest = max(h for h, _ in sizes), max(w for _, w in sizes)
        return cls(largest if len(set(sizes)) == 1 else None, largest, sum(h * w for h, w in todo))

    def __str__(self) -> str:
        most = f"{self.largest[0]} x {self.largest[1]}"
        return f"on a grid of {most}" if self.grid is not None else f"each on a grid of its own, of up to {most}"


class Source(Protocol):
    """What yields the values of samples."""

    def learn(self, todo: Sequence[str]) -> Grids:
        """Find the grids, from the first sample that can be read and the sizes of the others."""

    def pieces(self, todo: Sequence[str]) -> Generator[Piece | TiledPiece | Failure, None, None]:
        """Yield one piece or failure for each sample, in the order of `todo`."""

    def record(self) -> dict[str, Any]:
        """Return what the values come from, for the store's provenance."""

    def digest(self, sample: str) -> str:
        """Digest the files that a sample is made from; "" where they cannot be read, which `pieces` tells."""

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
        self._grids = Grids((0, 0), (0, 0), 0)

    def record(self) -> dict[str, Any]:
        """Return what is read."""
        import numpy as np

        return {"model": f"arrays in {self._name}", "versions": {"numpy": np.__version__}}

    def digest(self, sample: str) -> str:
        """Digest a sample's array."""
        return digest_of(self._arrays[sample])

    def check_memory(self, budget: int) -> None:
        """Refuse where the arrays that are read ahead would not fit."""
        each = 4 * len(self._form.classes) * math.prod(self._grids.largest)
        needed = max(used(), PLAIN) + 5 * self._jobs * each  # two a thread wait, and one is read and converted
        if needed > budget:
            item = f"about {needed / 1e6:,.0f} MB are needed, --memory allows {budget / 1e6:,.0f} MB"
            fix = f"pass --memory {-int(-needed * 1.1 // 10_000_000)}0MB or more, or fewer --jobs"
            raise ResourceError("memory-budget", "cannot dump within the memory budget", item=item, fix=fix)

    def learn(self, todo: Sequence[str]) -> Grids:
        """Read the first array that can be read, and what the files of all others say of their shape."""
        failures = []
        for sample in todo:
            try:
                self._form.read(self._arrays[sample])
                break
            except DamagedError as error:
                failures.append(Failure(sample, error))
        else:
            raise unreadable("arrays", failures, "dump the arrays again")
        sizes = dict(self._sizes())
        self._grids = Grids.of(list(sizes.values()), [sizes[s] for s in todo if s in sizes])
        return self._grids

    def _sizes(self) -> Iterator[tuple[str, Size]]:
        """Read the grid of every array of the store, so that all parts (`--part i/n`) agree."""
        for sample, path in self._arrays.items():
            try:
                yield sample, self._form.grid(path)
            except DamagedError:  # `pieces` names it
                continue

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
        if self._grids.grid is None and grid[::-1] == image != grid:
            item = f"{str(self._arrays[sample])!r} has {as_text(grid)} values, its image {as_text(image)} pixels"
            fix = "save arrays as (C, h, w), rows before columns"
            raise MismatchError("array-transposed", "cannot take an array for an image", item=item, fix=fix)
        box = replace(self._recipe.preprocess, size=grid).place(image)
        return Piece(sample, values, image, box, source)


def form_of(
    folder: Path,
    recipe: Recipe,
    classes: Sequence[str],
    jobs: int,
    memory: int | None,
    weights: str | Path | None,
) -> ArrayForm:
    """Tell how the arrays of a folder are read; options that need a network that runs are refused."""
    from ensemble_kit.dumping.arrays import DEFAULT_LIMIT, ArrayForm

    given = {"--tta": recipe.tta or None, "--tile": recipe.tile, "--half": recipe.half or None, "--weights": weights}
    given |= {"--output": recipe.output}
    useless = ", ".join(option for option, value in given.items() if value is not None)
    if useless:
        fix = f"leave {useless} out, or pass a model that runs"
        raise UsageError("option-invalid", "cannot run arrays", item=f"{useless} with {str(folder)!r}", fix=fix)
    limit = DEFAULT_LIMIT if memory is None else memory // jobs
    return ArrayForm(classes, recipe.key, recipe.scale, recipe.axes, limit)


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
    from ensemble_kit.dumping.arrays import match

    form = form_of(folder, recipe, classes, jobs, memory, weights)
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
