"""What only a GPU shows: `make gpu-test`, at most 8 minutes. `--device cpu` tries the script itself, on little.

Each check prints a line, and a failed one its traceback; the exit code says how many failed. Without a CUDA device
nothing runs, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import nets  # noqa: E402 - a script finds its neighbours by itself

import ensemble_kit as ek  # noqa: E402
from ensemble_kit.dumping import dump_logits  # noqa: E402
from ensemble_kit.dumping.preprocess import Preprocess  # noqa: E402
from ensemble_kit.dumping.recipe import Recipe  # noqa: E402
from ensemble_kit.errors import ResourceError  # noqa: E402

LIMIT = 480
"""Seconds after which no further check begins."""
IMAGES = ROOT / "ensemble_kit/demo/data/val/images"
MAY_DIFFER = {"fp32": 0.05, "fp16": 0.1, "bf16": 0.5}
"""Largest difference from the CPU's logits, as a share of their standard deviation: TF32 (11 bits), fp16 (11), bf16 (8)."""
REFERENCES = 8
"""Samples that the CPU computes, too."""


@dataclass(frozen=True)
class Bench:
    """Where checks run, and on how much."""

    device: str
    folder: Path
    samples: int
    size: int

    @property
    def is_cuda(self) -> bool:
        """Tell whether this is the real thing."""
        return self.device.startswith("cuda")

    def images(self) -> Path:
        """Link the demo's images under as many names as there are to be samples."""
        folder, files = self.folder / "images", sorted(IMAGES.iterdir())
        if not folder.exists():
            folder.mkdir()
            for k in range(self.samples):
                (folder / f"{k:04}.png").symlink_to(files[k % len(files)])
        return folder

    def dump(self, out: str, model: object = None, device: str = "", half: bool = False, **options: Any) -> float:
        """Dump; return the seconds that it took."""
        recipe = Recipe(Preprocess(mean=(0.4,) * 3, std=(0.2,) * 3).but(size=self.size), half=half)
        begin = time.perf_counter()
        net = nets.unet() if model is None else model
        where = {"device": device or self.device, "batch_size": 4, **options}
        dump_logits(net, self.images(), nets.CLASSES, self.folder / out, recipe, **where)
        return time.perf_counter() - begin

    def env(self) -> dict[str, str]:
        """Return the environment of commands."""
        return os.environ | {"PYTHONPATH": f"{ROOT}:{HERE}"}


def sound(path: Path) -> ek.LogitStore:
    """Open a store that must be complete and sound."""
    store = ek.LogitStore(path)
    assert store.complete and store.verify().sound, store
    return store


def precisions(bench: Bench) -> str:
    """Logits in fp32, fp16 and bf16 against the CPU's; samples a second, and the share of writing."""
    bench.dump("cpu.zarr", device="cpu", part=(1, -(-bench.samples // REFERENCES)))
    reference = ek.LogitStore(bench.folder / "cpu.zarr")
    there = sorted(set(reference.samples) - set(reference.missing))
    whole = {s: reference.read(s).astype(np.float32) for s in there}
    spread, lines = float(np.std(np.stack(list(whole.values())))), []
    kinds = {"fp32": {}, "bf16": {"model": nets.unet_bf16()}} | ({"fp16": {"half": True}} if bench.is_cuda else {})
    for name, options in kinds.items():
        bench.dump(f"warm_{name}.zarr", part=(1, bench.samples), **options)
        took = bench.dump(f"{name}.zarr", batch_size=16, **options)
        store = sound(bench.folder / f"{name}.zarr")
        worst = max(float(np.abs(store.read(s) - whole[s]).max()) for s in there) / spread
        turned = np.mean([((store.read(s) > 0) != (whole[s] > 0)).mean() for s in there])
        begin = time.perf_counter()
        with ek.LogitWriter(bench.folder / f"{name}_again.zarr", nets.CLASSES, store.samples, store.grid) as out:
            for k, s in enumerate(store.samples):
                out.write(s, whole[there[k % len(there)]], store.image_size(s))
        writing = (time.perf_counter() - begin) / took
        speed = f"{bench.samples / took:.1f} samples a second, writing {writing:.0%} of it"
        lines.append(f"{name}: {speed}; at most {worst:.4f} deviations off, {turned:.4%} of signs")
        assert worst <= MAY_DIFFER[name], lines[-1]
    return "\n  ".join(lines)


class Limited(torch.nn.Module):
    """The network; on a CPU, whose memory is not to be filled, it fails as CUDA does at more than so many images."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.most = nets.unet(), sys.maxsize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError(f"a batch of {len(x)}")
        return self.net(x)


def memory_edge(bench: Bench) -> str:
    """A batch that does not fit runs one by one; where no image fits, `model-memory`, and what was committed stays."""
    model, lines = Limited(), list[str]()
    bench.dump("batch.zarr", model, batch_size=2)
    bench.dump("edge.zarr", model, part=(1, 2))
    edge = bench.folder / "edge.zarr"
    before = set(ek.LogitStore(edge).samples) - set(ek.LogitStore(edge).missing)
    with limited(bench, model, images=4, memory=2 << 30):
        bench.dump("ones.zarr", model, batch_size=bench.samples, say=lines.append)
    assert any("one by one" in line for line in lines), lines
    one, other = (sound(bench.folder / f"{name}.zarr") for name in ("batch", "ones"))
    worst = max(float(np.abs(one.read(s).astype("f4") - other.read(s)).max()) for s in one.samples)
    with limited(bench, model, images=0, memory=48 << 20):
        try:
            bench.dump("edge.zarr", model)
        except ResourceError as error:
            assert error.code == "model-memory", error
        else:
            raise AssertionError("the memory was not too small")
    kept = ek.LogitStore(edge)
    assert before and before == set(kept.samples) - set(kept.missing) and not kept.verify().damaged
    bench.dump("edge.zarr", model)
    sound(edge)
    return f"{bench.samples} at once run one by one (at most {worst:.3f} off); {len(before)} kept where none fits, then resumed"


@contextmanager
def limited(bench: Bench, model: Limited, images: int, memory: int) -> Iterator[None]:
    """Leave room for so much: bytes of a GPU, images of a CPU."""
    card = torch.device(bench.device).index or 0  # the limit is not set by a name without a number
    if bench.is_cuda:
        torch.cuda.empty_cache()
        held, total = torch.cuda.memory_reserved(card), torch.cuda.get_device_properties(card).total_memory
        torch.cuda.set_per_process_memory_fraction((held + memory) / total, card)
    else:
        model.most = images
    try:
        yield
    finally:
        model.most = sys.maxsize
        if bench.is_cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, card)


def two_writers(bench: Bench) -> str:
    """Two processes on one card fill one store."""
    words = [sys.executable, "-m", "ensemble_kit", "dump-logits", "nets:unet", "--images", str(bench.images())]
    (bench.folder / "classes.txt").write_text("\n".join(nets.CLASSES))
    words += ["--classes", str(bench.folder / "classes.txt"), "--size", str(bench.size), "--device", bench.device]
    words += ["--out", str(bench.folder / "two.zarr"), "-q"]
    begin = time.perf_counter()
    running = [subprocess.Popen([*words, "--part", f"{k}/2"], env=bench.env()) for k in (1, 2)]
    assert [one.wait(timeout=240) for one in running] == [0, 0]
    took = time.perf_counter() - begin
    sound(bench.folder / "two.zarr")
    return f"{bench.samples / took:.1f} samples a second, start of two processes included"


def batches(bench: Bench) -> list[dict[str, Any]]:
    """Return samples as trainers have them: pixels, id and size."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, 64, 64, generator=draw)
    return [{"image": one, "id": f"{k}.png", "size": torch.tensor([100, 90])} for k, one in enumerate(x)]


def lightning(bench: Bench) -> str:
    """`LogitCallback` stores what `trainer.predict` returns, in 32 bits and in bf16."""
    from lightning import LightningModule, Trainer

    from ensemble_kit.trainers.lightning import LogitCallback

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nets.unet()

        def predict_step(self, batch: Any) -> Any:
            return self.net(batch["image"])

    data, worst = batches(bench), 0.0
    for precision in ("32-true", "bf16-mixed"):
        path = bench.folder / f"lightning_{precision}.zarr"
        writer = LogitCallback(path, nets.CLASSES, [one["id"] for one in data], say=lambda _: None)
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
        how: dict[str, Any] = {"accelerator": "gpu" if bench.is_cuda else "cpu", "devices": 1, "precision": precision}
        trainer = Trainer(**how, **quiet, callbacks=[writer])
        theirs = torch.cat(trainer.predict(Module(), torch.utils.data.DataLoader(data, 4))).float().cpu()
        store = sound(path)
        for one, wanted in zip(data, theirs, strict=True):
            worst = max(worst, float(np.abs(store.read(one["id"]) - wanted.half().float().numpy()).max()))
    assert worst == 0, worst
    return "stores are what trainer.predict returned, to the last bit of fp16"


def hugging_face(bench: Bench) -> str:
    """`dump` of a SegFormer on the card stores its logits."""
    from PIL import Image
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

    from ensemble_kit.trainers.huggingface import dump

    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
    config = SegformerConfig(num_labels=4, decoder_hidden_size=16, **sizes)
    model = SegformerForSemanticSegmentation(config).eval().to(bench.device)
    processor = SegformerImageProcessorPil(size={"height": 64, "width": 64})
    rows = [{"image": Image.open(p).convert("RGB"), "id": p.name} for p in sorted(IMAGES.iterdir())]
    dump(model, processor, rows, bench.folder / "segformer.zarr", batch_size=4, say=lambda _: None)
    store, worst = sound(bench.folder / "segformer.zarr"), 0.0
    for first in range(0, len(rows), 4):
        some = rows[first : first + 4]
        taken = processor(images=[row["image"] for row in some], return_tensors="pt").to(bench.device)
        with torch.inference_mode():
            logits = model(**taken).logits.half().float().cpu().numpy()
        for row, wanted in zip(some, logits, strict=True):
            worst = max(worst, float(np.abs(store.read(row["id"]) - wanted).max() / np.abs(logits).max()))
    assert worst <= 2**-9, worst  # two runs of one batch, which need not sum in one order
    return f"{len(rows)} images; stores are the model's own logits, at most {worst:.1e} of the largest off"


def hand_bones(bench: Bench) -> str:
    """One epoch of the large example, in mixed precision on a GPU."""
    example, data = ROOT / "examples/hand_bones", bench.folder / "hands"
    small = bench.folder / "unet.json"
    config = json.loads((example / "configs/small/unet.json").read_text())
    small.write_text(json.dumps(config | {"epochs": 1, "validate_every": 1, "lr_scheduler": {"name": "cosine"}}))
    begin = time.perf_counter()
    for words in (
        ["generate.py", data, "--people", 6, "--size", 192],
        ["make_splits.py", data, "--folds", 3, "--out", data / "splits.csv"],
        ["train.py", small, "--data", data, "--experiments", bench.folder / "exp", "--device", bench.device],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=example, env=bench.env(), text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    stores = sorted((bench.folder / "exp").rglob("*.zarr"))
    assert stores, "no store was written"
    for path in stores:
        sound(path)
    return f"{time.perf_counter() - begin:.0f} s with its data; {len(stores)} stores are sound; {done.stdout.splitlines()[0]}"


CHECKS: tuple[tuple[Callable[[Bench], str], tuple[str, ...]], ...] = (
    (precisions, ()),
    (memory_edge, ()),
    (two_writers, ()),
    (lightning, ("lightning",)),
    (hugging_face, ("transformers",)),
    (hand_bones, ("segmentation_models_pytorch", "torchvision")),
)


def main() -> int:
    """Run the checks; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", help="names of checks")
    told = parser.parse_args()
    if told.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"skipped: torch {torch.__version__} finds no CUDA device; --device cpu tries the script itself")
        return 0
    if told.device.startswith("cuda"):
        about = torch.cuda.get_device_properties(told.device)
        print(f"{about.name}, {about.total_memory >> 30} GiB, torch {torch.__version__}", flush=True)
    else:
        os.environ.setdefault("ENSK_GPU_WIDTH", "8")
        print(f"{told.device}, torch {torch.__version__}: no GPU, the script itself is tried", flush=True)
    began, failed = time.monotonic(), 0
    samples, size = (192, 512) if told.device.startswith("cuda") else (10, 64)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(told.device, Path(folder), samples, size)
        for check, needs in CHECKS:
            if told.only and check.__name__ not in told.only:
                continue
            absent = [name for name in needs if importlib.util.find_spec(name) is None]
            if absent or time.monotonic() - began > LIMIT:
                print(f"{check.__name__}: left out, {f'without {absent[0]}' if absent else 'time is up'}", flush=True)
                continue
            try:
                print(f"{check.__name__}: {check(bench)}", flush=True)
            except Exception:  # noqa: BLE001 - the next check says something of its own
                failed += 1
                print(f"{check.__name__}: FAILED\n{traceback.format_exc()}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
