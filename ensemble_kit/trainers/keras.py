"""Keras 3: a loop that stores a model's outputs of a dataset, whatever the backend; each process its own batches.

`model.predict` keeps the outputs of all batches, with or without a callback; this keeps those of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np

from ensemble_kit.errors import MismatchError, UsageError, check_choice
from ensemble_kit.logits.open import PathLike
from ensemble_kit.logits.plausible import Domain
from ensemble_kit.spec.fusion import Activation
from ensemble_kit.trainers.batches import BatchWriter, Samples, this_process, to_stderr
from ensemble_kit.trainers.fields import Key, field, listed

ENDS: dict[str, tuple[Domain, Activation]] = {
    "sigmoid": ("probabilities", "sigmoid"),
    "softmax": ("probabilities", "softmax"),
    "logsoftmax": ("logits", "softmax"),
}
"""What a network puts out that ends in such a function."""


def dump(
    model: Any,
    dataset: Any,
    out: PathLike,
    classes: Sequence[str],
    samples: Samples,
    *,
    image: Key = "image",
    id: Key = "id",  # noqa: A002 - as the field is called
    image_size: Key | Sequence[int] = "size",
    key: Key | None = None,
    domain: Domain | None = None,
    activation: Activation | None = None,
    member: str | None = None,
    data_format: Literal["channels_last", "channels_first"] | None = None,
    batch_size: int = 8,
    checked: bool = False,
    say: Callable[[str], None] = to_stderr,
) -> None:
    """Store a model's outputs of a dataset; batches that are there already are not computed again.

    Parameters
    ----------
    model : run by `predict_on_batch`, as `model.predict` does.
    dataset : a dictionary or a tuple of whole arrays, which are cut into batches of `batch_size`; or batches: a
        `tf.data.Dataset`, a `PyDataset`, or anything that can be iterated. Each holds images, ids and sizes under
        `image`, `id` and `image_size`: keys, or the indices of a tuple.
    samples : all ids, or a function of the dataset that returns them.
    key : which output holds the classes, where there are several.
    domain, activation : as of `LogitWriter`; None: from the model's last operation, which is told; where that is
        neither sigmoid nor softmax, logits.
    data_format : of the output; None: `keras.config.image_data_format()`.
    out, classes, member, checked : as of `LogitWriter`; each sample has its own grid.
    say : receives what was assumed and what was written.

    Raises
    ------
    MismatchError
        The output's axis of classes has another length than `classes`.
    EnskError
        What `BatchWriter` raises.
    """
    import keras

    data_format = data_format or keras.config.image_data_format()
    check_choice("data_format", data_format, ("channels_last", "channels_first"))
    last, process = _last(model), this_process()
    if domain is None and last in ENDS:
        domain, found = ENDS[last]
        activation = activation or found
        say(f"{out}: the model ends in {last}: {domain}, {activation}; pass domain= and activation= if it is otherwise")
    about = {"network": type(model).__qualname__, "network_sha256": _digest(model)}
    axis = -1 if data_format == "channels_last" else 1
    with BatchWriter(
        out,
        classes,
        samples,
        id=id,
        image_size=image_size,
        key=key,
        domain=domain or "logits",
        activation=activation,
        member=member,
        checked=checked,
        datasets=(dataset,),
        provenance=about,
        process=process,
    ) as writer:
        for batch in _batches(dataset, process, batch_size):
            images, (ids, _) = _of(batch, image), writer.ids(batch)
            if writer.there.issuperset(ids):
                writer.pass_over(len(ids))
                continue
            writer.write(_classes_first(model.predict_on_batch(images), key, axis, len(classes)), batch)
    say(writer.told())


def _batches(dataset: Any, process: tuple[int, int], size: int) -> Iterator[Any]:
    """Yield this process's share of the batches, of which others are not loaded where the dataset allows it."""
    number, of = process[0] - 1, process[1]
    if isinstance(dataset, (Mapping, tuple)):
        values = dataset.values() if isinstance(dataset, Mapping) else dataset
        for first in range(number * size, max(len(one) for one in values), of * size):
            part = slice(first, first + size)
            cut = {k: v[part] for k, v in dataset.items()} if isinstance(dataset, Mapping) else None
            yield cut or tuple(v[part] for v in dataset)
    elif hasattr(dataset, "num_batches") and hasattr(dataset, "__getitem__"):
        for k in range(number, dataset.num_batches, of):
            yield dataset[k]
    elif hasattr(dataset, "shard"):
        yield from dataset.shard(of, number)
    else:
        yield from islice(dataset, number, None, of)


def _of(batch: Any, image: Key) -> Any:
    try:
        return field(batch, image)
    except KeyError:
        item = f"a batch has no {image!r}: {listed(batch)}"
        fix = "pass image= with where the images are: a key, or the index of a tuple"
        raise UsageError("batch-fields", "cannot read batches of a dataset", item=item, fix=fix) from None


def _classes_first(outputs: Any, key: Key | None, axis: int, classes: int) -> Any:
    """Put the axis of classes behind that of the batch; what has no such axis is left to `BatchWriter` to refuse."""
    if isinstance(outputs, (Mapping, list, tuple)):
        try:
            return {key: _classes_first(field(outputs, key), None, axis, classes)}
        except KeyError:
            return outputs
    array = np.asarray(outputs)
    if array.ndim < 4:
        return array
    if array.shape[axis] != classes:
        item = f"the model put out {array.shape}, of which axis {axis} is not {classes} classes"
        fix = 'pass data_format="channels_last" or "channels_first", as the output is, and the names of all its classes'
        raise MismatchError("output-classes", "cannot tell the classes of an output", item=item, fix=fix)
    return np.moveaxis(array, axis, 1)


def _last(model: Any) -> str:
    """Name the function that a model ends in; "" where that cannot be told, as of a subclassed model."""
    outputs = getattr(model, "outputs", None) or ()
    names = set()
    for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
        operation = output._keras_history.operation
        function = getattr(operation, "activation", operation)
        names.add(getattr(function, "__name__", type(function).__name__).lower().replace("_", ""))
    return names.pop() if len(names) == 1 else ""


def _digest(model: Any) -> str:
    """Digest the weights in their order: their names are numbered by what a process made before."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        array = np.ascontiguousarray(weight)
        digest.update(f"{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
