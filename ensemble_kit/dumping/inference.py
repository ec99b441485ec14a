"""`NetworkSource`: a network run over images, batch by batch or window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_kit.backends import Network
from ensemble_kit.dumping.images import image_size, read_image
from ensemble_kit.dumping.intensity import DepthCheck, check_window
from ensemble_kit.dumping.outputs import failing_as, outputs_of, told
from ensemble_kit.dumping.preprocess import Size, check_alignment, grid_box, not_aligned
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.dumping.sources import Failure, Grids, Piece, digest_of, read_ahead, unreadable
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, ResourceError, check_number
from ensemble_kit.spec.geometry import Box, as_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


LOOKED_AT = 32
"""Most images that are read to tell 12 bits from 16, where the first one is dark."""


@dataclass(frozen=True)
class _Prepared:
    """A sample's input (channels, h, w), the size of its image, where that is on the input, and its file's digest."""

    sample: str
    x: NDArray[np.float32]
    image: Size
    box: Box
    source: str


@dataclass(frozen=True)
class _Head:
    """What the first sample showed, and the largest input.

    Parameters
    ----------
    align : the multiples of input pixels on which images and windows are placed.
    steps : (h, w), cells of the grid that the network makes of `align` pixels.
    cells : (h, w) of the grid that it makes of one window.
    largest : (h, w) of the largest input.
    """

    align: Size
    steps: Size
    cells: Size = (1, 1)
    largest: Size = (0, 0)

    def grid(self, canvas: Size) -> Size:
        """Return the (h, w) of the grid that the network makes of an input."""
        (h, w), (a, b), (p, q) = canvas, self.align, self.steps
        return h // a * p, w // b * q


class NetworkSource:
    """Pieces from a network that runs over images."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        classes: Sequence[str],
        paths: Mapping[str, Path],
        batch: int,
        jobs: int,
        memory: int | None,
        say: Callable[[str], None],
    ) -> None:
        check_number("--batch-size", batch, "pass at least 1", least=1, whole=True)
        self._network, self._recipe, self._classes = network, recipe, tuple(classes)
        self._paths, self._batch, self._jobs, self._memory = paths, batch, jobs, memory
        self._say, self._check_depth = say, DepthCheck(self._some_images, say)
        self._failed: list[Failure] = []
        self._first: Piece | None = None
        self._head: _Head | None = None
        self._decoded = 0

    def record(self) -> dict[str, Any]:
        """Return what ran."""
        return self._network.record()

    def digest(self, sample: str) -> str:
        """Digest a sample's image."""
        return digest_of(self._paths[sample])

    def learn(self, todo: Sequence[str]) -> Grids:
        """Run the first sample that can be read, alone; its output is kept if the image was placed as it should be."""
        sample, image = self._first_image(todo)
        self._decoded = image.nbytes
        head = self._learn_window(image, sample) if self._recipe.tile else self._learn_whole(image, sample)
        canvases = self._canvases(head)
        largest = max(h for h, _ in canvases.values()), max(w for _, w in canvases.values())
        self._head = replace(head, largest=largest)
        grids = {canvas: head.grid(canvas) for canvas in set(canvases.values())}
        return Grids.of(list(grids.values()), [grids[canvases[s]] for s in todo if s in canvases])

    def _first_image(self, todo: Sequence[str]) -> tuple[str, NDArray[Any]]:
        for sample in todo:
            try:
                return sample, self._read(sample)
            except (DamagedError, ResourceError) as error:
                self._failed.append(Failure(sample, error))
        raise unreadable("images", self._failed, "copy the images again")

    def _read(self, sample: str) -> NDArray[Any]:
        prep = self._recipe.preprocess
        image = read_image(self._paths[sample], prep.arrays, scaled=not prep.by_type)
        if prep.by_type:
            self._check_depth(image, sample)
        elif prep.limits is not None:
            check_window(image, sample, prep.window, *prep.limits)
        return image

    def _some_images(self) -> Iterator[NDArray[Any]]:
        """Read images from all over the folder."""
        paths = list(self._paths.values())
        for path in paths[:: -(-len(paths) // LOOKED_AT)]:
            try:
                yield read_image(path, self._recipe.preprocess.arrays)
            except (DamagedError, ResourceError):  # `pieces` names it
                continue

    def _learn_whole(self, image: NDArray[Any], sample: str) -> _Head:
        prep, size = self._recipe.preprocess, (image.shape[0], image.shape[1])
        x, box = prep.apply(image)
        output = self._forward(x[None], [sample])
        canvas, grid = (x.shape[1], x.shape[2]), (output.shape[2], output.shape[3])
        what = "images at their own sizes" if prep.fixed is None else "letterboxed images"
        stretched = prep.fixed is not None and prep.resize == "stretch"
        align = canvas if stretched else check_alignment(canvas, grid, what)
        head = _Head(align, (align[0] * grid[0] // canvas[0], align[1] * grid[1] // canvas[1]))
        if (prep.canvas(size, align), prep.place(size, canvas, align)) == (canvas, box):
            source = digest_of(self._paths[sample])
            self._first = Piece(sample, output[0], size, grid_box(box, canvas, grid), source)
        return head

    def _learn_window(self, image: NDArray[Any], sample: str) -> _Head:
        prep, tile = self._recipe.preprocess, self._recipe.tile or 0
        x, _ = prep.apply(image, prep.canvas((image.shape[0], image.shape[1]), least=tile))
        output = self._forward(x[None, :, :tile, :tile], [sample])
        cells = output.shape[2], output.shape[3]
        align = check_alignment((tile, tile), cells, "a sliding window")
        canvas = prep.fixed or align
        if canvas[0] % align[0] or canvas[1] % align[1]:
            item = f"a sliding window: an input of {canvas[0]} x {canvas[1]} with a stride of {align[0]} x {align[1]}"
            raise not_aligned(item, f"pass a --size that {align[0]} and {align[1]} divide")
        return _Head(align, (align[0] * cells[0] // tile, align[1] * cells[1] // tile), cells)

    def _canvas(self, size: Size, align: Size) -> Size:
        """Return the (h, w) of the input of an image of (H, W)."""
        return self._recipe.preprocess.canvas(size, align, self._recipe.tile or 1)

    def _canvases(self, head: _Head) -> dict[str, Size]:
        """Find the input of every image of the store, so that all parts (`--part i/n`) agree on its grids."""
        fixed = self._recipe.preprocess.fixed
        if fixed is not None:
            return dict.fromkeys(self._paths, fixed)
        found = {}
        for sample, path in self._paths.items():
            try:
                found[sample] = self._canvas(image_size(path, self._recipe.preprocess.arrays), head.align)
            except (DamagedError, ResourceError):  # `pieces` names it
                continue
        return found

    def check_memory(self, budget: int) -> None:
        """Refuse where images read ahead and one batch would not fit."""
        needed = self._held(ahead=1)
        if needed > budget:
            needs = f"about {needed / 1e6:.0f} MB for {self._batch} images at a time and the outputs"
            item = f"{needs}, {budget / 1e6:.0f} MB allowed"
            fix = "pass a smaller --batch-size or --jobs, or a larger --memory"
            raise ResourceError("memory-budget", "cannot dump within the memory budget", item=item, fix=fix)

    def _held(self, ahead: int) -> int:
        """Project the bytes held with so many prepared images ahead, without those of the framework."""
        head = self._head
        assert head is not None
        inputs = 4 * self._recipe.preprocess.feeds * math.prod(head.largest)
        outputs = 4 * len(self._classes) * math.prod(head.grid(head.largest))
        copies = 3 if self._recipe.tta else 2
        if self._recipe.tile is not None:
            fraction = self._recipe.tile**2 / math.prod(head.largest)
            batch = int(self._batch * fraction * (inputs + copies * outputs)) + 2 * outputs
        else:
            batch = self._batch * (2 * inputs + copies * outputs)
        threads = min(self._jobs, max(ahead, 1))
        return batch + ahead * inputs + threads * (2 * self._decoded + inputs)

    def _ahead(self) -> int:
        """Choose how many images to read ahead: two batches or two a thread, less where memory is short."""
        ahead = max(2 * self._batch, 2 * self._jobs)
        while self._memory is not None and ahead > 1 and self._held(ahead) > self._memory:
            ahead -= 1
        return ahead

    def pieces(self, todo: Sequence[str]) -> Generator[Piece | Failure, None, None]:
        """Read ahead in threads, run in batches, and yield one piece for each sample."""
        yield from self._failed
        known = {f.sample for f in self._failed}
        if self._first is not None:
            yield self._first
            known.add(self._first.sample)
            self._first = None
        left, batch = [s for s in todo if s not in known], list[_Prepared]()
        limit = 1 if self._recipe.tile is not None else self._batch
        with closing(read_ahead(left, self._prepare, self._jobs, self._ahead())) as stream:
            for sample, future in stream:
                try:
                    one = future.result()
                except (DamagedError, ResourceError) as error:
                    yield Failure(sample, error)
                    continue
                if batch and batch[0].x.shape != one.x.shape:  # only inputs of one size are run together
                    yield from self._run(batch)
                    batch = []
                batch.append(one)
                if len(batch) >= limit:
                    yield from self._run(batch)
                    batch = []
        yield from self._run(batch)

    def _prepare(self, sample: str) -> _Prepared:
        head = self._head
        assert head is not None
        source = digest_of(self._paths[sample])
        image = self._read(sample)
        size = image.shape[0], image.shape[1]
        x, box = self._recipe.preprocess.apply(image, self._canvas(size, head.align), head.align)
        return _Prepared(sample, x, size, box, source)

    def _run(self, batch: Sequence[_Prepared]) -> Iterator[Piece]:
        """Run a batch; where it fails as a whole, run its images alone, so that the error names the one at fault."""
        import numpy as np

        if not batch:
            return
        if self._recipe.tile is not None or len(batch) == 1 or self._batch == 1:
            for one in batch:
                yield self._piece(one, self._slide(one) if self._recipe.tile else self._alone(one))
            return
        failed = ""
        try:
            outputs = outputs_of(self._network, np.stack([one.x for one in batch]), self._classes)
        except EnskError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's model raises
            failed = told(error)
        if failed:  # past the handler, whose traceback holds all that the batch left on the device
            for one in batch:
                yield self._piece(one, self._alone(one))
            self._batch = 1
            self._say(f"the model fails on {len(batch)} images at a time, so they run one by one: {failed}")
            return
        for one, output in zip(batch, outputs, strict=True):
            yield self._piece(one, output)

    def _piece(self, one: _Prepared, output: NDArray[np.float32]) -> Piece:
        head = self._head
        assert head is not None
        canvas, grid = (one.x.shape[1], one.x.shape[2]), (output.shape[1], output.shape[2])
        if grid != head.grid(canvas):
            told = f"{as_text(grid)} of an input of {as_text(canvas)}, {as_text(head.grid(canvas))} by the first one"
            item = f"sample {one.sample!r} has a grid of {told}"
            fix = "let the network put out one grid for one size of input"
            raise MismatchError("model-output", "cannot store outputs of two sizes", item=item, fix=fix)
        return Piece(one.sample, output, one.image, grid_box(one.box, canvas, grid), one.source)

    def _alone(self, one: _Prepared) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._forward(one.x[None], [one.sample])[0]
        return output

    def _slide(self, one: _Prepared) -> NDArray[np.float32]:
        from ensemble_kit.dumping.tiling import slide

        head, recipe = self._head, self._recipe
        assert head is not None
        assert recipe.tile is not None
        neutral = 0.0
        if recipe.domain == "probabilities":  # cells that show no image: a logit of 0, or all classes alike
            neutral = 0.5 if recipe.activation == "sigmoid" else 1 / len(self._classes)
        window = recipe.tile, recipe.tile
        with failing_as([one.sample]):
            return slide(
                self._network, one.x, one.box, window, head.cells, recipe.overlap, self._batch, neutral,
                recipe.tile_weights,
            )  # fmt: skip

    def _forward(self, x: NDArray[np.float32], samples: Sequence[str]) -> NDArray[np.float32]:
        """Run a batch (B, channels, h, w); a failure names its samples."""
        with failing_as(samples, self._network.channels, x.shape[1]):
            return outputs_of(self._network, x, self._classes)
