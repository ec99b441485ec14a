"""Label maps of volumes: a folder of one file a sample, or one file; also with a channel a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats.classes import assemble, need_classes, order_classes
from ensemble_kit.formats.index import Index, no_files
from ensemble_kit.formats.label_meaning import LabelMaps, masks_of, total
from ensemble_kit.formats.maskformat import Contents
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.volume import Volume
from ensemble_kit.formats.volume_files import (
    binary,
    label_maps,
    name_of,
    open_volume,
    suffix_of,
    volumes_under,
    with_geometries,
)
from ensemble_kit.masks.labelmaps import LabelMap
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.label_table import counted


def read_volumes(
    path: Path, sizes: ImageSizes, classes: Sequence[str] | None, options: LabelMaps, suffixes: Sequence[str]
) -> MaskSet:
    """Read label maps of volumes; `.rule` says what each value means, and what of the headers was assumed.

    Parameters
    ----------
    suffixes : of the files of the format.

    Raises
    ------
    UsageError
        Classes without names, or files that can be read in two ways.
    DamagedError
        A file that is not whole, or of another kind.
    MismatchError
        Values that nobody named, or that are not whole numbers.
    """
    index = Index.load(path) if path.is_dir() else None
    volumes = {sample: open_volume(file) for sample, file in _files(path, index, suffixes).items()}
    if any(v.segments for v in volumes.values()):
        masks = _of_segments(volumes, path, classes, options)
    elif any(v.channels > 1 for v in volumes.values()):
        masks = _of_channels(volumes, path, classes, options)
    else:
        maps = {sample: label_maps(v)[0] for sample, v in volumes.items()}
        if index is None and path.is_dir():
            _check_one_a_sample(maps, path, classes, options)
        return with_geometries(
            masks_of(maps, path, index, sizes, classes, options), volumes, _left_out(path, index, suffixes)
        )
    for sample in masks.samples:
        sizes.of(sample, masks.image_size(sample), str(path))
    return with_geometries(masks, volumes, _left_out(path, index, suffixes))


def _left_out(path: Path, index: Index | None, suffixes: Sequence[str]) -> list[str]:
    """Say which volumes of a folder are of another format."""
    others = [file for file in volumes_under(path) if suffix_of(file) not in suffixes] if path.is_dir() else []
    return [f"left out, as of another format: {some(others)}"] if others and index is None else []


def is_of(contents: Contents, suffixes: Sequence[str]) -> bool:
    """Tell a file by its suffix, and a folder by such a file that lies flat in it."""
    if contents.is_folder:
        return any("/" not in file for suffix in suffixes for file in contents.files(suffix))
    return suffix_of(contents.path.name) in suffixes


def _files(path: Path, index: Index | None, suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the file of each sample."""
    if not path.is_dir():
        if suffix_of(path.name) not in suffixes:
            fix = f"pass a file {' or '.join(suffixes)}, or a folder of them"
            raise UsageError("format-unfit", "cannot read volumes", item=f"{path} is called otherwise", fix=fix)
        return {name_of(path.name): path}
    if index is not None and index.samples:
        index.check_files(path, [file for _, file, _ in index.samples], suffix_of(index.samples[0][1]))
        return {sample: path / file for sample, file, _ in index.samples}
    found: dict[str, Path] = {}
    for file in volumes_under(path, suffixes):
        sample = name_of(file)
        if sample in found:
            item, fix = f"{path}: {found[sample].name} and {file}", "keep one file a sample"
            raise DamagedError("folder-mixed", "cannot read a folder of volumes", item=item, fix=fix)
        found[sample] = path / file
    if not found:
        raise no_files(path, " or ".join(suffixes))
    return found


def _check_one_a_sample(
    maps: Mapping[str, LabelMap], path: Path, classes: Sequence[str] | None, options: LabelMaps
) -> None:
    """Refuse binary files of a folder that may be the classes of one sample, as TotalSegmentator writes them."""
    if len(maps) < 2 or options.table is not None or options.first_value is not None:
        return
    counts = total(maps)
    as_classes = classes is not None and set(maps) <= set(classes)
    if as_classes or (classes is None and any(set(counts) <= {0, top} for top in (1, 255))):
        called = ", called as the classes are" if as_classes else f" with the values {counted(counts)}"
        item = f"{path} holds {len(maps)} files{called}: {some(maps)}; each can be a sample, or a class of one sample"
        fix = "pass --classes with the class that each sample has, or --from class-volumes: a class a file"
        raise UsageError("format-ambiguous", "cannot tell the format of masks", item=item, fix=fix)


def _of_channels(
    volumes: Mapping[str, Volume], path: Path, classes: Sequence[str] | None, options: LabelMaps
) -> MaskSet:
    """Read a channel as the mask of a class, in the order of the classes."""
    _refuse_tables(options, f"{path} has a channel a class", "--classes names the channels in their order")
    names = need_classes(classes, str(path))
    masks: dict[Key, Runs] = {}
    for sample, v in volumes.items():
        if v.channels != len(names):
            item = f"{v.where} has {v.channels} channels, there are {len(names)} classes: {some(names)}"
            fix = "pass --classes with a name a channel, in their order; a label map has one channel"
            raise MismatchError("volume-axes", "cannot read channels as classes", item=item, fix=fix)
        for k, (name, found) in enumerate(zip(names, label_maps(v), strict=True)):
            masks[sample, name] = binary(found, f"{v.where}, channel {k} ({name!r})")
    return assemble(volumes, names, masks, "a channel a class, in the order of the classes")


def _of_segments(
    volumes: Mapping[str, Volume], path: Path, classes: Sequence[str] | None, options: LabelMaps
) -> MaskSet:
    """Read the segments that files name themselves."""
    _refuse_tables(options, f"{path} names its segments", "leave it out")
    every = {segment.name: v.where for v in volumes.values() for segment in v.segments}
    names = order_classes(every, classes, str(path))
    masks: dict[Key, Runs] = {}
    for sample, v in volumes.items():
        own = [segment.name for segment in v.segments]
        if len(set(own)) < len(own) or any(segment.channel >= v.channels for segment in v.segments):
            item, fix = (
                f"{v.where}: its segments are {some(own, 12)}",
                "give each segment a name and a layer of its own",
            )
            raise DamagedError("volume-invalid", "cannot read segments", item=item, fix=fix)
        if lacking := [name for name in names if name not in own]:
            item = f"{v.where} has no segment {lacking[0]!r}, which {every[lacking[0]]} has"
            fix = "add it to the segmentation; it may be empty"
            raise IncompleteError("classes-missing", "cannot read segments", item=item, fix=fix)
        maps = label_maps(v)
        for channel, found in enumerate(maps):
            counts = found.counts()
            known = {0, *(segment.value for segment in v.segments if segment.channel == channel)}
            if unnamed := {value: n for value, n in counts.items() if value not in known}:
                item, fix = f"{v.where} has values that no segment has: {counted(unnamed)}", "name them as segments"
                raise MismatchError("label-values", "cannot read segments", item=item, fix=fix)
        for segment in v.segments:
            masks[sample, segment.name] = binary(maps[segment.channel], v.where, [segment.value])
    return assemble(volumes, names, masks, "segments that the files name")


def _refuse_tables(options: LabelMaps, item: str, fix: str) -> None:
    """Refuse what the user says of values where classes are told otherwise."""
    if options.table is not None or options.first_value is not None or options.void is not None:
        what = "cannot use options of label maps"
        raise UsageError("option-idle", what, item=f"--labels, --first-value or --void: {item}", fix=fix)
