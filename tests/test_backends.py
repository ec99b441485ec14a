"""Networks of every kind behind one seam: what they put out, what is refused, flips, windows, arrays."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import exported
from ensemble_kit.backends import Network, open_network, registry
from ensemble_kit.dumping.arrays import ArrayForm, match
from ensemble_kit.dumping.sides import check_sides, class_orders, likely_pairs, parse_swap
from ensemble_kit.dumping.tiling import hann, place_windows, slide
from ensemble_kit.dumping.tta import Averaged, Symmetry, symmetries
from ensemble_kit.errors import (
    DamagedError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
)
from ensemble_kit.spec.geometry import Box

ROOT = Path(__file__).parent.parent
PAIR = ("a", "b")
RNG = np.random.default_rng(0)
OLD = not exported.at_least(2, 10)
"""Below torch 2.10 a state dict is read with `trust` only."""


class Small(nn.Module):
    """Two classes on half the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.body(x)).relu())


class Identity:
    """The smallest network: what comes in goes out."""

    size = None
    channels = None

    def put(self, images: np.ndarray) -> np.ndarray:
        return images

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x

    def get(self, y: np.ndarray) -> np.ndarray:
        return y

    def record(self) -> dict[str, Any]:
        return {}


_: type[Network] = Identity  # conforms: a test compares the signatures


@pytest.fixture
def images() -> np.ndarray:
    return RNG.standard_normal((3, 3, 16, 24)).astype(np.float32)


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    net = Small().eval()
    net.norm.running_mean[:] = torch.tensor([0.1, -0.2, 0.3, 0.0])  # differs from training mode
    return net


def run(network: Network, images: np.ndarray) -> np.ndarray:
    return network.get(network.forward(network.put(images)))


def want(images: np.ndarray, net: nn.Module | None = None) -> np.ndarray:
    with torch.inference_mode():
        return (net or small())(torch.from_numpy(images)).numpy()


# --- the seam --------------------------------------------------------------------------------------------------


def test_the_fake_conforms_to_the_protocol() -> None:
    for name, wanted in inspect.getmembers(Network, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(getattr(Identity, name)).parameters) == list(
                inspect.signature(wanted).parameters
            )
    assert Identity().size is None


def test_a_new_backend_is_a_module_and_a_line(
    tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = types.ModuleType("ensemble_kit.backends.toy")
    toy.open_network = lambda model, options: (Identity(), [f"{Path(model).name} on {options.device}"])
    monkeypatch.setitem(sys.modules, toy.__name__, toy)
    monkeypatch.setitem(registry.BACKENDS, "toy", (".toy",))
    (tmp_path / "net.toy").touch()
    network, notes = open_network(tmp_path / "net.toy", device="moon")
    assert np.array_equal(run(network, images), images)
    assert notes == ["net.toy on moon"]
    with pytest.raises(UsageError, match=r"\.onnx or \.toy"):
        open_network(tmp_path)


@pytest.mark.parametrize(
    ("model", "framework", "code"),
    [("mynet:Net", "torch", "torch-missing"), ("net.onnx", "onnxruntime", "onnx-missing")],
)
def test_a_framework_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, framework: str, code: str
) -> None:
    (tmp_path / "net.onnx").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, framework, None)
    for backend in registry.BACKENDS:
        monkeypatch.delitem(sys.modules, f"ensemble_kit.backends.{backend}", raising=False)
    with pytest.raises(UsageError, match="pip install") as caught:
        open_network(model)
    assert (caught.value.code, framework in caught.value.item) == (code, True)


# --- PyTorch ---------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write a module beside the current directory, as a user has it."""
    (tmp_path / "mynet.py").write_text(
        textwrap.dedent(
            """
            import torch, types
            from torch import nn
            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    torch.manual_seed(7)
                    self.c = nn.Conv2d(3, 2, 1)
                def forward(self, x): return self.c(x)
            made = Net()
            def function():
                net = Net()
                return lambda x: net(x)
            class Wrapped(Net):
                def __init__(self, wrap):
                    super().__init__()
                    self.wrap = wrap
                def forward(self, x): return self.wrap(super().forward(x))
            def as_dict(): return Wrapped(lambda y: {"aux": y * 0, "out": y})
            def as_logits(): return Wrapped(lambda y: {"loss": None, "logits": y})
            def as_object(): return Wrapped(lambda y: types.SimpleNamespace(logits=y))
            def as_tuple(): return Wrapped(lambda y: (y, y * 0))
            def as_nested(): return Wrapped(lambda y: ({"logits": y},))
            def as_text(): return Wrapped(lambda y: "no")
            def as_numpy(): return Wrapped(lambda y: y.numpy())
            def broken(): raise RuntimeError("no such checkpoint")
            def number(): return 3
            def needs(x): return x
            """
        )
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield
    sys.modules.pop("mynet", None)


@pytest.mark.parametrize(
    "name",
    ["Net", "made", "function", "as_dict", "as_logits", "as_object", "as_tuple", "as_nested", "as_numpy"],
)
def test_a_callable_of_any_kind_and_output(module: None, images: np.ndarray, name: str) -> None:
    network, _ = open_network(f"mynet:{name}", device="cpu")
    from mynet import Net

    assert np.allclose(run(network, images), want(images, Net().eval()), atol=1e-6)
    assert network.record()["model"] == f"mynet:{name}"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("mynet:nothing", "model-import", "nothing"),
        ("notthere:Net", "model-import", "notthere"),
        ("mynet:broken", "model-build", "no such checkpoint"),
        ("mynet:number", "model-build", "int"),
        ("mynet:needs", "model-build", "argument"),
        ("mynet", "model-unknown", "mynet"),
        ("mynet.py", "model-unknown", "mynet.py"),
        ("mynet.py:Net", "model-import", "pass mynet:Net"),
        ("nets/unet.py:make", "model-import", r"pass nets\.unet:make"),
        ("/home/me/mynet.py:Net", "model-import", "in /home/me and pass mynet:Net"),
    ],
)
def test_a_callable_that_is_none_is_refused(module: None, name: str, code: str, text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        open_network(name)
    assert caught.value.code == code


def test_an_output_without_logits_is_refused(module: None, images: np.ndarray) -> None:
    network, _ = open_network("mynet:as_text", device="cpu")
    with pytest.raises(MismatchError, match="a str"):
        run(network, images)


def test_a_module_at_hand_is_put_in_evaluation_mode(images: np.ndarray) -> None:
    net = small().train()
    network, _ = open_network(net, device="cpu")
    assert np.allclose(run(network, images), want(images), atol=1e-6)
    assert not net.training


def test_devices(module: None) -> None:
    with pytest.raises(UsageError, match="tpu"):
        open_network("mynet:Net", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="cuda"):
            open_network("mynet:Net", device="cuda")
        with pytest.raises(UsageError, match="--half on cpu"):
            open_network("mynet:Net", device="auto", half=True)


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda s: s, None),
        (lambda s: {"state_dict": s, "epoch": 3}, "took 'state_dict'"),
        (lambda s: {"model": s, "args": {"lr": 0.1}}, "took 'model'"),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, "dropped the prefix 'module.'"),
        (lambda s: {f"model.{k}": v for k, v in s.items()} | {"loss.w": torch.ones(1)}, "left out 'loss.w'"),
        (lambda s: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in s.items()}}, "'module.'"),
        (lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}, None),
    ],
    ids=["plain", "checkpoint", "model", "ddp", "lightning with a loss", "compiled ddp in a checkpoint", "half"],
)
def test_weights_in_every_wrapping(
    tmp_path: Path, images: np.ndarray, wrap: Callable[[dict[str, Any]], object], note: str | None
) -> None:
    path = tmp_path / "w.pt"
    torch.save(wrap(small(5).state_dict()), path)
    network, notes = open_network(Small(), weights=path, device="cpu", trust=OLD)
    assert np.allclose(run(network, images), want(images, small(5)), atol=2e-3)
    assert (note or "") in " ".join(notes)
    assert bool(notes) == (note is not None)
    record = network.record()["weights"]
    assert record["file"] == "w.pt"
    assert len(record["sha256"]) == 64


def test_safetensors(tmp_path: Path, images: np.ndarray) -> None:
    from safetensors.torch import save_file

    save_file(small(5).state_dict(), tmp_path / "w.safetensors")
    network, _ = open_network(Small(), weights=tmp_path / "w.safetensors", device="cpu")
    assert np.allclose(run(network, images), want(images, small(5)), atol=1e-6)
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(DamagedError, match=r"w\.safetensors"):
        open_network(Small(), weights=tmp_path / "w.safetensors")


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    state = small().state_dict()
    state["extra.bias"] = torch.ones(1)
    del state["head.bias"]
    state["body.weight"] = torch.ones(4, 3, 5, 5)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(MismatchError) as caught:
        open_network(Small(), weights=tmp_path / "w.pt", trust=OLD)
    for part in ("missing 'head.bias'", "'extra.bias'", "(4, 3, 5, 5) where the network has (4, 3, 3, 3)"):
        assert part in str(caught.value)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("force", [False, True], ids=["as it is", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_weights_never_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    torch.save({"state_dict": Evil(tmp_path / "ran")}, tmp_path / "w.pt")
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UnsafeError) as caught:
        open_network(Small(), weights=tmp_path / "w.pt", trust=OLD)
    assert caught.value.exit_code == 7
    assert not (tmp_path / "ran").exists()


def test_damaged_missing_and_swelling_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(IncompleteError, match=r"w\.pt"):
        open_network(Small(), weights=path, trust=OLD)
    torch.save(small().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises((DamagedError, UnsafeError), match=r"w\.pt"):
        open_network(Small(), weights=path, trust=OLD)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", b"\0" * 2**28)
    with pytest.raises(UnsafeError, match="swell"):
        open_network(Small(), weights=path, trust=OLD)
    torch.save([1, 2], path)
    with pytest.raises(MismatchError, match="a list"):
        open_network(Small(), weights=path, trust=OLD)
    with pytest.raises(UsageError, match="--weights"):
        open_network(lambda x: x, weights=path)


@pytest.mark.parametrize(
    "data",
    [b"hello world\n", "Gewichte für später".encode(), b"\xff\xfe\0h", b"", b"{}", b"(dp0\nVa\n"],
    ids=["text", "utf-8", "utf-16", "empty", "json", "pickle of protocol 0"],
)
def test_a_file_that_holds_no_weights_is_told_in_our_words(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="is not a weights file") as caught:
        open_network(Small(), weights=path, trust=OLD)
    assert caught.value.code == "weights-damaged"


@pytest.mark.parametrize("old", [False, True], ids=["zip", "pickle"])
def test_torchs_advice_is_not_passed_on(tmp_path: Path, old: bool) -> None:
    """It says to set weights_only=False, which runs whatever the file holds."""
    path = tmp_path / "w.pt"
    torch.save({"state_dict": small().state_dict(), "net": small()}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UnsafeError) as caught:
        open_network(Small(), weights=path, trust=OLD)
    assert caught.value.code == "weights-can-run-code"
    assert "Small" in caught.value.item
    exported.torchscript(small(), path)
    with pytest.raises(DamagedError, match="TorchScript") as script:
        open_network(Small(), weights=path, trust=OLD)
    for told in (caught, script):
        assert "weights_only" not in str(told.value)
        assert "\x1b" not in str(told.value)


def test_a_torch_that_weights_can_make_run_code_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pt"
    torch.save(small(5).state_dict(), path)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu121")
    with pytest.raises(UnsafeError, match=r"torch 2\.9\.1.*below 2\.10.*--trust") as caught:
        open_network(Small(), weights=path, device="cpu")
    assert caught.value.code == "torch-unsafe"
    assert digest_of(Small(), weights=path, trust=True) == digest_of(small(5))
    shutil.copy(ROOT / "ensemble_kit/demo/data/weights/unet.pt", tmp_path / "copy.pt")  # known, wherever it lies
    assert digest_of("ensemble_kit.demo.networks:unet", weights=tmp_path / "copy.pt")
    torch.save({"state_dict": Evil(tmp_path / "ran")}, path)
    with pytest.raises(UnsafeError) as caught:
        open_network(Small(), weights=path, device="cpu", trust=True)
    assert caught.value.code == "weights-can-run-code"
    assert not (tmp_path / "ran").exists()


# --- what tells networks apart ---------------------------------------------------------------------------------


def digest_of(model: object, key: str = "network_sha256", **options: Any) -> str | None:
    return open_network(model, device="cpu", **options)[0].record().get(key)


class Odd(nn.Module):
    """State of many kinds."""

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scalar", torch.tensor(value))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("brain", torch.ones(2, dtype=torch.bfloat16))
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("none", torch.zeros(0, 3))
        self.lazy = nn.LazyConv2d(2, 1)

    def get_extra_state(self) -> dict[str, object]:
        return {"epoch": 3, "table": torch.ones(2)}

    def set_extra_state(self, state: object) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lazy(x)


def test_a_network_is_told_by_its_state(tmp_path: Path) -> None:
    assert digest_of(small(0)) == digest_of(small(0).train())
    assert len(digest_of(small(0))) == 64
    assert digest_of(small(0)) != digest_of(small(1))
    changed = small(0)
    changed.norm.running_mean[0] += 1
    assert digest_of(changed) != digest_of(small(0))
    assert digest_of(small(0).half()) != digest_of(small(0))
    torch.save(small(5).state_dict(), tmp_path / "w.pt")
    torch.save({"state_dict": small(5).state_dict()}, tmp_path / "ckpt.pt")
    loaded = digest_of(Small(), weights=tmp_path / "w.pt", trust=OLD)
    assert loaded == digest_of(small(5)) == digest_of(Small(), weights=tmp_path / "ckpt.pt", trust=OLD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lazy modules are new
        assert digest_of(Odd()) == digest_of(Odd()) != digest_of(Odd(2.0))


def test_names_and_shapes_count() -> None:
    def holder(**tensors: torch.Tensor) -> str | None:
        net = nn.Module()
        for name, tensor in tensors.items():
            net.register_buffer(name, tensor)
        return digest_of(net)

    flat = torch.arange(6.0)
    all_of_them = [holder(a=flat), holder(b=flat), holder(a=flat.reshape(2, 3)), holder(a=flat.view(torch.int32)),
                   holder(a=flat[:3], b=flat[3:]), holder(a=flat[3:], b=flat[:3])]  # fmt: skip
    assert len(set(all_of_them)) == len(all_of_them)
    assert holder(b=flat, a=flat[1:]) == holder(a=flat[1:], b=flat)


def test_a_function_is_told_by_its_file_and_the_networks_it_holds(module: None, tmp_path: Path) -> None:
    import hashlib

    plain = digest_of(torch.sigmoid)
    assert plain is None  # of a compiled function there is no source
    assert digest_of(run) == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert digest_of(partial(run, None)) == digest_of(run)

    def around(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: net(x) + 0

    assert digest_of(around(small(0))) == digest_of(around(small(0))) != digest_of(around(small(1)))
    assert digest_of(around(small(0))) != digest_of(run)
    assert digest_of(partial(around, small(0))) != digest_of(partial(around, small(1)))
    assert digest_of(small(0).forward) != digest_of(small(1).forward)

    class Holder:
        def __init__(self, nets: list[nn.Module]) -> None:
            self.nets = nets

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.nets[0](x)

    assert digest_of(Holder([small(0)])) == digest_of(Holder([small(0)])) != digest_of(Holder([small(1)]))
    first = digest_of("mynet:function")
    path = tmp_path / "mynet.py"
    assert first == digest_of("mynet:function")
    path.write_text(path.read_text() + "\n")
    assert digest_of("mynet:function") != first

    class Bare(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    assert digest_of(Bare()) == digest_of(run)  # without a state, its file says what it is


@pytest.mark.parametrize("suffix", [".pt", ".ts", ".torchscript"])
def test_torchscript_needs_trust(tmp_path: Path, images: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    exported.torchscript(small(), path)
    with pytest.raises(UnsafeError, match="can run any code"):
        open_network(str(path))
    network, _ = open_network(str(path), trust=True, device="cpu")
    assert np.allclose(run(network, images), want(images), atol=1e-6)
    assert network.record()["model"] == path.name
    with pytest.raises(UsageError, match="--weights"):
        open_network(str(path), trust=True, weights=path)


@pytest.mark.slow
def test_exported_program_needs_trust(tmp_path: Path, images: np.ndarray) -> None:
    path = tmp_path / "net.pt2"
    exported.program(small(), path, (16, 24))
    with pytest.raises(UnsafeError, match="exported program"):
        open_network(str(path))
    network, _ = open_network(str(path), trust=True, device="cpu")
    assert np.allclose(run(network, images), want(images), atol=1e-6)


def test_a_state_dict_as_model_says_where_it_belongs(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "w.pt")
    with pytest.raises(DamagedError, match="--weights"):
        open_network(str(tmp_path / "w.pt"), trust=True)
    with pytest.raises(IncompleteError, match=r"gone\.pt2"):
        open_network("gone.pt2")


# --- ONNX ------------------------------------------------------------------------------------------------------


def export(path: Path, free: tuple[int, ...] = (0, 2, 3)) -> nn.Module:
    net = nn.Conv2d(3, 2, 3, 1, 1)
    torch.manual_seed(1)
    nn.init.normal_(net.weight)
    exported.onnx(net, path, (16, 24), free)
    return net


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    return path, export(path)


@pytest.mark.slow
def test_onnx_runs(onnx_file: tuple[Path, nn.Module], images: np.ndarray) -> None:
    path, net = onnx_file
    network, notes = open_network(str(path), device="cpu")
    assert np.allclose(run(network, images), want(images, net), atol=1e-5)
    assert network.size is None
    assert notes == []
    assert network.record()["model"] == "net.onnx"
    assert network.record()["network_sha256"] == network.record()["model_sha256"]
    with pytest.raises(UsageError, match="--weights"):
        open_network(str(path), weights=path)


def test_onnx_of_one_batch_size_takes_any_number(tmp_path: Path, images: np.ndarray) -> None:
    net = export(tmp_path / "net.onnx", free=())
    network, _ = open_network(str(tmp_path / "net.onnx"), device="cpu")
    assert network.size == (16, 24)
    for n in (1, 2, 3):
        assert np.allclose(run(network, images[:n]), want(images[:n], net), atol=1e-5)


def test_onnx_external_data_stays_in_its_folder(tmp_path: Path, images: np.ndarray) -> None:
    import onnx

    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "net.onnx"
    net = export(path)
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    network, _ = open_network(str(path), device="cpu")
    assert np.allclose(run(network, images), want(images, net), atol=1e-5)

    data = (tmp_path / "in" / "w.bin").read_bytes()
    (tmp_path / "in" / "w.bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert network.record()["model_sha256"] == digest_of(str(path), key="model_sha256")
    assert network.record()["network_sha256"] != digest_of(str(path))  # the weights lie in the other file
    (tmp_path / "in" / "w.bin").write_bytes(data)
    assert network.record()["network_sha256"] == digest_of(str(path))
    (tmp_path / "secret").write_bytes(data)
    (tmp_path / "in" / "w.bin").unlink()
    with pytest.raises(DamagedError, match=r"w\.bin"):
        open_network(str(path))
    (tmp_path / "in" / "w.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match="outside its folder"):
        open_network(str(path))
    (tmp_path / "in" / "w.bin").unlink()
    (tmp_path / "in" / "w.bin").hardlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match="hard-linked"):
        open_network(str(path))
    for place in ("../secret", str(tmp_path / "secret")):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place
        path.write_bytes(model.SerializeToString())
        with pytest.raises(UnsafeError, match="outside its folder"):
            open_network(str(path))


def test_onnx_garbage_and_hard_links(tmp_path: Path, onnx_file: tuple[Path, nn.Module]) -> None:
    path = tmp_path / "net.onnx"
    for data in (b"", b"garbage" * 100, onnx_file[0].read_bytes()[:200]):
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=r"net\.onnx"):
            open_network(str(path))
    path.write_bytes(onnx_file[0].read_bytes())
    path.with_name("other").hardlink_to(path)
    with pytest.raises(UnsafeError, match="hard-linked"):
        open_network(str(path))


# --- flips -----------------------------------------------------------------------------------------------------


def test_groups() -> None:
    assert symmetries(()) == (Symmetry(0, False),)
    assert len(symmetries(("hflip",))) == 2
    assert set(symmetries(("hflip", "vflip"))) == {(0, False), (0, True), (2, True), (2, False)}
    assert len(symmetries(("rot90",))) == 4
    assert len(symmetries(("rot90", "vflip"))) == 8
    with pytest.raises(UsageError, match="shear"):
        symmetries(("shear",))
    x = np.arange(12).reshape(3, 4)
    assert np.array_equal(symmetries(("vflip",))[1].apply(x), x[::-1])
    assert np.array_equal(symmetries(("hflip",))[1].apply(x), x[:, ::-1])


@given(st.integers(0, 3), st.booleans(), st.integers(0, 3), st.booleans())
@settings(deadline=None)
def test_symmetries_are_a_group(a: int, b: bool, c: int, d: bool) -> None:
    first, second = Symmetry(a, b), Symmetry(c, d)
    x = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    assert np.array_equal(first.undo(first.apply(x)), x)
    assert np.array_equal(second.after(first).apply(x), second.apply(first.apply(x)))
    assert np.array_equal(first.apply(torch.from_numpy(x)).numpy(), first.apply(x))


@pytest.mark.parametrize(
    "names", [("hflip",), ("hflip", "vflip"), ("rot90",), ("hflip", "vflip", "rot90")], ids=",".join
)
def test_the_average_of_an_identity_is_the_identity(names: tuple[str, ...]) -> None:
    x = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    assert np.allclose(run(Averaged(Identity(), symmetries(names), None), x), x, atol=1e-6)


@pytest.mark.parametrize("names", [("hflip",), ("vflip",), ("hflip", "vflip", "rot90")], ids=",".join)
def test_the_average_follows_its_input(names: tuple[str, ...]) -> None:
    """A network averaged over a group commutes with every symmetry of the group."""
    network, _ = open_network(nn.Conv2d(3, 2, 3, padding=1), device="cpu")
    averaged = Averaged(network, symmetries(names), None)
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    for symmetry in symmetries(names):
        turned = np.ascontiguousarray(symmetry.apply(x))
        assert np.allclose(run(averaged, turned), symmetry.apply(run(averaged, x)), atol=1e-5)


def test_a_mirror_swaps_the_sides_and_a_turn_does_not() -> None:
    class Sides(Identity):
        """Sees a spot; calls it left in the left half of the image, right in the right half."""

        def forward(self, x: np.ndarray) -> np.ndarray:
            left = np.arange(x.shape[3]) < x.shape[3] / 2
            return np.stack([x[:, 0] * left, x[:, 0] * ~left], axis=1)

    x = np.zeros((1, 3, 4, 4), np.float32)
    x[:, :, 1, 0] = 8
    plain = run(Sides(), x)
    merged = run(Averaged(Sides(), symmetries(("hflip",)), None), x)
    group = symmetries(("hflip",))
    swapped = run(Averaged(Sides(), group, class_orders(["l", "r"], group, {"l": "r"})), x)
    assert np.array_equal(swapped, plain)
    assert merged[0, 0, 1, 0] == merged[0, 1, 1, 0] == 4


def test_likely_sides_are_found() -> None:
    assert likely_pairs(["lung_left", "lung_right", "heart"]) == {"lung_left": "lung_right"}
    assert likely_pairs(["L radius", "R radius"]) == {"L radius": "R radius"}
    assert likely_pairs(["LeftKidney", "RightKidney"]) == {"LeftKidney": "RightKidney"}
    assert likely_pairs(["kidneyL", "kidneyR"]) == {"kidneyL": "kidneyR"}
    assert likely_pairs(["Left Clavicle", "Right Clavicle"]) == {"Left Clavicle": "Right Clavicle"}
    assert likely_pairs(["finger-1", "Radius", "Ulna", "l", "left"]) == {}
    assert likely_pairs(["nerve", "vessel", "any", "large", "rib"]) == {}


def test_flips_that_merge_sides_are_refused() -> None:
    classes = ["lung_left", "lung_right"]
    with pytest.raises(UsageError, match="'lung_left' and 'lung_right'") as caught:
        check_sides(classes, symmetries(("hflip",)), None)
    assert "lung_left=lung_right" in caught.value.fix
    check_sides(classes, symmetries(("hflip",)), {})
    with pytest.raises(UsageError, match="leave rot90 out"):  # 180° move left to right
        check_sides(classes, symmetries(("rot90",)), None)
    check_sides(classes, symmetries(()), None)
    with pytest.raises(UsageError, match="'vflip:lip_top=lip_bottom'"):
        check_sides(["lip_top", "lip_bottom"], symmetries(("vflip",)), None)
    check_sides(["lip_top", "lip_bottom"], symmetries(("hflip",)), None)
    check_sides(["a", "b"], symmetries(("hflip",)), None)


def test_pairs_are_read(tmp_path: Path) -> None:
    assert parse_swap("A=B, C=D") == {"A": "B", "C": "D"}
    assert parse_swap("none") == {}
    (tmp_path / "p.txt").write_text("A, x=B\n\nC=D\n")
    assert parse_swap(str(tmp_path / "p.txt")) == {"A, x": "B", "C": "D"}
    (tmp_path / "p.json").write_text('{"A": "B"}')
    assert parse_swap(str(tmp_path / "p.json")) == {"A": "B"}
    assert parse_swap("hflip:A=B, C=D,vflip:E=F") == {"hflip": {"A": "B", "C": "D"}, "vflip": {"E": "F"}}
    (tmp_path / "p.txt").write_text("handedness:A=B\nC=D\n")
    assert parse_swap(str(tmp_path / "p.txt")) == {"handedness": {"A": "B", "C": "D"}}
    (tmp_path / "p.json").write_text('{"vflip": {"A": "B"}}')
    assert parse_swap(str(tmp_path / "p.json")) == {"vflip": {"A": "B"}}
    (tmp_path / "p.json").write_text('{"flip": {"A": "B"}}')
    for bad in ("A", "A=", "A=B=C", "A=B,A=C", "hflip:A", "flip:A", str(tmp_path / "p.json")):
        with pytest.raises(UsageError, match="cannot read pairs"):
            parse_swap(bad)
    group = symmetries(("hflip",))
    assert class_orders(["a", "b", "c"], group, {"a": "c"}) == [None, [2, 1, 0]]
    with pytest.raises(MismatchError, match="'z'"):
        class_orders(["a", "b"], group, {"a": "z"})
    with pytest.raises(MismatchError, match="'a' stand in more"):
        class_orders(["a", "b", "c"], group, {"a": "b", "c": "a"})


# --- windows ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.sampled_from([1, 2, 4]), st.floats(0, 0.95),
       st.data())  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_windows_cover_the_box_on_whole_cells(
    rows: int, columns: int, cells: int, stride: int, overlap: float, data: st.DataObject
) -> None:
    tile = (cells * stride, cells * stride)
    canvas = (max(rows, cells) * stride, max(columns, cells) * stride)
    y0, x0 = (data.draw(st.integers(0, n // stride - 1)) * stride for n in canvas)
    y1, x1 = (data.draw(st.integers(a // stride + 1, n // stride)) * stride
              for a, n in zip((y0, x0), canvas, strict=True))  # fmt: skip
    windows = list(place_windows(canvas, Box(y0, x0, y1, x1), tile, (cells, cells), overlap))
    covered = np.zeros(canvas, bool)
    for w in windows:
        assert w.shape == tile
        assert min(w) >= 0
        assert w.stop[0] <= canvas[0]
        assert w.stop[1] <= canvas[1]
        assert all(v % stride == 0 for v in w)
        covered[w.slices] = True
    assert covered[y0:y1, x0:x1].all()
    assert len(set(windows)) == len(windows)


def test_neighbours_overlap_as_asked() -> None:
    windows = list(place_windows((64, 400), Box(0, 0, 64, 400), (64, 64), (64, 64), 0.5))
    starts = [w.start[1] for w in windows]
    assert starts[0] == 0
    assert starts[-1] == 400 - 64
    assert max(np.diff(starts)) <= 32


def test_weights_are_positive_and_add_up_to_one() -> None:
    window = hann((512, 512))
    assert window.min() > 0
    side = hann((8, 8))[4] / hann((8, 8))[4].max()
    total = side[:4] + side[4:]
    assert np.allclose(total, total[0])


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9], ids="overlap {}".format)
@pytest.mark.parametrize("batch", [1, 5], ids="batches of {}".format)
def test_an_identity_put_together_is_the_image(overlap: float, batch: int) -> None:
    image = RNG.standard_normal((3, 50, 70)).astype(np.float32)
    out = slide(Identity(), image, Box(0, 0, 50, 70), (16, 16), (16, 16), overlap, batch)
    assert np.allclose(out, image, atol=1e-5)


def test_what_no_window_reaches_is_filled() -> None:
    image = RNG.standard_normal((3, 64, 64)).astype(np.float32)
    out = slide(Identity(), image, Box(0, 0, 20, 30), (16, 16), (16, 16), 0.5, 4, fill=-7)
    assert np.allclose(out[:, :20, :30], image[:, :20, :30], atol=1e-5)
    assert np.all(out[:, 32:] == -7)


def test_a_strided_head_lands_on_its_cells() -> None:
    class Every4th(Identity):
        def forward(self, x: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(x[:, :, ::4, ::4])

    image = RNG.standard_normal((3, 48, 64)).astype(np.float32)
    out = slide(Every4th(), image, Box(0, 0, 48, 64), (32, 32), (8, 8), 0.3, 2)
    assert np.allclose(out, image[:, ::4, ::4], atol=1e-5)


def test_a_smooth_network_shows_no_seam() -> None:
    net = nn.Conv2d(3, 1, 5, padding=2)
    network, _ = open_network(net, device="cpu")
    image = np.ones((3, 96, 96), np.float32)
    out = slide(network, image, Box(0, 0, 96, 96), (32, 32), (32, 32), 0.5, 8)
    inner = out[0, 8:-8, 8:-8]  # the zero padding at each window's edge weighs next to nothing
    assert np.ptp(inner) < 0.02


# --- arrays ----------------------------------------------------------------------------------------------------


def test_arrays_of_every_form(tmp_path: Path) -> None:
    p = RNG.random((2, 5, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", p)
    assert np.array_equal(ArrayForm(PAIR).read(tmp_path / "a.npy"), p)
    np.savez(tmp_path / "a.npz", logits=(p * 10000).astype(np.uint16))
    assert np.allclose(ArrayForm(PAIR, scale=10000).read(tmp_path / "a.npz"), p, atol=1e-4)
    np.savez_compressed(tmp_path / "n.npz", probabilities=p[:, None], other=p)
    assert np.array_equal(ArrayForm(PAIR, key="probabilities").read(tmp_path / "n.npz"), p)
    np.save(tmp_path / "b.npy", np.asfortranarray(p[None].astype(">f8")))
    assert np.array_equal(ArrayForm(PAIR).read(tmp_path / "b.npy"), p)


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    p = RNG.random((2, 5, 6)).astype(np.float32)
    np.savez(tmp_path / "two.npz", a=p, b=p)
    with pytest.raises(UsageError, match="'a', 'b'"):
        ArrayForm(PAIR).read(tmp_path / "two.npz")
    with pytest.raises(UsageError, match="not 'c'"):
        ArrayForm(PAIR, key="c").read(tmp_path / "two.npz")
    np.save(tmp_path / "i.npy", (p * 100).astype(np.int32))
    with pytest.raises(UsageError, match="--scale"):
        ArrayForm(PAIR).read(tmp_path / "i.npy")
    np.save(tmp_path / "last.npy", p.transpose(1, 2, 0))
    with pytest.raises(MismatchError, match="--axes hwc"):
        ArrayForm(PAIR).read(tmp_path / "last.npy")
    np.save(tmp_path / "c.npy", p)
    with pytest.raises(MismatchError, match=r"\(2, 5, 6\).* C = 3"):
        ArrayForm((*PAIR, "c")).read(tmp_path / "c.npy")
    np.save(tmp_path / "z.npy", p.astype(complex))
    with pytest.raises(DamagedError, match="complex"):
        ArrayForm(PAIR).read(tmp_path / "z.npy")


def test_arrays_never_run_code_nor_swell(tmp_path: Path) -> None:
    evil = np.array([Evil(tmp_path / "ran")], dtype=object)
    np.save(tmp_path / "o.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "o.npz", a=evil)
    for name in ("o.npy", "o.npz"):
        with pytest.raises(DamagedError, match=name.replace(".", r"\.")):
            ArrayForm(PAIR).read(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros((2, 3000, 3000)))
    with pytest.raises(ResourceError, match="144000"):
        ArrayForm(PAIR, limit=10**8).read(tmp_path / "bomb.npz")
    for data in (b"", b"PK\x03\x04garbage", b"\x93NUMPY"):
        (tmp_path / "d.npz").write_bytes(data)
        with pytest.raises(DamagedError):
            ArrayForm(PAIR).read(tmp_path / "d.npz")
        (tmp_path / "d.npy").write_bytes(data)
        with pytest.raises(DamagedError):
            ArrayForm(PAIR).read(tmp_path / "d.npy")


def test_arrays_are_matched_by_name_stem_or_path(tmp_path: Path) -> None:
    for name in ("a.npy", "b.png.npz", "sub/c.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root = Path("images")
    images = {n: root / n for n in ("a.png", "b.png", "sub/c.png")}
    found = match(images, tmp_path, root)
    assert {k: v.relative_to(tmp_path).as_posix() for k, v in found.items()} == {
        "a.png": "a.npy", "b.png": "b.png.npz", "sub/c.png": "sub/c.npy"}  # fmt: skip
    with pytest.raises(IncompleteError, match=r"1 of 4 .*'d\.png'"):
        match({**images, "d.png": root / "d.png"}, tmp_path, root)
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(MismatchError, match=r"'a\.npy', 'a\.npz'"):
        match(images, tmp_path, root)
    with pytest.raises(MismatchError, match="fits samples"):
        match({"x": root / "x/b.png", "y": root / "y/b.png"}, tmp_path, root)
