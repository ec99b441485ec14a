"""Keras: stores are what `model.predict` returns with every backend, alone and in two processes, killed and resumed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from conftest import blocks, equals, ties, write_page

os.environ["KERAS_BACKEND"] = "jax"  # of this process; scripts have others

import keras

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import DamagedError, EnskError, MismatchError, UsageError
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.trainers.keras import dump

CLASSES = ["background", "nerve", "vessel"]
SCRIPT = """
import os, sys, time
import keras, numpy as np
from ensemble_kit.trainers.keras import dump
from mine import Images

class Slow(Images):
    def __getitem__(self, k):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return super().__getitem__(k)

convolve = keras.layers.Conv2D
keras.utils.set_random_seed(1)
logits = keras.Sequential([keras.Input((64, 64, 1)), convolve(8, 3, 2, "same", activation="relu"), convolve(3, 3, padding="same", bias_initializer="random_normal")])
images, classes = Slow("val/images"), ["background", "nerve", "vessel"]
ids = [p.name for p in images.paths]

def write(dataset, out, **options):
    dump(logits, dataset, out, classes, ids, activation="softmax", **options)

if __name__ == "__main__":
    write(images, "batches.zarr")
    if len(sys.argv) > 1:
        sys.exit()
    batches = [images[k] for k in range(len(images))]
    x, size = (np.concatenate([b[k] for b in batches]) for k in ("image", "size"))
    write({"image": x, "id": ids, "size": size}, "arrays.zarr", batch_size=5)
    write(((b["id"], b["image"], b["size"]) for b in batches), "tuples.zarr", id=0, image=1, image_size=2)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf
        data = tf.data.Dataset.from_tensor_slices({"image": x, "id": ids, "size": size}).batch(3)
        write(data, "data.zarr")
        write(data.shard(2, 0), "shards.zarr")
    theirs = logits.predict(x, batch_size=4, verbose=0)
    full = [np.asarray(keras.ops.image.resize(y[None], tuple(s)))[0] for y, s in zip(theirs, size)]
    np.savez("theirs.npz", theirs, *full)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's own network and dataset."""
    write_page("keras.md", tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("mine")
    for name in ("mine", "script"):
        sys.modules.pop(name, None)


def ids(images: Any) -> list[str]:
    return [p.name for p in images.paths]


def close(store: LogitStore, wanted: dict[str, np.ndarray], most: float) -> None:
    """Assert that a store is complete, and its fp16 logits differ from those of another batch size by their last bits."""
    assert store.complete and store.verify().sound
    for sample, logits in wanted.items():
        np.testing.assert_allclose(store.read(sample), logits, rtol=most, atol=most, err_msg=sample)


def test_the_page_runs_as_written(mine: ModuleType, shell: Callable, tmp_path: Path) -> None:
    for code in blocks("keras.md", "bash"):
        done = shell(code, KERAS_BACKEND="jax")
        if "torchrun" in code:
            assert "process 2 of 2: " in done.stderr and "ends in sigmoid" in done.stderr
    for part in ("val", "test"):
        images, store = mine.Images(f"{part}/images"), LogitStore(tmp_path / f"net_{part}.zarr")
        found = np.concatenate([mine.network.predict(images[k]["image"], verbose=0) for k in range(len(images))])
        logits = np.moveaxis(np.log(found) - np.log1p(-found), -1, 1)
        close(store, dict(zip(ids(images), logits, strict=True)), 2**-10)
        assert [store.image_size(s) for s in store.samples] == [
            tuple(s) for k in range(len(images)) for s in images[k]["size"]
        ]
        assert store.activation == "sigmoid" and store.provenance["domain"] == "probabilities"
    rows = (tmp_path / "submission.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * len(mine.Images("test/images").paths)


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_a_store_is_what_keras_returns(mine: ModuleType, shell: Callable, tmp_path: Path, backend: str) -> None:
    shell("python script.py", KERAS_BACKEND=backend)
    names = ids(mine.Images("val/images"))
    with np.load(tmp_path / "theirs.npz") as found:
        theirs, *full = (np.moveaxis(found[k], -1, -3) for k in found.files)
    wanted = dict(zip(names, theirs, strict=True))
    equals(LogitStore(tmp_path / "batches.zarr"), wanted)  # of the same batches, to the last bit
    equals(LogitStore(tmp_path / "tuples.zarr"), wanted)
    close(LogitStore(tmp_path / "arrays.zarr"), wanted, 2**-10)
    if backend == "tensorflow":
        close(LogitStore(tmp_path / "data.zarr"), wanted, 2**-10)
        half = LogitStore(tmp_path / "shards.zarr")
        assert [s for s in names if s not in half.missing] == [
            s for k in range(0, len(names), 6) for s in names[k : k + 3]
        ]
    masks = Ensemble([tmp_path / "batches.zarr"]).vote()
    undecided = [ties(y, masks.labels(name), y.argmax(0)) for name, y in zip(names, full, strict=True)]
    print(f"{backend}: {sum(undecided)} pixels of near-ties")


def test_killed_and_resumed(mine: ModuleType, shell: Callable, killed: Callable, tmp_path: Path) -> None:
    images, store = mine.Images("val/images"), tmp_path / "batches.zarr"
    command = "KERAS_BACKEND=jax torchrun --nproc-per-node 2 script.py only"
    there = killed(command, store, 4)
    assert 4 <= there < len(images.paths)
    done = shell(command)
    assert "were there already" in done.stderr
    logits = importlib.import_module("script").logits
    found = np.concatenate([logits.predict_on_batch(images[k]["image"]) for k in range(len(images))])
    equals(LogitStore(store), dict(zip(ids(images), np.moveaxis(found, -1, 1), strict=True)))


def ending(*layers: Any, outputs: Callable[[Any], Any] = lambda y: y) -> keras.Model:
    x = keras.Input((16, 16, 1))
    y = keras.layers.Conv2D(3, 3, padding="same")(x)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, outputs(y))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first = keras.layers.Conv2D(3, 3, padding="same")

    def call(self, x: Any) -> Any:
        return keras.ops.softmax(self.first(x))


X = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")
DATA = {"image": X, "id": ["a", "b"], "size": (32, 32)}


def written(model: Any, path: Path, data: Any = DATA, **options: Any) -> LogitStore:
    given = {"classes": CLASSES, "samples": ["a", "b"], "image_size": (32, 32), "say": lambda _: None, **options}
    dump(model, {k: v for k, v in data.items() if k != "size"}, path / "net.zarr", **given)
    return LogitStore(path / "net.zarr")


ENDS: dict[str, tuple[Any, str, str]] = {
    "linear": (ending, "sigmoid", "logits"),
    "activation": (lambda: ending(keras.layers.Activation("sigmoid")), "sigmoid", "probabilities"),
    "softmax layer": (lambda: ending(keras.layers.Softmax()), "softmax", "probabilities"),
    "operation": (lambda: ending(keras.ops.softmax), "softmax", "probabilities"),
    "log": (lambda: ending(keras.layers.Activation("log_softmax")), "softmax", "logits"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_a_model_ends_in_is_seen(tmp_path: Path, name: str) -> None:
    make, activation, domain = ENDS[name]
    said: list[str] = []
    options = {} if name != "linear" else {"activation": "sigmoid"}
    store = written(make(), tmp_path, classes=["a", "b", "c"], say=said.append, **options)
    assert (store.activation, store.provenance["domain"]) == (activation, domain)
    assert len(said) == 1 + (name != "linear")


def test_one_of_several_outputs_and_channels_first(tmp_path: Path) -> None:
    model = ending(outputs=lambda y: {"aux": keras.ops.mean(y), "main": keras.layers.Permute((3, 1, 2))(y)})
    store = written(model, tmp_path, key="main", data_format="channels_first", activation="softmax")
    wanted = model.predict_on_batch(X)["main"]
    equals(store, dict(zip(["a", "b"], wanted, strict=True)))


def test_volumes_have_their_classes_last_too(tmp_path: Path) -> None:
    x = keras.Input((4, 6, 8, 1))
    model = keras.Model(x, keras.layers.Conv3D(2, 3, padding="same")(x))
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 8, 1)).astype("float32")
    data = {"image": images, "id": ["a", "b"]}
    store = written(model, tmp_path, data, classes=["a", "b"], image_size=(8, 12, 16), activation="sigmoid")
    equals(store, dict(zip(["a", "b"], np.moveaxis(model.predict(images, verbose=0), -1, 1), strict=True)))


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any], type[EnskError], str]] = {
    "class map": (lambda: ending(outputs=lambda y: keras.ops.argmax(y, -1)), DATA, {}, UsageError, "before argmax"),
    "loss": (lambda: ending(outputs=keras.ops.mean), DATA, {}, UsageError, "loss"),
    "dict": (lambda: ending(outputs=lambda y: {"main": y}), DATA, {}, UsageError, "pass key='main'"),
    "classes": (ending, DATA, {"classes": ["a"]}, MismatchError, "axis -1 is not 1 classes"),
    "no ids": (ending, {"image": X}, {}, UsageError, "no 'id': a dict, its keys are 'image'"),
    "no images": (ending, {"id": ["a", "b"]}, {}, UsageError, "pass image="),
    "no sizes": (ending, DATA, {"image_size": "size"}, UsageError, r"image_size=\(H, W\)"),
    "unknown": (ending, DATA, {"samples": ["c"]}, MismatchError, "not declared with"),
    "unseen": (Subclassed, DATA, {}, DamagedError, 'domain="probabilities"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    make, data, options, kind, told = REFUSED[name]
    with pytest.raises(kind, match=told):
        written(make(), tmp_path, data, **({"activation": "softmax"} | options))
    assert LogitStore(tmp_path / "net.zarr").missing == options.get("samples", ["a", "b"])


def test_other_weights_are_another_network(tmp_path: Path) -> None:
    model = ending()
    written(model, tmp_path, activation="softmax")
    written(model, tmp_path, activation="softmax")
    with pytest.raises(MismatchError, match="network_sha256"):
        written(ending(), tmp_path, activation="softmax")
