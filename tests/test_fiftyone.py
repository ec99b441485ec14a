"""FiftyOne's dataset folders: their files; tests/exports imports them by FiftyOne itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.formats.fiftyone_metadata import field_names
from test_ome_zarr import masks_of
from test_stream import content
from trying import ensk, refused


def samples_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "samples.json").read_text())["samples"]


@pytest.mark.parametrize("overlap", ["", "b"])
def test_label_maps_are_plain_grey(tmp_path: Path, overlap: str) -> None:
    masks = masks_of((30, 40), overlap=overlap)
    masks.write(tmp_path / "m", format="fiftyone")
    fields = {"masks_x": "x", "masks_y": "y"} if overlap else {"masks": ""}
    assert {p.name for p in (tmp_path / "m" / "fields").iterdir()} == set(fields)
    for sample in samples_of(tmp_path / "m"):
        assert sample["filepath"] == f"data/{sample['ensk_sample']}"
        for field, name in fields.items():
            with Image.open(tmp_path / "m" / sample[field]["mask_path"]) as image:
                assert image.mode == "L"  # FiftyOne reads colours where there is a palette
                wanted = masks[sample["ensk_sample"], name].decode() if name else masks.labels(sample["ensk_sample"])
                np.testing.assert_array_equal(np.asarray(image), wanted)
    meta = json.loads((tmp_path / "m" / "metadata.json").read_text())
    assert set(meta["mask_targets"]) == set(fields)
    back = ek.read_masks(tmp_path / "m")
    assert (dict(back), back.samples, back.classes) == (dict(masks), masks.samples, masks.classes)


def test_what_was_written_before_an_overlap_is_what_is_written_after(tmp_path: Path) -> None:
    void = {s: ek.encode(np.arange(1200).reshape(30, 40) % 7 == 6) for s in "abc"}
    masks = masks_of((30, 40), "abc", overlap="c")
    masks = ek.MaskSet({key: runs - void[key[0]] for key, runs in masks.items()}, void=void)
    masks.write(tmp_path / "late", format="fiftyone")
    masks.arranged("cab", masks.classes).write(tmp_path / "soon", format="fiftyone")
    late, soon = (content(tmp_path / name) for name in ("late", "soon"))
    for name in ("index.json", "samples.json"):
        assert sorted(late.pop(name)) == sorted(soon.pop(name))  # the same in another order
    assert late == soon
    back = ek.read_masks(tmp_path / "late")
    assert dict(back) == dict(masks)
    assert all(back.void(s) == void[s] for s in "abc")


def test_images_are_named_where_they_are(tmp_path: Path) -> None:
    masks, images = masks_of((3, 4)), tmp_path / "images"
    for name in ("one/a.jpg", "b.tif"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes(b"not looked into")
    masks.write(tmp_path / "m", format="fiftyone", like_image=images)
    assert [s["filepath"] for s in samples_of(tmp_path / "m")] == [str(images / "one/a.jpg"), str(images / "b.tif")]
    (images / "b.png").touch()
    with refused(ek.IncompleteError, "like-image-missing", "sample 'b' can be 'b.png', 'b.tif'"):
        masks.write(tmp_path / "n", format="fiftyone", like_image=images)
    (images / "b.png").unlink()
    (images / "b.tif").unlink()
    with refused(ek.IncompleteError, "like-image-missing", "sample 'b' has none", "one/a.jpg"):
        masks.write(tmp_path / "n", format="fiftyone", like_image=images)
    with refused(ek.UsageError, "option-invalid"):
        masks.write(tmp_path / "n", format="fiftyone", like_image=images / "one/a.jpg")
    assert not (tmp_path / "n").exists()


def test_images_in_its_folder_are_not_taken_for_masks(tmp_path: Path) -> None:
    masks = masks_of((3, 4))
    masks.write(tmp_path / "m", format="fiftyone")
    (tmp_path / "m" / "data").mkdir()
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "m" / "data" / "a.png")
    assert dict(ek.read_masks(tmp_path / "m")) == dict(masks)
    (tmp_path / "m" / "fields" / "masks" / "b.png").unlink()
    with refused(ek.IncompleteError, "files-missing", "b.png"):
        ek.read_masks(tmp_path / "m")
    (tmp_path / "m" / "index.json").unlink()
    with refused(ek.UsageError, "format-unread"):
        ek.read_masks(tmp_path / "m", format="fiftyone")


def test_fields_have_names_that_fiftyone_and_disks_take() -> None:
    hard = ["id", "a.b", "a b", "A_b", "$x", "", "né", "x" * 300, "x" * 301, "../up"]
    fields = list(field_names(hard).values())
    assert len({f.casefold() for f in fields}) == len(hard)
    assert all(f.replace("_", "a").isalnum() and f.isascii() and len(f) < 80 for f in fields)


def test_ids_and_classes_are_hostile_text(tmp_path: Path) -> None:
    names = ['"},{"x":"', "<script>", "a/b", "né", "line\nend"]
    masks = ek.MaskSet({(s, c): ek.Runs([k], [k + 1], (2, 3)) for s in names for k, c in enumerate(names)})
    masks.write(tmp_path / "m", format="fiftyone")
    assert [s["ensk_sample"] for s in samples_of(tmp_path / "m")] == names
    back = ek.read_masks(tmp_path / "m")
    assert (dict(back), back.classes) == (dict(masks), masks.classes)


def test_the_command_says_where_images_are_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks_of((3, 4), overlap="b").write(tmp_path / "m.npz")
    ensk("convert", tmp_path / "m.npz", "--format", "fiftyone", "--out", tmp_path / "m")
    told = capsys.readouterr().err
    assert "classes overlap: a field for each class" in told
    assert "--like-image names their own" in told
    with refused(ek.UsageError, "output-exists"):
        ensk("convert", tmp_path / "m.npz", "--format", "fiftyone", "--out", tmp_path / "m")
    with refused(ek.UsageError, "format-unfit", "a volume"):
        masks_of((2, 3, 4)).write(tmp_path / "v", format="fiftyone")
    with refused(ek.UsageError, "option-idle", "--spacing"):
        masks_of((3, 4)).write(tmp_path / "v", format="fiftyone", spacing=(1, 1, 1))
