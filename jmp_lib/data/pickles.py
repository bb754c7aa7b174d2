"""Pickles of strangers, read without running anything in them.

A pickle is a program that may call any function. Here no name in it is ever imported: those of the tables below get a
function of this file, which makes tensors, numpy arrays and numbers, sets, or graphs of ``torch_geometric`` as a plain
:class:`Graph`. Whatever else a pickle names is refused. (``torch.load(weights_only=True)`` knows no graphs.)

>>> loads(pickle.dumps({"sid": 3}), where="here", mend="get it again")
{'sid': 3}
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from jmp_lib.data.formats import check_head

_LARGEST = 1 << 28  # elements of one array: more is no tensor of ours but an attempt to fill the memory
_TORCH_MAGIC, _TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}.items()}  # fmt: skip


class Refused(ValueError):
    """A pickle that names something which is never loaded; the message is one sentence."""


def load_pickle(path: str | Path, *, mend: str):
    """Contents of a pickle file: arrays as numpy, graphs as :class:`Graph`, containers as they are.
    mend closes each message.

    Raises ``FileNotFoundError`` when there is no file, ``ValueError`` when it is empty, a web page or damaged, or
    (:class:`Refused`) names what is never loaded.
    """
    return loads(check_head(path, "a pickle", mend=mend).read_bytes(), where=str(path), mend=mend)


def loads(data: bytes, *, where: str, mend: str):
    """As :func:`load_pickle`, from bytes; where: what the bytes are, opens each message."""
    try:
        return _Unpickler(io.BytesIO(data), GRAPHS | DTYPES).load()
    except Refused as refusal:
        said = f"{where} asks for {refusal}, which is never loaded from a pickle because it could run code; {mend}"
        raise Refused(said) from None
    except Exception:  # whatever bytes drive the unpickling machine into: nothing of it has run anything
        raise ValueError(f"{where} is not a readable pickle (cut short or altered); {mend}") from None


def check_size(stream: io.BytesIO) -> None:
    """Raise ``ValueError`` for a pickle for which Python would make a table longer than the pickle itself."""
    start, size = stream.tell(), stream.getbuffer().nbytes
    for operation, number, _ in pickletools.genops(stream):  # the table becomes as long as this number
        if operation.name in ("PUT", "LONG_BINPUT") and number > size:
            raise ValueError("not a pickle that Python writes")
    stream.seek(start)


class Call:
    """What a pickle gets by a name of the tables: may be called, not changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *args):
        return self._make(*args)

    def __setstate__(self, _state):
        raise ValueError("a name is not to be changed")


class _Unpickler(pickle.Unpickler):
    """The only way in: names are those of ``names``; others are refused."""

    def __init__(self, stream: io.BytesIO, names: dict, storage: Callable | None = None):
        check_size(stream)
        super().__init__(stream)
        self._names, self._storage = names, storage

    def find_class(self, module, name):
        origin = f"{module}.{name}"
        if origin not in self._names:
            raise Refused(origin)
        found = self._names[origin]
        return found if isinstance(found, torch.dtype) or found in (Graph, _Ordered) else Call(found)

    def persistent_load(self, pid):
        """A storage: ('storage', dtype, key, place, count), in the older format with a view, which must be None."""
        word, dtype, key, _place, count, *view = pid
        good = (word == "storage" and isinstance(dtype, torch.dtype) and view in ([], [None])
                and type(count) is int and count >= 0)
        if self._storage is None or not good:
            raise ValueError("not a torch storage")
        return self._storage(dtype, str(key), count)


class Graph(dict):
    """Fields of a pickled ``torch_geometric`` graph by name, tensors as numpy arrays; what it keeps
    beside them is left out."""

    def __setstate__(self, state):
        fields = state.get("_store", state)  # torch_geometric 2 keeps the fields one level down, version 1 at hand
        fields = fields.get("_mapping", fields)
        self.update((str(key), value) for key, value in fields.items() if value is not None and key[:1] != "_")


class _Ordered(dict):
    """In place of an OrderedDict; of its attributes nothing is kept."""

    def __setstate__(self, _state):
        pass


class _Array(np.ndarray):
    """A numpy array of numbers or text, whose numbers come as its state."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        made = _from_buffer(data, dtype, shape, "F" if fortran else "C")
        super().__setstate__((1, made.shape, made.dtype, False, made.tobytes()))


class _Dtype:
    """A numpy dtype of numbers or text; its state has the order of the bytes."""

    __slots__ = ("name", "order")

    def __init__(self, name, *_):
        self.name, self.order = name, "|"

    def __setstate__(self, state):
        self.order = state[1]

    def plain(self) -> np.dtype:
        if not re.fullmatch(r"[biufSU][0-9]{1,4}", self.name) or self.order not in ("<", ">", "|", "="):
            raise ValueError("not a dtype of numbers or text")
        return np.dtype(self.name).newbyteorder(self.order)


def _from_buffer(data, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    return np.frombuffer(bytes(memoryview(data)), dtype.plain()).reshape(shape, order=order).copy().view(_Array)


def _numbers(storage, offset, size, stride, *_) -> np.ndarray:
    """The numbers of a view into a storage: torch refuses one that leaves it; one that repeats what is stored could
    ask for any memory."""
    if not isinstance(storage, torch.Tensor) or math.prod(size) > _LARGEST:
        raise ValueError("not a view of a tensor")
    view = storage.as_strided(size, stride, offset)
    if view.numel() > max(view.untyped_storage().nbytes(), 1 << 16):
        raise ValueError("larger than what is stored of it")
    return view.clone().numpy().view(_Array)


def _storage(data: bytes) -> torch.Tensor:
    """Numbers of a tensor, from the bytes that ``torch.save`` wrote in its older format."""
    stream = io.BytesIO(data)
    header = [_Unpickler(stream, {}).load() for _ in range(3)]
    if header[:2] != [_TORCH_MAGIC, _TORCH_PROTOCOL] or not header[2].get("little_endian"):
        raise ValueError("not a torch storage")
    dtype = _Unpickler(stream, DTYPES, lambda dtype, *_: dtype).load()
    keys = _Unpickler(stream, {}).load()
    (count,) = struct.unpack("<q", stream.read(8))
    if not isinstance(dtype, torch.dtype) or len(keys) != 1 or not 0 <= count <= _LARGEST:
        raise ValueError("not one torch storage")
    return (torch.frombuffer(bytearray(stream.read()), dtype=dtype, count=count) if count
            else torch.empty(0, dtype=dtype))


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode``: how old pickles write bytes."""
    if encoding not in ("latin1", "utf-8"):
        raise ValueError("encoding")
    return codecs.encode(text, encoding)


GRAPHS = {
    "torch._utils._rebuild_tensor_v2": _numbers,
    "torch._utils._rebuild_tensor": _numbers,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": tuple,
    "collections.OrderedDict": _Ordered,
    "builtins.set": set,
    "__builtin__.set": set,
    "torch.storage._load_from_bytes": _storage,
    **dict.fromkeys(("torch_geometric.data.data.Data", "torch_geometric.data.data.DataEdgeAttr",
                     "torch_geometric.data.data.DataTensorAttr", "torch_geometric.data.storage.GlobalStorage"), Graph),
    "numpy.ndarray": tuple,  # only named
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encoded,
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: _Array(0) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": lambda dtype, data: np.frombuffer(data, dtype.plain())[0].item()
       for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}  # fmt: skip
