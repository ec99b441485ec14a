"""The hook under mmengine's own runner: the store is `seg_logits`, and one member's vote `pred_sem_seg`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import blocks, committed, equals, ties, write_page
from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import EnskError
from ensemble_kit.logits.store import LogitStore

pytest.importorskip("mmseg")
KEEP = """
import os, sys, time
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class Keep(Hook):
    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        time.sleep(float(os.environ.get("SLOW", 0)))
        for one in outputs:
            name = os.path.basename(one.img_path)
            np.savez(f"{name}.npz", logits=one.seg_logits.data.numpy(), best=one.pred_sem_seg.data.numpy()[0])
"""
NUMBERS = itertools.count()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page's files, and a hook that keeps what mmsegmentation puts out."""
    write_page("mmseg.md", tmp_path)
    (tmp_path / "keep.py").write_text(KEEP)
    kept = (tmp_path / "dump.py").read_text().replace("import mmseg_hook", "import mmseg_hook, keep")
    kept = kept.replace('member="fcn")]', 'member="fcn"), dict(type="Keep")]')
    (tmp_path / "kept.py").write_text(
        kept.replace("    config.ex", "    config.test_dataloader.dataset.indices = 7\n    config.ex")
    )
    return tmp_path


def theirs(page: Path, sample: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(page / f"{sample}.npz") as found:
        return found["logits"], found["best"]


def is_own(path: Path, page: Path, samples: int) -> None:
    store = LogitStore(path)
    assert len(store.samples) == samples
    found = {sample: theirs(page, sample) for sample in store.samples}
    equals(store, {sample: logits for sample, (logits, _) in found.items()})
    masks, winners = Ensemble([store]).vote(), set[int]()
    differ = sum(ties(logits, masks.labels(sample), best) for sample, (logits, best) in found.items())
    for sample, (_, best) in found.items():
        winners |= set(np.unique(best).tolist())
        assert best.shape == store.image_size(sample)
    assert len(winners) > 1
    print(f"{differ} of {sum(best.size for _, best in found.values())} pixels are ties")


def test_the_page_runs_as_written(page: Path, shell: Callable) -> None:
    told = shell(blocks("mmseg.md", "bash")[0]).stderr
    assert "process 2 of 2: 8 samples written" in told
    assert len(list((page / "answer").glob("*.png"))) == 12
    assert all(LogitStore(page / f"fcn_{part}.zarr").verify().sound for part in ("val", "test"))


def test_killed_and_resumed(page: Path, shell: Callable, killed: Callable) -> None:
    """Of an odd number of images, one of which a process is given twice."""
    there = killed("torchrun --nproc-per-node 2 kept.py", page / "fcn_val.zarr", 3)
    assert 3 <= there < 7
    done = shell("torchrun --nproc-per-node 2 kept.py")
    assert "were there already" in done.stderr
    told = [line for line in done.stderr.splitlines() if "fcn_test.zarr: process" in line]  # a store that was not begun

    def counted(what: str) -> int:
        return sum(int(number) for line in told for number in re.findall(rf"(\d+) {what}", line))

    assert counted("samples written") == 7
    assert counted("padding duplicates skipped") + counted("were there already") == 1  # by whichever comes second
    is_own(page / "fcn_val.zarr", page, 7)
    is_own(page / "fcn_test.zarr", page, 7)


def run(page: Path, change: Callable[[Any], None], **hook: Any) -> LogitStore:
    """Run the page's configuration on three images in this process, with one change."""
    import mmseg_hook  # noqa: F401
    from mmengine.config import Config
    from mmengine.runner import Runner

    config = Config.fromfile(page / "fcn.py")
    config.merge_from_dict({"work_dir": str(page / "work"), "test_evaluator.output_dir": str(page / "work")})
    config.test_dataloader.dataset.update(indices=3, data_prefix={"img_path": str(page / "val/images")})
    config.custom_hooks = [{"type": "LogitHook", "out": str(page / "net.zarr"), **hook}, {"type": "Keep"}]
    config.experiment_name = f"alone_{next(NUMBERS)}"
    change(config)
    Runner.from_cfg(config).test()
    return LogitStore(page / "net.zarr")


def single(config: Any) -> None:
    config.model.decode_head.update(out_channels=1, num_classes=2, threshold=0.5)


@pytest.fixture
def keep(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.registry import HOOKS

    monkeypatch.chdir(page)
    HOOKS.module_dict.pop("Keep", None)
    exec(compile(KEEP, "keep.py", "exec"), {})


@pytest.mark.usefixtures("keep")
def test_one_class_is_a_probability(page: Path) -> None:
    store = run(page, single, classes=["vessel"])
    assert store.activation == "sigmoid" and store.complete
    masks = Ensemble([store]).vote()
    for sample in store.samples:
        probabilities, best = theirs(page, sample)
        logits = np.log(probabilities) - np.log1p(-probabilities)
        np.testing.assert_allclose(store.read(sample), logits, rtol=2e-3, atol=2e-3)
        differ = masks[sample, "vessel"].decode() != best
        assert (np.abs(logits[0])[differ] < 4e-3).all()


def packed(config: Any) -> None:
    config.test_dataloader.dataset.pipeline[-1].meta_keys = ("ori_shape", "img_shape")
    config.test_evaluator = {"type": "IoUMetric", "format_only": True}  # with an output_dir it asks for the path itself


def augmented(config: Any) -> None:
    config.model = {"type": "SegTTAModel", "module": config.model}


def put_out(output: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Let the network put out something else."""

    def change(config: Any) -> None:
        from mmseg.models import EncoderDecoder
        from mmseg.registry import MODELS

        class Odd(EncoderDecoder):
            def postprocess_result(self, *args: Any) -> Any:
                return output(super().postprocess_result(*args))

        MODELS.register_module(name="Odd", force=True, module=Odd)
        config.model.type = "Odd"

    return change


def decided(samples: Any) -> Any:
    for one in samples:
        one.seg_logits = one.pred_sem_seg
    return samples


def without(samples: Any) -> Any:
    for one in samples:
        del one.seg_logits
    return samples


def unsized(samples: Any) -> Any:
    for one in samples:
        del one.ori_shape
    return samples


REFUSED: dict[str, tuple[Callable[[Any], None], dict[str, Any], str]] = {
    "no ids": (packed, {}, "batch-ids: no 'img_path'.* meta_keys of PackSegInputs"),
    "no sizes": (put_out(unsized), {}, "batch-sizes: no 'ori_shape'.* meta_keys of PackSegInputs"),
    "augmentation": (augmented, {}, "option-invalid: SegTTAModel .*last augmentation"),
    "class map": (put_out(decided), {}, "output-class-map: before argmax"),
    "no logits": (put_out(without), {}, "output-loss: no 'seg_logits', only .*pred_sem_seg"),
    "classes": (single, {}, "output-classes: out_channels=1 .*3 classes.*classes=..vessel"),
}


@pytest.mark.usefixtures("keep")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(page: Path, name: str) -> None:
    change, hook, told = REFUSED[name]
    code, pattern = told.split(": ", 1)
    with pytest.raises(EnskError, match=pattern) as caught:
        run(page, change, **hook)
    assert caught.value.code == code
    assert committed(page / "net.zarr") == 0
