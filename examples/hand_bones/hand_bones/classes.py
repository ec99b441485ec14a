"""The 29 bones, in the competition's order, and what a mirror exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit import MismatchError

FINGERS = tuple(f"finger-{k}" for k in range(1, 20))
"""From the thumb to the little finger, each from its tip to its metacarpal: 3 bones, then 4 × 4."""

CARPALS = ("Trapezium", "Trapezoid", "Capitate", "Hamate", "Scaphoid", "Lunate", "Triquetrum", "Pisiform")

CLASSES = (*FINGERS, *CARPALS, "Radius", "Ulna")

FLIP_SWAP: dict[str, str] = {}
"""Pairs of classes that a horizontal flip exchanges: none. An image holds one hand, and left and right hands share
their labels: a mirrored left hand is a right hand, whose radius is still its radius."""


def swapped(classes: Sequence[str] = CLASSES, pairs: Mapping[str, str] = FLIP_SWAP) -> list[int]:
    """Give, for each class, the index of the class that its plane holds after a flip.

    Parameters
    ----------
    pairs : classes that a flip exchanges; one direction is enough, others stay. Other label spaces, where one image
        holds both hands (`radius-left`, `radius-right`), name theirs here.

    Returns
    -------
    `order`, so that `masks[order]` are the planes of a flipped image after `masks` were flipped as pictures.

    Raises
    ------
    MismatchError
        A pair names no class, or a class is exchanged with two.

    Examples
    --------
    >>> swapped(["left", "right", "spine"], {"left": "right"})
    [1, 0, 2]
    """
    order = {name: name for name in classes}
    for one, other in pairs.items():
        strange = [name for name in (one, other) if name not in order]
        taken = [name for name, mate in ((one, other), (other, one)) if order.get(name, name) not in {name, mate}]
        if strange or taken:
            why = f"{strange[0]!r} is no class" if strange else f"{taken[0]!r} is exchanged twice"
            raise MismatchError(
                "swap-classes",
                "cannot exchange classes at a flip",
                item=f"{one!r} with {other!r}: {why}",
                fix="give each class one mate, both of them among the classes",
            )
        order[one], order[other] = other, one
    index = {name: k for k, name in enumerate(classes)}
    return [index[order[name]] for name in classes]
