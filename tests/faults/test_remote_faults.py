"""R: a real S3 server behind a proxy that answers as a bad day does: refused, cut, silent, late, lost, another's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import harness as h
import numpy as np
import pytest
from proxy import RETRIES, Proxy, proxied

import ensemble_kit as ek
from ensemble_kit.errors import DamagedError, EnskError, LockedError, ResourceError
from ensemble_kit.remote import objects
from s3 import SECRET, environment

pytest.importorskip("obstore")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("form")]

CHUNK, COMMIT = ".0.0", "/manifest/"  # a chunk of logits has three indices or more, one of names has one


def of(row: int) -> str:
    """Return what the keys of a sample's chunks have in common."""
    return h.key(row, 0).removesuffix("0.0.0")


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(server, monkeypatch) as found:
        yield found


@pytest.fixture
def url(proxy: Proxy, request: pytest.FixtureRequest) -> str:
    return f"s3://probe/{abs(hash(request.node.name)):x}/m.zarr"


class Read(NamedTuple):
    """A fault that a reader of a whole store meets, and how the reading ends."""

    id: str
    fault: str
    times: int
    error: type[EnskError] | None
    words: str
    requests: int


MANY = 99
READS = [
    Read("R01", "404", MANY, DamagedError, "the chunk is gone", 1),
    Read("R02", "403", MANY, ResourceError, "the credentials are refused", 1),
    Read("R02", "401", MANY, ResourceError, "the credentials are refused", 1),
    Read("R03", "503", 1, None, "", 1),
    Read("R03", "500", RETRIES, None, "", RETRIES),
    Read("R04", "503", MANY, ResourceError, f"the server answers 503, after {RETRIES} retries", 1 + RETRIES),
    Read("R05", "cut", 1, None, "", 1),
    Read("R05", "cut", MANY, ResourceError, "the connection broke off", 0),
    Read("R06", "half", MANY, DamagedError, "the chunk has", 1),
    Read("R06", "portal", MANY, DamagedError, "the chunk has 20 bytes", 1),
    Read("R06", "empty", MANY, DamagedError, "the chunk has 0 bytes", 1),
    Read("R07", "hang", MANY, ResourceError, "no answer within 1 s", 0),
    Read("R08", "reset", 1, None, "", 1),
    Read("R08", "reset", MANY, ResourceError, "", 0),
]
CASES = READS
ALONE = {
    "R09": "test_a_put_that_is_refused_acknowledges_nothing",
    "R10": "test_a_put_whose_answer_is_lost",
    "R11": "test_the_loser_of_a_race_damages_nothing",
    "R13": "test_keys_that_expire_on_the_way",
    "R15": "test_a_listing_that_lags_behind",
    "R16": "test_hosts_that_are_not_there",
    "R17": "test_a_fault_is_named_once_and_in_order",
}
ELSEWHERE = {
    "R01": "test_remote.py::test_a_missing_or_damaged_object_is_named",
    "R02": "test_remote.py::test_wrong_keys_and_bucket",
    "R12": "faults/test_remote_file_faults.py::test_a_killed_upload_leaves_nothing",
    "R14": "test_remote.py::test_wrong_keys_and_bucket, test_remote.py::test_urls_that_are_refused",
    "R17": "test_remote.py::test_commands_take_urls",
    "R18": "test_cluster.py::test_a_killed_worker_changes_nothing",
    "R19": "test_cluster.py::test_workers_of_other_versions_are_refused",
    "R20": "test_remote_cluster.py::test_a_worker_that_may_not_read_what_the_command_may_is_told",
    "R21": "test_cluster.py::test_work_that_kills_every_worker_is_named",
    "R22": "test_cluster.py::test_a_local_cluster_listens_on_this_machine_alone",
}
NOT_HERE: dict[str, str] = {}


@pytest.mark.parametrize("case", READS, ids=lambda c: f"{c.id} {c.fault} x {c.times}")
def test_a_fault_is_named_once_and_in_order(proxy: Proxy, url: str, case: Read) -> None:
    """It is got over or told with sample and reason, within bounds, and no secret is in any message."""
    h.make(url)
    opened = ek.LogitStore(url)
    proxy.bad("GET", of(h.VICTIM), case.fault, case.times)
    began = time.monotonic()
    if case.error is None:
        np.testing.assert_array_equal(h.read(opened, h.IDS[h.VICTIM]), h.logits()[h.VICTIM])
    else:
        with pytest.raises(case.error) as caught:
            h.read(opened, h.IDS[h.VICTIM])
        text = str(caught.value)
        assert case.words in text
        assert h.key(h.VICTIM, 0) in text
        assert SECRET not in text
        assert "reshape" not in text
    assert time.monotonic() - began < 20
    assert proxy.met == case.requests or not case.requests, proxy.met
    proxy.bad("", "", "")
    np.testing.assert_array_equal(h.read(opened, h.IDS[h.VICTIM]), h.logits()[h.VICTIM])


@pytest.mark.parametrize("part", [CHUNK, COMMIT], ids=["chunk", "commit"])
@pytest.mark.parametrize("fault", ["500", "403"])
def test_a_put_that_is_refused_acknowledges_nothing(proxy: Proxy, url: str, fault: str, part: str) -> None:
    h.make(url, upto=2)
    proxy.bad("PUT", part, fault)
    with pytest.raises(ResourceError) as caught:
        h.make(url)
    assert SECRET not in str(caught.value)
    proxy.bad("", "", "")
    assert ek.LogitStore(url).missing == list(h.IDS[2:])
    h.make(url)
    assert ek.LogitStore(url).verify().sound


@pytest.mark.parametrize("stop", ["line", "chunk", "description", "commit"])
def test_a_sample_that_is_written_again_is_old_or_new_wherever_it_stops(proxy: Proxy, url: str, stop: str) -> None:
    if stop == "description" and h.GRID is not None:
        pytest.skip("a row of an array has none")
    other = of(0) if h.GRID is not None else "/logits/0/0."  # beside the former chunks, under other keys
    part, spared, value = {
        "line": (COMMIT, 0, 0), "chunk": (other, 0, 0), "description": ("/logits/0/zarr.json", 0, 0),
        "commit": (COMMIT, 1, 1),
    }[stop]  # fmt: skip
    h.make(url, upto=2)
    values = h.logits(), h.logits(seed=5)
    proxy.bad("PUT", part, "403", after=spared)
    with pytest.raises(ResourceError), ek.LogitWriter(url, h.CLASSES, h.IDS, h.GRID, member="m") as out:
        h.write(out, h.IDS[0], values[1][0], again=True)
    proxy.bad("", "", "")
    opened = ek.LogitStore(url)
    assert opened.missing == list(h.IDS[2:])
    assert opened.verify().damaged == ()
    np.testing.assert_array_equal(h.read(opened, h.IDS[0]), values[value][0])
    with ek.LogitWriter(url, h.CLASSES, h.IDS, h.GRID, member="m") as out:
        h.write(out, h.IDS[0], values[1][0], again=True)
    np.testing.assert_array_equal(h.read(ek.LogitStore(url), h.IDS[0]), values[1][0])
    h.make(url, upto=0)
    assert not ek.LogitStore(url).verify().damaged


@pytest.mark.parametrize("part", [CHUNK, COMMIT, "zarr.json"], ids=["chunk", "commit", "description"])
def test_a_put_whose_answer_is_lost(proxy: Proxy, url: str, part: str) -> None:
    """The put is tried again, finds what it has put itself, and takes it for its own."""
    proxy.bad("PUT", part, "lost", 1)
    h.make(url)
    assert proxy.met == 1
    assert ek.LogitStore(url).verify().sound


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_the_loser_of_a_race_damages_nothing(proxy: Proxy, url: str, same: bool) -> None:
    """Two writers of one sample, both before the other's commit: equal bytes are one, others are refused (8)."""
    h.make(url, upto=0)
    first, second = (ek.LogitWriter(url, h.CLASSES, h.IDS, h.GRID) for _ in range(2))
    for k, part in enumerate((of(0), f"{COMMIT}1.")):  # before its object, and between object and commit
        proxy.bad("PUT", part, partial(h.write, first, h.IDS[k], h.logits()[k]), 1)
        late = h.logits()[k] if same else h.logits()[k] + np.float16(1)
        if same:
            h.write(second, h.IDS[k], late)
        else:
            with pytest.raises(LockedError) as caught:
                h.write(second, h.IDS[k], late)
            assert caught.value.code == "sample-committed"
        assert proxy.met == 1
    opened = ek.LogitStore(url)
    for k in range(2):
        np.testing.assert_array_equal(h.read(opened, h.IDS[k]), h.logits()[k])


def test_keys_that_expire_on_the_way(proxy: Proxy, url: str) -> None:
    proxy.bad("PUT", CHUNK, "403", after=3)
    with pytest.raises(ResourceError, match="credentials are refused"):
        h.make(url)
    proxy.bad("", "", "")
    assert ek.LogitStore(url).missing == list(h.IDS[3 // h.FORM.chunks :])
    h.make(url)  # with new keys
    assert ek.LogitStore(url).verify().sound


def test_a_listing_that_lags_behind(proxy: Proxy, url: str) -> None:
    """What is committed is asked for by key: a listing without it hides nothing from readers, and loses nothing."""
    h.make(url, upto=4)
    wanted = [h.read(ek.LogitStore(url), s) for s in h.IDS[:4]]
    proxy.bad("GET", "list-type=2", "stale list")
    assert ek.LogitStore(url).missing == list(h.IDS[4:])
    h.make(url)
    assert proxy.met
    proxy.bad("", "", "")
    opened = ek.LogitStore(url)
    assert opened.verify().sound
    for sample, logits in zip(h.IDS, wanted, strict=False):
        np.testing.assert_array_equal(h.read(opened, sample), logits)


@pytest.mark.parametrize(
    ("host", "words"), [("http://127.0.0.1:9", "no connection"), ("http://nowhere.invalid", "name is not known")]
)
def test_hosts_that_are_not_there(monkeypatch: pytest.MonkeyPatch, host: str, words: str) -> None:
    environment(monkeypatch, host)
    monkeypatch.setattr(objects, "RETRIES", RETRIES)
    ran = h.ensk("verify", "s3://probe/m.zarr")
    h.judge(ran, 5, "remote", "s3://probe/m.zarr", words)
    assert SECRET not in ran.err
