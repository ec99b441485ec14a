"""One sample in memory: members' arrays in, masks or a label map out, without a store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.decisions.argmax import Argmax
from ensemble_kit.decisions.given import decision_of
from ensemble_kit.errors import UsageError, check_choice
from ensemble_kit.logits import ingest
from ensemble_kit.logits.floats import Floats, recognise
from ensemble_kit.logits.margins import check_array
from ensemble_kit.logits.plausible import Domain, check_overlapping, exclusive
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Activation, Fusion, integer_weights
from ensemble_kit.spec.geometry import Placement, Shape, check_image_size
from ensemble_kit.spec.mean import PROBABILITY

if TYPE_CHECKING:
    from numpy.typing import NDArray


_SLAB = 1 << 21
"""Values of a volume that are converted at a time, but for one slice at least."""
_UNPAD = {
    "logits": "-20 in place of these zeros, of exclusive classes but in the background",
    "probabilities": "0 in place of these values, of exclusive classes 1 in the background",
}


@dataclass(frozen=True)
class ArrayMember:
    """A member of one sample, held in memory; a volume's array stays as it came, and is converted slab by slab."""

    member: str
    classes: tuple[str, ...]
    activation: Activation
    domain: Domain
    array: Floats
    image: Shape

    def checked(self) -> ArrayMember:
        """Return the member once its values were found to be logits, or probabilities; an image is converted.

        Raises
        ------
        DamagedError
            NaN, or values that the domain does not allow.
        """
        about = self.member, self.classes, self.domain, self.activation
        if len(self.image) == 2:
            return replace(self, domain="logits", array=recognise(ingest.logits(self.array, *about).codes))
        classes, depth, *sides = self.array.shape
        step = max(1, _SLAB // (classes * math.prod(sides)))
        slabs = (self.array.slices(first, min(first + step, depth)) for first in range(0, depth, step))
        units = [ingest.slab(slab, *about).unit for slab in slabs]  # all are looked at
        if all(units):
            raise ingest.are_probabilities(self.member, exclusive(self.array, classes))
        return self

    def read(self, sample: str) -> NDArray[np.float16]:  # noqa: ARG002 - the protocol's argument
        """Return the logits, float16 (C, h, w)."""
        return self._logits(self.array)

    def read_slab(self, sample: str, first: int, stop: int) -> NDArray[np.float16]:  # noqa: ARG002
        """Return some slices of a volume's logits, float16 (C, slices, h, w)."""
        return self._logits(self.array.slices(first, stop))

    def _logits(self, array: Floats) -> NDArray[np.float16]:
        return ingest.slab(array, self.member, self.classes, self.domain, self.activation, seen=True).codes

    def placement(self, sample: str) -> Placement:  # noqa: ARG002 - the protocol's argument
        """Return where the image lies on the grid: all over it."""
        return Placement.of(self.array.shape[1:], self.image)


def vote(
    arrays: Sequence[Any],
    weights: Sequence[float] | None = None,
    decision: Any = None,
    activation: Activation | None = None,
    domain: Domain = "logits",
    image_size: Sequence[int] | None = None,
) -> NDArray[Any]:
    """Fuse and decide one sample of arrays, an image or a volume, exactly as an ensemble of stores does.

    Parameters
    ----------
    arrays : one (C, h, w) per member, or (C, d, h, w) of a volume, logits or probabilities; NumPy, or what DLPack
        knows. Grids may differ.
    weights : one number per member; default: equal.
    decision : a number, one per class, or a decision; None is 0.5, of softmax arrays `Argmax()`. Classes are called
        "0", "1", … in the order of the arrays.
    activation : "sigmoid" for classes that may overlap, the default, or "softmax" for exclusive ones.
    domain : "logits", or "probabilities" where the activation was applied already.
    image_size : (H, W) or (D, H, W) of the answer; default: the first array's grid.

    Returns
    -------
    array
        bool (C, H, W), of volumes (C, D, H, W); by argmax a label map, uint8 or uint16 (H, W) or (D, H, W): the number
        of each pixel's class, and 255 (65535 from 255 classes on) where it has none.

    Raises
    ------
    UsageError
        Arrays of other shapes, weights or a decision that cannot be used.
    DamagedError
        NaN, values that the domain does not allow, what a softmax made, for classes that may overlap, or a margin of
        zeros in all classes.

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
    sound = bool(found) and len(shapes[0]) in {3, 4} and not any(0 in s for s in shapes)
    if not sound or any((len(s), s[0]) != (len(shapes[0]), shapes[0][0]) for s in shapes):
        raise UsageError(
            "array-shape",
            "cannot vote over arrays",
            item=f"they have the shapes {shapes}" if found else "there is none",
            fix="pass a list with one array (C, h, w) per member, or (C, d, h, w) of a volume, all of the same classes",
        )
    classes, grid = tuple(map(str, range(shapes[0][0]))), shapes[0][1:]
    image = check_image_size(grid if image_size is None else image_size, len(grid))
    names = tuple(f"member {k}" for k in range(len(found)))
    if activation == "sigmoid":
        for name, f in zip(names, found, strict=True):
            check_overlapping(f, name, classes, domain, given)
    for name, f in zip(names, found, strict=True):
        fix = (
            f"pass arrays of what every member saw; or {_UNPAD[domain]}; or write stores, whose members say what they "
        )
        fix += "saw (LogitWriter.write, window=); where the network itself put this margin out, add 1e-4"
        check_array(f, name, classes, domain, activation, fix)
    members = tuple(
        ArrayMember(name, classes, activation, domain, f, image).checked() for name, f in zip(names, found, strict=True)
    )
    row = integer_weights([1.0] * len(found) if weights is None else _one_each(weights, len(found)), names)
    fusion = Fusion(PROBABILITY, "logits", names, (row,) * len(classes), (1.0,) * len(found))
    inputs = Inputs(members, classes, fusion)
    decided = decision_of(decision, inputs)
    decided.check(inputs)
    masks = decided(open_sample(inputs, names[0]))
    if not isinstance(decided, Argmax):
        out: NDArray[Any] = np.empty((len(classes), *image), np.bool_)
        for k in range(len(classes)):
            out[k] = masks.mask(k, image).decode()
        return out
    none, kind = (255, np.uint8) if len(classes) < 255 else (65535, np.uint16)
    out = np.full(image, none, kind)
    for k in range(len(classes)):
        out[masks.mask(k, image).decode()] = k
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
