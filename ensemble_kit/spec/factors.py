"""Factors of argmax as integers (docs/concepts.md#rule-10-argmax)."""

ONE = 65536
"""The integer of factor 1."""

LARGEST = 128
"""Factors lie between 1 / LARGEST and LARGEST."""

LEAST, MOST = ONE // LARGEST, ONE * LARGEST


def integer_factor(factor: float) -> int:
    """Round a factor to 1/65536: `floor(65536 · factor + 0.5)`.

    Examples
    --------
    >>> integer_factor(1.5)
    98304
    """
    return int(ONE * factor + 0.5)
