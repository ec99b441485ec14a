"""Sixty-four comparisons at once: what Numba's own loops do not turn into vector instructions.

Each intrinsic is a handful of LLVM instructions on one vector of 64 lanes, which LLVM cuts to the registers that the
processor has; none of them names an instruction set. (The same comparison as a Numba loop over 16-bit integers,
`word |= (code >= low) << k`, stays scalar: 3.2 GB/s against 36.)
"""

import numpy as np
from numba import types
from numba.core.cgutils import ir
from numba.extending import intrinsic

from ensemble_kit.kernels.jit import kernel

LANES = 64

AHEAD = 8192
"""Bytes to read ahead of a comparison: deciding logits then takes 1.1 x a pure read of them, against 2.2 x."""


@intrinsic
def code_at(typingctx, address):
    """Load the 16-bit code at an address, as int64."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(16).as_pointer())
        return builder.zext(builder.load(pointer), ir.IntType(64))

    return signature, generate


@intrinsic
def address_of(typingctx, array):
    """Give the address of a contiguous array's first item; the caller keeps the array alive."""
    signature = types.int64(array)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return signature, generate


@intrinsic
def load64(typingctx, address):
    """Load eight unaligned bytes as int64."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        loaded.align = 1
        return loaded

    return signature, generate


@intrinsic
def item(typingctx, array, k):
    """Give item `k` of a contiguous array; Numba's own also looks whether `k` is negative, a fifth of a short loop."""
    signature = array.dtype(array, types.int64)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load(builder.gep(data, [arguments[1]]))

    return signature, generate


@intrinsic
def set_item(typingctx, array, k, value):
    """Set item `k` of a contiguous array, not negative either."""
    signature = types.void(array, types.int64, array.dtype)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store(arguments[2], builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return signature, generate


def _store(bits):
    @intrinsic
    def store(typingctx, address, value):
        """Store the lowest bytes of a value at an address, unaligned."""
        signature = types.void(types.int64, types.int64)

        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            value = arguments[1] if bits == 64 else builder.trunc(arguments[1], ir.IntType(bits))
            builder.store(value, pointer).align = 1
            return context.get_dummy_value()

        return signature, generate

    return store


store8, store16, store32, store64 = _store(8), _store(16), _store(32), _store(64)


def _vector(builder, address, bits):
    """Load 64 unaligned integers of so many bits."""
    kind = ir.VectorType(ir.IntType(bits), LANES)
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _splat(builder, value):
    kind = ir.VectorType(value.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    every = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), every)


def _within(bits):
    @intrinsic
    def within(typingctx, address, first, span):
        """Tell which of 64 integers at `address` lie in `first … first + span` on the circle of all integers of so
        many bits: bit k is integer k's.
        """
        signature = types.int64(types.int64, types.int64, types.int64)

        def generate(context, builder, signature, arguments):
            first, span = (builder.trunc(v, ir.IntType(bits)) for v in arguments[1:])
            moved = builder.sub(_vector(builder, arguments[0], bits), _splat(builder, first))
            return builder.bitcast(builder.icmp_unsigned("<=", moved, _splat(builder, span)), ir.IntType(64))

        return signature, generate

    return within


bytes_within, codes_within = _within(8), _within(16)


@intrinsic
def bytes_on(typingctx, address):
    """Tell which of 64 bytes at `address` are not 0: bit k is byte k's."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        loaded = _vector(builder, arguments[0], 8)
        return builder.bitcast(builder.icmp_unsigned("!=", loaded, ir.Constant(loaded.type, None)), ir.IntType(64))

    return signature, generate


@intrinsic
def words_on(typingctx, address):
    """Tell which of 64 int64 at `address` are not 0: bit k is word k's."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        loaded = _vector(builder, arguments[0], 64)
        return builder.bitcast(builder.icmp_unsigned("!=", loaded, ir.Constant(loaded.type, None)), ir.IntType(64))

    return signature, generate


@intrinsic
def changes(typingctx, array, first):
    """Tell which of the 64 integers of a contiguous array from `first` (at least 1) on differ from the one before."""
    signature = types.int64(array, types.int64)

    def generate(context, builder, signature, arguments):
        bits = signature.args[0].dtype.bitwidth
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        step = ir.Constant(ir.IntType(64), bits // 8)
        here = builder.add(builder.ptrtoint(data, step.type), builder.mul(arguments[1], step))
        pair = [_vector(builder, address, bits) for address in (here, builder.sub(here, step))]
        return builder.bitcast(builder.icmp_unsigned("!=", *pair), ir.IntType(64))

    return signature, generate


@intrinsic
def fetch(typingctx, address):
    """Ask for the 128 bytes from `address` on, which need not exist."""
    signature = types.void(types.int64)

    def generate(context, builder, signature, arguments):
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        for line in (0, 64):
            pointer = builder.inttoptr(builder.add(arguments[0], ir.Constant(ir.IntType(64), line)), byte)
            builder.call(ask, [pointer, ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lowest(typingctx, word):
    """Find the position of the lowest bit that is set; the word must not be 0."""
    signature = types.int64(types.int64)

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return signature, generate


@kernel
def half_up(word):
    """The word with every bit one position lower, 0 coming in at the top (int64's own shift repeats the sign)."""
    return (word >> 1) & np.int64(0x7FFFFFFFFFFFFFFF)
