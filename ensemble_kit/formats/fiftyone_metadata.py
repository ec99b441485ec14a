"""The two JSON files of a FiftyOneDataset: its samples, and the schema of their fields.

FiftyOne 1.0 wrote such a schema; later versions bring it to their own when they import it. Documents are those of its
database, as extended JSON: an id is 24 hexadecimal digits. What an import gives anew (ids of samples, times) is left
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit import strict_json

FIELDS, TOGETHER = "fields", "masks"
"""The folder of label maps, which FiftyOne looks for by this name, and the field of all classes."""

SAMPLE = "ensk_sample"
"""The field of the sample's id."""

_VERSION = "1.0.0"
_LONGEST = 60
_CORE = "fiftyone.core.fields."


def field_names(classes: Sequence[str]) -> dict[str, str]:
    """Give each class a field of its own: letters, digits and underscores of its name after `masks_`.

    Examples
    --------
    >>> field_names(["Carpal bone", "carpal.bone", "id"])
    {'Carpal bone': 'masks_Carpal_bone', 'carpal.bone': 'masks_carpal_bone_2', 'id': 'masks_id'}
    """
    out: dict[str, str] = {}
    used: set[str] = set()
    for name in classes:
        plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:_LONGEST]
        field, number = f"{TOGETHER}_{plain}", 1
        while field.casefold() in used:  # a folder is called as the field, and some disks know no case
            number += 1
            field = f"{TOGETHER}_{plain}_{number}"
        used.add(field.casefold())
        out[name] = field
    return out


def write_samples(folder: Path, samples: Sequence[tuple[str, str, str]], fields: Sequence[str]) -> None:
    """Write `samples.json`, one sample at a time.

    Parameters
    ----------
    samples : id, path of the image, and file of the label maps in the folder of each field.
    fields : of label maps.
    """
    with (folder / "samples.json").open("wb") as out:
        out.write(b'{"samples":[')
        for k, (sample, path, file) in enumerate(samples):
            document: dict[str, Any] = {
                "filepath": path,
                "tags": [],
                "metadata": None,
                "_media_type": "image",
                "_rand": int(_digest(sample)[:8], 16) / 2**32,
                SAMPLE: sample,
            }
            for field in fields:
                document[field] = {
                    "_id": {"$oid": _digest(f"{field}\0{sample}")[:24]},
                    "_cls": "Segmentation",
                    "tags": [],
                    "mask_path": f"{FIELDS}/{field}/{file}",
                }
            out.write((b",\n" if k else b"\n") + strict_json.dump(document).rstrip())
        out.write(b"\n]}\n")


def write_metadata(folder: Path, targets: Mapping[str, Mapping[int, str]]) -> None:
    """Write `metadata.json`.

    Parameters
    ----------
    targets : what each value means, of every field of label maps.
    """
    label = [_field("id", "ObjectIdField", "_id"), _tags(), _field("mask", "ArrayField"), _field("mask_path")]
    image = [_field("size_bytes", "IntField"), _field("mime_type")]
    image += [_field(name, "IntField") for name in ("width", "height", "num_channels")]
    fields = [_field("id", "ObjectIdField", "_id"), _field("filepath"), _tags()]
    fields += [_field("metadata", of="fiftyone.core.metadata.ImageMetadata", fields=image)]
    fields += [_field("_media_type"), _field("_rand", "FloatField"), _field("_dataset_id", "ObjectIdField")]
    fields += [_field(name, "DateTimeField") | {"read_only": True} for name in ("created_at", "last_modified_at")]
    fields += [_field(SAMPLE)]
    fields += [_field(field, of="fiftyone.core.labels.Segmentation", fields=label) for field in targets]
    named = {field: {str(value): name for value, name in own.items()} for field, own in targets.items()}
    value = {
        "name": "masks",
        "slug": "masks",
        "version": _VERSION,
        "persistent": False,
        "media_type": "image",
        "group_media_types": {},
        "tags": [],
        "info": {},
        "app_config": {"media_fields": ["filepath"], "grid_media_field": "filepath", "modal_media_field": "filepath"},
        "classes": {},
        "default_classes": [],
        "mask_targets": named,
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": fields,
        "frame_fields": [],
    }
    empty: dict[str, list[Any]] = {"saved_views": [], "workspaces": []}
    runs: dict[str, dict[str, Any]] = {name: {} for name in ("annotation_runs", "brain_methods", "evaluations", "runs")}
    (folder / "metadata.json").write_bytes(strict_json.dump(value | empty | runs))


def _field(
    name: str, kind: str = "StringField", db: str | None = None, of: str | None = None, fields: Sequence[Any] = ()
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": _CORE + ("EmbeddedDocumentField" if of else kind),
        "embedded_doc_type": of,
        "subfield": None,
        "fields": list(fields),
        "db_field": db or name,
        "description": None,
        "info": None,
        "read_only": False,
    }


def _tags() -> dict[str, Any]:
    return _field("tags", "ListField") | {"subfield": f"{_CORE}StringField"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
