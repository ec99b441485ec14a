"""Each loss against its formula, written plainly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hand_bones.losses import LOSSES, build
from torch import Tensor
from torch.nn.functional import interpolate


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def masks() -> Tensor:
    drawn = (torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(2)) < 0.3).float()
    drawn[:, 2] = 0  # a class that is nowhere
    return drawn


def cross_entropy(z: Tensor, t: Tensor) -> Tensor:
    p = z.double().sigmoid()
    return -(t * p.log() + (1 - t) * (1 - p).log())


def focal(z: Tensor, t: Tensor) -> Tensor:
    p = z.double().sigmoid()
    right = t * p + (1 - t) * (1 - p)
    return ((1 - right) ** 2 * cross_entropy(z, t)).mean()


def by_class(z: Tensor, t: Tensor, score: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """1 − score of every class that is there, pooled over the batch; 0 for one that is not; their mean."""
    p = z.double().sigmoid()
    terms = []
    for c in range(t.shape[1]):
        pc, tc = p[:, c], t[:, c].double()
        tp, fp, fn = (pc * tc).sum(), (pc * (1 - tc)).sum(), ((1 - pc) * tc).sum()
        terms.append((1 - score(tp, fp, fn)) if tc.any() else torch.zeros(()).double())
    return torch.stack(terms).mean()


def lovasz(z: Tensor, t: Tensor) -> Tensor:
    """Berman et al. 2018, eq. 8: errors in falling order, each weighed by what it adds to the Jaccard loss."""
    errors = (1 - z.double() * (2 * t - 1)).flatten()
    order = errors.argsort(descending=True)
    truth = t.flatten()[order].tolist()
    positives, total, before = sum(truth), 0.0, 0.0
    misses = alarms = 0
    for error, is_on in zip(errors[order].tolist(), truth, strict=True):
        misses, alarms = misses + (is_on == 1), alarms + (is_on == 0)
        after = 1 - (positives - misses) / (positives + alarms)
        total += max(error, 0) * (after - before)
        before = after
    return torch.tensor(total)


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce": lambda z, t: cross_entropy(z, t).mean(),
    "focal": focal,
    "dice": lambda z, t: by_class(z, t, lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn)),
    "iou": lambda z, t: by_class(z, t, lambda tp, fp, fn: tp / (tp + fp + fn)),
    "tversky": lambda z, t: by_class(z, t, lambda tp, fp, fn: tp / (tp + 0.3 * fp + 0.7 * fn)),
    "lovasz": lovasz,
}
OPTIONS = {"tversky": {"alpha": 0.3, "beta": 0.7}}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula(name: str, logits: Tensor, masks: Tensor) -> None:
    found = build([{"name": name, **OPTIONS.get(name, {})}])(logits, masks)
    assert found.item() == pytest.approx(FORMULAS[name](logits, masks).item(), rel=1e-4)


def test_combos_are_weighted_sums(logits: Tensor, masks: Tensor) -> None:
    for first in ("focal", "bce"):
        combo = build([{"name": first, "weight": 0.25}, {"name": "dice", "weight": 3}])
        wanted = 0.25 * FORMULAS[first](logits, masks) + 3 * FORMULAS["dice"](logits, masks)
        assert combo(logits, masks).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_coarse_logits_are_compared_at_the_size_of_the_masks(logits: Tensor) -> None:
    masks = (torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(3)) < 0.3).float()
    fine = interpolate(logits, (20, 28), mode="bilinear", align_corners=False)
    assert build([{"name": "bce"}])(logits, masks).item() == pytest.approx(
        FORMULAS["bce"](fine, masks).item(), rel=1e-4
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_lowers_the_loss(name: str, logits: Tensor, masks: Tensor) -> None:
    loss, z = build([{"name": name}]), logits.clone().requires_grad_()
    loss(z, masks).backward()
    assert loss(logits - 0.1 * z.grad / z.grad.norm(), masks) < loss(logits, masks)
