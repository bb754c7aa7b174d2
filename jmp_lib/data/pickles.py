"""Pickles of strangers, read without running anything in them.

A pickle is a program that may call any function. Here no name in it is ever imported: each makes a :class:`StandIn`, which
keeps what it is given and does nothing. Afterwards the stand-ins of the names in the tables below become what they stand
for: tensors, numpy arrays and scalars, sets, and graphs of ``torch_geometric`` as a plain :class:`Graph`. Whatever else a
pickle names is refused (OC20, OC22: LMDB of pickled graphs), or, for the official checkpoints, whose Lightning pickles
have instances of the authors' classes in them, stays a stand-in. (``torch.load(weights_only=True)`` knows neither graphs
nor stand-ins and checks no sums.)

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
        return _plain(_Unpickler(io.BytesIO(data), {*GRAPHS, *DTYPES, "numpy.ndarray"}).load(), GRAPHS, {})
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
    return _plain(_Unpickler(io.BytesIO(data), None, storage).load(), TENSORS, {}, strangers=True)


class StandIn:
    """What a pickle makes by a name, or gets from a call of it: keeps what it is given, does nothing.

    origin: "module.name"; args: of the call; state; pairs: items that were set.
    """

    __slots__ = ("args", "state", "pairs")
    origin = ""

    def __new__(cls, *args, **_kwargs):
        made = super().__new__(cls)
        made.args, made.state, made.pairs = args, None, []
        return made

    def __init__(self, *_args, **_kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        self.pairs.append((key, value))

    def append(self, _value):
        pass

    extend = add = append


class _Unpickler(pickle.Unpickler):
    """The only way in: each name is a :class:`StandIn` of its own; one that is not ``admitted`` (None: all) is refused."""

    def __init__(self, stream: io.BytesIO, admitted: set[str] | None, storage: Callable | None = None):
        start, size = stream.tell(), stream.getbuffer().nbytes
        for operation, number, _ in pickletools.genops(stream):  # Python makes a table as long as this number
            if operation.name in ("PUT", "LONG_BINPUT") and number > size:
                raise ValueError("not a pickle that Python writes")
        stream.seek(start)
        super().__init__(stream)
        self._admitted, self._storage, self._named = admitted, storage, {}

    def find_class(self, module, name):
        origin = f"{module}.{name}"
        if self._admitted is not None and origin not in self._admitted:
            raise Refused(origin)
        if origin not in self._named:
            self._named[origin] = type("StandIn", (StandIn,), {"__slots__": (), "origin": origin})
        return self._named[origin]

    def persistent_load(self, pid):
        """A storage: ('storage', dtype, key, place, count), in the older format with a view, which must be None."""
        word, kind, key, _place, count, *view = pid
        dtype = DTYPES.get(kind.origin)
        if self._storage is None or word != "storage" or dtype is None or view not in ([], [None]):
            raise ValueError("not a torch storage")
        if type(count) is not int or count < 0:
            raise ValueError("not a torch storage")
        return self._storage(dtype, str(key), count)


def _plain(item, makers: dict, done: dict, strangers: bool = False):
    """``item`` with every stand-in of ``makers`` replaced by what it makes; others raise, or stay with ``strangers``."""
    if id(item) in done:
        return done[id(item)][1]

    def plain(part):
        return _plain(part, makers, done, strangers)

    if isinstance(item, StandIn) and item.origin in makers:
        made = makers[item.origin](item, plain)
    elif isinstance(item, dict):
        made = {plain(key): plain(value) for key, value in item.items()}
    elif type(item) in (list, tuple, set):
        made = type(item)(map(plain, item))
    elif item is None or isinstance(item, (bool, int, float, complex, str, bytes, bytearray, torch.Tensor)):
        return item
    elif not strangers:
        raise ValueError("a name alone is no data")
    else:
        made = item
        if isinstance(item, StandIn):
            done[id(item)] = item, item  # it may be part of its own state
            item.state = plain(item.state)
    done[id(item)] = item, made  # the item is kept so that its id stays its own
    return made


# What stands for a name, made of its stand-in and the function that makes its parts plain
def _tensor(node: StandIn, plain) -> torch.Tensor:
    """A view into a storage; torch refuses one that leaves it."""
    storage, offset, size, stride = map(plain, node.args[:4])
    if not isinstance(storage, torch.Tensor) or math.prod(size) > _LARGEST:
        raise ValueError("not a view of a tensor")
    return storage.as_strided(size, stride, offset)


def _numbers(view: torch.Tensor) -> np.ndarray:
    """The numbers of a view; one that repeats what is stored could ask for any memory."""
    if view.numel() > max(view.untyped_storage().nbytes(), 1 << 16):
        raise ValueError("larger than what is stored of it")
    return view.clone().numpy()


def _first(node: StandIn, plain):
    return plain(node.args[0])


def _storage(node: StandIn, plain) -> torch.Tensor:
    """Numbers of a tensor, from the bytes that ``torch.save`` wrote in its older format."""
    stream = io.BytesIO(plain(node.args[0]))
    header = [_Unpickler(stream, set()).load() for _ in range(3)]
    if header[:2] != [_TORCH_MAGIC, _TORCH_PROTOCOL] or not header[2].get("little_endian"):
        raise ValueError("not a torch storage")
    dtype = _Unpickler(stream, {*DTYPES}, lambda dtype, *_: dtype).load()
    keys = _Unpickler(stream, set()).load()
    (count,) = struct.unpack("<q", stream.read(8))
    if not isinstance(dtype, torch.dtype) or len(keys) != 1 or not 0 <= count <= _LARGEST:
        raise ValueError("not one torch storage")
    return torch.frombuffer(bytearray(stream.read()), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _dtype(node: StandIn, _plain) -> np.dtype:
    """A numpy dtype of numbers or text."""
    name, order = node.args[0], node.state[1] if node.state else "|"
    if not re.fullmatch(r"[biufSU][0-9]{1,4}", name) or order not in ("<", ">", "|", "="):
        raise ValueError("not a dtype of numbers or text")
    return np.dtype(name).newbyteorder(order)


def _array(node: StandIn, plain) -> np.ndarray:
    """A numpy array, whose numbers came as its state, or (``_frombuffer``) as arguments."""
    if node.origin.endswith("_frombuffer"):
        data, dtype, shape, order = map(plain, node.args)
    else:
        _, shape, dtype, fortran, data = map(plain, node.state)
        order = "F" if fortran else "C"
    return np.frombuffer(bytes(memoryview(data)), dtype).reshape(shape, order=order).copy()


def _scalar(node: StandIn, plain):
    """A numpy scalar: becomes the Python number."""
    dtype, data = map(plain, node.args)
    return np.frombuffer(data, dtype)[0].item()


def _encoded(node: StandIn, plain) -> bytes:
    """``_codecs.encode``: how old pickles write bytes."""
    text, encoding = (*map(plain, node.args), "latin1")[:2]
    if encoding not in ("latin1", "utf-8"):
        raise ValueError("encoding")
    return codecs.encode(text, encoding)


def _graph(node: StandIn, plain) -> Graph:
    """Fields of a graph; what it keeps beside them is left out."""
    state = node.state or {}
    state = state.get("_store", state)  # torch_geometric 2 keeps the fields one level down, version 1 at hand
    state = (state.state or {}) if isinstance(state, StandIn) else state
    fields = state.get("_mapping", state)
    return Graph((str(key), plain(value)) for key, value in fields.items() if value is not None and key[:1] != "_")


TENSORS = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch.Size": lambda node, plain: tuple(plain(node.args[0])),
    "collections.OrderedDict": lambda node, plain: {plain(key): plain(value) for key, value in node.pairs},
    "builtins.set": lambda node, plain: set(plain(node.args[0])),
    "__builtin__.set": lambda node, plain: set(plain(node.args[0])),
}
GRAPHS = TENSORS | {
    "torch._utils._rebuild_tensor_v2": lambda node, plain: _numbers(_tensor(node, plain)),
    "torch._utils._rebuild_tensor": lambda node, plain: _numbers(_tensor(node, plain)),
    "torch.storage._load_from_bytes": _storage,
    "torch_geometric.data.data.Data": _graph,
    "torch_geometric.data.data.DataEdgeAttr": _graph,
    "torch_geometric.data.data.DataTensorAttr": _graph,
    "torch_geometric.data.storage.GlobalStorage": _graph,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encoded,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
