"""`ensk convert`: masks from one format to another; a finished store into one file."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from ensemble_kit.cli.annotation_options import IdOption, ImagesOption, ScoreOption, SkipEmptyOption, read_annotations
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import (
    SHAPES,
    ExceptOption,
    FirstValueOption,
    LabelsOption,
    LikeImageOption,
    OnlyOption,
    PaintOption,
    SpacingOption,
    VoidOption,
    kept,
    label_maps,
    say_geometry_lost,
    say_labels,
    say_written,
)
from ensemble_kit.cli.options import (
    CSV_TEXT,
    ClassesOption,
    ImageSizeOption,
    class_names,
    csv_format,
    size_of_images,
    warn_of_formulas,
)
from ensemble_kit.cli.outputs import check_output
from ensemble_kit.cli.plain import size
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.formats.label_meaning import LabelMaps
    from ensemble_kit.formats.maskformat import MaskFormat
    from ensemble_kit.masks.maskset import MaskSet


def convert(
    masks: Annotated[
        Path, typer.Argument(help="Masks to read, a file or a folder; or a store to pack.", metavar="MASKS")
    ],
    common: Common,
    out: Annotated[Path, typer.Option("--out", help="Where to write; - writes a CSV to stdout.", metavar="MASKS")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Format of the output, or of the input if the output's name rules it out."),
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Format of the input.", metavar="FORMAT")] = None,
    image_size: ImageSizeOption = None,
    classes: ClassesOption = None,
    labels: LabelsOption = None,
    first_value: FirstValueOption = None,
    void: VoidOption = None,
    only: OnlyOption = None,
    without: ExceptOption = None,
    paint: PaintOption = None,
    drop_void: Annotated[
        bool, typer.Option("--drop-void", help="Write void pixels as pixels without a class.")
    ] = False,
    drop_geometry: Annotated[
        bool,
        typer.Option("--drop-geometry", help="Forget where volumes lie, so that --like-image or --spacing says it."),
    ] = False,
    like_image: LikeImageOption = None,
    spacing: SpacingOption = None,
    like: Annotated[
        Path | None, typer.Option("--like", help="Sample submission that gives the header and the order of rows.")
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(
            "--csv",
            metavar="OPTIONS",
            help=f"Of the output, or of the input if the output is not a CSV: {CSV_TEXT}.",
        ),
    ] = None,
    from_csv: Annotated[
        str | None, typer.Option("--from-csv", metavar="OPTIONS", help="Of an input that is a CSV: as --csv.")
    ] = None,
    id: IdOption = None,  # noqa: A002 - the option's name
    images: ImagesOption = None,
    score: ScoreOption = None,
    skip_empty: SkipEmptyOption = False,
) -> None:
    """Convert masks between CSV dialects, PNG folders, COCO, polygon JSON and NumPy stacks; pack a store as .zip."""
    from ensemble_kit.files import is_stream
    from ensemble_kit.formats.maskformat import existing
    from ensemble_kit.formats.reading import read_masks
    from ensemble_kit.formats.writing import telling_of, write_masks
    from ensemble_kit.logits.open import is_store
    from ensemble_kit.masks.idforms import check_form
    from ensemble_kit.recipes import memory
    from ensemble_kit.recipes.masks import renamed
    from ensemble_kit.recipes.members import unnamed
    from ensemble_kit.remote.copies import local

    if is_store(unnamed(masks)):
        memory.check(common.memory, memory.of_store(masks), "convert")
        _pack(masks, out, common)
        return
    masks, like = local(masks), None if like is None else existing(like)
    maps = label_maps(labels, first_value, void, paint, like_image, spacing)
    source, target = _formats(masks, out, format_, from_, like, (csv, from_csv), maps.of_volumes)
    source, target = _with_labels(masks, source, target, from_, maps)
    source = source.reading(read_annotations(images, score, skip_empty, paint if paint == SHAPES else None))
    check_output(out, common, [masks, like, like_image, classes, labels, image_size], stdout=True)
    memory.check(common.memory, 1.2 * memory.of_reading([masks]), "convert")  # and what is written
    form = None if id is None else check_form(id)
    read = read_masks(masks, source, size_of_images(image_size), class_names(classes), id=form)
    say_labels(common, [read], [masks])
    (read,) = kept([read], only, without)
    read = renamed(read.without_void() if drop_void else read, form, like, target)
    read = read.with_geometry({}) if drop_geometry else read
    plan = {
        "in": str(masks),
        "from": source.name,
        "out": str(out),
        "format": target.name,
        "samples": len(read.samples),
        "classes": len(read.classes),
    }
    if common.dry_run:
        projected = _projected(read, target, out, like)
        common.answer(
            plan | {"bytes": projected, "dry_run": True},
            f"{_words(plan)}, at most {size(projected)}; nothing was written",
        )
        return
    telling = telling_of(read, target, like)
    write_masks(read if telling is None else read.watched(telling.add), out, target, like=like, force=common.force)
    say_written(common, telling, out)
    say_geometry_lost(common, read, target, out)
    warn_of_formulas(common, read, out)
    if str(out) == "-" or is_stream(out):
        common.say(_words(plan))  # stdout may hold the masks
        return
    written = _bytes_at(out)
    common.answer(plan | {"bytes": written}, f"{_words(plan)}, {size(written)}")


def _pack(store: Path, out: Path, common: Common) -> None:
    """Pack a store of logits into one uncompressed zip, which commands read like the store itself."""
    from ensemble_kit.logits.store import LogitStore

    opened = LogitStore(store)
    if out.suffix.lower() != ".zip":
        raise UsageError(
            "format-unfit",
            "cannot convert a store of logits to masks",
            item=f"{store} is a store, --out {out}",
            fix="pass --out FILE.zip to pack it; masks come from ensk vote",
        )
    plan = {"in": str(opened.path), "out": str(out), "samples": len(opened.samples), "format": "zip"}
    check_output(out, common, [store])
    if common.dry_run:
        total = opened.stored_bytes
        common.answer(plan | {"bytes": total, "dry_run": True}, f"would pack {store} into {out}: {size(total)}")
        return
    with common.progress() as listen:
        written = opened.pack(out, common.force, listen)
    common.answer(
        plan | {"bytes": written, "fingerprint": opened.fingerprint},
        f"{store} → {out}: {len(opened.samples)} samples, {size(written)}",
    )


def _formats(
    masks: Path,
    out: Path,
    format_: str | None,
    from_: str | None,
    like: Path | None,
    csv: tuple[str | None, str | None],
    volumes: LabelMaps,
) -> tuple[MaskFormat, MaskFormat]:
    """Decide which format is read and which one is written.

    `--from` names the input's and `--format` the output's. Without `--from`, a `--format` that the output's name rules
    out (`--format handbone --out masks.json`) is the input's, and one that fits the output is also the input's if the
    input is ambiguous (a CSV whose header several dialects share). `--from-csv` and `--csv` likewise. Where `volumes`
    says where they lie, a folder is one of volumes.
    """
    from ensemble_kit.formats.csv_options import CsvOptions
    from ensemble_kit.formats.reading import check_csv, kind_of, recognise
    from ensemble_kit.formats.registry import named
    from ensemble_kit.formats.submission import CSV
    from ensemble_kit.formats.writing import fits, for_labels, kind_of_output

    written, read = csv
    if format_ is not None and from_ is None and not fits(format_, out):
        format_, from_ = None, format_
    chosen = for_labels(out, format_, like, volumes) if format_ is None else format_
    target = named(chosen) if chosen is not None else kind_of_output(out, like)
    if written is not None and read is None and target.suffix != CSV.suffix:
        written, read = None, written
    if written is not None:
        target = named(csv_format(format_, written) or target)
    if from_ is None and read is not None:
        check_csv(masks, CsvOptions.of(read))
    if from_ is not None or read is not None:
        return named(csv_format(from_, read) or CSV), target
    try:
        found = recognise(masks)
        is_csv = found.suffix == CSV.suffix  # with sizes and classes, rows tell more: the dialect is told again
        return (replace(CSV, name=found.name) if is_csv else found), target
    except UsageError as error:
        unclear = error.code in {"format-ambiguous", "format-unknown"}
        if unclear and (format_ is not None or written is not None) and fits(target, masks):
            return target, target
        if not unclear:
            raise
        return kind_of(masks), target  # with sizes and classes, the rows of a CSV may tell


def _with_labels(
    path: Path, source: MaskFormat, target: MaskFormat, from_: str | None, options: LabelMaps
) -> tuple[MaskFormat, MaskFormat]:
    """Give the options of label maps to the side that holds some; `--labels` to both where both do."""
    from ensemble_kit.formats.registry import named, with_labels
    from ensemble_kit.recipes.masks import formats_for

    arrays, writes = source.name in {"npy", "npz"} and from_ is None, target.has_values
    reads = arrays or source.has_values
    labels = options.labels if reads or not writes else None
    taken = replace(options, labels=labels, paint=None, like_image=None, spacing=None)
    made = replace(options, labels=options.labels if writes else None, first_value=None, void=None)
    (how,) = formats_for([path], [None if arrays else source], taken)
    return source if how is None else named(how), named(with_labels(target, made) or target)


def _projected(masks: MaskSet, target: MaskFormat, out: Path, like: Path | None) -> int:
    """Count the bytes of a file by writing it to a counter; of a folder, estimate one byte per pixel."""
    from ensemble_kit.formats.writing import write_to

    if target.builder(out):
        return sum(math.prod(runs.shape) + 1024 for runs in masks.values())  # and a header a file
    sink = _Sink()
    write_to(masks, cast(BinaryIO, sink), target, like)
    return sink.count


class _Sink(io.RawIOBase):
    """Counts what is written to it."""

    count = 0

    def writable(self) -> bool:
        """Accept bytes."""
        return True

    def write(self, data: Any) -> int:
        """Count bytes."""
        size = memoryview(data).nbytes
        self.count += size
        return size


def _words(plan: dict[str, Any]) -> str:
    return (
        f"{plan['in']} ({plan['from']}) → {plan['out']} ({plan['format']}): "
        f"{plan['samples']} samples x {plan['classes']} classes"
    )


def _bytes_at(path: Path) -> int:
    from ensemble_kit.remote.copies import size_of

    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(size_of(p) or 0 for p in files)
