"""Dump a model's logits of a folder of images into a store: read, prepare, run, write.

    images ─► Preprocess ─► Network (flips averaged, windows blended) ─► Piece ─► LogitWriter
    arrays ───────────────────────────────────────────────────────────► Piece ─► LogitWriter

A source yields one piece for each sample, in the order of the ids, and a failure where an image cannot be read. The
store says what is committed, so that any run resumes where the last one stopped.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensemble_kit import __version__
from ensemble_kit.dumping.images import find_images, identify
from ensemble_kit.dumping.inference import NetworkSource
from ensemble_kit.dumping.opening import open_network
from ensemble_kit.dumping.preprocess import Size
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.dumping.resuming import Begun, begun, changed
from ensemble_kit.dumping.scene_source import SceneSource
from ensemble_kit.dumping.sources import Failure, Piece, Source, TiledPiece, array_source
from ensemble_kit.dumping.tile_source import tile_source
from ensemble_kit.errors import Caution, DamagedError, UsageError
from ensemble_kit.execution.cores import cores
from ensemble_kit.execution.events import Listener, Progress, nobody
from ensemble_kit.execution.parts import Part
from ensemble_kit.files import check_space
from ensemble_kit.logits.ingest import clamp_code, value_of
from ensemble_kit.logits.layout import Codec
from ensemble_kit.logits.plausible import settle_activation
from ensemble_kit.masks.idforms import IdForm
from ensemble_kit.remote.copies import here
from ensemble_kit.spec.labels import check_names

MAX_READERS = 8
"""Most threads that read ahead by default: more only hold memory, since most of the time goes to the network."""
HALF = 2
"""Bytes of a stored value: float16."""


@dataclass(frozen=True)
class Dumped:
    """What a dump did, or with `dry_run` would do.

    Parameters
    ----------
    store : path of the store.
    samples : how many this run was to dump: with `part` only its share.
    resumed : how many of them were in the store before.
    written : how many this run wrote.
    classes, grid : shape (C, h, w) of a sample; the grid is None where each sample has its own, or nothing was left to
        do.
    bytes : written by this run, or with `dry_run` projected.
    """

    store: str
    samples: int
    resumed: int
    written: int
    classes: int
    grid: Size | None
    bytes: int


def dump_logits(
    model: object,
    images: str | Path,
    classes: Sequence[str],
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    member: str | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    batch_size: int = 4,
    device: str = "auto",
    part: tuple[int, int] = (1, 1),
    codec: Codec = "none",
    clamp: float | None = None,
    ids: IdForm = "name",
    scenes: str | Path | None = None,
    checked: bool = False,
    trust: bool = False,
    jobs: int | None = None,
    memory: int | None = None,
    seed: int = 0,
    force: bool = False,
    redo: bool = False,
    dry_run: bool = False,
    listen: Listener = nobody,
    say: Callable[[str], None] = lambda _: None,
    warn: Callable[[Caution], None] = lambda _: None,
) -> Dumped:
    """Dump a model's logits of every image of a folder into a store; resume where an earlier run stopped.

    Parameters
    ----------
    model : `module:callable`, a file .onnx, .pt2 or TorchScript, a folder of arrays; or an nn.Module or function.
    images : folder of PNG, JPEG, TIFF and BMP files; they give the samples and their sizes.
    classes : names, in the order of the model's outputs.
    out : the store. Samples that it holds are not dumped again; `force` replaces it, `redo` those whose file changed.
    member : the model's name in ensembles; default: see `member_name`. The stores of validation and test images are
        two of one member, and a threshold set knows it by this name.
    weights_key : where the state dict is in a checkpoint that holds several, such as "model_ema".
    part : (i, n): dump the i-th of n shares, so that n processes or machines fill one store.
    codec : "none", or "lossless": about half the size, read at about a sixth of the speed.
    clamp : limit logits to ± this; recorded in the store, and cannot be undone.
    ids : what a sample is called: its file's "name", its "stem", or its "path" below the folder.
    scenes : the images are tiles of these scenes, which are the samples: a GeoTIFF, a folder of them, or a CSV of
        tile, scene, row, column. A model that runs takes the folder of `images` itself: windows of `recipe.tile` are
        read from its GeoTIFFs, and become their tiles.
    checked : take values as they are said to be, whatever they look like, as of `LogitWriter`.
    trust : allow files of models and weights that can run code.
    jobs, memory : threads that read ahead, and a budget of bytes for images and outputs, without the framework's
        weights and activations.
    listen, say, warn : receive progress as events, notes as text, and what may well be a mistake.

    Raises
    ------
    DamagedError
        Images cannot be read, after all others are committed; or the model fails on the sample that is named.
    MismatchError
        The model does not put out these classes, another recipe began the store, or the file of a sample changed
        since it was dumped.
    ResourceError
        The disk or the memory budget is too small; nothing was written.
    UnsafeError
        The model's file can run code, and `trust` was not given.
    """
    recipe = recipe if recipe is not None else Recipe()
    if isinstance(classes, str):
        fix = "pass a list with one name for each"
        raise UsageError("name-invalid", "cannot use one text as the classes", item=f"classes = {classes!r}", fix=fix)
    names = check_names("classes", classes)
    given, recipe = recipe.activation, replace(recipe, activation=settle_activation(recipe.activation, names))
    for file in (model, weights):
        if isinstance(file, str | Path):
            here(file, "cannot open a model")
    paths = identify(find_images(images, say, recipe.preprocess.arrays, warn), images, ids)
    if force and part[1] > 1:
        item = f"part {part[0]}/{part[1]} would remove what the other parts wrote"
        fix = "pass another --out, and run the parts without --force"
        raise UsageError("option-invalid", "cannot replace a store by parts", item=item, fix=fix)
    workers = jobs if jobs is not None else min(cores(), MAX_READERS)
    share = Part(*part).checked()
    source: Source
    is_folder = isinstance(model, str | Path) and Path(model).is_dir()
    if scenes is not None and (is_folder or Path(scenes).resolve() != Path(images).resolve()):
        paths, source = tile_source(model, scenes, paths, Path(images), recipe, names, workers, memory, weights)
    elif isinstance(model, str | Path) and is_folder:
        source = array_source(Path(model), recipe, names, paths, Path(images), workers, memory, weights)
    else:
        network, recipe = open_network(model, recipe, names, weights, weights_key, device, trust, seed, say)
        say(recipe.told(tiles=scenes is not None))
        if scenes is not None:
            source = SceneSource(network, recipe, names, paths, batch_size)
        else:
            source = NetworkSource(network, recipe, names, paths, batch_size, workers, memory, say)
    mine = share.share(list(paths))
    record = source.record()
    provenance = {**record, **recipe.to_dict(), "versions": versions(record), "seed": seed}
    bound = clamp_code(clamp, settle_activation(given, names))
    if bound is not None:
        provenance["clamp"] = clamp = value_of(bound)
    member = member or member_name(model, weights)
    ours = {**provenance, "classes": list(names), "samples": set(paths), "member": member, "codec": codec}
    earlier = Begun() if force else begun(out, ours)
    again = frozenset(changed(earlier, mine, source.digest, workers, redo, out))
    todo = [s for s in mine if s not in earlier.committed or s in again]
    done = Dumped(str(out), len(mine), len(mine) - len(todo), 0, len(names), None, 0)
    if not todo:
        say(f"{out}: all {len(mine)} samples are there already")
        return done
    grids = source.learn(todo)
    if memory is not None:
        source.check_memory(memory)
    projected = grids.cells * len(names) * HALF
    say(f"{out}: {len(todo)} of {len(mine)} samples to dump, {len(names)} classes {grids}, {projected / 1e6:.1f} MB")
    check_space(out, projected, force)
    if dry_run:
        return replace(done, grid=grids.grid, bytes=projected)
    from ensemble_kit.logits.writer import LogitWriter

    with (
        LogitWriter(
            os.fspath(out),
            names,
            list(paths),
            grids.grid,
            activation=given,
            member=member,
            domain=recipe.domain,
            overwrite=force or earlier.stale,
            provenance=provenance,
            codec=codec,
            clamp=clamp,
            checked=checked,
        ) as writer,
        closing(source.pieces(todo)) as pieces,
    ):
        written, failures = _write(writer, pieces, again, replace(done, grid=grids.grid), listen, say)
    report(failures, written, out)
    return written


def member_name(model: object, weights: str | Path | None = None) -> str:
    """Name a member after its model: the callable, the file or the folder, and its weights where they say more.

    Examples
    --------
    >>> member_name("nets:unet"), member_name("nets:unet", "runs/unet_fold0.pt"), member_name("nets:unet", "best.pt")
    ('unet', 'unet_fold0', 'unet-best')
    """
    if isinstance(model, str | Path):
        text = str(model)
        is_callable = ":" in text and not Path(text).exists()
        name = text.rpartition(":")[2].rpartition(".")[2] if is_callable else Path(text).resolve().stem
    else:
        name = getattr(model, "__name__", type(model).__name__)
    stem = Path(weights).stem if weights is not None else name
    return stem if stem.startswith(name) else f"{name}-{stem}"


def _write(
    writer: Any,
    pieces: Iterator[Piece | TiledPiece | Failure],
    again: frozenset[str],
    done: Dumped,
    listen: Listener,
    say: Callable[[str], None],
) -> tuple[Dumped, list[Failure]]:
    """Write pieces as they come; collect the failures, which do not stop the others."""
    failures: list[Failure] = []
    listen(Progress("dumping", done.resumed, done.samples))
    for piece in pieces:
        if isinstance(piece, Failure):
            failures.append(piece)
            continue
        again_here = piece.sample in again
        if isinstance(piece, TiledPiece):
            if piece.void is not None:
                share = f"{piece.void.area} of {math.prod(piece.image)} pixels"
                say(f"{piece.sample}: {share} hold no data: they are void in every answer")
            where: dict[str, Any] = {"image_size": piece.image, "geometry": piece.reference}
            where |= {"source": piece.source, "again": again_here, "void": piece.void}
            writer.write_tiles(piece.sample, piece.tiles, piece.boxes, piece.grid, **where)
            size = piece.cells * done.classes
        else:
            how = {"source": piece.source, "again": again_here}
            writer.write(piece.sample, piece.values, image_size=piece.image, box=piece.box, **how)
            size = piece.values.size
        done = replace(done, written=done.written + 1, bytes=done.bytes + size * HALF)
        listen(Progress("dumping", done.resumed + done.written, done.samples, done.written, piece.sample, done.bytes))
    return done, failures


def report(failures: Sequence[Failure], done: Dumped, out: str | Path) -> None:
    """Refuse what could not be read, after all other samples are committed."""
    if failures:
        listed = "; ".join(f"{f.sample!r}: {f.error.what}: {f.error.item}" for f in failures[:10])
        more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
        item = f"{listed}{more}; the other {done.resumed + done.written} are committed in {str(out)!r}"
        what = f"cannot read {len(failures)} of {done.samples} samples"
        fix = failures[0].error.fix if len({f.error.code for f in failures}) == 1 else "mend these files"
        fix += "; then run the command again: only they are left to do"
        raise DamagedError("images-unreadable", what, item=item, fix=fix)


def versions(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that a store's provenance keeps."""
    return {
        "ensemble_kit": __version__,
        "python": platform.python_version(),
        **record.get("versions", {}),
    }
