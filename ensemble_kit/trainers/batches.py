"""One policy for the writers of all frameworks.

Ids and sizes come from the batch, never from a counter. Nothing is gathered: each process writes what it has computed,
and whichever comes first declares the store with all ids. What a distributed sampler repeats to even out its shares is
skipped and counted. A run that is stopped leaves a store that says what is missing, and the next run resumes it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ensemble_kit.backends.network import UNDECIDED
from ensemble_kit.errors import UsageError, check_path, some
from ensemble_kit.execution.parts import launched
from ensemble_kit.logits.arguments import several
from ensemble_kit.logits.floats import recognise
from ensemble_kit.logits.open import PathLike
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.logits.writer import LogitWriter
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.trainers.fields import Key, Sizes, field, ids_of, listed

Samples = Sequence[Any] | Callable[[Any], Sequence[Any]]
"""All ids, or a function that takes the dataset and returns them."""


class Terms(NamedTuple):
    """The words of a framework, for messages.

    Parameters
    ----------
    output : what puts out the logits, such as "predict_step".
    batch : what makes the batches, such as "the dataset".
    instead : what to do where no logits can be put out.
    """

    output: str
    batch: str
    instead: str = ""


TERMS = Terms("the model", "the dataset")


class BatchWriter:
    """Write a framework's batches into a store, which is declared at once; a context manager.

    Parameters
    ----------
    out, classes, domain, activation, member, checked : as of `LogitWriter`. Each sample has the grid of its output.
    samples : the ids of all samples of all processes, or a function that takes a dataset and returns its.
    id, image_size : where a batch holds the ids and the sizes (H, W) of the images: a key, an index, an attribute or a
        function of the batch; `image_size` may also be one size for all.
    key : where an output holds the logits; None: it is the logits.
    datasets : what `samples` is called with, one after the other.
    columns : whether sizes come as heights and widths (see `Sizes`).
    provenance : of the store.
    terms : the framework's words.
    process : number from 1 of this process, and how many there are; for the totals.
    """

    def __init__(
        self,
        out: PathLike,
        classes: Sequence[str],
        samples: Samples,
        *,
        id: Key = "id",  # noqa: A002 - as the field is called
        image_size: Key | Sequence[int] = "size",
        key: Key | None = None,
        domain: Domain = "logits",
        activation: Activation | None = None,
        member: str | None = None,
        datasets: Sequence[Any] = (),
        columns: bool | None = None,
        provenance: Mapping[str, Any] | None = None,
        checked: bool = False,
        terms: Terms = TERMS,
        process: tuple[int, int] = (1, 1),
    ) -> None:
        found = [name for one in datasets for name in samples(one)] if callable(samples) else samples
        names = ids_of(list(several("samples", found)))
        self._id, self._size, self._key = id, image_size, key
        self._sizes, self._terms, self._process = Sizes(columns), terms, process
        self.out = LogitWriter(
            out,
            classes,
            names,
            None,
            activation,
            member,
            domain,
            duplicates="first",
            provenance=provenance,
            checked=checked,
        )
        self._classes, self._judged = len(tuple(classes)), False
        self.there = frozenset(names) - frozenset(self.out.missing)
        """Samples that were committed before."""
        self.note = ""
        """What else the user should know at the end."""
        self._samples, self._written, self._again, self._passed = len(names), 0, 0, 0

    def write(self, output: Any, batch: Any, boxes: Sequence[Sequence[int]] | None = None) -> None:
        """Write the samples of a batch that are not there yet.

        Parameters
        ----------
        output : logits (B, C, h, w) or (B, C, d, h, w), or what holds them; of one sample without a batch axis where
            the batch holds its id as a text.
        boxes : the cells of each sample's grid that cover its image; None: all.

        Raises
        ------
        UsageError
            The output is a class map, a loss, or holds several things and no key was given; the batch has no ids or no
            sizes.
        EnskError
            What `LogitWriter.write` raises.
        """
        array = self._logits(output)
        ids, single = self.ids(batch)
        self._check_maps(array, single)
        shape = tuple(array.shape)
        if not single and len(ids) != shape[0]:
            item = f"{len(ids)} ids in the batch, and {self._terms.output} put out {shape}: {shape[0]} samples"
            fix = f"let {self._terms.batch} return an id for each sample"
            raise UsageError("batch-ids", "cannot tell which logits are whose", item=item, fix=fix)
        sizes = self.sizes(batch, len(ids), len(shape) - 2 + single)
        if single:
            self.put(ids[0], array, sizes[0], None if boxes is None else boxes[0])
        else:
            self.put(ids, array, sizes, boxes)

    def put(self, ids: str | list[str], array: Any, sizes: Any, boxes: Any = None, **place: Any) -> None:
        """Write logits (C, h, w) with an id, or (B, C, h, w) with a list of ids, and count them."""
        before, names = self.out.skipped, [ids] if isinstance(ids, str) else ids
        self.out.write(ids, array, sizes, boxes, **place)
        self._written += len(names) - (self.out.skipped - before)
        self._again += sum(name in self.there for name in names)

    def put_placed(self, sample: str, logits: Any, image_size: Sequence[int], **place: Any) -> None:
        """Write one sample (C, …) that lies somewhere: `place` is window, axes and geometry of `LogitWriter.write`."""
        self.put(sample, self.check(logits), image_size, **place)

    def put_tiles(
        self, sample: str, tiles: Iterable[Any], boxes: Sequence[Sequence[int]], grid: Sequence[int], **place: Any
    ) -> None:
        """Write one scene of tiles (C, h, w); `boxes`, `grid` and `place` are of `LogitWriter.write_tiles`."""
        before = self.out.skipped
        self.out.write_tiles(sample, map(self.check, tiles), boxes, grid, **place)
        self._written += 1 - (self.out.skipped - before)

    def check(self, output: Any) -> Any:
        """Return the logits (C, …) of one sample; refuse a loss and what was decided already."""
        array = self._logits(output)
        self._check_maps(array, single=True)
        return array

    def ids(self, batch: Any) -> tuple[list[str], bool]:
        """Return the ids of a batch, and whether it is one sample without a batch axis."""
        value = self._of_batch(batch, self._id, "ids", "id", "its id, a text or a whole number")
        return ids_of(value), isinstance(value, (str, bytes))

    def sizes(self, batch: Any, samples: int, rank: int = 2) -> list[tuple[int, ...]]:
        """Return the sizes of a batch's images, of `rank` numbers each."""
        size = self._size
        if not isinstance(size, (tuple, list)):
            size = self._of_batch(batch, size, "sizes of images", "image_size", "the image's size (H, W)")
        return self._sizes.read(size, samples, rank)

    def pass_over(self, samples: int) -> None:
        """Count samples that are there already and were not computed again."""
        self._passed += samples

    def close(self) -> None:
        """Sync and release."""
        self.out.close()

    def told(self) -> str:
        """Say what this process did, and how many samples of all are missing."""
        number, of = self._process
        told = f"{self.out.path}: " + (f"process {number} of {of}: " if of > 1 else "")
        told += f"{self._written} samples written"
        resumed, padded = self._again + self._passed, self.out.skipped - self._again
        told += f", {resumed} were there already" if resumed else ""
        told += f", {padded} padding duplicates skipped" if padded else ""
        missing, other = self.out.missing, self.out.differing
        told += f"; {len(missing)} of {self._samples} missing" if missing else ""
        told += f"; {self.note}" if self.note else ""
        if other:
            told += f"; other logits than those that are kept were put out again for {some(other, 3)}: give each image "
            told += "an id of its own, and write another network's logits, or augmented ones, to another store"
        return told

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.out.close()

    def _of_batch(self, batch: Any, key: Any, what: str, option: str, wanted: str) -> Any:
        try:
            return field(batch, key)
        except KeyError:
            item = f"the batch has no {key!r}: {listed(batch)}"
            fix = f"let {self._terms.batch} return {wanted}, or pass {option}= with where it is: a key, the index of a "
            fix += "tuple, or a function of the batch"
            fix += "; image_size=(H, W) if all images have one size" if option == "image_size" else ""
            code = "batch-ids" if option == "id" else "batch-sizes"
            raise UsageError(code, f"cannot tell the {what} of a batch", item=item, fix=fix) from None

    def _logits(self, output: Any) -> Any:
        if self._key is not None:
            try:
                output = field(output, self._key)
            except KeyError:
                item = f"{self._terms.output} put out no {self._key!r}: {listed(output)}"
                holds = isinstance(output, (Mapping, tuple, list))
                fix = _keys(_axes(output, 4, 5)) if holds else "leave key= out, if that is the logits"
                raise UsageError("output-key", "cannot find the logits", item=item, fix=fix) from None
        elif isinstance(output, (Mapping, tuple, list)):
            item, maps = f"{self._terms.output} put out {listed(output)}", _axes(output, 4, 5)
            if maps or (output and len(_axes(output, 3)) == len(output)):
                fix = _keys(maps) if maps else "let it return one array (B, C, h, w), as torch.stack makes of them"
                raise UsageError("output-key", "cannot tell which output is the logits", item=item, fix=fix)
        if not hasattr(output, "shape") or tuple(output.shape) in {(), (1,)}:
            raise self._loss(output)
        return output

    def _loss(self, output: Any) -> UsageError:
        found = "nothing" if output is None else listed(output)
        item = f"{self._terms.output} put out {'one number' if found in {'()', '(1,)'} else found}"
        fix = f'let {self._terms.output} return the logits: beside a loss as {{"loss": loss, "logits": logits}}, with '
        fix += f'key="logits"{self._terms.instead}'
        return UsageError("output-loss", "cannot store a loss in place of logits", item=item, fix=fix)

    def _check_maps(self, array: Any, single: bool) -> None:
        """Refuse an output that was decided already."""
        shape, kind = tuple(array.shape), str(array.dtype)
        whole, axes = "int" in kind or "bool" in kind, len(shape) + single
        flat = axes == 3 or (axes in {4, 5} and shape[1 - single] == 1 < self._classes)
        item = f"{self._terms.output} put out {shape} of type {kind}, for {self._classes} classes"
        if whole or flat:
            one = flat and self._classes == 1
            fix = UNDECIDED + ("; one class without its axis gets it by output[:, None]" if one else "")
            raise UsageError("output-class-map", "cannot store a class map in place of logits", item=item, fix=fix)
        if self._judged or self.out.domain == "logits":
            return
        found, ends = recognise(array), set[float]()
        for one in [found] if single else map(found.sample, range(shape[0])):
            for values in map(one.class_map, range(one.shape[0])):
                if not bool(((values == 0) | (values == 1)).all()):
                    self._judged = True
                    return
                ends |= {float(values.min()), float(values.max())}
        if len(ends) > 1:
            fix = "return the probabilities that are there before argmax or the threshold; answers that are decided "
            fix += "already are voted on as masks (ek.hard_vote)"
            item += ": every value is 0 or 1"
            raise UsageError("output-class-map", "cannot store masks in place of probabilities", item=item, fix=fix)


def _axes(output: Any, *axes: int) -> list[Any]:
    """Return the keys of the fields of an output that have so many axes."""
    fields = output.items() if isinstance(output, Mapping) else enumerate(output)
    return [key for key, value in fields if len(getattr(value, "shape", ())) in axes]


def _keys(maps: Sequence[Any]) -> str:
    """Say which key to pass."""
    return "pass " + ", or ".join(f"key={k!r}" for k in maps) if maps else "pass key= with that of the logits"


def path_at(out: PathLike, **numbers: float) -> PathLike | None:
    """Put the numbers of an epoch and a step into a store's path; None where it has no place for them.

    A store holds one state of a network, and validation during training sees another one each time.

    Examples
    --------
    >>> path_at("val_{epoch}.zarr", epoch=3, step=120), path_at("val.zarr", epoch=3, step=120)
    ('val_3.zarr', None)
    """
    check_path(out)
    text = os.fspath(out)
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(int(number) if int(number) == number else round(number, 4)))
    return None if text == os.fspath(out) else text


def this_process() -> tuple[int, int]:
    """Return the number of this process, from 1, and how many there are: as torch.distributed or a launcher says."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() + 1, torch.distributed.get_world_size()
    return launched()


def to_stderr(text: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{text}\n")
