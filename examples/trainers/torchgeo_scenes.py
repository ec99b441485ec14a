"""TorchGeo: store a task's logits of whole scenes, whose chips `GridGeoSampler` cuts and a vote blends.

    task = SemanticSegmentationTask.load_from_checkpoint("best.ckpt")
    dump(task, dataset, "unet.zarr", CLASSES, size=256, stride=192)

Each scene, a file of a `RasterDataset`, is one sample of many tiles, and is committed as a whole.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import stack_samples
from torchgeo.samplers import GridGeoSampler

from ensemble_kit.backends.digest import network_digest
from ensemble_kit.errors import MismatchError, UsageError
from ensemble_kit.formats import rasters
from ensemble_kit.spec.georeference import same_crs
from ensemble_kit.trainers.batches import BatchWriter, Terms, this_process, to_stderr

Box = tuple[int, int, int, int]


def dump(
    task: Any,
    dataset: Any,
    out: str | Path,
    classes: Sequence[str],
    *,
    size: int,
    stride: int | None = None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = lambda batch: batch,
    batch_size: int = 8,
    num_workers: int = 0,
    member: str | None = None,
    say: Callable[[str], None] = to_stderr,
) -> None:
    """Store a task's logits of every scene of a dataset; scenes that are there already are not computed again.

    Under torchrun each process takes its share of the scenes.

    Parameters
    ----------
    task : a `SemanticSegmentationTask`, on the device where it is to run.
    dataset : a `RasterDataset` of images. The names of its files are the ids.
    size, stride : of `GridGeoSampler`, in pixels; where chips overlap, the vote blends them. Default stride: size.
    prepare : what a data module does to a batch on the device, such as `datamodule.aug`.
    batch_size, num_workers : of the `DataLoader`.
    say : receives what was written, at the end.

    Raises
    ------
    MismatchError
        A file lies in another reference system than the dataset, or has another resolution.
    EnskError
        What `LogitWriter.write_tiles` raises.
    """
    files = [Path(file) for file in dataset.index.filepath]
    process = this_process()
    multiclass = task.hparams["task"] == "multiclass"
    digest = {"network": type(task.model).__qualname__, "network_sha256": network_digest(task)}
    how = {"activation": "softmax" if multiclass else "sigmoid", "member": member, "provenance": digest}
    terms = Terms("the task", "the dataset")
    task.eval()
    with BatchWriter(out, classes, [file.name for file in files], **how, terms=terms, process=process) as writer:
        for number in range(process[0] - 1, len(files), process[1]):
            if files[number].name in writer.there:
                writer.pass_over(1)
                continue
            scene = copy.copy(dataset)  # of one file: where scenes overlap, each is read from its own
            scene.index = dataset.index.iloc[[number]]
            sampler = GridGeoSampler(scene, size, stride)
            with rasters.opened(files[number]) as raster:
                check(raster, dataset)
                boxes = [box(raster.reference, query) for query in sampler]
                about = {"grid": raster.shape, "image_size": raster.shape, "void": raster.void()}
                about["geometry"] = raster.reference
            if not boxes:
                item = f"{files[number].name} is {about['grid']}, smaller than a chip of {size}"
                raise UsageError(
                    "tiles-missing", "cannot cut a scene into chips", item=item, fix="pass a smaller size="
                )
            loader = DataLoader(scene, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=stack_samples)
            writer.put_tiles(files[number].name, logits(task, loader, prepare), boxes, **about)
    say(writer.told())


def logits(task: Any, loader: Any, prepare: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[torch.Tensor]:
    """Yield the logits (C, h, w) of each chip."""
    for batch in loader:
        with torch.inference_mode():
            yield from torch.atleast_1d(task(prepare({"image": batch["image"].to(task.device)})["image"]))


def box(reference: Any, query: tuple[slice, ...]) -> Box:
    """Return the pixels (y0, x0, y1, x1) of a scene that a chip covers; it may reach beyond."""
    x, y = query[:2]
    corners = [reference.cell(x.start, y.stop), reference.cell(x.stop, y.start)]
    y0, x0, y1, x1 = (round(n) for corner in corners for n in corner)
    return y0, x0, y1, x1


def check(raster: Any, dataset: Any) -> None:
    """Refuse a scene that the dataset would warp, whose chips lie on other pixels than its own."""
    own, what = raster.reference, "cannot store logits of a scene that TorchGeo warps"
    told = f"{raster.where} has {'no transform' if own is None else own.as_text()}; the dataset"
    if own is None or own.is_rotated or not same_crs(own.crs, dataset.crs.to_wkt()):
        item = f"{told} is EPSG:{dataset.crs.to_epsg()}"
        fix = "pass a dataset of files in one reference system, or warp them first: gdalwarp -t_srs EPSG:… IN OUT"
        raise MismatchError("tile-crs", what, item=item, fix=fix)
    if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(own.pixel, dataset.res[::-1], strict=True)):
        item, fix = f"{told}'s res is {dataset.res}", "pass a dataset of files of one resolution, and no other res="
        raise MismatchError("tile-resolution", what, item=item, fix=fix)
