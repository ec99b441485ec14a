"""One class of every member, by address: any number of members, mapped from any files, in one compiled kernel."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline


class ClassMaps(NamedTuple):
    """One class of every member.

    Parameters
    ----------
    addresses : int64 (M,), where the class begins in each member's box.
    widths : int64 (M,), as in `Members`.
    weights : int64 (M,), of this class.
    """

    addresses: NDArray[np.int64]
    widths: NDArray[np.int64]
    weights: NDArray[np.int64]


@inline
def maps_of(members, cls):
    """One class of every member."""
    addresses = np.empty(members.addresses.size, np.int64)
    for m in range(addresses.size):
        addresses[m] = members.addresses[m] + members.order[cls, m] * members.class_bytes[m]
    return ClassMaps(addresses, members.widths, members.weights[cls])
