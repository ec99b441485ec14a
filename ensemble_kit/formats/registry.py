"""The formats that the kit knows. A new one is a module that ends in a `MaskFormat`, and an entry here."""

from __future__ import annotations

from dataclasses import fields

from ensemble_kit.errors import UsageError
from ensemble_kit.formats import (
    class_geotiffs,
    class_volumes,
    coco,
    cvat,
    fiftyone,
    geotiff,
    label_map,
    labelme,
    labelstudio,
    npy,
    npz,
    ome_zarr,
    panoptic,
    png,
    sa1b,
    submission,
    tiff_tags,
    volume_formats,
)
from ensemble_kit.formats.csv_options import CsvOptions
from ensemble_kit.formats.dialects import PRESETS, Dialect
from ensemble_kit.formats.label_meaning import LabelMaps
from ensemble_kit.formats.maskformat import MaskFormat

FORMATS: dict[str, MaskFormat] = {
    known.name: known
    for known in (
        *submission.FORMATS,
        npy.FORMAT,
        npz.FORMAT,
        png.FORMAT,
        label_map.FORMAT,
        geotiff.FORMAT,
        class_geotiffs.FORMAT,
        *volume_formats.FORMATS,
        class_volumes.FORMAT,
        coco.FORMAT,
        labelme.FORMAT,
        cvat.FORMAT,
        labelstudio.FORMAT,
        panoptic.FORMAT,
        sa1b.FORMAT,
        ome_zarr.FORMAT,
        fiftyone.FORMAT,
    )
}
"""Every format by its name, in the order in which they are asked whether a file is theirs. Of several with one suffix,
the first is what a path with that suffix is written as. An entry that is added is known to all commands and functions.
"""

FORMER = {label_map.OLD: label_map.FORMAT.name}
"""Names that formats had before, which still name them."""

Format = str | Dialect | CsvOptions | LabelMaps | MaskFormat
"""What `format=` takes: a name of `FORMATS`, a dialect of CSV or options of one, options of label maps, or a format
without an entry.
"""


def with_labels(chosen: Format | None, options: LabelMaps) -> Format | None:
    """Return the format with what the user says of label maps.

    Raises
    ------
    UsageError
        They are said of another format.
    """
    if options == LabelMaps():
        return chosen
    if chosen is None:
        return options
    if (how := named(chosen).labelled) is not None:
        return how(options)
    given = [f.name for f in fields(options) if getattr(options, f.name) is not None]
    item = f"{', '.join('--' + name.replace('_', '-') for name in given)} with the format {named(chosen).name!r}"
    fix = "leave it out, or pass --format label-map (and to write one a folder as --out)"
    if options.of_volumes != LabelMaps():
        fix = "leave it out, or pass --format nifti, nrrd or class-volumes, which hold volumes"
    raise UsageError("option-idle", "cannot use options of label maps", item=item, fix=fix)


def with_csv(chosen: Format | None, options: CsvOptions) -> Format | None:
    """Return the format with what the user says of a CSV's dialect, over a preset or alone.

    Raises
    ------
    UsageError
        They are said of another format.
    """
    if not options:
        return chosen
    if chosen is None or chosen == submission.CSV.name:
        return options
    if isinstance(chosen, Dialect):
        return options.over(chosen)
    if isinstance(chosen, str) and chosen in PRESETS:
        return options.over(PRESETS[chosen])
    item = f"--csv {options} with the format {named(chosen).name!r}"
    fix = "leave it out, or pass the preset of a CSV as the format"
    raise UsageError("option-idle", "cannot use options of CSV", item=item, fix=fix)


def named(chosen: Format) -> MaskFormat:
    """Return the format that the user means.

    Raises
    ------
    UsageError
        No format has this name.
    """
    if isinstance(chosen, MaskFormat):
        return chosen
    if isinstance(chosen, LabelMaps):
        scenes = chosen.like_image is not None and tiff_tags.holds_scenes(chosen.like_image)
        volumes = chosen.like_image is not None or chosen.spacing is not None
        how = (geotiff.FORMAT if scenes else volume_formats.NIFTI if volumes else label_map.FORMAT).labelled
        assert how is not None
        return how(chosen)
    if isinstance(chosen, Dialect):
        return submission.of_dialect(chosen)
    if isinstance(chosen, CsvOptions):
        return submission.of_options(chosen)
    if not isinstance(chosen, str) or FORMER.get(chosen, chosen) not in FORMATS:
        item, fix = f"--format {chosen!r}", f"pass one of {', '.join(FORMATS)}"
        raise UsageError("format-unknown", "cannot use a format of masks", item=item, fix=fix)
    return FORMATS[FORMER.get(chosen, chosen)]
