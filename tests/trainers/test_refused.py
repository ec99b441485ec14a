"""What no writer stores, in the words of Hugging Face: `dump` and `Trainer`; other frameworks' stand with their tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import Trainer, TrainingArguments

from conftest import committed
from ensemble_kit.errors import EnskError, MismatchError, UsageError
from tiny_transformers import LABELS, make

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ensemble_kit.trainers.huggingface import LogitTrainerMixin, dump

ROWS = [{"image": Image.fromarray(np.full((40, 50, 3), 80 * k, np.uint8)), "id": f"{k}.png"} for k in range(2)]
IDS = [row["id"] for row in ROWS]


class Odd(nn.Module):
    """A model that puts out something else."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.change = make("segformer")[0], change
        self.config = SimpleNamespace(id2label=LABELS, model_type="segformer", keys_to_ignore_at_inference=[])

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        return self.change(self.inner(pixel_values=pixel_values))


class Segmentation(LogitTrainerMixin, Trainer):
    pass


OUTPUTS: dict[str, tuple[Callable[[Any], Any], type[EnskError], str]] = {
    "class map": (
        lambda y: {"logits": y.logits.argmax(1)},
        UsageError,
        r"'logits' \(2, \d+, \d+\).*logits \(B, C, h, w\)",
    ),
    "one class map": (lambda y: {"logits": y.logits.argmax(1, keepdim=True)}, UsageError, "before argmax"),
    "loss": (lambda y: {"loss": y.logits.mean()}, UsageError, r"its keys are 'loss' \(\).*logits \(B, C, h, w\)"),
    "classes": (lambda y: {"logits": y.logits[:, :2]}, MismatchError, "2"),
    "probabilities": (lambda y: {"logits": y.logits.softmax(1)}, EnskError, 'domain="probabilities"'),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_dump(tmp_path: Path, name: str) -> None:
    change, kind, told = OUTPUTS[name]
    with pytest.raises(kind, match=told):
        dump(Odd(change), make("segformer")[1], ROWS, tmp_path / "net.zarr", say=lambda _: None)
    assert committed(tmp_path / "net.zarr") == 0


def test_ids_of_dump(tmp_path: Path) -> None:
    model, processor = make("segformer")
    with pytest.raises(MismatchError, match=r"not declared with: '0\.png'"):
        dump(model, processor, ROWS, tmp_path / "net.zarr", samples=["a.png", "b.png"], say=lambda _: None)
    with pytest.raises(UsageError, match=r"an id is 0\.5, of type float"):
        dump(model, processor, [{**row, "id": 0.5} for row in ROWS], tmp_path / "odd.zarr")
    assert committed(tmp_path / "net.zarr") == 0


def predict(tmp_path: Path, model: nn.Module, drop: str = "", **options: Any) -> None:
    processor = make("segformer")[1]

    def join(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = processor(images=[row["image"] for row in rows], return_tensors="pt")
        sizes = torch.tensor([(row["image"].height, row["image"].width) for row in rows])
        whole = {**batch, "id": [row["id"] for row in rows], "size": sizes}
        return {key: value for key, value in whole.items() if key != drop}

    args = TrainingArguments(
        str(tmp_path / "out"), remove_unused_columns=False, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Segmentation(model=model, args=args, data_collator=join, processing_class=processor)
    trainer.store_logits(tmp_path / "net.zarr", **{"samples": IDS, "say": lambda _: None, **options})
    trainer.predict(ROWS)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_trainer(tmp_path: Path, name: str) -> None:
    change, kind, told = OUTPUTS[name]
    with pytest.raises(kind, match=told):
        predict(tmp_path, Odd(change))
    assert committed(tmp_path / "net.zarr") == 0


BATCHES: dict[str, tuple[str, dict[str, Any], type[EnskError], str]] = {
    "no ids": ("id", {}, UsageError, r"no 'id': a dict, its keys are 'pixel_values'.*let the data collator return"),
    "no sizes": ("size", {}, UsageError, r"no 'size'.*let the data collator return.*image_size=\(H, W\)"),
    "unknown": ("", {"samples": ["a.png"]}, MismatchError, "not declared with"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_trainer(tmp_path: Path, name: str) -> None:
    drop, options, kind, told = BATCHES[name]
    with pytest.raises(kind, match=told):
        predict(tmp_path, make("segformer")[0], drop, **options)
    assert committed(tmp_path / "net.zarr") == 0
