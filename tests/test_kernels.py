"""Every kernel against its plain NumPy oracle, bit for bit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ensemble_kit.kernels import counts, exclusive_cells, fuse, reference, rle, runs, tables
from ensemble_kit.masks.packed import overlaps
from ensemble_kit.masks.runs import encode
from ensemble_kit.scores import layouts

ALL_FP16 = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
FINITE = ~np.isnan(ALL_FP16)

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 23), st.integers(1, 37)))
pairs = st.tuples(st.integers(1, 13), st.integers(1, 17)).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
)


def encoded(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return runs.encode_bytes(np.ascontiguousarray(mask).reshape(-1).view(np.uint8))


def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *(p[0].size for p in parts)])
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), offsets


def padded(text: bytes | np.ndarray) -> np.ndarray:
    return np.frombuffer(bytearray(bytes(text) + b"7" * rle.PAD), np.uint8)


def same(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


@pytest.mark.parametrize("temperature", [1.0, 0.37, 2.5, 100.0])
def test_tables_state_the_arithmetic(temperature: float) -> None:
    assert np.array_equal(tables.fp16_levels(temperature)[FINITE], reference.level(ALL_FP16[FINITE], temperature))
    assert np.array_equal(tables.fp16_q(temperature)[FINITE], reference.q(ALL_FP16[FINITE], temperature))


def test_table_of_q_and_its_order() -> None:
    assert np.array_equal(tables.q_levels(), reference.level_of_q(np.arange(65536, dtype=np.uint16)))
    in_order = tables.fp16_codes_in_order().view(np.float16)
    kept = in_order[~np.isnan(in_order)].astype(np.float64)
    assert np.all(np.diff(kept) >= 0)
    assert np.all(np.diff(tables.q_levels().astype(int)) >= 0)


def test_known_levels() -> None:
    z = np.array([0, -0.0, np.inf, -np.inf, 8.5], np.float16)
    assert reference.level(z).tolist() == [32768, 32768, 65535, 0, 65522]
    assert reference.q(z).tolist() == [32768, 32768, 65535, 0, 50175]


@given(st.integers(1, 40), st.integers(1, 90))
def test_axis(n_in: int, n_out: int) -> None:
    i, f = tables.axis(n_in, n_out)
    assert list(zip(i.tolist(), f.tolist(), strict=True)) == reference.axis(n_in, n_out)


@given(masks)
def test_encode(mask: np.ndarray) -> None:
    assert same(encoded(mask), reference.encode(mask))


@given(pairs)
def test_combine_and_overlap(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    for table, wanted in ((8, a & b), (14, a | b), (6, a ^ b), (2, a & ~b)):
        assert same(runs.combine(*encoded(a), *encoded(b), table), reference.encode(wanted))
    assert runs.overlap(*encoded(a), *encoded(b)) == (a & b).sum()


@given(masks)
def test_transpose(mask: np.ndarray) -> None:
    assert same(runs.transpose(*encoded(mask), *mask.shape), reference.encode(np.ascontiguousarray(mask.T)))


@given(masks, st.sampled_from([0, 1]), st.booleans())
def test_text_both_ways(mask: np.ndarray, base: int, relative: bool) -> None:
    written = rle.format_text(*encoded(mask), base, relative)
    assert written.tobytes().decode() == reference.text(mask, "C", base, relative)
    *parsed, sound = rle.parse_text(padded(written), written.size, mask.size, base, relative)
    assert sound
    assert same(parsed, encoded(mask))


@given(st.data())
def test_weighted_votes(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(1, 1), (5, 9), (9, 12), (3, 64), (70, 700)]))
    votes, members = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    masks = [[rng.random(shape) < rng.choice([0, 0.1, 0.5, 0.9, 1]) for _ in range(votes)] for _ in range(members)]
    weights = data.draw(hnp.arrays(np.int64, members, elements=st.integers(0, 5)))
    quorum = data.draw(st.integers(0, max(1, int(weights.sum()))))
    ties, abstain = data.draw(st.integers(0, 1)), data.draw(st.booleans())
    given, located = [], np.empty((members, 4), np.int64)
    for own, row in zip(masks, located, strict=True):  # each member holds its masks in an order of its own
        places = rng.permutation(votes)
        given.append((*joined([encoded(own[k]) for k in np.argsort(places)]), places))
        runs.locate(*given[-1], row)
    *voted, cuts = runs.weighted_votes(located, votes, weights, quorum, ties, abstain)
    for v in range(votes):
        on = [own[v] for own in masks]
        counting = [int(w) for w, m in zip(weights, on, strict=True) if m.any() or not abstain]
        need = quorum or (-(-sum(counting) // 2) if ties else sum(counting) // 2 + 1)
        wanted = reference.encode(reference.weighted_vote(on, weights.tolist(), max(need, 1)))
        assert same((voted[0][cuts[v] : cuts[v + 1]], voted[1][cuts[v] : cuts[v + 1]]), wanted)


@given(st.lists(pairs, min_size=1, max_size=5))
def test_many_overlaps_and_texts(given: list[tuple[np.ndarray, np.ndarray]]) -> None:
    a = joined([encoded(x) for x, _ in given])
    found = overlaps(*([encode(mask) for mask in side] for side in zip(*given, strict=True)))
    assert found.tolist() == [(x & y).sum() for x, y in given]
    glue = ["<" * k for k in range(len(given) + 1)]
    text = rle.format_texts(
        padded("".join(glue).encode()), np.cumsum([0, *map(len, glue)]), *a[:2], a[2][:-1], a[2][1:], 1, False
    )
    texts = [reference.text(x) for x, _ in given]
    assert text.tobytes().decode() == "".join(g + t for g, t in zip(glue, [*texts, ""], strict=True))
    begins = np.cumsum([1, *(len(t) + 1 for t in texts)])
    raw, sizes = padded((" " + ",".join(texts) + ",").encode()), np.array([x.size for x, _ in given])
    *parsed, fault = rle.parse_texts(raw, begins[:-1], begins[1:] - 1, sizes, 1, False)
    assert fault == len(given)
    assert same(parsed[:2], a[:2])
    assert np.array_equal(parsed[2], a[2])


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=40, unique=True), st.sampled_from([0, 1]), st.booleans())
def test_long_numbers(edges: list[int], base: int, relative: bool) -> None:
    edges = sorted(edges[: len(edges) // 2 * 2])
    starts, ends = np.array(edges[::2]), np.array(edges[1::2])
    text = rle.format_text(starts, ends, base, relative)
    last, words = -base, []
    for s, e in zip(edges[::2], edges[1::2], strict=True):
        words += [s - last if relative or not words else s + base, e - s]
        last = e
    assert text.tobytes().decode() == " ".join(map(str, words))
    *parsed, sound = rle.parse_text(padded(text), text.size, 10**13, base, relative)
    assert sound
    assert same(parsed, (starts, ends))


@given(st.text("0123456789  -,", max_size=24) | st.lists(st.integers(0, 70), max_size=8).map(lambda v: " ".join(map(str, v))),
       st.sampled_from([0, 1]), st.booleans())  # fmt: skip
@example("9" * 19 + " 1", 1, False)
@example("9" * 20 + " 1", 1, False)
@example("1152921504606846976 1", 1, False)
@example("1 9223372036854775807", 1, False)
@example("9000000000000000000 9000000000000000000", 0, True)
@example("1 " * 300, 1, False)
@example(" " * 300, 1, False)
def test_a_text_is_refused_or_read_as_it_is_written(text: str, base: int, relative: bool) -> None:
    *parsed, sound = rle.parse_text(padded(text.encode()), len(text), 64, base, relative)
    wanted = reference.parse(text, 64, base, relative)
    assert sound == (wanted is not None)
    if wanted is not None:
        assert same(parsed, reference.encode(wanted))


@given(st.binary(max_size=150))
def test_split_fields(raw: bytes) -> None:
    marks, plain, ascii_only = rle.split_fields(padded(raw), len(raw))
    assert marks.tolist() == [k for k, byte in enumerate(raw) if byte in b",\n"]
    assert plain == (not set(raw) & set(b'"\r\0'))
    assert ascii_only == raw.isascii()


@given(st.integers(0, 2**32 - 1), st.sampled_from([63, 64, 65, 127, 128, 1000, 4096 + 17, 70000]), st.floats(0, 1))
def test_encode_long_masks(seed: int, size: int, share: float) -> None:
    mask = np.random.default_rng(seed).random(size) < share
    assert same(encoded(mask), reference.encode(mask))
    assert same(encoded(np.repeat(mask, 70)), reference.encode(np.repeat(mask, 70)))


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 14), st.integers(1, 14))), st.integers(1, 40), st.integers(1, 40))
def test_resample(grid: np.ndarray, height: int, width: int) -> None:
    out = np.empty((height, width), np.uint16)
    fuse.resample(grid, 0, layouts.axes((grid.shape,), (height, width)), out)
    assert np.array_equal(out, reference.rounded(reference.interpolate(grid, (height, width))))


@given(st.integers(1, 4), st.integers(16, 70), st.integers(0, 2**32 - 1))
def test_fuse_scores(members: int, cells: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.choice([0, 1, 65535, 40000], cells).astype(np.uint16) for _ in range(members)]
    weights = np.array([65536 - 7 * (members - 1), *[7] * (members - 1)])
    out = np.empty(cells, np.uint16)
    fuse.fuse_scores(np.array([s.ctypes.data for s in scores]), weights, out)
    assert np.array_equal(out, reference.fuse(scores, weights.tolist()))


@given(
    st.integers(1, 20), st.integers(1, 70), st.sampled_from([1e-3, 0.3, 6, 60, 3000]),
    st.sampled_from([1.0, 0.01, 0.3, 2.5, 7.5]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_cells_of_exclusive_classes(classes: int, cells: int, scale: float, temperature: float, seed: int) -> None:
    """Sixteen cells at a time, classes in another order than the member's."""
    rng = np.random.default_rng(seed)
    z = np.clip(rng.normal(0, scale, (classes, cells)), -65504, 65504).astype(np.float16)
    few = rng.random(z.shape) < 0.1
    z[few] = rng.choice(np.array([65504, -65504, 0, -0.0, 6e-8], np.float16), int(few.sum()))
    order = rng.permutation(classes)
    at = z.ctypes.data + z.strides[0] * np.arange(classes)
    out = np.empty(z.shape, np.uint16)
    exclusive_cells.put_levels(at, temperature, np.argsort(order), out)
    assert np.array_equal(out, reference.softmax_level(z, temperature)[order])
    exclusive_cells.put_q(at[order], temperature, out)
    assert np.array_equal(out, reference.exclusive_q(z, temperature)[order])


@given(
    hnp.arrays(
        np.float16, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.floats(-65504, 65504, width=16)
    ),
    st.sampled_from([1.0, 0.5, 3.0]),
)
def test_softmax_levels(z: np.ndarray, temperature: float) -> None:
    out = np.empty(z.shape, np.uint16)
    fuse.softmax_levels(z.astype(np.float32), temperature, out)
    assert np.array_equal(out, reference.softmax_level(z, temperature))


@given(st.data())
def test_scores_and_counts_at_every_level(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    low, high = data.draw(st.sampled_from([(0, 41), (5, 30), (0, 12)]))
    eps, empty, skip = data.draw(st.sampled_from([(0.0, 1.0, False), (1e-4, 0.0, False), (0.0, 0.0, True)]))
    planes = [rng.integers(0, 41, (6, 7)) * rng.integers(0, 2) for _ in range(4)]
    truths = [rng.random((6, 7)) < rng.choice([0, 0.4]) for _ in range(4)]
    own = [np.unique(v[(v >= low) & (v < high)]).astype(np.uint16) for v in planes]
    pred = [np.array([(v >= k).sum() for k in o], np.int64) for v, o in zip(planes, own, strict=True)]
    tp = [np.array([t[v >= k].sum() for k in o], np.int64) for v, t, o in zip(planes, truths, own, strict=True)]
    above = np.array([(v >= high).sum() for v in planes])
    above_tp = np.array([t[v >= high].sum() for v, t in zip(planes, truths, strict=True)])
    offsets = np.cumsum([0, *(o.size for o in own)])
    table = offsets, np.concatenate(own), np.concatenate(pred), np.concatenate(tp), above, above_tp
    areas = np.array([t.sum() for t in truths])
    size = high - low + 1
    total, counted, pixels, hits = np.zeros(size), *np.zeros((3, size), np.int64)
    place = np.arange(41, dtype=np.int32) - low
    counts.add_score_steps(np.arange(4), *table, areas, place, 2.0, 1.0, 0.0, eps, empty, skip, total, counted)
    counts.sum_steps(total, counted)
    counts.add_count_steps(np.arange(4), *table, place, pixels, hits)
    counts.sum_steps(pixels, hits)
    at = np.zeros((2, 4), np.int64)
    for level in range(low, high + 1):
        masks = [v >= level for v in planes]
        kept = [(m, t) for m, t in zip(masks, truths, strict=True) if not skip or m.any() or t.any()]
        assert counted[level - low] == len(kept)
        assert abs(total[level - low] - sum(reference.dice(m, t, eps, empty) for m, t in kept)) < 1e-12
        wanted = np.array([[(m & t).sum() for m, t in zip(masks, truths, strict=True)], [m.sum() for m in masks]])
        assert (hits[level - low], pixels[level - low]) == tuple(wanted.sum(axis=1))
        counts.counts_at(level, *table, at[0], at[1])
        assert np.array_equal(at, wanted)


def test_every_kernel_stands_behind_the_fence() -> None:
    for path in Path(runs.__file__).parent.rglob("*.py"):
        source = path.read_text()
        imported = re.findall(r"^(?:from|import) (\S+)", source, re.MULTILINE)
        allowed = (
            "__future__",
            "numpy",
            "numba",
            "functools",
            "math",
            "typing",
            "collections.abc",
            "ensemble_kit.kernels",
        )
        if path.name.startswith("reference"):
            allowed += ("fractions",)  # oracles may take exact fractions
        if path.name != "jit.py":  # which keeps files
            assert all(name.startswith(allowed) for name in imported), path
        assert "fastmath=" not in source
        assert "parallel=" not in source.split('"""', 2)[-1]


def test_pieces_of_kernels_are_used_by_kernels_only() -> None:
    """What `inline` and `routine` compile has no entry from Python: a call from there would end the process."""
    folder = Path(runs.__file__).parent
    pieces = {
        (path.stem, node.name)
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and {"inline", "routine"} & {ast.unparse(d) for d in node.decorator_list}
    }
    assert len(pieces) > 100
    for path in [*folder.parent.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]:
        if path.parent == folder:
            continue
        tree = ast.parse(path.read_text())
        used = {
            ((node.module or "").rpartition(".")[2], alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ensemble_kit.kernels.")
            for alias in node.names
        }
        used |= {
            (node.value.id, node.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        assert not used & pieces, path
