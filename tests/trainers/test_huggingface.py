"""transformers: stores are what the models return and their processors score; alone and in two processes."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import DATA, blocks, equals, ties, write_page
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import UsageError
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter
from tiny_transformers import LABELS, make

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ensemble_kit.trainers.huggingface import LogitTrainerMixin, dump
    from ensemble_kit.trainers.queries import boxes_of, logits_of

PATHS = sorted((DATA / "val/images").iterdir())[1:5]  # 512 × 512 and 512 × 534
ROWS = [{"image": Image.open(p).convert("RGB"), "id": p.name} for p in PATHS]
SIZES = [(row["image"].height, row["image"].width) for row in ROWS]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's own network and dataset."""
    write_page("huggingface.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("mine")
    sys.modules.pop("mine", None)


def own(model: Any, processor: Any, rows: list[dict[str, Any]], **inputs: Any) -> Any:
    """What a model puts out for all rows at once."""
    batch = processor(images=[row["image"] for row in rows], return_tensors="pt", **inputs)
    with torch.inference_mode():
        return model(**batch)


@pytest.mark.parametrize("kind", ["segformer", "upernet"])
def test_maps_of_classes(kind: str, tmp_path: Path) -> None:
    (model, processor), lines = make(kind), list[str]()
    dump(model, processor, ROWS, tmp_path / "net.zarr", batch_size=4, say=lines.append)
    outputs, store = own(model, processor, ROWS), LogitStore(tmp_path / "net.zarr")
    equals(store, {p.name: y.numpy() for p, y in zip(PATHS, outputs.logits, strict=True)})
    assert store.classes == tuple(LABELS.values()) and store.activation == "softmax"
    assert lines == [f"{tmp_path / 'net.zarr'}: 4 samples written"]
    found = processor.post_process_semantic_segmentation(outputs, SIZES, return_segmentation_scores=True)
    masks, differ, winners = Ensemble([tmp_path / "net.zarr"]).vote(), 0, set[int]()
    for path, size, theirs in zip(PATHS, SIZES, found, strict=True):
        assert store.image_size(path.name) == size
        best = theirs.segmentation.numpy()
        differ += ties(theirs.segmentation_scores.numpy(), masks.labels(path.name), best)
        winners |= set(np.unique(best).tolist())
    assert len(winners) > 1
    print(f"{kind}: {differ} pixels of {sum(h * w for h, w in SIZES)} are ties")


@pytest.mark.parametrize("kind", ["mask2former", "maskformer", "oneformer", "eomt"])
def test_scores_of_queries(kind: str, tmp_path: Path) -> None:
    model, processor = make(kind)
    images = getattr(processor, "image_processor", processor)
    rows, sizes = (ROWS[2:], SIZES[2:]) if kind == "mask2former" else (ROWS, SIZES)  # one size: none is padded
    names = [row["id"] for row in rows]
    task = {"task_inputs": ["semantic"] * len(rows)} if kind == "oneformer" else {}
    outputs = own(model, processor, rows, **task)
    at_image = images.post_process_semantic_segmentation(outputs, sizes, return_segmentation_scores=True)
    on_grid = images.post_process_semantic_segmentation(
        outputs, sizes if kind == "eomt" else None, return_segmentation_scores=True
    )
    lines = list[str]()
    dump(model, processor, rows, tmp_path / "net.zarr", say=lines.append)
    assert ('grid="image" stores' in lines[0]) == (kind != "eomt")
    logs = [one.segmentation_scores.clamp(min=1e-38).log().numpy() for one in on_grid]
    equals(LogitStore(tmp_path / "net.zarr"), dict(zip(names, logs, strict=True)))
    dump(model, processor, rows, tmp_path / "full.zarr", grid="image", say=lambda _: None)
    masks, full = (Ensemble([tmp_path / f"{n}.zarr"]).vote() for n in ("net", "full"))
    by_scores = Ensemble([tmp_path / "net.zarr"], upsample="scores").vote()
    differ, edges, scored, pixels, winners = 0, 0, 0, 0, set[int]()
    for name, theirs in zip(names, at_image, strict=True):
        best, scores = theirs.segmentation.numpy(), theirs.segmentation_scores.numpy()
        differ += ties(np.log(scores.clip(1e-38)), full.labels(name), best)
        edges += int((masks.labels(name) != best).sum())
        scored += int((by_scores.labels(name) != best).sum())
        pixels += best.size
        winners |= set(np.unique(best).tolist())
    assert len(winners) > 1
    print(f"{kind}: {differ} of {pixels} pixels are ties; of the model's grid {edges} ({scored} by scores) differ")


@pytest.mark.parametrize("kind", ["mask2former", "maskformer"])
def test_decisions_on_the_grid_are_the_models(kind: str, tmp_path: Path) -> None:
    model, processor = make(kind)
    outputs = own(model, processor, ROWS[2:])
    logits = torch.stack(logits_of(outputs, processor, SIZES[2:], "softmax"))
    with LogitWriter(tmp_path / "net.zarr", list(LABELS.values()), ["0", "1"], activation="softmax") as out:
        out.write(["0", "1"], logits, tuple(logits.shape[2:]))
    masks = Ensemble([tmp_path / "net.zarr"]).vote()
    for k, best in enumerate(processor.post_process_semantic_segmentation(outputs)):
        differ = ties(logits[k].numpy(), masks.labels(str(k)), best.numpy())
        assert differ < 0.001 * best.numel()


def test_overlapping_classes_are_joined_by_noisy_or(tmp_path: Path) -> None:
    model, processor = make("maskformer")
    dump(model, processor, ROWS, tmp_path / "net.zarr", activation="sigmoid", say=lambda _: None)
    outputs, store = own(model, processor, ROWS), LogitStore(tmp_path / "net.zarr")
    chances = outputs.class_queries_logits.double().softmax(-1)[..., :-1].numpy()
    shapes = torch.sigmoid(outputs.masks_queries_logits.double()).numpy()
    for k, path in enumerate(PATHS):
        wanted = 1 - np.prod(1 - chances[k][:, :, None, None] * shapes[k][:, None], axis=0)
        found = 1 / (1 + np.exp(-store.read(path.name).astype(np.float64)))
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    with pytest.raises(UsageError, match="do_split_image=False") as caught:
        dump(*make("eomt"), ROWS, tmp_path / "eomt.zarr", activation="sigmoid", say=lambda _: None)
    assert "cut 4 images into" in caught.value.item


def test_padding_is_left_out(tmp_path: Path) -> None:
    model, processor = make("mask2former")
    rows = [ROWS[0], {"image": ROWS[3]["image"].crop((0, 0, 400, 200)), "id": "wide"}]
    batch = processor(images=[row["image"] for row in rows], return_tensors="pt")
    assert not bool(batch["pixel_mask"].all())
    dump(model, processor, rows, tmp_path / "net.zarr", say=lambda _: None)
    store, (h, w) = LogitStore(tmp_path / "net.zarr"), batch["pixel_mask"].shape[1:]
    for row, mask in zip(rows, batch["pixel_mask"], strict=True):
        real = int(mask[:, 0].sum()), int(mask[0].sum())
        assert store.box(row["id"]) == (0, 0, round(real[0] * 384 / h), round(real[1] * 384 / w))
    with pytest.raises(UsageError, match='grid="model"') as caught:
        dump(model, processor, rows, tmp_path / "full.zarr", grid="image", say=lambda _: None)
    assert caught.value.code == "processor-padded"
    ones = torch.zeros(1, 8, 8)
    ones[:, :1, :1] = 1
    assert boxes_of(ones, [(2, 2)]) == [(0, 0, 1, 1)]


def test_columns_of_datasets_load_no_images_to_resume(mine: ModuleType, tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"picture": [str(p) for p in PATHS], "name": [p.stem for p in PATHS]})
    data = data.cast_column("picture", datasets.Image(mode="RGB"))
    (model, processor), lines = make("segformer"), list[str]()
    how = {"image": "picture", "id": "name", "batch_size": 1, "say": lines.append}

    class Failing(nn.Module):
        """A model that stops at its third batch."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.config, self.calls = model, model.config, 0

        def state_dict(self, *args: Any, **options: Any) -> Any:
            return self.inner.state_dict(*args, **options)

        def forward(self, **inputs: Any) -> Any:
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("out of memory")
            return self.inner(**inputs)

    with pytest.raises(RuntimeError, match="out of memory"):
        dump(Failing(), processor, data, tmp_path / "net.zarr", **how)
    assert LogitStore(tmp_path / "net.zarr").missing == [p.stem for p in PATHS[2:]]
    dump(model, processor, data, tmp_path / "net.zarr", **how)
    assert lines == [f"{tmp_path / 'net.zarr'}: 2 samples written, 2 were there already"]
    wanted = {p.stem: own(model, processor, [row]).logits[0].numpy() for p, row in zip(PATHS, ROWS, strict=True)}
    equals(LogitStore(tmp_path / "net.zarr"), wanted)


def test_the_page_runs_as_written(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    for code in blocks("huggingface.md", "bash"):
        assert "process 2 of 2: 8 samples written" in shell(code).stderr
    images, model = mine.Images("val/images"), mine.network().eval()
    assert len(list((tmp_path / "answer").glob("*.png"))) == len(mine.Images("test/images"))
    processor = make("segformer")[1].__class__(size={"height": 128, "width": 128})
    wanted = {row["id"]: own(model, processor, [row]).logits[0].numpy() for row in images}
    found = LogitStore(tmp_path / "segformer_val.zarr")
    assert found.complete
    for name, logits in wanted.items():  # batches of other sizes round otherwise
        np.testing.assert_allclose(found.read(name), logits, atol=2e-3)


def test_trainer(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    """The page's Trainer, whose two processes are padded to as many batches."""
    script = tmp_path / "predict.py"
    script.write_text(
        script.read_text().replace("trainer.predict(images)", "images.paths.pop()\ntrainer.predict(images)")
    )
    done = shell("torchrun --nproc-per-node 2 predict.py")
    assert done.stderr.count("1 padding duplicates skipped; 1 of 16 missing") == 1
    done = shell("python predict.py")
    assert "15 were there already" in done.stderr
    images, model = mine.Images("val/images"), mine.network().eval()
    store = LogitStore(tmp_path / "trainer.zarr")
    assert store.missing == [images.paths[-1].name]
    processor = make("segformer")[1].__class__(size={"height": 128, "width": 128})
    for row in list(images)[:15]:
        wanted = own(model, processor, [row]).logits[0].numpy()
        np.testing.assert_allclose(store.read(row["id"]), wanted, atol=2e-3)


def test_killed_and_resumed(mine: ModuleType, shell: Callable, killed: Callable, tmp_path: Path) -> None:
    slow = "import os, time, mine\nread = mine.Images.__getitem__\n"
    slow += (
        'mine.Images.__getitem__ = lambda self, k: (time.sleep(float(os.environ.get("SLOW", 0))), read(self, k))[1]\n'
    )
    code = (tmp_path / "dump.py").read_text().replace("batch_size=4", "batch_size=1").replace('"val", "test"', '"val",')
    (tmp_path / "slow.py").write_text(slow + code)
    run, path = "torchrun --nproc-per-node 2 slow.py", tmp_path / "segformer_val.zarr"
    there = killed(run, path, 3)
    assert 3 <= there < 16
    done = shell(run)
    assert "were there already" in done.stderr
    processor = make("segformer")[1].__class__(size={"height": 128, "width": 128})
    model = mine.network().eval()
    equals(
        LogitStore(path),
        {row["id"]: own(model, processor, [row]).logits[0].numpy() for row in mine.Images("val/images")},
    )


def collate(processor: Any) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    def join(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = processor(images=[row["image"] for row in rows], return_tensors="pt")
        sizes = torch.tensor([(row["image"].height, row["image"].width) for row in rows])
        labels = torch.zeros(len(rows), *batch["pixel_values"].shape[2:], dtype=torch.long)
        return {**batch, "id": [row["id"] for row in rows], "size": sizes, "labels": labels}

    return join


def test_trainer_keeps_nothing_and_trains_as_before(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    class Segmentation(LogitTrainerMixin, Trainer):
        pass

    model, processor = make("segformer")
    quiet = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "max_steps": 2}
    args = TrainingArguments(
        str(tmp_path / "out"), remove_unused_columns=False, per_device_eval_batch_size=2, eval_strategy="steps",
        eval_steps=1, per_device_train_batch_size=1, **quiet,
    )  # fmt: skip
    kept: list[Any] = []
    trainer = Segmentation(
        model=model, args=args, data_collator=collate(processor), processing_class=processor, train_dataset=ROWS,
        eval_dataset=ROWS, compute_metrics=lambda given: kept.append(given.predictions) or {},
    )  # fmt: skip
    ids, lines = [p.name for p in PATHS], list[str]()
    found = trainer.predict(ROWS)
    assert found.predictions.shape[0] == 4
    trainer.store_logits(tmp_path / "net.zarr", samples=ids, say=lines.append)
    stored = trainer.predict(ROWS)
    assert stored.predictions is None and stored.metrics["test_loss"] == pytest.approx(found.metrics["test_loss"])
    equals(LogitStore(tmp_path / "net.zarr"), dict(zip(ids, found.predictions, strict=True)))
    before = len(kept)
    trainer.store_logits(tmp_path / "val_{step}.zarr", samples=ids, say=lines.append)
    trainer.train()
    first, last = (LogitStore(tmp_path / f"val_{k}.zarr") for k in (1, 2))
    assert first.complete and last.complete and not np.array_equal(first.read(ids[0]), last.read(ids[0]))
    trainer.store_logits(tmp_path / "net.zarr", samples=ids, say=lines.append)
    trainer.train()  # without a place for the step it evaluates as ever
    assert len(kept) == before + 2
    trainer.store_logits(None)
    assert trainer.predict(ROWS).predictions is not None
    trainer.args.remove_unused_columns = True
    with pytest.raises(UsageError, match="remove_unused_columns=False"):
        trainer.store_logits(tmp_path / "net.zarr", samples=ids)


def test_trainer_of_queries(tmp_path: Path) -> None:
    """Padded inputs of Mask2Former: what `dump` stores, with the same boxes."""
    from transformers import Trainer, TrainingArguments

    class Segmentation(LogitTrainerMixin, Trainer):
        pass

    class Behind(Trainer, LogitTrainerMixin):
        pass

    model, processor = make("mask2former")
    rows = [ROWS[0], {"image": ROWS[3]["image"].crop((0, 0, 400, 200)), "id": "wide"}]
    dump(model, processor, rows, tmp_path / "dumped.zarr", say=lambda _: None)

    def join(rows: list[dict[str, Any]]) -> dict[str, Any]:
        sizes = [(row["image"].height, row["image"].width) for row in rows]
        batch = processor(images=[row["image"] for row in rows], return_tensors="pt")
        return {**batch, "name": [row["id"] for row in rows], "hw": torch.tensor(sizes)}

    args = TrainingArguments(
        str(tmp_path / "out"), remove_unused_columns=False, per_device_eval_batch_size=2, report_to=[], use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    how = {"model": model, "args": args, "data_collator": join, "processing_class": processor}
    trainer = Segmentation(**how)
    trainer.store_logits(tmp_path / "net.zarr", [row["id"] for row in rows], "name", "hw", say=lambda _: None)
    assert trainer.predict(rows).predictions is None
    found, wanted = (LogitStore(tmp_path / f"{name}.zarr") for name in ("net", "dumped"))
    equals(found, {name: wanted.read(name) for name in wanted.samples})
    assert [found.box(name) for name in found.samples] == [wanted.box(name) for name in wanted.samples]
    with pytest.raises(UsageError, match="LogitTrainerMixin, Trainer"):
        Behind(**how).store_logits(tmp_path / "net.zarr", ["a"])


def test_refused(tmp_path: Path) -> None:
    model, processor = make("segformer")
    with pytest.raises(UsageError, match=r"its keys are 'image' .*pass id= with the column"):
        dump(model, processor, [{"image": ROWS[0]["image"]}], tmp_path / "a.zarr")
    with pytest.raises(UsageError, match="pass image= with the column"):
        dump(model, processor, ROWS, tmp_path / "a.zarr", image="picture")
    with pytest.raises(UsageError, match="'model' or 'image'"):
        dump(model, processor, ROWS, tmp_path / "a.zarr", grid="full")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model for semantic segmentation"):
        logits_of({"last_hidden_state": torch.zeros(1, 4, 4)}, processor, [(4, 4)], "softmax")
    queries = {"class_queries_logits": torch.zeros(1, 2, 3), "masks_queries_logits": torch.zeros(1, 2, 4, 4)}
    with pytest.raises(UsageError, match="the model's own processor") as caught:
        logits_of(queries, None, [(4, 4)], "softmax")
    assert caught.value.code == "processor-scores"
    with pytest.raises(UsageError, match=r"pass a sequence of rows, such as list\(dataset\)"):
        dump(model, processor, iter(ROWS), tmp_path / "a.zarr")
    with pytest.raises(UsageError, match=r"pass classes= with a name") as caught:
        dump(nn.Conv2d(3, 2, 1), processor, ROWS, tmp_path / "a.zarr")
    assert caught.value.code == "classes-unnamed"
    with pytest.raises(UsageError, match=r"an image is of type str.*Image.open\(path\)"):
        dump(model, processor, [{"image": str(PATHS[0]), "id": "a"}], tmp_path / "b.zarr")
