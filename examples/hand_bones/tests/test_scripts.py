"""The scripts, as a person runs them: a debug run of two epochs ends in a scored CSV, for both trainers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from export import export
from hand_bones.config import Config
from hand_bones.experiment import begin, load_data
from hand_bones.loop import Trainer
from tiny import tiny

import ensemble_kit as ek

HERE = Path(__file__).parents[1]


def run(script: str, *arguments: object, code: int = 0) -> str:
    program = [Path(sys.executable).with_name("ensk")] if script == "ensk" else [sys.executable, HERE / script]
    env = {**os.environ, "WANDB_MODE": "offline"}
    ended = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, env=env, check=False)
    assert ended.returncode == code, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("script", ["train.py", "train_lightning.py"])
def test_a_debug_run_to_a_scored_submission(script: str, split_hands: Path, tmp_path: Path) -> None:
    file = tmp_path / "unet.json"
    mean, std = [0.3, 0.3, 0.3], [0.2, 0.2, 0.2]
    values = {"name": "unet", "model": tiny("unet"), "image_size": 64, "batch_size": 2, "mean": mean, "std": std}
    file.write_text(json.dumps(values))
    places = ("--data", split_hands, "--experiments", tmp_path / "experiments")
    told = run(script, file, *places, "--debug")
    folder = tmp_path / "experiments/unet-debug"
    assert "best validation Dice" in told
    assert len((folder / "log.csv").read_text().splitlines()) == 3
    assert len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) == 1

    # the images that validate, dumped by the kit: the same logits as the trainer's own
    data = load_data(Config.load(file), split_hands, debug=True)
    images = tmp_path / "data/test/DCM/ID000"
    images.mkdir(parents=True)
    for record, _ in data.held_out.records:
        shutil.copyfile(record.image, images / record.image_id)
    places = ("--data", tmp_path / "data", "--experiments", tmp_path / "experiments")
    run("inference.py", "--exp", "unet-debug", "--save_logits", *places)
    ours, theirs = ek.LogitStore(folder / "val.zarr"), ek.LogitStore(folder / "test.zarr")
    assert ours.verify().sound
    assert sorted(ours.samples) == sorted(theirs.samples)
    for sample in ours.samples:
        assert ours.image_size(sample) == theirs.image_size(sample) == (128, 128)
        np.testing.assert_allclose(ours.read(sample).astype(float), theirs.read(sample).astype(float), atol=0.02)

    # a run that keeps no logits leaves those that were kept; another size replaces them when told to
    run("inference.py", "--exp", "unet-debug", "--img_size", 32, *places)
    run("inference.py", "--exp", "unet-debug", "--save_logits", *places)
    kept = sorted(path.name for path in folder.glob("*.zarr"))
    run("inference.py", "--exp", "unet-debug", "--save_logits", "--img_size", 32, *places, code=6)
    run("inference.py", "--exp", "unet-debug", "--save_logits", "--img_size", 32, "--force", *places)
    run("inference.py", "--exp", "unet-debug", "--save_logits", "--force", *places)
    assert kept == ["test.zarr", "val.zarr"]
    assert not list(folder.glob(".test-*"))

    data.truth.write(tmp_path / "truth.csv", format="handbone")
    submission = folder / "test.csv"
    assert submission.read_text().startswith("image_name,class,rle\n")
    scored = json.loads(
        run("ensk", "score", submission, "--val", tmp_path / "truth.csv", "--image-size", "128x128", "--json", "-q")
    )
    wanted = ek.dice(ek.Ensemble([folder / "val.zarr"]).vote(0.5), data.truth).mean
    assert scored["mean"] == pytest.approx(wanted, abs=2e-3)

    # a debug run begins anew, also with another configuration
    file.write_text(json.dumps({**values, "seed": 1}))
    again = run(script, file, "--data", split_hands, "--experiments", tmp_path / "experiments", "--debug")
    assert "going on" not in again
    assert json.loads((folder / "config.json").read_text())["seed"] == 1


def test_the_same_network_through_onnx(split_hands: Path, tmp_path: Path) -> None:
    values = {"name": "lab", "model": tiny("deeplabv3plus"), "image_size": 64, "epochs": 1, "wandb": "disabled"}
    config = Config.from_dict(values)
    data = load_data(config, split_hands, debug=True)
    folder = begin(config, tmp_path, data)
    Trainer(config, data, folder, "cpu").fit()
    session = onnxruntime.InferenceSession(export(folder))
    store = ek.LogitStore(folder / "val.zarr")
    images = np.stack([data.held_out[k]["image"].numpy() for k in range(len(data.held_out))])
    for batch in (images, images[:1]):
        (logits,) = session.run(None, {"images": batch})
        assert logits.shape == (len(batch), 29, 16, 16)
        for sample, planes in zip(store.samples, logits, strict=False):
            np.testing.assert_allclose(planes, store.read(sample), atol=0.01)

    with (folder / "best.pt").open("ab") as file:
        file.write(b" ")  # other weights
    places = ("--data", tmp_path, "--experiments", tmp_path)
    assert "error[onnx-stale]" in run("inference.py", "--exp", "lab", "--onnx", *places, code=6)
    assert "use one of lab" in run("inference.py", "--exp", "nope", *places, code=2)
    assert "--img_size 0" in run("export.py", "--exp", "lab", "--img_size", 0, *places[2:], code=2)
    (folder / "best.pt").write_bytes(b"PK")
    assert "best.pt" in run("export.py", "--exp", "lab", *places[2:], code=3)


def test_an_error_is_a_line(split_hands: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"name": "a", "model": tiny("unet"), "epoch": 3}))
    told = run("train.py", file, "--data", split_hands, "--experiments", tmp_path, code=2)
    assert told.startswith("error[config-key-unknown]")
    assert "'epoch'" in told
