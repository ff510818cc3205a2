"""Reads pickled modules without running anything from the file.

The original checkpoints are whole modules (mlfoundations/task_vectors). Their classes are replaced by inert stubs that
only keep the state they are given; whatever is not on the list refuses the file.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adamerge.checkpoints.heads import NORMALIZE
from adamerge.errors import CheckpointError


class Stub:
    """Stands in for a module, transform or enum member: takes any arguments, keeps its state, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Whatever the file passes is ignored."""

    def __setstate__(self, state: Any) -> None:
        fields = state[0] if isinstance(state, tuple) else state
        self.fields = fields if isinstance(fields, dict) else {}


_TORCH_NN = {
    "activation": "MultiheadAttention GELU ReLU Sigmoid SiLU Softmax",
    "container": "Sequential ModuleList ModuleDict",
    "conv": "Conv2d",
    "dropout": "Dropout",
    "linear": "Linear Identity _LinearWithBias NonDynamicallyQuantizableLinear",
    "normalization": "LayerNorm",
    "sparse": "Embedding",
}
_MODULES = {
    **{f"torch.nn.modules.{module}": names for module, names in _TORCH_NN.items()},
    "src.modeling": "ImageEncoder ClassificationHead ImageClassifier MultiHeadImageClassifier",
    "modeling": "ImageEncoder ClassificationHead ImageClassifier MultiHeadImageClassifier",
    "src.heads": "ClassificationHead",
    "heads": "ClassificationHead",
    "open_clip.model": "CLIP VisualTransformer VisionTransformer TextTransformer Transformer ResidualAttentionBlock "
    "LayerNorm LayerNormFp32 QuickGELU CLIPVisionCfg CLIPTextCfg",
    "open_clip.transformer": "VisionTransformer TextTransformer Transformer ResidualAttentionBlock LayerNorm "
    "LayerNormFp32 QuickGELU PatchDropout LayerScale",
    "open_clip.transform": "_convert_to_rgb ResizeMaxSize",
    "clip.model": "CLIP VisionTransformer Transformer ResidualAttentionBlock LayerNorm QuickGELU",
    "torchvision.transforms.transforms": "Compose Resize CenterCrop ToTensor Normalize RandomResizedCrop",
    "torchvision.transforms.functional": "InterpolationMode",
}
STUBS: dict[str, type[Stub]] = {
    f"{module}.{name}": type(name, (Stub,), {})
    for module, names in _MODULES.items()
    for name in names.split()
}


def load_torch_file(path: Path) -> Any:
    """A file of torch.save, in its zip or its legacy form, through torch's weights-only unpickler and the stubs.

    Raises:
        CheckpointError: the file names a class or function that is not on the list.
        pickle.UnpicklingError: it is no such file.
    """
    stubs: list[Any] = [(stub, name) for name, stub in STUBS.items()]
    plain: list[Any] = [(set, "__builtin__.set"), (set, "builtins.set")]
    try:
        with torch.serialization.safe_globals(stubs + plain):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        _refuse_foreign(path, str(error))
        raise


def _refuse_foreign(path: Path, message: str) -> None:
    for pattern in (
        r"GLOBAL (\S+) was not",
        r"unsupported GLOBAL (\S+) whose",
        r"object for .* but got (.+)",
    ):
        if match := re.search(pattern, message):
            raise _foreign(path, match.group(1)) from None


def _foreign(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{path} was not opened: it names {name}, which no model checkpoint needs.\n"
        "  Nothing of the file was run. If you trust it, load it yourself, save its state dict as safetensors, "
        "and use that."
    )


def load_plain_pickle(path: Path) -> Any:
    """A file of pickle.dump: some of the original checkpoints are (task_vectors' ViT-B-16/Cars).

    Raises:
        CheckpointError: the file names a class or function that is not on the list.
    """
    with path.open("rb") as file:
        return _Restricted(path, file).load()


def load_legacy_file(path: Path) -> Any:
    """A file of torch.save before version 1.6, whose modules carry their source: a row of pickles, then the bytes.

    torch's own weights-only reader does not take such modules; this one does, through the stubs.

    Raises:
        CheckpointError: the file names a class or function that is not on the list.
        ValueError: it is damaged.
    """
    with path.open("rb") as file:
        for _ in ("magic number", "protocol", "system"):
            _Restricted(path, file).load()
        reader = _Legacy(path, file)
        loaded = reader.load()
        for key in _Restricted(path, file).load():
            reader.fill(key, file)
    return loaded


# The first pickle of every file in torch's legacy form.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class _Restricted(pickle.Unpickler):
    """Finds stubs, and fresh wrappers of the few functions that rebuild tensors; nothing else."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file)
        self._path = path
        self._known: dict[str, Any] = {
            **STUBS,
            **_rebuilders(),
            "collections.OrderedDict": OrderedDict,
            "builtins.set": set,
            "__builtin__.set": set,
        }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._known:
            raise _foreign(self._path, full)
        return self._known[full]


_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Legacy(_Restricted):
    """Gives empty storages while unpickling, which are filled with the bytes that follow."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(path, file)
        self._size = path.stat().st_size
        self._storages: dict[str, torch.TypedStorage] = {}
        self._known |= {f"torch.{name}": dtype for name, dtype in _STORAGES.items()}

    def persistent_load(self, identity: Any) -> Any:
        if identity[0] == "module":  # the class, with its source, which nobody reads
            return identity[1]
        _, dtype, key, _, count, _ = identity
        if not isinstance(dtype, torch.dtype) or count * dtype.itemsize > self._size:
            raise ValueError(f"a storage of {count} elements does not fit into the file")
        if key not in self._storages:
            untyped = torch.UntypedStorage(count * dtype.itemsize)
            self._storages[key] = torch.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)
        return self._storages[key]

    def fill(self, key: str, file: Any) -> None:
        storage = self._storages[key]
        count = int.from_bytes(file.read(8), "little")
        data = file.read(count * storage.dtype.itemsize)
        if len(data) != storage.nbytes():
            raise ValueError("it ends in the middle of a tensor")
        if data:
            target = torch.tensor([], dtype=torch.uint8).set_(storage.untyped())
            target.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def _rebuilders() -> dict[str, Callable[..., Any]]:
    """Wrappers made anew for each file, so that a file cannot leave its mark on torch's own functions."""

    def tensor(storage: Any, offset: int, size: Any, stride: Any, *unused: Any) -> Tensor:
        return torch._utils._rebuild_tensor(storage, offset, size, stride)

    def parameter(data: Tensor, *unused: Any) -> Tensor:
        return data

    def storage(data: bytes) -> Any:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    return {
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "torch.storage._load_from_bytes": storage,
    }


_DEEPEST = 4  # dictionaries in dictionaries; a file may hold one that holds itself


def states_in(loaded: Any, depth: int = 0) -> dict[str, dict[str, Tensor]]:
    """{entry: state dict} of everything in a file that holds tensors: a module's, and every dictionary's.

    Entries inside entries are named with dots; "" are the tensors at the top.
    """
    if isinstance(loaded, Stub):
        state = dict(_walk(loaded, ""))
        return {"": state} if state else {}
    if not isinstance(loaded, dict) or depth > _DEEPEST:
        return {}
    own = {str(key): value.detach() for key, value in loaded.items() if isinstance(value, Tensor)}
    if own and loaded.get(NORMALIZE) is False:
        own[NORMALIZE] = torch.tensor(False)
    found = {"": own} if own else {}
    for name, value in loaded.items():
        for inner, state in states_in(value, depth + 1).items():
            found[f"{name}.{inner}" if inner else str(name)] = state
    return found


def _walk(module: Stub, prefix: str) -> Iterator[tuple[str, Tensor]]:
    fields = getattr(module, "fields", {})
    for group in ("_parameters", "_buffers"):
        for name, value in (fields.get(group) or {}).items():
            if isinstance(value, Tensor) and name not in (fields.get("_non_persistent_buffers_set") or ()):
                yield f"{prefix}{name}", value.detach()
    # True is what a head without this attribute does.
    if type(module).__name__ == "ClassificationHead" and fields.get(NORMALIZE) is False:
        yield f"{prefix}{NORMALIZE}", torch.tensor(False)
    for name, child in (fields.get("_modules") or {}).items():
        if isinstance(child, Stub):
            yield from _walk(child, f"{prefix}{name}.")
