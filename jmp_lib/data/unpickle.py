"""Pickles of strangers, read without running anything in them.

OC20 and OC22 are published as LMDB files of pickled ``torch_geometric`` graphs. A pickle is a program that may call
any function; here it may build only tensors and their storages, numpy arrays and scalars, dicts, lists, tuples,
sets, numbers and text, and graphs (``Data``), which become a plain :class:`Graph`. Whatever else a pickle
names is refused before it is looked up. Neither ``torch.load`` nor ``numpy``'s own unpickling is used: all that a
pickle can reach is the frozen stand-ins below, which only collect data.

>>> loads(pickle.dumps({"sid": 3}), where="here", mend="get it again")
{'sid': 3}
"""

from __future__ import annotations

import codecs
import io
import pickle
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jmp_lib.data.files import check_head

_LARGEST = 1 << 28  # elements of one array: more is no structure but an attempt to fill the memory
_STORAGE_TYPES = {
    "Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "<i1",
    "Byte": "<u1", "Bool": "?",
}  # fmt: skip
_TORCH_MAGIC, _TORCH_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Graph(dict):
    """Fields of a pickled ``torch_geometric`` graph by name, tensors as numpy arrays."""


class Refused(ValueError):
    """A pickle that names something which is never loaded; the message is one sentence."""


def load_pickle(path: str | Path, *, mend: str):
    """Contents of a pickle file: arrays as numpy, graphs as :class:`Graph`, containers as they are.

    mend: how to get a good file, closes each message. Raises ``FileNotFoundError`` when there is no file,
    ``ValueError`` when it is empty, a web page or damaged, or (:class:`Refused`) names what is never loaded.
    """
    return loads(check_head(path, "a pickle", mend=mend).read_bytes(), where=str(path), mend=mend)


def loads(data: bytes, *, where: str, mend: str):
    """As :func:`load_pickle`, from bytes; where: what the bytes are, opens each message."""
    try:
        return _settle(_Unpickler(io.BytesIO(data)).load(), {})
    except Refused as refusal:
        raise Refused(
            f"{where} asks for {refusal}, which is never loaded from a pickle because it could run code; {mend}"
        ) from None
    except Exception:  # whatever bytes drive the unpickling machine into: nothing of it has run anything
        raise ValueError(f"{where} is not a readable pickle (cut short or altered); {mend}") from None


class _Frozen(type):
    """Classes whose attributes no pickle can set (a pickle may ask for that on anything it can name)."""

    def __setattr__(cls, name, value):
        raise TypeError("stand-ins do not change")


class _Record(metaclass=_Frozen):
    """A graph, or the storage inside one; keeps the state it is given."""

    def __new__(cls, *_ignored):
        return super().__new__(cls)

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise ValueError("the state of a graph is a dict")
        object.__setattr__(self, "state", state)


class _Ordered(dict, metaclass=_Frozen):
    """An ``OrderedDict``."""


class _Array(metaclass=_Frozen):
    """An array: of a tensor at once, of numpy once its state has come."""

    __slots__ = ("value",)

    def __new__(cls, *_ignored):
        made = super().__new__(cls)
        made.value = None
        return made

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if self.value is not None or not isinstance(data, bytes):
            raise ValueError("an array of numbers gets its bytes once")
        flat = np.frombuffer(data, dtype.value)
        self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


class _NumpyClass(metaclass=_Frozen):
    """``numpy.ndarray`` as a name: the class that ``_reconstruct`` is told to make."""


class _Dtype(metaclass=_Frozen):
    """A numpy dtype of numbers or text."""

    __slots__ = ("value",)

    def __new__(cls, name, *_ignored):
        made = super().__new__(cls)
        if not isinstance(name, str) or not re.fullmatch(r"[biufSU][0-9]{1,4}", name):
            raise ValueError("a dtype of numbers or text")
        made.value = np.dtype(name)
        return made

    def __setstate__(self, state):
        order = state[1]
        if order not in "<>|=":
            raise ValueError("byte order")
        self.value = self.value.newbyteorder(order) if order in "<>" else self.value


class _Scalar(metaclass=_Frozen):
    """A numpy scalar: becomes the Python number at once."""

    def __new__(cls, dtype, data):
        return np.frombuffer(data, dtype.value)[0].item()


class _FromBuffer(metaclass=_Frozen):
    """``numpy``'s arrays in pickles of protocol 5."""

    def __new__(cls, data, dtype, shape, order):
        made = _Array()
        made.__setstate__((1, shape, dtype, order == "F", bytes(data)))
        return made


class _Encoded(metaclass=_Frozen):
    """``_codecs.encode``: how old pickles write bytes."""

    def __new__(cls, text, encoding="latin1"):
        if encoding not in ("latin1", "utf-8") or not isinstance(text, str):
            raise ValueError("encoding")
        return codecs.encode(text, encoding)


class _Storage(metaclass=_Frozen):
    """Numbers of a tensor, from the bytes that ``torch.save`` wrote in its older format."""

    __slots__ = ("values",)

    def __new__(cls, data):
        made = super().__new__(cls)
        stream = io.BytesIO(data)
        header = [_Unpickler(stream).load() for _ in range(3)]
        if header[:2] != [_TORCH_MAGIC, _TORCH_PROTOCOL] or not header[2].get("little_endian"):
            raise ValueError("not a torch storage")
        kind = _Unpickler(stream, storages=True).load()
        keys = _Unpickler(stream).load()
        (count,) = struct.unpack("<q", stream.read(8))
        if not isinstance(kind, np.dtype) or len(keys) != 1 or not 0 <= count <= _LARGEST:
            raise ValueError("not one torch storage")
        made.values = np.frombuffer(stream.read(count * kind.itemsize), kind, count)
        return made


class _Tensor(metaclass=_Frozen):
    """A view into a storage, copied out into an array; a view that leaves its storage is damage."""

    def __new__(cls, storage, offset, size, stride, *_ignored):
        values = storage.values
        count = int(np.prod(size, dtype=object))
        if len(size) != len(stride) or min((*size, *stride, offset, 0)) < 0 or count > _LARGEST:
            raise ValueError("not a view of a tensor")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if count and last >= len(values):
            raise ValueError("a view beyond its storage")
        made = _Array()
        strides = [s * values.itemsize for s in stride]
        view = np.lib.stride_tricks.as_strided(values[offset:], size, strides) if count else np.empty(size)
        made.value = view.astype(values.dtype)
        return made


@dataclass(frozen=True)
class _StorageKind:
    """The class of a storage, as a name."""

    dtype: str


_ADMITTED = {
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _Ordered,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("numpy", "ndarray"): _NumpyClass,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
    ("torch_geometric.data.data", "Data"): _Record,
    ("torch_geometric.data.data", "DataEdgeAttr"): _Record,
    ("torch_geometric.data.data", "DataTensorAttr"): _Record,
    ("torch_geometric.data.storage", "GlobalStorage"): _Record,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer for core in ("core", "_core")},
    **{("torch", f"{name}Storage"): code for name, code in _STORAGE_TYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """The only way in: names outside ``_ADMITTED`` are refused before anything is imported."""

    def __init__(self, stream, storages: bool = False):
        super().__init__(stream)
        self._storages = storages

    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise Refused(f"{module}.{name}")
        found = _ADMITTED[module, name]
        return _StorageKind(found) if isinstance(found, str) else found

    def persistent_load(self, pid):
        """The element type of a storage: ('storage', class, key, place, count, no view)."""
        word, kind, *_, view = pid
        if not self._storages or word != "storage" or view is not None or not isinstance(kind, _StorageKind):
            raise ValueError("not a torch storage")
        return np.dtype(kind.dtype)


def _settle(item, done: dict):
    """``item`` with every stand-in replaced by plain data; what a graph keeps beside its fields is left out."""
    if id(item) in done:
        return done[id(item)][1]
    if isinstance(item, _Array):
        if item.value is None:
            raise ValueError("an array without its numbers")
        made = item.value
    elif isinstance(item, _Record):
        state = item.__dict__.get("state", {})
        state = state.get("_store", state)  # torch_geometric 2 keeps the fields one level down, version 1 at hand
        state = state.__dict__.get("state", {}) if isinstance(state, _Record) else state
        fields = state.get("_mapping", state)
        made = Graph((str(k), _settle(v, done)) for k, v in fields.items() if v is not None and k[:1] != "_")
    elif isinstance(item, dict):
        made = {_settle(k, done): _settle(v, done) for k, v in item.items()}
    elif type(item) in (list, tuple, set):
        made = type(item)(_settle(part, done) for part in item)
    elif item is None or isinstance(item, (bool, int, float, complex, str, bytes)):
        return item
    else:
        raise ValueError("a name alone is no data")
    done[id(item)] = (item, made)  # the item is kept so that its id stays its own
    return made
