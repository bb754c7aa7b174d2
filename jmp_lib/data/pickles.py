"""Pickles of strangers, read without running anything in them.

A pickle is a program that may call any function. Here it may build only tensors and their storages, numpy arrays and
scalars, dicts, lists, tuples, sets, numbers and text, and graphs of ``torch_geometric``, which become a plain
:class:`Graph`. Whatever else a pickle names is refused before it is looked up (OC20, OC22: LMDB of pickled graphs), or,
for the official checkpoints, whose Lightning pickles have instances of the authors' classes in them, becomes a
:class:`StandIn` that only keeps what it is given. No name is ever imported: all that a pickle can reach are the frozen
classes below. (``torch.load(weights_only=True)`` knows neither graphs nor stand-ins and checks no sums.)

>>> loads(pickle.dumps({"sid": 3}), where="here", mend="get it again")
{'sid': 3}
"""

from __future__ import annotations

import codecs
import io
import math
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from jmp_lib.data.formats import check_head

_LARGEST = 1 << 28  # elements of one array: more is no tensor of ours but an attempt to fill the memory
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
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
        return _settle(_Unpickler(io.BytesIO(data), GRAPHS).load(), {})
    except Refused as refusal:
        said = f"{where} asks for {refusal}, which is never loaded from a pickle because it could run code; {mend}"
        raise Refused(said) from None
    except Exception:  # whatever bytes drive the unpickling machine into: nothing of it has run anything
        raise ValueError(f"{where} is not a readable pickle (cut short or altered); {mend}") from None


def load_checkpoint(data: bytes, storage: Callable[[torch.dtype, str, int], torch.Tensor]):
    """What ``data.pkl`` of a torch checkpoint describes, every strange name a :class:`StandIn`.

    storage: gives the numbers of a storage (dtype, key, count) as a flat tensor, of which tensors are views. Raises
    anything for a pickle that is damaged.
    """
    return _Unpickler(io.BytesIO(data), TENSORS, storage, strangers=True).load()


class _Frozen(type):
    """Classes whose attributes no pickle can set (a pickle may ask for that on anything it can name)."""

    def __setattr__(cls, name, value):
        raise TypeError("stand-ins do not change")


class StandIn(metaclass=_Frozen):
    """An object of a class that is never loaded: keeps the state it is given, does nothing.

    ``origin``: "module.name". A pickle that calls a function makes one of these, too.
    """

    __slots__ = ("state",)
    origin = ""

    def __new__(cls, *_args, **_kwargs):
        made = super().__new__(cls)
        made.state = None
        return made

    def __init__(self, *_args, **_kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def _nothing(self, *_):
        pass

    append = extend = add = __setitem__ = _nothing


class _Ordered(dict, metaclass=_Frozen):
    """An ``OrderedDict``; what is kept beside its items (``_metadata`` of a state dict) is left out."""

    def __new__(cls, *_ignored):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


class _Tensor(metaclass=_Frozen):
    """A view into a storage; torch refuses one that leaves it."""

    def __new__(cls, storage, offset, size, stride, *_ignored):
        if not isinstance(storage, torch.Tensor) or math.prod(size) > _LARGEST:
            raise ValueError("not a view of a tensor")
        return storage.as_strided(size, stride, offset)


class _Parameter(metaclass=_Frozen):
    """``torch.nn.Parameter``: the tensor in it."""

    def __new__(cls, data, *_ignored):
        if not isinstance(data, torch.Tensor):
            raise ValueError("not a tensor")
        return data


class _Storage(metaclass=_Frozen):
    """Numbers of a tensor, from the bytes that ``torch.save`` wrote in its older format."""

    def __new__(cls, data):
        stream = io.BytesIO(data)
        header = [_Unpickler(stream, {}).load() for _ in range(3)]
        if header[:2] != [_TORCH_MAGIC, _TORCH_PROTOCOL] or not header[2].get("little_endian"):
            raise ValueError("not a torch storage")
        dtype = _Unpickler(stream, TENSORS, lambda dtype, *_: dtype).load()
        keys = _Unpickler(stream, {}).load()
        (count,) = struct.unpack("<q", stream.read(8))
        if not isinstance(dtype, torch.dtype) or len(keys) != 1 or not 0 <= count <= _LARGEST:
            raise ValueError("not one torch storage")
        numbers = bytearray(stream.read())
        return torch.frombuffer(numbers, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


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
        if state[1] not in "<>|=":
            raise ValueError("byte order")
        self.value = self.value.newbyteorder(state[1]) if state[1] in "<>" else self.value


class _Array(metaclass=_Frozen):
    """A numpy array, whose numbers come as its state."""

    __slots__ = ("value",)

    def __new__(cls, *_ignored):
        made = super().__new__(cls)
        made.value = None
        return made

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        if self.value is not None or not isinstance(data, bytes):
            raise ValueError("an array of numbers gets its bytes once")
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C").copy()


class _FromBuffer(metaclass=_Frozen):
    """``numpy``'s arrays in pickles of protocol 5."""

    def __new__(cls, data, dtype, shape, order):
        made = _Array()
        made.__setstate__((1, shape, dtype, order == "F", bytes(data)))
        return made


class _Scalar(metaclass=_Frozen):
    """A numpy scalar: becomes the Python number at once."""

    def __new__(cls, dtype, data):
        return np.frombuffer(data, dtype.value)[0].item()


class _NumpyClass(metaclass=_Frozen):
    """``numpy.ndarray`` as a name: the class that ``_reconstruct`` is told to make."""


class _Encoded(metaclass=_Frozen):
    """``_codecs.encode``: how old pickles write bytes."""

    def __new__(cls, text, encoding="latin1"):
        if encoding not in ("latin1", "utf-8") or not isinstance(text, str):
            raise ValueError("encoding")
        return codecs.encode(text, encoding)


# (module, name) -> what stands for it, everywhere; and what graphs may have beside it
TENSORS = {
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _Ordered,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    **{("torch", f"{name}Storage"): dtype for name, dtype in _DTYPES.items()},
}
GRAPHS = TENSORS | {
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("torch_geometric.data.data", "Data"): StandIn,
    ("torch_geometric.data.data", "DataEdgeAttr"): StandIn,
    ("torch_geometric.data.data", "DataTensorAttr"): StandIn,
    ("torch_geometric.data.storage", "GlobalStorage"): StandIn,
    ("numpy", "ndarray"): _NumpyClass,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    """The only way in: a name that is not ``admitted`` is refused, or with ``strangers`` becomes a :class:`StandIn`."""

    def __init__(self, stream, admitted: dict, storage: Callable | None = None, strangers: bool = False):
        super().__init__(stream)
        self._admitted, self._storage, self._strangers, self._unknown = admitted, storage, strangers, {}

    def find_class(self, module, name):
        if (module, name) in self._admitted:
            return self._admitted[module, name]
        origin = f"{module}.{name}"
        if not self._strangers:
            raise Refused(origin)
        if origin not in self._unknown:
            self._unknown[origin] = _Frozen("StandIn", (StandIn,), {"__slots__": (), "origin": origin})
        return self._unknown[origin]

    def persistent_load(self, pid):
        """A storage: ('storage', dtype, key, place, count), in the older format with a view, which must be None."""
        word, dtype, key, _place, count, *view = pid
        if self._storage is None or word != "storage" or not isinstance(dtype, torch.dtype) or view not in ([], [None]):
            raise ValueError("not a torch storage")
        if type(count) is not int or count < 0:
            raise ValueError("not a torch storage")
        return self._storage(dtype, str(key), count)


def _settle(item, done: dict):
    """``item`` with every stand-in replaced by plain data; what a graph keeps beside its fields is left out."""
    if id(item) in done:
        return done[id(item)][1]
    if isinstance(item, torch.Tensor):
        made = item.clone().numpy()
    elif isinstance(item, _Array):
        if item.value is None:
            raise ValueError("an array without its numbers")
        made = item.value
    elif isinstance(item, StandIn):
        state = item.state or {}
        state = state.get("_store", state)  # torch_geometric 2 keeps the fields one level down, version 1 at hand
        state = (state.state or {}) if isinstance(state, StandIn) else state
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
