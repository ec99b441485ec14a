"""Writing behind a URL: a sample's object, read back where it was there, then its commit (see `remote.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ensemble_kit.errors import DamagedError, UsageError, some
from ensemble_kit.logits import coordinates, description, layout
from ensemble_kit.logits.chunks import Chunks
from ensemble_kit.logits.layout import ARRAY, META, StoreSpec
from ensemble_kit.logits.manifest import HeldManifest
from ensemble_kit.logits.records import Record, check_rank, committed_otherwise, to_line, to_segment
from ensemble_kit.logits.remote import ALL, AT_ONCE, COMMITS, Remote
from ensemble_kit.logits.remotestage import RemoteStage
from ensemble_kit.logits.samplearray import SampleArray

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RemoteSink:
    """A store behind a URL, written to; many processes may."""

    def __init__(self, url: str, wanted: StoreSpec, overwrite: bool) -> None:
        self._remote = Remote(url)
        self.spec = self._join_or_create(wanted, overwrite)
        self._chunks = Chunks(self._remote, self.spec, self.spec.layout)
        self._manifest = self._remote.manifest(self.spec)
        self._manifest.refresh(self._chunks.whole)
        self._compact = ALL in self._manifest.segments
        self._present = {k.removeprefix(f"{ARRAY}/") for k in self._remote.listing(f"{ARRAY}/")}
        self.begun = len(self.missing()) < len(self.spec.samples)

    def missing(self) -> list[str]:
        """Samples that nobody has committed, or whose object is gone."""
        done, rows, gone = self._manifest.records, self.spec.rows, set[int]()
        for row, key, _ in done.chunks(self.spec.layout):
            if key not in self._present:
                gone.add(row)
        return [s for s in self.spec.samples if s not in done or rows[s] in gone]

    def committed(self, sample: str) -> Record | None:
        """Return what is known of a sample that was there on opening, or is this writer's: others are not asked."""
        there = self._manifest.records.get(sample)
        return there if there is not None and self._chunks.whole(there) else None

    def read(self, record: Record) -> NDArray[np.float16]:
        """Return the logits of a committed sample, verified."""
        return self._chunks.read(record)

    def stage(self, sample: str, array: SampleArray) -> RemoteStage:
        """Begin a sample, beside the one that is there."""
        there = self._manifest.records.get(sample)
        return RemoteStage(self._remote, self.spec.layout, self.spec.rows[sample], array, there)

    def commit(self, record: Record, stage: RemoteStage, again: bool = False) -> bool:
        """Put what is left of a sample, and then its commit; return False where it is there already."""
        there = self._manifest.records.get(record.sample)
        if there is not None and not again and self._settled(there, record):
            return False
        check_rank(self._manifest.records.rank, record, self._remote.name)
        taken = replace(record, take=self._manifest.next_take(record.sample), keys=stage.keys)
        if self._compact:
            self._expand()
        if there is not None:
            self._announce(there, taken)
        stage.finish(self.spec.sample_json(record.sample, record.array, stage.keys))
        if stage.other is not None:
            self._join(record, stage.other)
            return False
        new = self._put_commit(taken, stage, new=there is None)
        self._present.update(taken.key(self.spec.layout, k) for k in range(taken.array.count))
        stage.settle()
        return new

    def flush(self) -> None:
        """Do nothing: a commit is durable when its put returns."""

    def finish(self) -> None:
        """Put all commits into one object once nothing is missing, so that opening the store takes one request."""
        if not self._compact and self._all_there():
            records = [self._manifest.records[s] for s in self.spec.samples]
            others = self._remote.manifest(self.spec)
            others.refresh()
            if others.records == self._manifest.records:
                self._remote.put(f"{COMMITS}/{ALL}", to_segment(self.spec.store, records))
                self._compact = True

    def _all_there(self) -> bool:
        """Get what others have committed meanwhile, in order, until a sample is found that nobody has.

        So of many writers all but the last ask for few commits, and the last one for those of all.
        """
        absent = self.missing()
        if any(sample in self._manifest.records for sample in absent):  # its object is gone
            return False
        for first in range(0, len(absent), AT_ONCE):
            rows = [self.spec.rows[sample] for sample in absent[first : first + AT_ONCE]]
            found = self._remote.commits(rows)
            for row in rows:
                if row not in found:
                    return False
                try:
                    self._manifest.hold(f"{row}.jsonl", found[row], self._chunks.whole)
                except DamagedError:  # nothing of this writer's: whoever opens the store is told
                    return False
                record = self._manifest.records.get(self.spec.samples[row])
                if record is not None:  # its objects are put before its commit
                    self._present.update(record.key(self.spec.layout, k) for k in range(record.array.count))
        return not self.missing()

    def release(self) -> None:
        """Do nothing: no file and no lock is held."""

    def _settled(self, there: Record, record: Record) -> bool:
        """Tell whether a committed sample needs nothing; refuse other content for one that is whole."""
        if not self._chunks.whole(there):
            return False
        if not there.same_content(record):
            raise committed_otherwise(there, record, self._remote.name)
        return True

    def _put_commit(self, record: Record, stage: RemoteStage, *, new: bool) -> bool:
        key, content = f"{COMMITS}/{record.row}.jsonl", to_segment(self.spec.store, [record])
        if self._remote.put(key, content, new=new):
            self._keep(record, content)
            return True
        stage.restore()  # another was faster, and what this writer has put has replaced that one's
        self._join(record, self._remote.get(key) or b"")
        return False

    def _join(self, record: Record, content: bytes) -> None:
        """Add another writer's commit of a sample; refuse one of other content."""
        name = f"{record.row}.jsonl"
        held = HeldManifest(f"{self._remote.name}/{COMMITS}", self.spec, {name: content})
        held.refresh()
        there = held.records.get(record.sample)
        if there is None or not self._settled(there, record):
            what = "cannot commit a sample that another writer has committed and damaged"
            item = f"{record.sample!r}, {self._remote.name}/{COMMITS}/{name}"
            raise DamagedError("sample-damaged", what, item=item, fix=self._remote.mend([f"{COMMITS}/{name}"]))
        self._keep(record, content)

    def _keep(self, record: Record, content: bytes) -> None:
        self._manifest.hold(f"{record.row}.{record.take}.jsonl", content)

    def _announce(self, there: Record, record: Record) -> None:
        """Put the line of a sample that takes another's place behind the former one, without a mark.

        Until the new object is there, it is dropped on opening and the former one counts; a kill loses neither.
        """
        content = to_segment(self.spec.store, [there]) + to_line(record.to_json())
        self._remote.put(f"{COMMITS}/{record.row}.jsonl", content)

    def _expand(self) -> None:
        """Put every commit as an object of its own again, before the one that holds them all goes."""
        for record in self._manifest.records.values():
            self._remote.put(f"{COMMITS}/{record.row}.jsonl", to_segment(self.spec.store, [record]))
        self._remote.delete([f"{COMMITS}/{ALL}"])
        self._compact = False

    def _join_or_create(self, wanted: StoreSpec, overwrite: bool) -> StoreSpec:
        if overwrite:
            self._remove()
        if self._remote.get(META) is None:
            if not overwrite and (self._remote.listing(f"{COMMITS}/") or self._remote.get(f"{ARRAY}/{META}")):
                self._check_unfinished(wanted)
            if wanted.own:
                self._remote.put(f"{COMMITS}/{META}", layout.MANIFEST_JSON)
            for key, content in coordinates.files(wanted).items():
                self._remote.put(key, content)
            self._remote.put(f"{ARRAY}/{META}", wanted.array_json(), new=True)
            self._remote.put(META, wanted.group_json(), new=True)  # last: it is what makes it a store
        spec, how = self._remote.describe()
        layout.check_resumable(spec, how, wanted, self._remote.name)
        return spec

    def _check_unfinished(self, wanted: StoreSpec) -> None:
        """Resume where a writer was killed before the group's description; refuse what has lost it."""
        committed = [key for key in self._remote.listing(f"{COMMITS}/") if not key.endswith(f"/{META}")]
        foreign = committed or self._remote.get(f"{ARRAY}/{META}") not in {None, wanted.array_json()}
        if foreign and self._remote.get(META) is None:  # asked once more: another writer may have put it meanwhile
            fix = "restore zarr.json from a copy, or pass another URL"
            raise description.not_a_store(f"{self._remote.name}: no {META}", fix)

    def _remove(self) -> None:
        """Delete a store of ours, its commits first; an object store knows no living writers."""
        keys = self._remote.listing()
        known = {META, f"{ARRAY}/{META}"}
        ours = f"{COMMITS}/", f"{ARRAY}/c.", *(f"{ARRAY}/{digit}" for digit in range(10))
        foreign = [k for k in keys if k not in known and k not in coordinates.KEYS and not k.startswith(ours)]
        if foreign:
            what = "refuse to replace a prefix that holds more than a store of logits"
            item, fix = f"{self._remote.name}: {some(foreign, 3)}", "pass another URL"
            raise UsageError("store-foreign", what, item=item, fix=fix)
        order: Callable[[str], tuple[bool, bool]] = lambda k: (k in known, not k.startswith(COMMITS))  # noqa: E731
        if keys:
            self._remote.delete(sorted(keys, key=order))
