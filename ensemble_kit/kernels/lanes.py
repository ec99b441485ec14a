"""Vectors of 16 or 32 numbers in registers, for loops that Numba's own vectorizer leaves scalar.

Each function is a few LLVM instructions on a vector type, which LLVM cuts to the registers that the processor has;
none of them names an instruction set. Addresses are int64; the caller keeps their memory alive.
"""

from numba import types
from numba.core import cgutils
from numba.core.cgutils import ir
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic

I32 = ir.IntType(32)

KINDS = {"bit": ir.IntType(1), "int16": ir.IntType(16), "int32": I32, "float32": ir.FloatType()}


class Lanes(types.Type):  # type: ignore[misc]
    """The type of `count` numbers of one kind."""

    def __init__(self, kind, count):
        self.kind, self.count = kind, count
        super().__init__(name=f"{kind} x {count}")


@register_default(Lanes)
class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    """How a vector lies in memory: as LLVM has it."""

    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(KINDS[fe_type.kind], fe_type.count))


FLOATS, INTS, SHORTS, LONG_SHORTS = Lanes("float32", 16), Lanes("int32", 16), Lanes("int16", 16), Lanes("int16", 32)


def vector_of(lanes):
    """LLVM's type of a vector."""
    return ir.VectorType(KINDS[lanes.kind], lanes.count)


def repeated(builder, value, count):
    """A number in every lane."""
    kind = ir.VectorType(value.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(
        first, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, count), [0] * count)
    )


def constant(lanes, value):
    """A number in every lane, known when compiling."""
    return ir.Constant(vector_of(lanes), [value] * lanes.count)


# --- memory --------------------------------------------------------------------------------------------------


def _load(lanes):
    @intrinsic
    def load(typingctx, address):
        """Load unaligned numbers."""

        def generate(context, builder, signature, arguments):
            loaded = builder.load(builder.inttoptr(arguments[0], vector_of(lanes).as_pointer()))
            loaded.align = 1
            return loaded

        return lanes(types.int64), generate

    return load


load_floats, load_ints, load_shorts, load_long = _load(FLOATS), _load(INTS), _load(SHORTS), _load(LONG_SHORTS)


@intrinsic
def float_at(typingctx, address):
    """Load one float32."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], KINDS["float32"].as_pointer()))

    return types.float32(types.int64), generate


@intrinsic
def double_at(typingctx, address):
    """Load one float64."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], ir.DoubleType().as_pointer()))

    return types.float64(types.int64), generate


@intrinsic
def store(typingctx, address, lanes):
    """Store a vector at an address, unaligned."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        builder.store(arguments[1], pointer).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, lanes), generate


def _gather(builder, lanes, address, indices, bits=None):
    """Load the number of four bytes at `address` that each index names; 0 where a bit is not set."""
    wide, kind = ir.VectorType(ir.IntType(64), lanes.count), vector_of(lanes)
    offsets = builder.shl(builder.sext(indices, wide), ir.Constant(wide, [2] * lanes.count))
    pointers = builder.inttoptr(
        builder.add(repeated(builder, address, lanes.count), offsets),
        ir.VectorType(KINDS[lanes.kind].as_pointer(), lanes.count),
    )
    mask = ir.VectorType(ir.IntType(1), lanes.count)
    form = ir.FunctionType(kind, [pointers.type, I32, mask, kind])
    name = f"llvm.masked.gather.v{lanes.count}{'f' if lanes is FLOATS else 'i'}32.v{lanes.count}p0"
    gather = cgutils.get_or_insert_function(builder.module, form, name)
    bits, other = (ir.Constant(mask, [1] * lanes.count), ir.Undefined) if bits is None else (bits, None)
    return builder.call(gather, [pointers, ir.Constant(I32, 4), bits, ir.Constant(kind, other)])


def _pick(lanes):
    @intrinsic
    def pick(typingctx, address, indices):
        """Load the number at `address` that each index (int32) names."""

        def generate(context, builder, signature, arguments):
            return _gather(builder, lanes, *arguments)

        return lanes(types.int64, INTS), generate

    return pick


pick, pick_ints = _pick(FLOATS), _pick(INTS)


def _short(builder, address, indices, bits=None):
    """Load 16-bit numbers by the pair of numbers in which each lies, so that nothing behind the array is read."""
    one, four = constant(INTS, 1), constant(INTS, 4)
    pair = _gather(builder, INTS, address, builder.lshr(indices, one), bits)
    place = builder.shl(builder.and_(indices, one), four)
    return builder.and_(builder.lshr(pair, place), constant(INTS, 0xFFFF))


@intrinsic
def pick_shorts(typingctx, address, indices):
    """Load the 16-bit number without a sign at `address`, of an array of an even length, that each index names."""

    def generate(context, builder, signature, arguments):
        return _short(builder, *arguments)

    return INTS(types.int64, INTS), generate


@intrinsic
def pick_some_shorts(typingctx, address, indices, bits):
    """Do the same where a bit is set; 0 elsewhere."""

    def generate(context, builder, signature, arguments):
        return _short(builder, *arguments)

    return INTS(types.int64, INTS, bits), generate


@intrinsic
def bits_of(typingctx, mask):
    """Take the lowest 16 bits of an int64 as the bits of 16 lanes, lane 0 lowest."""

    def generate(context, builder, signature, arguments):
        lowest = builder.trunc(arguments[0], ir.IntType(16))
        return builder.bitcast(lowest, ir.VectorType(ir.IntType(1), 16))

    return Lanes("bit", 16)(types.int64), generate


# --- numbers -------------------------------------------------------------------------------------------------


def _splat(lanes, given):
    @intrinsic
    def splat(typingctx, value):
        """Repeat a number in every lane."""

        def generate(context, builder, signature, arguments):
            value = context.cast(builder, arguments[0], signature.args[0], given)
            return repeated(builder, value, lanes.count)

        return lanes(value), generate

    return splat


all_floats, all_ints, all_long = (
    _splat(FLOATS, types.float32),
    _splat(INTS, types.int32),
    _splat(LONG_SHORTS, types.int16),
)


@intrinsic
def all_at(typingctx, address):
    """Repeat the int32 at an address in every lane."""

    def generate(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], I32.as_pointer()))
        return repeated(builder, loaded, INTS.count)

    return INTS(types.int64), generate


def _lanewise(real, whole):
    @intrinsic
    def operation(typingctx, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, real if a.kind == "float32" else whole)(*arguments)

        return a(a, b), generate

    return operation


add, subtract, multiply, divide = (
    _lanewise("fadd", "add"), _lanewise("fsub", "sub"), _lanewise("fmul", "mul"), _lanewise("fdiv", "sdiv"),
)  # fmt: skip
both, either = _lanewise("and_", "and_"), _lanewise("or_", "or_")


def _compare(builder, sign, both, lanes):
    return (builder.fcmp_ordered if lanes.kind == "float32" else builder.icmp_signed)(sign, *both)


def _larger(sign):
    @intrinsic
    def larger(typingctx, a, b):
        def generate(context, builder, signature, arguments):
            return builder.select(_compare(builder, sign, arguments, a), *arguments)

        return a(a, b), generate

    return larger


maximum, minimum = _larger(">"), _larger("<")


@intrinsic
def greater(typingctx, a, b):
    """Tell where a > b, a vector of bits."""

    def generate(context, builder, signature, arguments):
        return _compare(builder, ">", arguments, a)

    return Lanes("bit", a.count)(a, b), generate


@intrinsic
def equal(typingctx, a, b):
    """Tell where two vectors of integers are equal."""

    def generate(context, builder, signature, arguments):
        return builder.icmp_signed("==", *arguments)

    return Lanes("bit", a.count)(a, b), generate


@intrinsic
def select(typingctx, bits, a, b):
    """Take a where a bit is set, else b."""

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return a(bits, a, b), generate


@intrinsic
def word(typingctx, bits):
    """Put the bits into an int64, lane 0 lowest."""

    def generate(context, builder, signature, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(bits.count)), ir.IntType(64))

    return types.int64(bits), generate


@intrinsic
def first_lanes(typingctx, n):
    """Set the bits of the first `n` of 16 lanes."""

    def generate(context, builder, signature, arguments):
        count = repeated(builder, builder.trunc(arguments[0], I32), INTS.count)
        return builder.icmp_signed("<", ir.Constant(vector_of(INTS), list(range(INTS.count))), count)

    return Lanes("bit", 16)(types.int64), generate


@intrinsic
def multiply_add(typingctx, a, b, c):
    """Compute a · b + c in float32, rounded once where the processor can."""

    def generate(context, builder, signature, arguments):
        kind = vector_of(FLOATS)
        name = f"llvm.fmuladd.v{FLOATS.count}f32"
        fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(fused, arguments)

    return a(a, b, c), generate


@intrinsic
def largest(typingctx, lanes):
    """Find the largest of 16 float32, halves at a time."""

    def generate(context, builder, signature, arguments):
        value, n = arguments[0], FLOATS.count
        while n > 1:
            n //= 2
            low, high = (
                builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, n), list(range(b, b + n))))
                for b in (0, n)
            )
            value = builder.select(builder.fcmp_ordered(">", low, high), low, high)
        return builder.extract_element(value, ir.Constant(I32, 0))

    return types.float32(lanes), generate
