"""Hugging Face transformers: a loop that stores a model's logits of a dataset, and a mixin of `Trainer` that does so.

`Trainer.predict` keeps the gathered logits of all samples; neither of these keeps any. Each process writes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from ensemble_kit.backends.digest import network_digest
from ensemble_kit.errors import UsageError, check_choice
from ensemble_kit.logits.open import PathLike
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.trainers.batches import BatchWriter, Samples, Terms, path_at, this_process, to_stderr
from ensemble_kit.trainers.fields import Key, field, ids_of, listed
from ensemble_kit.trainers.queries import QUERIES, boxes_of, classes_of, logits_of

Grid = Literal["model", "image"]
_OTHER_EDGES = """scores of queries are kept on the model's grid, where a vote interpolates their logarithms and the \
processor their sums: edges may differ, and grid="image" stores the processor's own decision"""


def dump(
    model: Any,
    processor: Any,
    dataset: Any,
    out: PathLike,
    *,
    image: Key = "image",
    id: Key = "id",  # noqa: A002 - as the column is called
    samples: Samples | None = None,
    classes: Sequence[str] | None = None,
    activation: Activation | None = None,
    member: str | None = None,
    grid: Grid = "model",
    batch_size: int = 8,
    checked: bool = False,
    say: Callable[[str], None] = to_stderr,
    **inputs: Any,
) -> None:
    """Store a model's logits of a dataset; samples that are there already are not computed again.

    Under torchrun, srun or mpirun each process takes its share.

    Parameters
    ----------
    model : for semantic or universal segmentation; put into evaluation mode, and run on the device where it is.
    processor : its image processor, which makes its inputs and, of queries, the scores of classes.
    dataset : a sequence of rows, which hold an image (PIL, or an array) and an id under `image` and `id`.
    out, classes, activation, member, checked : as of `LogitWriter`; default: the model's `id2label`, "softmax", or
        "sigmoid" of one class.
    samples : all ids, or a function of the dataset; default: its column `id`, or that of all rows, which loads images.
    grid : "model", or "image": bring maps to the images' sizes first, as the processor does before it decides. That is
        the framework's decision to fp16, for many times the bytes. Scores of queries are sums, which no logits
        on the model's grid interpolate to: pass "image" where edges count and the grid is coarse.
    batch_size : images that are computed together.
    say : receives what was written, at the end.
    inputs : for the processor, such as `size`.

    Raises
    ------
    EnskError
        What `BatchWriter` and `logits_of` raise.
    """
    import torch

    check_choice("grid", grid, ("model", "image"))
    process, like = this_process(), next(model.parameters())
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        item, fix = f"a {type(dataset).__name__}, which has no length", "pass a sequence of rows, such as list(dataset)"
        raise UsageError("batch-fields", "cannot share out a dataset", item=item, fix=fix)
    names = _column(dataset, id)
    if samples is None:
        samples = names = [_of(row, id, "id") for row in dataset] if names is None else names
    task = ["semantic"] if getattr(getattr(model, "config", None), "model_type", "") == "oneformer" else None
    how = {"process": process, "checked": checked}
    with _open(out, model, samples, (dataset,), classes, activation, member, **how) as writer:
        rows = _left(dataset, range(process[0] - 1, len(dataset), process[1]), id, names, writer)
        model.eval()
        while batch := list(islice(rows, batch_size)):
            images = [_of(row, image, "image") for _, row in batch]
            if task is not None:
                inputs["task_inputs"] = task * len(images)
            taken = processor(images=images, return_tensors="pt", **inputs).to(like.device, like.dtype)
            with torch.inference_mode():
                outputs = model(**taken)
            ids, sizes = [name for name, _ in batch], [_size(one) for one in images]
            _write(writer, outputs, processor, taken, ids, sizes, grid)
    say(writer.told())


class LogitTrainerMixin:
    """Let a `Trainer` store the logits of `predict` and `evaluate`, and keep none.

    Stand it before `Trainer`, and pass `TrainingArguments(remove_unused_columns=False)`: ids are no input of the model.

    Examples
    --------
    >>> class SegmentationTrainer(LogitTrainerMixin, Trainer): ...  # doctest: +SKIP
    >>> trainer = SegmentationTrainer(model=model, args=args, data_collator=collate)  # doctest: +SKIP
    >>> trainer.store_logits("segformer.zarr", samples=ids)  # doctest: +SKIP
    >>> trainer.predict(images)  # doctest: +SKIP
    """

    _stored: dict[str, Any] | None = None
    _writer: BatchWriter | None = None
    # of `Trainer`
    model: Any
    args: Any
    state: Any
    accelerator: Any
    processing_class: Any
    is_in_train: bool
    _prepare_inputs: Any
    compute_loss_context_manager: Any

    def store_logits(
        self,
        out: PathLike | None,
        samples: Samples = (),
        id: Key = "id",  # noqa: A002 - as the field is called
        image_size: Key | Sequence[int] = "size",
        classes: Sequence[str] | None = None,
        activation: Activation | None = None,
        member: str | None = None,
        grid: Grid = "model",
        checked: bool = False,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        """Store logits from now on, or none with `out=None`; parameters as of `dump` and `BatchWriter`.

        Evaluation during training sees another network each time: it is stored where the path says which one, as
        "val_{epoch}.zarr" or "val_{step}.zarr".

        Raises
        ------
        UsageError
            The arguments have columns removed that the model does not take, such as ids; or this class stands behind
            `Trainer`, whose own steps would run.
        """
        check_choice("grid", grid, ("model", "image"))
        first = next(
            c for c in type(self).__mro__ if c is LogitTrainerMixin or c.__module__.startswith("transformers.")
        )
        if first is not LogitTrainerMixin:
            item, fix = f"{first.__name__} stands before LogitTrainerMixin", "write class X(LogitTrainerMixin, Trainer)"
            raise UsageError("trainer-order", "cannot store what a Trainer computes", item=item, fix=fix)
        args = self.args
        if out is not None and args.remove_unused_columns:
            item = "TrainingArguments(remove_unused_columns=True), and the model takes no ids and sizes"
            fix = "pass TrainingArguments(remove_unused_columns=False)"
            raise UsageError("batch-ids", "cannot tell the ids of samples", item=item, fix=fix)
        how = {"classes": classes, "activation": activation, "member": member, "id": id, "image_size": image_size}
        how["checked"] = checked
        self._stored = None if out is None else {"out": out, "samples": samples, **how}
        self._grid, self._say = grid, say

    def evaluation_loop(self, dataloader: Any, *args: Any, **options: Any) -> Any:
        """Run the loop of `predict` and `evaluate` with the store open."""
        loop = super().evaluation_loop  # type: ignore[misc]
        if self._stored is None:
            return loop(dataloader, *args, **options)
        state, how = self.state, dict(self._stored)
        out = path_at(how["out"], epoch=state.epoch or 0, step=state.global_step)
        if self.is_in_train and out is None:
            return loop(dataloader, *args, **options)
        how["out"] = how["out"] if out is None else out
        process = self.args.process_index + 1, self.args.world_size
        terms = Terms("the model", "the data collator")
        with _open(model=self.model, datasets=(dataloader.dataset,), process=process, terms=terms, **how) as writer:
            self._writer = writer
            try:
                found = loop(dataloader, *args, **options)
            finally:
                self._writer = None
        self.accelerator.wait_for_everyone()
        self._say(writer.told())
        return found

    def prediction_step(
        self, model: Any, inputs: Mapping[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """Write the local batch; return its loss and nothing to gather."""
        import torch

        if self._writer is None or self._stored is None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)  # type: ignore[misc]
        ids, _ = self._writer.ids(inputs)
        sizes = self._writer.sizes(inputs, len(ids))
        own = {k for k in (self._stored["id"], self._stored["image_size"]) if isinstance(k, str)}
        taken = self._prepare_inputs({k: v for k, v in inputs.items() if k not in own})
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**taken)
        _write(self._writer, outputs, self.processing_class, taken, ids, sizes, self._grid)
        loss = outputs.get("loss")
        return (None if loss is None else loss.detach().mean()), None, None


def _open(
    out: PathLike,
    model: Any,
    samples: Samples,
    datasets: Sequence[Any],
    classes: Sequence[str] | None,
    activation: Activation | None,
    member: str | None,
    **more: Any,
) -> BatchWriter:
    names = classes_of(getattr(model, "config", None)) if classes is None else classes
    model = getattr(model, "_orig_mod", model)  # of torch.compile
    return BatchWriter(
        out,
        names,
        samples,
        datasets=datasets,
        activation=activation or ("softmax" if len(names) > 1 else "sigmoid"),
        member=member,
        provenance={"network": type(model).__qualname__, "network_sha256": network_digest(model)},
        **more,
    )


def _write(
    writer: BatchWriter,
    outputs: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    ids: Sequence[str],
    sizes: Sequence[tuple[int, ...]],
    grid: Grid,
) -> None:
    """Write a batch's maps, of which some models make one of each image's own size."""
    maps = logits_of(outputs, processor, sizes, writer.out.activation, on_image=grid == "image")
    grids = [tuple(one.shape[1:]) for one in maps]
    mask = inputs.get("pixel_mask")
    boxes = [(0, 0, *g) for g in grids] if mask is None else boxes_of(mask, grids)
    if grid == "image" and any(tuple(b[2:]) != g for b, g in zip(boxes, grids, strict=True)):
        item = "images of a batch are padded, and the processor would stretch what it padded to the image's size"
        fix = 'pass grid="model", where the padding is left out, or batch_size=1 and images that need none'
        raise UsageError("processor-padded", "cannot bring maps to the sizes of images", item=item, fix=fix)
    for one, name, size, box in zip(maps, ids, sizes, boxes, strict=True):
        writer.put(name, writer.check(one), size, box)
    if QUERIES in outputs and writer.out.activation == "softmax" and grids != [tuple(size) for size in sizes]:
        writer.note = _OTHER_EDGES


def _left(
    dataset: Any,
    share: Sequence[int],
    id: Key,  # noqa: A002
    names: Sequence[str] | None,
    writer: BatchWriter,
) -> Iterator[tuple[str, Any]]:
    """Yield id and row of what is not there yet; rows are not loaded where the ids are known."""
    for k in share:
        row = None if names is not None else dataset[k]
        name = names[k] if names is not None else _of(row, id, "id")
        if name in writer.there:
            writer.pass_over(1)
        else:
            yield name, dataset[k] if row is None else row


def _column(dataset: Any, id: Key) -> list[str] | None:  # noqa: A002
    """Return all ids of a dataset that has them as a column."""
    return ids_of(list(dataset[id])) if id in (getattr(dataset, "column_names", None) or ()) else None


def _of(row: Any, key: Key, name: str) -> Any:
    try:
        found = field(row, key)
    except KeyError:
        item, fix = f"a row has no {key!r}: {listed(row)}", f"pass {name}= with the column that holds it"
        raise UsageError("batch-fields", "cannot read rows of a dataset", item=item, fix=fix) from None
    return ids_of(found)[0] if name == "id" else found


def _size(image: Any) -> tuple[int, int]:
    """Return an image's size (H, W)."""
    from transformers.image_utils import get_image_size

    if not hasattr(image, "height") and not hasattr(image, "shape"):
        item = f"an image is of type {type(image).__name__}"
        fix = 'let rows hold PIL images or arrays: dataset.cast_column("image", datasets.Image()), or Image.open(path)'
        raise UsageError("batch-fields", "cannot read rows of a dataset", item=item, fix=fix)
    return (image.height, image.width) if hasattr(image, "height") else get_image_size(image)
