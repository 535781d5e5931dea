"""Reads pickles of other projects: tensors, arrays and plain values; nothing in the file is executed.

torch's own `weights_only` reader refuses what other toolkits write beside the tensors: logging buffers, numpy scalars,
settings objects. Here each of these names stands for something harmless, and every other name is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_INSTRUCTIONS = 2_000_000  # of one pickle; a checkpoint with its optimizer has some hundred thousand
LONGEST_LINE = 2**20
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first object of a file of torch before 1.6
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Objects beside the weights that are not needed: their arguments are thrown away. `getattr` is one of them because the
# logging buffers of mmengine refer to their own methods with it.
OPAQUE = (
    "argparse.Namespace",
    "builtins.getattr",
    "datetime.datetime",
    "datetime.timedelta",
    "mmcv.utils.config.Config",
    "mmengine.config.config.Config",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "torch.device",
    *(f"numpy.{name}" for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool_", "str_")),
)
# Dictionaries under other names: their entries are kept.
MAPPINGS = (
    "addict.addict.Dict",
    "collections.defaultdict",
    "collections.Counter",
    "easydict.EasyDict",
    "fvcore.common.config.CfgNode",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)
PATHS = (
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
)
ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def read_pickle(path: Path) -> Any:
    """The content of a torch file, zipped or older, or of a plain pickle of numpy arrays (.pdparams).

    Raises pickle.UnpicklingError where the file asks for anything beyond tensors, arrays and plain values, and
    other errors of reading (EOFError, ValueError, ...) where it is damaged.
    """
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    with path.open("rb") as opened:
        file = _Counted(opened)
        first = _Unpickler(file).load()
        if first != LEGACY_MAGIC:
            return without_stand_ins(first)
        return without_stand_ins(_read_legacy(file, path.stat().st_size))


def without_stand_ins(value: Any, _done: dict[int, Any] | None = None) -> Any:
    """The same with arrays in place of their stand-ins. Raises RecursionError where a value contains itself."""
    done = {} if _done is None else _done  # a value that is in many places is made once
    if isinstance(value, _Array):
        return value.array
    if not isinstance(value, Mapping | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, Mapping):
            keys = (key for key in value if isinstance(key, str | int | float | tuple))
            done[id(value)] = {key: without_stand_ins(value[key], done) for key in keys}
        else:
            done[id(value)] = [without_stand_ins(entry, done) for entry in value]
    return done[id(value)]


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        main = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(main) != 1 or any(name.endswith("constants.pkl") for name in names):
            raise pickle.UnpicklingError(
                "it is a program (TorchScript) or not a torch file, rather than a set of weights"
            )
        folder = main[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        seen: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, numel: int) -> Tensor:
            if key not in seen:
                data = bytearray(archive.read(f"{folder}data/{key}"))
                if len(data) % dtype.itemsize:  # else frombuffer leaves the bytes locked when it refuses them
                    raise EOFError("a tensor ends within a number")
                seen[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            return seen[key]

        return without_stand_ins(_Unpickler(_Counted(io.BytesIO(archive.read(main[0]))), storage).load())


def _read_legacy(file: Any, file_bytes: int) -> Any:
    _Unpickler(file).load()  # protocol version
    _Unpickler(file).load()  # the writer's machine
    seen: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, numel: int) -> Tensor:
        if key not in seen:
            if numel * dtype.itemsize > file_bytes:
                raise EOFError("a tensor is larger than the file")
            seen[key] = torch.empty(numel, dtype=dtype)
        return seen[key]

    content = _Unpickler(file, storage).load()
    for key in _Unpickler(file).load():  # the storages follow in this order: number of elements, then their bytes
        target = seen[key]
        (numel,) = struct.unpack("<q", file.read(8))
        data = file.read(numel * target.dtype.itemsize)
        if numel != len(target) or len(data) != numel * target.dtype.itemsize:
            raise EOFError("it ends within a tensor")
        if numel:
            target.copy_(torch.frombuffer(bytearray(data), dtype=target.dtype))
    return content


class _Counted:
    """A file of which only so many pieces may be read: each may become an object a hundred times its size.

    The pieces of a pickle are its instructions; the numbers of an array come in one piece.
    """

    def __init__(self, file: Any):
        self._file, self._left = file, MOST_INSTRUCTIONS

    def _count(self, pieces: int) -> None:
        self._left -= pieces
        if self._left < 0:
            # Not an UnpicklingError, which the unpickler would take for the end of the file.
            raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} parts, more than any set of weights has")

    def read(self, size: int = -1) -> bytes:
        self._count(1)
        return self._file.read(size)

    def readline(self) -> bytes:
        self._count(1)
        return self._file.readline(LONGEST_LINE)

    def readinto(self, buffer: Any) -> int:
        self._count(1)
        return self._file.readinto(buffer)


class _Array:
    """A numpy array or scalar whose bytes are read only once its type is known to be a number."""

    array: np.ndarray | np.generic | None = None


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Finds only names of its own vocabulary, which is rebuilt each time, so that no file can change it.

    It builds on the unpickler in Python, as torch does: the one in C allocates 2^32 entries when five bytes ask for it.
    """

    def __init__(self, file: Any, storage: Callable[[torch.dtype, str, int], Tensor] | None = None):
        super().__init__(file, encoding="latin1")
        self.storage, self.vocabulary = storage, _vocabulary()

    def _refused(self) -> None:
        # Its length is a number in the file, and memory is allocated before a byte is read. Weights have no use for it.
        raise pickle.UnpicklingError(
            "it holds a bytearray, which is neither a tensor nor a plain value; nothing was executed"
        )

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _refused}  # type: ignore[attr-defined, dict-item]

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        full = f"{module}.{name}"
        if full.startswith("mmengine.logging.history_buffer.HistoryBuffer"):
            full = "mmengine.logging.history_buffer.HistoryBuffer"  # the class and its methods
        if full not in self.vocabulary:
            raise pickle.UnpicklingError(
                f"it names '{full}', which is neither a tensor nor a plain value; nothing was executed"
            )
        return self.vocabulary[full]

    def persistent_load(self, identity: Any) -> Tensor:
        kind, dtype, key, _, numel, *view = identity
        if self.storage is None or kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise pickle.UnpicklingError("its tensors are stored in an unknown way")
        return self.storage(dtype, str(key), int(numel))


def _vocabulary() -> dict[str, Any]:
    """Every name that a file may use, and the harmless object it stands for."""

    class Opaque:
        def __init__(self, *args: Any, **kwargs: Any):
            pass

        def __setstate__(self, state: Any) -> None:
            pass

    class Settings(dict):
        def __init__(self, *args: Any):
            super().__init__(*(a for a in args if isinstance(a, Mapping)))

        def __setstate__(self, state: Any) -> None:
            pass

    class DType:
        def __init__(self, code: str, *_: Any):
            self.code, self.order = code, ""

        def __setstate__(self, state: tuple) -> None:
            self.order = state[1] if state[1] in ("<", ">") else ""

        def numpy(self) -> np.dtype | None:
            return np.dtype(self.order + self.code) if self.code[:1] in tuple("biufcSU") else None

    class Array(_Array):
        def __init__(self, *_: Any):
            pass

        def __setstate__(self, state: tuple) -> None:
            _, shape, dtype, fortran, data = state
            number = dtype.numpy()
            if number is not None:
                self.array = np.frombuffer(_bytes(data), number).reshape(shape, order="F" if fortran else "C")

    def _bytes(data: Any) -> bytes:
        return data.encode("latin1") if isinstance(data, str) else data

    def scalar(dtype: DType, data: Any = b"") -> Any:
        number = dtype.numpy()
        return None if number is None else np.frombuffer(_bytes(data), number)[0].item()

    def from_buffer(data: Any, dtype: DType, shape: Any, order: str) -> Any:
        array = Array()
        array.__setstate__((1, shape, dtype, order == "F", bytes(data)))
        return array

    def encode(text: str, codec: str = "latin1") -> bytes:
        return text.encode("latin1")

    def new(cls: Any, *_: Any) -> Any:
        return cls()

    def path(*parts: str) -> str:
        return "/".join(str(p) for p in parts)

    def parameter(data: Tensor, *_: Any) -> Tensor:
        return data

    def tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        if not isinstance(storage, Tensor):
            raise pickle.UnpicklingError("a tensor has no storage")
        return storage.as_strided(tuple(size), tuple(stride), offset)  # torch refuses what lies outside the storage

    words: dict[str, Any] = (
        dict.fromkeys(OPAQUE, Opaque) | dict.fromkeys(MAPPINGS, Settings) | dict.fromkeys(PATHS, path)
    )
    words |= {f"builtins.{t.__name__}": t for t in (set, frozenset, list, dict, tuple, int, float, bool, str, complex)}
    words |= {"builtins.object": Opaque, "collections.OrderedDict": OrderedDict, "copyreg._reconstructor": new}
    words |= {"_codecs.encode": encode, "numpy.dtype": DType, "numpy.ndarray": Array}
    for module in ARRAY_MODULES:
        words |= {f"{module}._reconstruct": Array, f"{module}.scalar": scalar}
    words |= dict.fromkeys(("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"), from_buffer)
    for name, dtype in STORAGES.items():
        words |= {f"torch.{name}": dtype, f"torch.cuda.{name}": dtype, f"torch.{str(dtype).split('.')[1]}": dtype}
    words |= {"torch.Size": tuple, "torch._utils._rebuild_parameter": parameter}
    words |= dict.fromkeys(("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"), tensor)
    return words
