"""Runs as text: `start length start length …`, COCO's compressed counts, and the fields of the CSV around them."""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.words import address_of, bytes_within, load64, lowest, store8, store32, store64

PAD = 64
"""Bytes that may be read behind a text: it is looked at 64 bytes at a time."""

_SPACE, _COMMA, _NEWLINE, _RETURN, _QUOTE = 32, 44, 10, 13, 34


@kernel
def split_fields(text, size):
    """Indices of the commas and newlines in the first `size` bytes of CSV text, whether all of them end a field (there
    is not a quote, carriage return or NUL), and whether all is ASCII. `text` has `PAD` bytes more.
    """
    address, plain, ascii_only = address_of(text), True, True
    marks, n = np.empty(size // 256 + 1024, np.int64), 0
    for p in range(0, size, 64):
        inside = np.int64(-1) if p + 64 <= size else (np.int64(1) << (size - p)) - 1
        found = (bytes_within(address + p, _COMMA, 0) | bytes_within(address + p, _NEWLINE, 0)) & inside
        others = (
            bytes_within(address + p, _QUOTE, 0)
            | bytes_within(address + p, _RETURN, 0)
            | bytes_within(address + p, 0, 0)
        )
        plain &= others & inside == 0
        ascii_only &= bytes_within(address + p, 128, 127) & inside == 0
        if n + 64 > marks.size:
            marks = grown(marks)
        while found != 0:
            marks[n] = p + lowest(found)
            n += 1
            found &= found - 1
    return marks[:n], plain, ascii_only


@kernel
def parse_texts(text, begins, ends, sizes, base, relative):
    """Runs of many RLE texts, each in ASCII at `text[begins[k]:ends[k]]`, on images of `sizes[k]` pixels.

    A text is blank (no runs) or numbers with one space between, without leading zeros; starts ascend, lengths are at
    least 1, and no run overlaps another or leaves the image. With `relative`, only the first start has the base and
    each further one counts from the end of the run before it. Adjacent runs become one. `text` has `PAD` bytes more.

    Returns starts and ends of all, int64 offsets (n + 1,) of where each text's begin, and the number of the first
    text that is anything else, with n if there is none.

    Where numbers end is found first, 64 bytes a look: number by number, each would wait for the one before it.
    """
    n, widest = begins.size, np.int64(0)
    for k in range(n):
        widest = max(widest, ends[k] - begins[k])
    marks = np.empty(widest + 1, np.int64)
    most = text.size // 4 + 16  # a run takes about four bytes or more; what is not written takes no memory
    out_starts, out_ends = np.empty(most, np.int64), np.empty(most, np.int64)
    offsets = np.zeros(n + 1, np.int64)
    address, count = address_of(text), np.int64(0)
    for k in range(n):
        numbers = _ends_of_numbers(address, begins[k], ends[k], marks)
        if numbers & 1:
            return out_starts, out_ends, offsets, k
        while count + numbers // 2 + 1 > out_starts.size:
            out_starts, out_ends = grown(out_starts), grown(out_ends)
        count = _runs_between(
            address, begins[k], marks[:numbers], sizes[k], base, relative, out_starts, out_ends, count
        )
        if count < 0:
            return out_starts, out_ends, offsets, k
        offsets[k + 1] = count
    return out_starts[:count], out_ends[:count], offsets, n


@kernel
def parse_text(text, end, size, base, relative):
    """Runs of the one RLE text in the first `end` bytes, as `parse_texts` reads them, and whether it is sound."""
    marks, address = np.empty(end + 1, np.int64), address_of(text)
    numbers = _ends_of_numbers(address, 0, end, marks)
    starts, ends, count = np.empty(numbers // 2, np.int64), np.empty(numbers // 2, np.int64), np.int64(-1)
    if numbers & 1 == 0:
        count = _runs_between(address, 0, marks[:numbers], size, base, relative, starts, ends, 0)
    return starts[: max(count, 0)], ends[: max(count, 0)], count >= 0


@inline
def _runs_between(address, begin, marks, size, base, relative, starts, ends, count):
    """Append the runs of a text whose numbers end at `marks`; return their new count, or -1 if they are not sound."""
    p, behind, origin, sound = begin, np.int64(-1), -np.int64(base), True
    for i in range(0, marks.size, 2):
        start, fine = _number(address, p, marks[i])
        length, also = _number(address, marks[i] + 1, marks[i + 1])
        p = marks[i + 1] + 1
        start += origin
        sound &= fine & also & (start >= max(behind, 0)) & (length > 0) & (length <= size - start)
        if start != behind:
            starts[count] = start
            count += 1
        behind = start + length
        ends[count - 1] = behind
        if relative:
            origin = behind
    return count if sound else np.int64(-1)


@inline
def _ends_of_numbers(address, begin, end, marks):
    """Put the index behind each number of a text into `marks`; count them: none if it is blank, 1 if it holds what is
    neither digit nor space.
    """
    n, digits_seen = 0, False
    for p in range(begin, end, 64):
        inside = np.int64(-1) if p + 64 <= end else (np.int64(1) << (end - p)) - 1
        digits = bytes_within(address + p, 48, 9)
        gaps = ~digits & inside
        if gaps & ~bytes_within(address + p, _SPACE, 0) != 0:
            return 1
        digits_seen |= digits & inside != 0
        while gaps != 0:
            marks[n] = p + lowest(gaps)
            n += 1
            gaps &= gaps - 1
    if not digits_seen:
        return 0
    marks[n] = end
    return n + 1


@inline
def _number(address, begin, end):
    """Value of the digits in `begin … end`, and whether there are 1 to 19 of them, without a leading zero.

    Of 19 digits, those beyond int64 give a negative value.
    """
    digits = end - begin
    if digits < 1 or digits > 8:
        value, sound = np.int64(0), 8 < digits < 20 and load64(address + begin) & 255 != 48
        for p in range(begin, end if sound else begin):
            value = 10 * value + (load64(address + p) & 255) - 48
        return value, sound
    word = load64(address + begin) ^ 0x3030303030303030
    sound = (word & 255 != 0) | (digits == 1)
    word <<= 64 - 8 * digits  # the last digit into the highest byte, zeros for those that are not there
    word = 10 * word + ((word >> 8) & 0x00FFFFFFFFFFFFFF)
    pairs = 0x000000FF000000FF
    value = (word & pairs) * 0x000F424000000064 + ((word >> 16) & pairs) * 0x0000271000000001
    return (value >> 32) & 0xFFFFFFFF, sound


@kernel
def format_texts(glue, cuts, starts, ends, firsts, lasts, base, relative):
    """ASCII bytes of `start length start length …` of many masks, with other bytes before, between and behind them.

    Mask k is `starts[firsts[k]:lasts[k]]`; piece k of the glue, `glue[cuts[k]:cuts[k+1]]`, stands before it, and the
    last piece behind all. The glue has `PAD` bytes more.
    """
    masks, runs, largest = firsts.size, np.int64(0), np.int64(base)
    for k in range(masks):
        runs += lasts[k] - firsts[k]
        if firsts[k] < lasts[k]:
            largest = max(largest, ends[lasts[k] - 1] + base)
    widest = 1
    while largest >= 10:
        largest //= 10
        widest += 1
    out = np.empty(glue.size + runs * 2 * (widest + 1) + 64, np.uint8)  # bytes are stored by eights
    address, glued = address_of(out), address_of(glue)
    first = address
    for k in range(masks + 1):
        size = cuts[k + 1] - cuts[k]
        for p in range(0, size, 8):
            store64(address + p, load64(glued + cuts[k] + p))
        address += size
        if k == masks:
            break
        last = -np.int64(base)
        for i in range(firsts[k], lasts[k]):
            address = _put_number(address, starts[i] - last if relative or i == firsts[k] else starts[i] + base)
            address = _put_number(address, ends[i] - starts[i])
            last = ends[i]
        if firsts[k] < lasts[k]:
            address -= 1  # no space behind the last number
    return out[: address - first]


@kernel
def format_text(starts, ends, base, relative):
    """ASCII bytes of `start length start length …`; empty for no runs."""
    first, last = np.zeros(1, np.int64), np.empty(1, np.int64)
    last[0] = starts.size
    return format_texts(np.zeros(PAD, np.uint8), np.zeros(3, np.int64), starts, ends, first, last, base, relative)


@inline
def _four_digits(value):
    """Four digits of a number below 10,000, a byte each, the first in the lowest.

    Divided by multiplying: a table of all is cold behind every mask that was just read, 12 us for 370 numbers, not 9.
    """
    hundreds = (value * 5243) >> 19
    pairs = hundreds | (value - 100 * hundreds) << 16
    tens = ((pairs * 103) >> 10) & 0x000F000F
    return tens | (pairs - 10 * tens) << 8


@inline
def _put_head(address, value):
    """Write the digits of a number below 10,000; return the address behind them."""
    digits = _four_digits(value)
    zeros = lowest(digits | 1 << 24) & 24  # bits of leading zeros; one digit stays
    store32(address, (digits + 0x30303030) >> zeros)
    return address + 4 - (zeros >> 3)


@inline
def _put_number(address, value):
    """Write the digits of `value` and a space at an address; return the address behind them."""
    if value < 10000:
        address = _put_head(address, value)
    elif value < 100000000:
        head = value // 10000
        address = _put_head(address, head)
        store32(address, _four_digits(value - 10000 * head) + 0x30303030)
        address += 4
    else:
        digits, rest = 1, value
        while rest >= 10:
            rest //= 10
            digits += 1
        for k in range(digits):
            store8(address + digits - 1 - k, 48 + value % 10)
            value //= 10
        address += digits
    store8(address, 32)
    return address + 1


@kernel
def coco_counts(starts, ends, size):
    """Lengths of off, on, off, … from the first position, as COCO has them."""
    n = 2 * starts.size
    counts = np.empty(n + 1, np.int64)
    last = np.int64(0)
    for k in range(starts.size):
        counts[2 * k], counts[2 * k + 1] = starts[k] - last, ends[k] - starts[k]
        last = ends[k]
    counts[n] = size - last
    return counts if last < size else counts[:n].copy()


@kernel
def counts_to_coco(counts):
    """COCO's compressed text of uncompressed counts: from the third on each is the difference to the one two
    before, in groups of five bits, sign-extended (pycocotools `rleToString`).
    """
    out = np.empty(counts.size * 13 + 1, np.uint8)
    p = 0
    for i in range(counts.size):
        value = counts[i] - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != -1 if group & 16 else value != 0
            out[p] = (group | 32 if more else group) + 48
            p += 1
    return out[:p].copy()


@kernel
def coco_to_counts(text):
    """Uncompressed counts of COCO's compressed text; the last value tells whether the text was well formed."""
    counts = np.empty(text.size + 1, np.int64)
    m, p = 0, 0
    while p < text.size:
        value, shift, more = np.int64(0), 0, True
        while more:
            if p >= text.size or text[p] < 48 or text[p] > 111 or shift > 55:
                return counts[:0], False
            group = np.int64(text[p]) - 48
            value |= (group & 31) << shift
            more = group & 32 != 0
            p += 1
            shift += 5
            if not more and group & 16:
                value |= np.int64(-1) << shift
        if m > 2:
            value += counts[m - 2]
        counts[m] = value
        m += 1
    return counts[:m].copy(), True
