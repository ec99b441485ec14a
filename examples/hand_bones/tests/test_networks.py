"""Each family: one step of training, and its logits in a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hand_bones import losses, networks
from hand_bones.schedule import build_optimizer
from tiny import TINY, tiny

import ensemble_kit as ek

CLASSES = tuple(f"bone-{k}" for k in range(29))
STRIDE = {"unet": 1, "unetplusplus": 1, "deeplabv3plus": 4, "upernet": 4, "segformer": 4, "mask2former": 4}


@pytest.mark.parametrize("family", TINY)
def test_one_step_and_its_logits_in_a_store(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = networks.build(tiny(family), len(CLASSES))
    criterion = losses.build([{"name": "focal"}, {"name": "dice"}])
    optimizer = build_optimizer({"name": "adamw", "lr": 1e-3}, network)
    images = torch.rand(2, 3, 64, 64)
    masks = (torch.rand(2, len(CLASSES), 64, 64) < 0.2).float()

    before = [p.detach().clone() for p in network.parameters()]
    loss = criterion(network(images), masks)
    loss.backward()
    optimizer.step()
    changed = sum(not torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))
    assert changed > 0.8 * len(before)

    network.eval()
    with torch.no_grad():
        logits = network(images)
    assert logits.shape == (2, len(CLASSES), 64 // STRIDE[family], 64 // STRIDE[family])
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["a.png", "b.png"], grid=logits.shape[-2:], member=family) as out:
        out.write(["a.png", "b.png"], logits, image_size=(128, 96))
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert store.verify().sound
    np.testing.assert_array_equal(store.read("b.png"), logits[1].numpy().astype(np.float16))


def test_the_per_class_logits_of_queries() -> None:
    """Against 1 − Π (1 − p m), pixel by pixel."""
    rng = torch.Generator().manual_seed(5)
    queries, masks = torch.randn(2, 4, 4, generator=rng), torch.randn(2, 4, 3, 5, generator=rng)
    found = networks.per_class(queries, masks)
    p, m = queries.double().softmax(-1), masks.double().sigmoid()
    for b in range(2):
        for c in range(3):
            one = 1 - torch.prod(1 - p[b, :, c, None, None] * m[b], dim=0)
            torch.testing.assert_close(found[b, c].double(), (one / (1 - one)).log(), rtol=1e-3, atol=1e-3)


def test_logits_of_certain_queries_are_finite_with_gradients() -> None:
    queries = torch.tensor([[[90.0, -90, -90], [-90, -90, 90]]], requires_grad=True)
    masks = torch.tensor([[[[99.0, -99]], [[99, 99]]]], requires_grad=True)
    found = networks.per_class(queries, masks)
    assert found[0, 0, 0, 0] > 10
    assert found[0, 0, 0, 1] < -10
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(queries.grad).all()
    assert torch.isfinite(masks.grad).all()


def test_mask2former_has_a_loss_of_its_own() -> None:
    torch.manual_seed(0)
    network = networks.build(tiny("mask2former"), 3)
    images, masks = torch.rand(2, 3, 64, 64), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    masks[0, 1, 10:40, 10:40] = 1  # the second image has nothing on it
    optimizer = build_optimizer({"name": "adamw", "lr": 1e-2}, network)
    values = []
    for _ in range(8):
        loss = network.loss(images, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]


def test_local_weights_are_loaded_and_left_out(tmp_path: Path) -> None:
    network = networks.build(tiny("unet"), 2)
    torch.save(network.state_dict(), tmp_path / "unet.pt")
    section = {**tiny("unet"), "weights": str(tmp_path / "unet.pt")}
    first = next(iter(network.state_dict()))
    assert torch.equal(networks.build(section, 2).state_dict()[first], network.state_dict()[first])
    (tmp_path / "unet.pt").unlink()
    networks.build(section, 2, pretrained=False)


@pytest.mark.parametrize("family", ["segformer", "mask2former"])
def test_a_pretrained_folder_is_loaded_with_another_number_of_classes(family: str, tmp_path: Path) -> None:
    network = networks.build(tiny(family), 5)
    network.network.save_pretrained(tmp_path / "there")
    section = {"name": family, "pretrained": str(tmp_path / "there")}
    other = networks.build(section, 3)
    ours, theirs = network.state_dict(), other.state_dict()
    assert sum(torch.equal(ours[k], theirs[k]) for k in ours if ours[k].shape == theirs[k].shape) > 0.9 * len(ours)
    assert other.eval()(torch.rand(1, 3, 64, 64)).shape[1] == 3
    networks.build(section, 3, pretrained=False).load_state_dict(theirs)  # as inference and a resumed run build it
