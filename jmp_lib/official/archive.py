"""Torch checkpoint files of strangers, read without running anything in them and without loading what is not asked for.

A checkpoint is a zip of a pickle (``data.pkl``, structure and names) and one entry per storage (numbers). Lightning
pickles instances of the authors' own classes into it, so ``torch.load(weights_only=True)`` refuses it. Here the pickle
may build plain containers, numbers, text, and :class:`TensorRef`; every other name becomes a stand-in class
(:class:`Unknown`) that only keeps what it is given. No name is ever imported or looked up. Numbers stay in the
file, which is mapped: ``archive.tensor(ref)`` gives a view, checked against the checksum that the zip holds.
"""

from __future__ import annotations

import io
import mmap
import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

from jmp_lib.data.formats import check_head

MEND = "get the file again (jmp-s.pt or jmp-l.pt of the official release)"
LARGEST_PICKLE = 1 << 28  # bytes; the structure of a real checkpoint takes about one MB
_LEGACY = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02")
_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


class _Frozen(type):
    """Classes whose attributes no pickle can set (a pickle may ask for that on anything it can name)."""

    def __setattr__(cls, name, value):
        raise TypeError("stand-ins do not change")


@dataclass(frozen=True)
class StorageRef:
    """Where the numbers of tensors are: the zip entry ``data/<key>`` with ``count`` numbers."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(frozen=True)
class _StorageKind:
    """The class of a storage, as a name."""

    dtype: torch.dtype


class TensorRef(metaclass=_Frozen):
    """A tensor whose numbers were not read: storage, first element, shape, strides."""

    __slots__ = ("storage", "offset", "shape", "stride")

    def __new__(cls, storage, offset, size, stride, *_ignored):
        if not isinstance(storage, StorageRef) or type(offset) is not int or len(size) != len(stride):
            raise ValueError("not a tensor")
        if any(type(n) is not int or n < 0 for n in (*size, *stride, offset)):
            raise ValueError("not a view of a storage")
        made = super().__new__(cls)
        for name, value in zip(cls.__slots__, (storage, offset, tuple(size), tuple(stride)), strict=True):
            object.__setattr__(made, name, value)
        return made

    def __setattr__(self, name, value):
        raise TypeError("a reference does not change")

    def __setstate__(self, state):
        raise ValueError("a tensor has no further state")

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    def __eq__(self, other):
        return isinstance(other, TensorRef) and all(getattr(self, n) == getattr(other, n) for n in self.__slots__)

    __hash__ = object.__hash__


class _Parameter(metaclass=_Frozen):
    """``torch.nn.Parameter``: the tensor in it."""

    def __new__(cls, data, *_ignored):
        if not isinstance(data, TensorRef):
            raise ValueError("not a tensor")
        return data


class _Ordered(dict, metaclass=_Frozen):
    """An ``OrderedDict``; what is kept beside its items (``_metadata`` of a state dict) is left out."""

    def __new__(cls, *_ignored):
        return super().__new__(cls)

    def __setstate__(self, state):
        pass


class Unknown(metaclass=_Frozen):
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

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass

    def __setitem__(self, key, value):
        pass


_ADMITTED = {
    ("torch._utils", "_rebuild_tensor_v2"): TensorRef,
    ("torch._utils", "_rebuild_tensor"): TensorRef,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): _Ordered,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    **{("torch", f"{name}Storage"): _StorageKind(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """The only way in: a name outside ``_ADMITTED`` becomes a stand-in class of its own."""

    def __init__(self, stream):
        super().__init__(stream)
        self._unknown = {}

    def find_class(self, module, name):
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        origin = f"{module}.{name}"
        if origin not in self._unknown:
            self._unknown[origin] = _Frozen("Unknown", (Unknown,), {"__slots__": (), "origin": origin})
        return self._unknown[origin]

    def persistent_load(self, pid):
        word, kind, key, _place, count = pid
        if word != "storage" or not isinstance(kind, _StorageKind) or type(count) is not int or count < 0:
            raise ValueError("not a torch storage")
        return StorageRef(kind.dtype, str(key), count)


class Archive:
    """An open checkpoint. ``root``: what was saved, tensors as :class:`TensorRef`, strange objects as :class:`Unknown`.

    Raises ``FileNotFoundError`` or ``ValueError`` (empty, a web page, legacy format, cut short, altered), one sentence.
    """

    def __init__(self, path: str | Path):
        self.path = check_head(path, "a torch checkpoint", mend=MEND)
        self._checked: set[str] = set()
        with open(self.path, "rb") as stream:
            if not stream.read(4) == b"PK\x03\x04":
                raise ValueError(self._not_a_zip())
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            try:
                with zipfile.ZipFile(stream) as zipped:
                    self._entries, pickled = self._read_directory(zipped)
            except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError):
                raise ValueError(f"{self.path} is damaged or cut short (no whole zip file); {MEND}") from None
        try:
            self.root = _Unpickler(io.BytesIO(pickled)).load()
        except Exception:  # whatever bytes drive the unpickling machine into: nothing of it has run anything
            raise ValueError(f"{self.path} holds no readable checkpoint (data.pkl is altered); {MEND}") from None

    def _not_a_zip(self) -> str:
        with open(self.path, "rb") as stream:
            if stream.read(16).startswith(_LEGACY):
                return (f"{self.path} is a pickle or a torch file of the old format (before torch 1.6), which is not read "
                        "because it could run code; the official checkpoints are zip files")
        return f"{self.path} is not a torch checkpoint (no zip file); {MEND}"

    def _read_directory(self, zipped: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], bytes]:
        infos = zipped.infolist()
        pickles = [info for info in infos if info.filename.count("/") == 1 and info.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or len({info.filename for info in infos}) != len(infos):
            raise ValueError(f"{self.path} is a zip file but no torch checkpoint (no data.pkl in it); {MEND}")
        if any(info.compress_type or info.flag_bits & 1 or info.compress_size != info.file_size for info in infos):
            raise ValueError(f"{self.path} has compressed or encrypted parts, which torch never writes; {MEND}")
        if pickles[0].file_size > LARGEST_PICKLE:
            raise ValueError(f"{self.path}: data.pkl has {pickles[0].file_size} bytes, more than any checkpoint; {MEND}")
        prefix = pickles[0].filename.removesuffix("data.pkl")
        entries = {info.filename.removeprefix(prefix): info for info in infos}
        if "byteorder" in entries and zipped.read(entries["byteorder"])[:6] != b"little":
            raise ValueError(f"{self.path} was written on a big-endian machine, which is not supported; {MEND}")
        return entries, zipped.read(pickles[0])

    def tensor(self, ref: TensorRef) -> torch.Tensor:
        """The tensor, as a view of the mapped file (do not write to it); shape and dtype as in ``ref``."""
        storage, count = ref.storage, 1
        for n in ref.shape:
            count *= n
        last = ref.offset + sum((n - 1) * s for n, s in zip(ref.shape, ref.stride, strict=True))
        if count and last >= storage.count:
            raise ValueError(f"{self.path} has a tensor that leaves its storage {storage.key}: it is damaged; {MEND}")
        if not count or not storage.count:
            return torch.empty(ref.shape, dtype=ref.dtype)
        with warnings.catch_warnings():  # torch warns that the map cannot be written
            warnings.simplefilter("ignore", UserWarning)
            flat = torch.frombuffer(self._map, dtype=ref.dtype, count=storage.count, offset=self._place(storage))
        return flat.as_strided(ref.shape, ref.stride, ref.offset)

    def _place(self, storage: StorageRef) -> int:
        """First byte of a storage in the file, its length and checksum verified once."""
        info = self._entries.get(f"data/{storage.key}")
        size = storage.count * storage.dtype.itemsize
        if info is None or info.file_size != size:
            raise ValueError(f"{self.path} lacks the numbers of storage {storage.key} ({size} bytes): it is damaged; {MEND}")
        header = self._map[info.header_offset : info.header_offset + 30]
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30])) if len(header) == 30 else -1
        if start < 0 or start + size > len(self._map):
            raise ValueError(f"{self.path} is cut short in storage {storage.key}; {MEND}")
        if storage.key not in self._checked:
            with memoryview(self._map) as whole, whole[start : start + size] as part:
                if zlib.crc32(part) != info.CRC:
                    raise ValueError(f"{self.path} is damaged: the checksum of storage {storage.key} does not fit; {MEND}")
            self._checked.add(storage.key)
        return start
