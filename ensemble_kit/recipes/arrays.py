"""One sample in memory: members' arrays in, masks or a label map out, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.given import decision_of
from ensemble_kit.errors import UsageError, check_choice
from ensemble_kit.logits import ingest
from ensemble_kit.logits.floats import recognise
from ensemble_kit.logits.plausible import Domain, check_overlapping
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.scores.sample import FusedSample
from ensemble_kit.spec.fusion import Activation, Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement, Shape, check_image_size
from ensemble_kit.spec.mean import PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ArrayMember:
    """A member of one sample, held in memory."""

    member: str
    classes: tuple[str, ...]
    activation: Activation
    logits: NDArray[np.float16]
    image: Shape

    def read(self, sample: str) -> NDArray[np.float16]:  # noqa: ARG002 - the protocol's argument
        """Return the logits, float16 (C, h, w)."""
        return self.logits

    def placement(self, sample: str) -> Placement:  # noqa: ARG002 - the protocol's argument
        """Return where the image lies on the grid: all over it."""
        return Placement.of(self.logits.shape[1:], self.image)


def vote(
    arrays: Sequence[Any],
    weights: Sequence[float] | None = None,
    decision: Any = None,
    activation: Activation | None = None,
    domain: Domain = "logits",
    image_size: Sequence[int] | None = None,
) -> NDArray[Any]:
    """Fuse and decide one sample of arrays, exactly as an ensemble of stores does.

    Parameters
    ----------
    arrays : one (C, h, w) per member, logits or probabilities; NumPy, or what DLPack knows. Grids may differ.
    weights : one number per member; default: equal.
    decision : a number, one per class, or a decision; None is 0.5, of softmax arrays `Argmax()`. Classes are called
        "0", "1", … in the order of the arrays.
    activation : "sigmoid" for classes that may overlap, the default, or "softmax" for exclusive ones.
    domain : "logits", or "probabilities" where the activation was applied already.
    image_size : (H, W) of the answer; default: the first array's grid.

    Returns
    -------
    array
        bool (C, H, W); by argmax a label map, uint8 or uint16 (H, W): the number of each pixel's class, and 255
        (65535 from 255 classes on) where it has none.

    Raises
    ------
    UsageError
        Arrays of other shapes, weights or a decision that cannot be used.
    DamagedError
        NaN, values that the domain does not allow, or what a softmax made, for classes that may overlap.

    Examples
    --------
    >>> a, b = np.array([[[-3.0, 4.0]], [[2.0, 2.0]]]), np.array([[[5.0, 4.0]], [[-1.0, 2.0]]])
    >>> vote([a, b], weights=[1, 2], activation="softmax").tolist()
    [[0, 0]]
    """
    given, activation = activation is not None, "sigmoid" if activation is None else activation
    check_choice("activation", activation, ("sigmoid", "softmax"), "cannot vote")
    check_choice("domain", domain, ("logits", "probabilities"), "cannot vote")
    found = [recognise(array) for array in arrays]
    shapes = [tuple(f.shape) for f in found]
    if not found or any(len(s) != 3 or s[0] != shapes[0][0] or 0 in s for s in shapes):
        raise UsageError(
            "array-shape",
            "cannot vote over arrays",
            item=f"they have the shapes {shapes}" if found else "there is none",
            fix="pass a list with one array (C, h, w) per member, all of the same classes",
        )
    classes = tuple(map(str, range(shapes[0][0])))
    image = check_image_size(shapes[0][1:] if image_size is None else image_size)
    names = tuple(f"member {k}" for k in range(len(found)))
    if activation == "sigmoid":
        for name, f in zip(names, found, strict=True):
            check_overlapping(f, name, classes, domain, given)
    members = tuple(
        ArrayMember(name, classes, activation, ingest.logits(f, name, classes, domain, activation).codes, image)
        for name, f in zip(names, found, strict=True)
    )
    row = integer_weights([1.0] * len(found) if weights is None else _one_each(weights, len(found)), names)
    fusion = Fusion(PROBABILITY, "logits", names, (row,) * len(classes), (1.0,) * len(found))
    inputs = Inputs(members, classes, fusion)
    decided = decision_of(decision, inputs)
    decided.check(inputs)
    masks = decided(FusedSample(inputs, names[0])).masks(image)
    if not isinstance(decided, Argmax):
        return np.stack([mask.decode() for mask in masks])
    none, kind = (255, np.uint8) if len(classes) < 255 else (65535, np.uint16)
    out = np.full(image, none, kind)
    for k, mask in enumerate(masks):
        out[mask.decode()] = k
    return out


def _one_each(weights: Sequence[float], members: int) -> Sequence[float]:
    if len(weights) != members:
        raise UsageError(
            "weights-invalid",
            "cannot weigh members",
            item=f"{len(weights)} weights for {members} arrays",
            fix="pass one weight per array",
        )
    return weights
