"""Vectors of `lanes.py` from one kind of number to another: fp16 codes, keys in their order, exponentials."""

from numba import types
from numba.core import cgutils
from numba.core.cgutils import ir
from numba.extending import intrinsic

from ensemble_kit.kernels.lanes import FLOATS, I32, INTS, KINDS, SHORTS, constant, repeated, vector_of

POLYNOMIAL = (0.0135341423, 0.0520115098, 0.241442728, 0.69300384, 1.00000259)
"""Of 2^f, 0 <= f < 1, highest power first; relative error below 3e-6."""


@intrinsic
def widened(typingctx, shorts):
    """Turn int16 into int32."""

    def generate(context, builder, signature, arguments):
        return builder.sext(arguments[0], vector_of(INTS))

    return INTS(shorts), generate


@intrinsic
def unsigned(typingctx, shorts):
    """Turn 16-bit numbers without a sign into int32."""

    def generate(context, builder, signature, arguments):
        return builder.zext(arguments[0], vector_of(INTS))

    return INTS(shorts), generate


@intrinsic
def narrowed(typingctx, ints):
    """Keep the lower 16 bits of int32."""

    def generate(context, builder, signature, arguments):
        return builder.trunc(arguments[0], vector_of(SHORTS))

    return SHORTS(ints), generate


def _half(begin):
    @intrinsic
    def half(typingctx, long):
        """Take 16 of 32 lanes."""

        def generate(context, builder, signature, arguments):
            mask = ir.Constant(ir.VectorType(I32, 16), list(range(begin, begin + 16)))
            return builder.shuffle_vector(arguments[0], arguments[0], mask)

        return SHORTS(long), generate

    return half


lower_half, upper_half = _half(0), _half(16)


@intrinsic
def keys_of(typingctx, codes):
    """Turn fp16 codes into int16 keys in the order of the numbers, and back."""

    def generate(context, builder, signature, arguments):
        negative = builder.and_(builder.ashr(arguments[0], constant(codes, 15)), constant(codes, 0x7FFF))
        return builder.xor(arguments[0], negative)

    return codes(codes), generate


def _number(builder, code, whole, real):
    """Turn fp16 codes, 32-bit integers, into float32; ±inf becomes ±65504.

    By integers: `fpext half` is a call to a library on processors without the instruction.
    """

    def number(kind, value):
        return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)

    magnitude = builder.shl(builder.and_(code, number(whole, 0x7FFF)), number(whole, 13))
    size, most = builder.fmul(builder.bitcast(magnitude, real), number(real, 2.0**112)), number(real, 65504.0)
    size = builder.bitcast(builder.select(builder.fcmp_ordered("<", size, most), size, most), whole)
    sign = builder.shl(builder.and_(code, number(whole, 0x8000)), number(whole, 16))
    return builder.bitcast(builder.or_(size, sign), real)


@intrinsic
def numbers(typingctx, codes):
    """Turn fp16 codes into float32; ±inf becomes ±65504."""

    def generate(context, builder, signature, arguments):
        return _number(builder, builder.zext(arguments[0], vector_of(INTS)), vector_of(INTS), vector_of(FLOATS))

    return FLOATS(codes), generate


@intrinsic
def number_at(typingctx, address):
    """Load one fp16 number as float32; ±inf becomes ±65504."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(16).as_pointer())
        return _number(builder, builder.zext(builder.load(pointer), I32), I32, KINDS["float32"])

    return types.float32(types.int64), generate


@intrinsic
def power_of_two(typingctx, exponents):
    """2^x of float32 above -120 and below 120, with a relative error below 1e-5.

    A polynomial of the fraction, its bits scaled by the whole part.
    """

    def generate(context, builder, signature, arguments):
        moved = builder.fadd(arguments[0], constant(FLOATS, 127.0))
        whole = builder.fptosi(moved, vector_of(INTS))
        fraction = builder.fsub(moved, builder.sitofp(whole, vector_of(FLOATS)))
        kind = vector_of(FLOATS)
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fmuladd.v{FLOATS.count}f32"
        )
        value = constant(FLOATS, POLYNOMIAL[0])
        for coefficient in POLYNOMIAL[1:]:
            value = builder.call(fused, [value, fraction, constant(FLOATS, coefficient)])
        scale = builder.bitcast(builder.shl(whole, constant(INTS, 23)), kind)
        return builder.fmul(value, scale)

    return FLOATS(exponents), generate


def _put_q(builder, z, top, temperature):
    """Q of exclusive classes, int32: floor((max((z - top) / T, -32) + 32) / 32 · 65535 + 0.5) in float64."""
    real = ir.VectorType(ir.DoubleType(), FLOATS.count)

    def number(value):
        return ir.Constant(real, [value] * FLOATS.count)

    d = builder.fsub(builder.fpext(z, real), builder.fpext(top, real))
    if temperature is not None:
        d = builder.fdiv(d, repeated(builder, temperature, FLOATS.count))
    d = builder.select(builder.fcmp_ordered(">", d, number(-32.0)), d, number(-32.0))
    part = builder.fmul(builder.fadd(d, number(32.0)), number(1 / 32))
    return builder.fptosi(builder.fadd(builder.fmul(part, number(65535.0)), number(0.5)), vector_of(INTS))


@intrinsic
def q_of(typingctx, z, top):
    """Q of logits beside their cell's largest."""

    def generate(context, builder, signature, arguments):
        return _put_q(builder, arguments[0], arguments[1], None)

    return INTS(z, top), generate


@intrinsic
def cooled_q_of(typingctx, z, top, temperature):
    """The same with a temperature: two divisions of eight lanes take as long as all the rest."""

    def generate(context, builder, signature, arguments):
        return _put_q(builder, arguments[0], arguments[1], arguments[2])

    return INTS(z, top, types.float64), generate


@intrinsic
def as_floats(typingctx, ints):
    """Turn int32 into float32."""

    def generate(context, builder, signature, arguments):
        return builder.sitofp(arguments[0], vector_of(FLOATS))

    return FLOATS(ints), generate


@intrinsic
def truncated(typingctx, floats):
    """Turn float32 into int32, towards 0."""

    def generate(context, builder, signature, arguments):
        return builder.fptosi(arguments[0], vector_of(INTS))

    return INTS(floats), generate


def _shifted(bits):
    @intrinsic
    def shifted(typingctx, ints):
        """Leave out the lowest bits of int32, as if it had no sign."""

        def generate(context, builder, signature, arguments):
            return builder.lshr(arguments[0], constant(INTS, bits))

        return INTS(ints), generate

    return shifted


upper_bits, without_byte, halved = _shifted(16), _shifted(8), _shifted(1)
