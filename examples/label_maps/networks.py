"""The demo's three families of networks with a softmax head, for label maps: `networks.py:larynx_unet` and so on.

Each takes normalised images, float (B, 3, h, w) with h and w divisible by 32, and returns logits (B, C, h', w') of
exclusive classes, on the grid that its own head computes.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from ensemble_kit.demo.networks import FPN, Dilated, UNet

CLASSES = {
    "larynx": ("void", "vocal folds", "other tissue", "glottal space", "pathology", "surgical tool", "intubation"),
    "usgra": ("background", "nerve", "vessel"),
}
FAMILIES: dict[str, Callable[[], nn.Module]] = {"unet": UNet, "fpn": FPN, "dilated": Dilated}


def build(dataset: str, family: str) -> nn.Module:
    """Build a network of this family, untrained, whose last layer has a channel for each class of the data set."""
    net = FAMILIES[family]()
    holder = net.head if isinstance(net.head, nn.Sequential) else None
    old = net.head[-1] if holder is not None else net.head
    new = nn.Conv2d(old.in_channels, len(CLASSES[dataset]), 1)
    if holder is None:
        net.head = new
    else:
        holder[-1] = new
    return net


for _dataset in CLASSES:
    for _family in FAMILIES:
        globals()[f"{_dataset}_{_family}"] = partial(build, _dataset, _family)
