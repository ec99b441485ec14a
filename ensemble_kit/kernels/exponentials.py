"""Exponentials of sixteen float32 that round as float64's do: one polynomial, and how sure its rounding is."""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.core.cgutils import ir
from numba.extending import intrinsic

from ensemble_kit.kernels.lanes import FLOATS, INTS, repeated, vector_of

REAL, LONG = ir.VectorType(ir.DoubleType(), FLOATS.count), ir.VectorType(ir.IntType(64), FLOATS.count)

INVERSES = tuple(1 / np.cumprod([1.0, *range(1, 14)]))
"""1 / n! of the Taylor series of e^r, |r| <= ln(2) / 2, whose next term is below 1e-17."""

LOG2_E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 6.93147180369123816490e-01, 1.90821492927058770002e-10
"""ln(2) in two parts, of which whole multiples of the first are exact (FreeBSD's msun, e_exp.c)."""

LOWEST = -700.0
"""Below about -104 an exponential is 0 in float32."""

UNSURE = 1e-14
"""By how much float64 may be off, relatively; some ten times what it is."""


def _number(value):
    return ir.Constant(REAL, [value] * FLOATS.count)


def _exponential(builder, x):
    """e^x of float64, x <= 0."""

    def fused(a, b, c):
        name = f"llvm.fmuladd.v{FLOATS.count}f64"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(REAL, [REAL] * 3), name), [a, b, c]
        )

    x = builder.select(builder.fcmp_ordered(">", x, _number(LOWEST)), x, _number(LOWEST))
    whole = builder.fptosi(builder.fsub(builder.fmul(x, _number(LOG2_E)), _number(0.5)), vector_of(INTS))
    k = builder.sitofp(whole, REAL)
    r = fused(k, _number(-LN2_LOW), fused(k, _number(-LN2_HIGH), x))
    value = _number(INVERSES[-1])
    for inverse in INVERSES[-2::-1]:
        value = fused(value, r, _number(inverse))
    bits = builder.shl(
        builder.add(builder.sext(whole, LONG), ir.Constant(LONG, [1023] * FLOATS.count)),
        ir.Constant(LONG, [52] * FLOATS.count),
    )
    return builder.fmul(value, builder.bitcast(bits, REAL))


def _rounded(share, cooled):
    @intrinsic
    def exponential(typingctx, z, top, temperature):
        """e^((z - top) / temperature) of float32, rounded to float32 from the lowest or the highest it can be."""

        def generate(context, builder, signature, arguments):
            d = builder.fpext(builder.fsub(*arguments[:2]), REAL)
            if cooled:
                d = builder.fdiv(d, repeated(builder, arguments[2], FLOATS.count))
            value = builder.fmul(_exponential(builder, d), _number(share))
            return builder.fptrunc(value, vector_of(FLOATS))

        return FLOATS(z, top, types.float64), generate

    return exponential


low_exponential, high_exponential = _rounded(1 - UNSURE, False), _rounded(1 + UNSURE, False)
low_cooled, high_cooled = _rounded(1 - UNSURE, True), _rounded(1 + UNSURE, True)
"""The same with a temperature: a division takes as long as all the rest."""
