"""The policy of all framework writers: what they take from batches and outputs, and what they refuse."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from ensemble_kit.errors import DamagedError, EnskError, MismatchError, UsageError
from ensemble_kit.execution.parts import Part, launched
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.trainers.batches import BatchWriter, Terms, path_at
from ensemble_kit.trainers.fields import Sizes, ids_of

TERMS = Terms("predict_step", "the dataset")
LOGITS = torch.linspace(-4, 4, 4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
Pair = namedtuple("Pair", "id size")


class Unlike:
    """An array that is none of the frameworks' that the kit knows."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        return self.array


class Handed:
    """An array that is handed over by DLPack alone."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def batches(path: Path, **options: Any) -> BatchWriter:
    given: dict[str, Any] = {"classes": ["a", "b"], "samples": ["0", "1", "2", "3"], "terms": TERMS, **options}
    return BatchWriter(path / "net.zarr", **given)


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([3, 12]),
        np.array([3, 12], np.uint8),
        ["3", b"12"],
        ("3", np.str_("12")),
        [torch.tensor(3), np.int64(12)],
        [PurePosixPath("3"), 12],
        np.array(["3", "12"], object),
    ],
    ids=["tensor", "array", "texts and bytes", "NumPy texts", "0-d", "path", "objects"],
)
def test_ids_are_text(value: Any) -> None:
    assert ids_of(value) == ["3", "12"]


@pytest.mark.parametrize(
    "value",
    [torch.tensor([1.0]), [True], [None], [("a", "b")], {"a": 1}],
    ids=["float", "bool", "none", "pair", "dict"],
)
def test_other_ids_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="as text or as a whole number") as caught:
        ids_of(value)
    assert caught.value.code == "batch-ids"


SIZES = [(10, 20), (30, 40), (50, 60)]


@pytest.mark.parametrize(
    "value",
    [default_collate(SIZES), torch.tensor(SIZES), SIZES, np.array(SIZES, float), [list(s) for s in SIZES]],
    ids=["pairs collated", "tensor", "list", "floats", "lists"],
)
def test_sizes_of_a_batch(value: Any) -> None:
    assert Sizes().read(value, 3, 2) == SIZES


def test_sizes_of_two_images_are_not_guessed() -> None:
    pairs = default_collate(SIZES[:2])
    with pytest.raises(UsageError, match=r"\(10, 30\), \(20, 40\).*torch.tensor\(\[H, W\]\)") as caught:
        Sizes().read(pairs, 2, 2)
    assert caught.value.code == "batch-sizes"
    assert Sizes(columns=True).read(pairs, 2, 2) == SIZES[:2]
    assert Sizes().read(torch.tensor(SIZES[:2]), 2, 2) == Sizes().read(SIZES[:2], 2, 2) == SIZES[:2]
    assert Sizes().read(default_collate([(7, 7), (7, 7)]), 2, 2) == [(7, 7)] * 2
    learnt = Sizes()
    learnt.read(default_collate(SIZES), 3, 2)
    assert learnt.read(pairs, 2, 2) == SIZES[:2]  # the last batch of an epoch
    rows = [torch.tensor(s) for s in SIZES]
    other = Sizes()
    assert other.read(rows, 3, 2) == SIZES and other.read(rows[:2], 2, 2) == SIZES[:2]
    assert Sizes().read(list(zip(*SIZES[:2], strict=True)), 2, 2) == [(10, 30), (20, 40)]  # pairs of numbers are sizes
    assert Sizes().read([(5, 6, 7)], 1, 3) == Sizes().read(default_collate([(5, 6, 7)]), 1, 3) == [(5, 6, 7)]


@pytest.mark.parametrize(
    "value",
    [torch.tensor([[1, 2]]), [(1, 2, 3)] * 3, "10x20", 7, torch.tensor(SIZES).T, [(1.5, 2)] * 3, [1, 2, 3], []],
    ids=["another number", "three axes", "text", "number", "turned", "halves", "row", "empty"],
)
def test_other_sizes_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="let the batch hold the size") as caught:
        Sizes().read(value, 3, 2)
    assert caught.value.code == "batch-sizes"


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x.bfloat16(),
        lambda x: x.half().numpy(),
        lambda x: Unlike(x.numpy()),
        lambda x: Handed(x.numpy()),
        lambda x: x.requires_grad_(),
    ],
    ids=["torch", "bf16", "fp16", "array", "dlpack", "with gradient"],
)
def test_arrays_of_any_framework(make: Any, tmp_path: Path) -> None:
    with batches(tmp_path, image_size=(6, 9)) as out:
        out.write(make(LOGITS.clone()), {"id": torch.arange(4)})
        assert out.told() == f"{tmp_path / 'net.zarr'}: 4 samples written"
    store = LogitStore(tmp_path / "net.zarr")
    wanted = make(LOGITS.clone())
    wanted = wanted.detach().float() if isinstance(wanted, torch.Tensor) else LOGITS
    assert all(np.array_equal(store.read(str(k)), wanted[k].half().numpy()) for k in range(4))
    assert store.image_size("2") == (6, 9)


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        ({"id": ["0", "1", "2", "3"], "size": torch.tensor([[6, 9]] * 4)}, {}),
        ((LOGITS, torch.arange(4), [(6, 9)] * 4), {"id": 1, "image_size": 2}),
        (Pair(("0", "1", "2", "3"), (torch.full((4,), 6), torch.full((4,), 9))), {}),
        (
            {"meta": [{"name": str(k), "hw": (6, 9)} for k in range(4)]},
            {"id": lambda b: [m["name"] for m in b["meta"]], "image_size": lambda b: [m["hw"] for m in b["meta"]]},
        ),
    ],
    ids=["dict", "tuple", "attributes", "functions"],
)
def test_fields_of_a_batch(batch: Any, options: dict[str, Any], tmp_path: Path) -> None:
    with batches(tmp_path, key="logits", **options) as out:
        out.write(OrderedDict(loss=torch.tensor(1.0), logits=LOGITS), batch)
    store = LogitStore(tmp_path / "net.zarr")
    assert store.complete and {store.image_size(s) for s in store.samples} == {(6, 9)}


def test_one_sample_and_boxes(tmp_path: Path) -> None:
    with batches(
        tmp_path, samples=lambda dataset: dataset["names"], datasets=[{"names": ["x"]}, {"names": ["y"]}]
    ) as out:
        out.write(LOGITS[0], {"id": "x", "size": [6, 9]}, [(0, 0, 2, 3)])
        out.write(LOGITS[:1], {"id": ["y"], "size": default_collate([(6, 9)])}, [(1, 0, 3, 3)])
    store = LogitStore(tmp_path / "net.zarr")
    assert store.box("x") == (0, 0, 2, 3) and store.box("y") == (1, 0, 3, 3) and store.complete


def test_totals(tmp_path: Path) -> None:
    with batches(tmp_path, image_size=(6, 9)) as out:
        out.write(LOGITS[:1], {"id": [0]})
    with batches(tmp_path, image_size=(6, 9), process=(2, 2)) as out:
        out.write(LOGITS[[0, 1, 1]], {"id": [0, 1, 1]})
        out.close()
        told = out.told()
    path = tmp_path / "net.zarr"
    assert told == (
        f"{path}: process 2 of 2: 1 samples written, 1 were there already, 1 padding duplicates skipped; 2 of 4 missing"
    )
    with batches(tmp_path, image_size=(6, 9)) as out:
        out.write(LOGITS[1:2], {"id": [0]})
        told = out.told()
    assert "other logits than those that are kept were put out again for '0': give each image an id of its own" in told


BATCH = {"id": ["0", "1", "2", "3"], "size": torch.tensor([[6, 9]] * 4)}
CASES: dict[str, tuple[Any, Any, dict[str, Any], str, str]] = {
    "class map": (LOGITS.argmax(1), BATCH, {}, "output-class-map", "before argmax"),
    "class map with an axis": (LOGITS.argmax(1, keepdim=True), BATCH, {}, "output-class-map", "before argmax"),
    "class map of floats": (LOGITS.argmax(1).float(), BATCH, {}, "output-class-map", "before argmax"),
    "class map of floats with an axis": (
        LOGITS.argmax(1, keepdim=True).float(),
        BATCH,
        {},
        "output-class-map",
        "before argmax",
    ),
    "bytes": (LOGITS.byte(), BATCH, {}, "output-class-map", "before argmax"),
    "booleans": (LOGITS > 0, BATCH, {}, "output-class-map", "threshold"),
    "one class without its axis": (LOGITS[:, 0], BATCH, {"classes": ["a"]}, "output-class-map", r"output\[:, None\]"),
    "masks as probabilities": (
        (LOGITS > 0).float(),
        BATCH,
        {"domain": "probabilities", "activation": "sigmoid"},
        "output-class-map",
        "ek.hard_vote",
    ),
    "loss": (torch.tensor(0.3), BATCH, {}, "output-loss", 'key="logits"'),
    "loss of one value": (torch.tensor([0.3]), BATCH, {}, "output-loss", "let predict_step return the logits"),
    "loss in a dict": ({"loss": torch.tensor(0.3)}, BATCH, {}, "output-loss", 'key="logits"'),
    "number": (0.3, BATCH, {}, "output-loss", 'key="logits"'),
    "nothing": (None, BATCH, {}, "output-loss", "let predict_step return the logits"),
    "loss by its key": ({"loss": torch.tensor(0.3)}, BATCH, {"key": "loss"}, "output-loss", 'key="logits"'),
    "dict without key": ({"aux": LOGITS, "out": LOGITS}, BATCH, {}, "output-key", "key='aux', or key='out'"),
    "tuple without key": ((LOGITS, torch.tensor(1.0)), BATCH, {}, "output-key", "pass key=0"),
    "key that is not there": ({"out": LOGITS}, BATCH, {"key": "logits"}, "output-key", r"pass key='out'"),
    "key of no dict": (LOGITS, BATCH, {"key": "logits"}, "output-key", "leave key= out"),
    "a list of maps": (list(LOGITS), BATCH, {}, "output-key", r"torch\.stack"),
    "a batch as id": (LOGITS, {**BATCH, "id": [{"image": LOGITS}] * 4}, {}, "batch-ids", "is of type dict"),
    "one size of three": (
        LOGITS,
        BATCH,
        {"image_size": (3, 6, 9)},
        "batch-sizes",
        r"pass \(H, W\) if it is one for all",
    ),
    "no ids": ({"size": 1} and LOGITS, {"size": BATCH["size"]}, {}, "batch-ids", r"keys are 'size' \(4, 2\)"),
    "no ids in a tuple": (LOGITS, (LOGITS, 1), {}, "batch-ids", r"a tuple of 2: 0 \(4, 2, 3, 3\), 1 int"),
    "too few ids": (LOGITS, {**BATCH, "id": ["0"]}, {}, "batch-ids", "1 ids in the batch"),
    "no sizes": (LOGITS, {"id": BATCH["id"]}, {}, "batch-sizes", r"image_size=\(H, W\)"),
    "unknown ids": (LOGITS, {**BATCH, "id": ["0", "1", "2", "9"]}, {}, "sample-unknown", "'9'"),
    "probabilities": (LOGITS.sigmoid(), BATCH, {}, "logits-are-probabilities", 'domain="probabilities"'),
    "classes last": (LOGITS.permute(0, 2, 3, 1), BATCH, {}, "logits-shape", r"np.moveaxis\(array, -1, -3\)"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_the_frameworks_terms(name: str, tmp_path: Path) -> None:
    output, batch, options, code, told = CASES[name]
    with batches(tmp_path, **options) as out, pytest.raises((UsageError, MismatchError, DamagedError), match=told) as e:
        out.write(output, batch)
    assert isinstance(e.value, EnskError) and e.value.code == code
    assert LogitStore(tmp_path / "net.zarr").missing == ["0", "1", "2", "3"]  # declared, and says what is missing


def test_the_fix_of_an_output_without_key_works(tmp_path: Path) -> None:
    with batches(tmp_path, key="aux") as out:
        out.write(CASES["dict without key"][0], BATCH)
    assert LogitStore(tmp_path / "net.zarr").complete


def test_a_store_holds_one_epoch() -> None:
    assert path_at("v_{epoch}_{step}.zarr", epoch=2, step=50) == "v_2_50.zarr"
    assert path_at(Path("v.zarr"), epoch=2, step=50) is None


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, (1, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, (4, 4)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"RANK": "5", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (6, 8)),
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_TASK_MIN": "0"}, (1, 1)),
    ],
    ids=["alone", "torchrun", "srun", "mpirun", "torchrun on nodes of srun", "a task of an array"],
)
def test_processes_of_launchers(environment: dict[str, str], part: tuple[int, int]) -> None:
    assert launched(environment) == Part(*part)


def test_variables_that_say_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="a number is needed"):
        launched({"RANK": "x", "WORLD_SIZE": "2"})
    with pytest.raises(UsageError, match="5/2"):
        launched({"RANK": "4", "WORLD_SIZE": "2"})
