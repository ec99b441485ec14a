"""Lines of a manifest as columns: what they hold is what `Record.from_json` reads, and nothing else is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.lines import Lines
from ensemble_kit.logits.records import Record, fingerprint, from_line, to_line
from ensemble_kit.spec.geometry import Box, Placement

GRID = (6, 8)
SAMPLES = ("a.png", "ünï/\\ code", 'quo"ted', "back\\slash", "🦴 bone")
SPEC = StoreSpec("m", ("radius", "ulna"), SAMPLES, GRID, "sigmoid")

placements = st.builds(
    lambda h, w, y, x: Placement(GRID, Box(0, 0, y, x), (h, w)),
    st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 6), st.integers(1, 8),
)  # fmt: skip
records = st.builds(
    lambda row, place, crcs, saturated, take, stored, source: Record(
        SAMPLES[row], row, SPEC.array(place), crcs, saturated, take, (stored,) if stored else (), source
    ),
    st.integers(0, len(SAMPLES) - 1), placements, st.binary(min_size=8, max_size=8).map(bytes.hex),
    st.integers(0, 2**40), st.integers(1, 9), st.integers(0, 2**40),
    st.one_of(st.just(""), st.text(max_size=8), st.binary(min_size=16, max_size=16).map(bytes.hex)),
)  # fmt: skip


@given(st.lists(records, max_size=9))
def test_columns_give_back_every_record(given: list[Record]) -> None:
    by_line, by_record = Lines(SPEC), Lines(SPEC)
    for record in given:
        by_record.add(record)
        if not by_line.read(to_line(record.to_json())):
            by_line.add(record)
    for lines in (by_line, by_record):
        assert [lines.record(k) for k in range(len(lines))] == given
        assert [lines.digest(k) for k in range(len(lines))] == [record.digest for record in given]
        for row in range(len(SAMPLES)):
            assert [*lines.chain(row)] == [k for k, record in enumerate(given) if record.row == row][::-1]


@pytest.mark.parametrize("row", range(len(SAMPLES)), ids=SAMPLES)
def test_a_line_as_it_is_written_is_read_without_json(row: int) -> None:
    record = Record(SAMPLES[row], row, SPEC.array(Placement.of(GRID, (80, 60))), "00c0ffee12345678", source="ab" * 16)
    assert Lines(SPEC).read(to_line(record.to_json())) == ('"' not in SAMPLES[row])


@given(records, st.data())
def test_no_changed_line_is_taken(record: Record, data: st.DataObject) -> None:
    raw = to_line(record.to_json())
    at = data.draw(st.integers(0, len(raw) - 1))
    changed = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
    assert not Lines(SPEC).read(changed)


CONTRADICTIONS = {
    "another row": {"row": 1},
    "a row that is not there": {"row": 5},
    "another sample": {"sample": "b.png"},
    "another digest": {"digest": "0" * 32},
    "other checksums": {"crcs": "00c0ffee12345679"},
    "fewer classes": {"crcs": "00c0ffee"},
    "not hex": {"crcs": "00c0ffee1234567x"},
    "upper case": {"crcs": "00C0FFEE12345678"},
    "a box outside the grid": {"box": [0, 0, 7, 8]},
    "an image of three axes": {"image_size": [8, 8, 8]},
    "text for a number": {"saturated": "0"},
    "more than 64 bits": {"saturated": 1 << 63},
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_contradicts_itself_is_no_record_though_its_checksum_is_right(change: dict[str, object]) -> None:
    record = Record("a.png", 0, SPEC.array(Placement.of(GRID, (80, 60))), "00c0ffee12345678")
    raw = to_line(record.to_json() | change)
    assert not Lines(SPEC).read(raw)
    try:
        read = Record.from_json(from_line(raw[:-1]) or {}, SPEC)
    except (KeyError, TypeError, ValueError):
        return
    assert not read.belongs_to(SPEC)


def test_a_fingerprint_is_the_digest_of_one_json_text() -> None:
    """As the first version made it of all lines at once; a block of lines ends at 4,096."""
    import hashlib

    place = Placement.of(GRID, (80, 60))
    digests = [(f"s{k:05}", place, f"{k:032x}") for k in range(4097)]
    about = [SPEC.member, SPEC.classes, SPEC.grid, SPEC.activation, SPEC.samples]
    for count in (0, 1, 4096, 4097):
        lines = [[s, *p.image, *p.box, digest] for s, p, digest in digests[:count]]
        whole = hashlib.sha256(json.dumps([about, lines]).encode()).hexdigest()
        assert fingerprint(SPEC, iter(digests[:count])) == whole
