"""What an official pre-training checkpoint holds, checked against the network, and the weights that are taken from it.

``state_dict`` has the raw weights, ``optimizer_states[0]["ema"]`` the averaged ones, one tensor per parameter. The
official fine-tuning walks the names of ``state_dict`` in order and replaces each trained one by the next average. It
passes over the names with ``.seq_energy_pre.``, which are the same tensors as ``.layers.`` of each output block and are
loaded after them: so the network that it starts from has raw weights in ``out_blocks.<k>.layers`` and averages
everywhere else, and so have the weights taken here.

The file is a zip of a pickle (``data.pkl``, structure and names) and one entry per storage (numbers). Nothing in it is
executed (:mod:`jmp_lib.data.pickles`); numbers stay in the file, which is mapped and checked against the zip's sums.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from jmp_lib.data.formats import opened
from jmp_lib.data.pickles import StandIn, load_checkpoint
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.model import BackboneConfig, PretrainModel
from jmp_lib.model.config import FIXED

MEND = "get the file again (jmp-s.pt or jmp-l.pt of the official release)"
NETWORKS = {"small": BackboneConfig.small(), "large": BackboneConfig.large()}
LARGEST_PICKLE = 1 << 28  # bytes; the structure of a real checkpoint takes about one MB
COUNTER = "task_steps._module_dict._typed_moduledict_{}.sum_value"
ALIAS, LAYERS = ".seq_energy_pre.", ".layers."
BUFFERS = ("rbf.offset", "rbf.temps", "scale_factor")


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint. size: small or large. raw: tensors by name, averages: of trained ones; all views of the file."""

    path: Path
    size: str
    network: BackboneConfig
    raw: dict[str, torch.Tensor]
    averages: dict[str, torch.Tensor]
    epoch: int | None
    updates: int | None
    ema_decay: float | None


def read_checkpoint(path: str | Path, networks: dict[str, BackboneConfig] = NETWORKS) -> Checkpoint:
    """Open a checkpoint and check its names, order, shapes, dtypes and counts against the network whose size it has."""
    path = Path(path)
    with opened(path, "a torch checkpoint (no zip file)", b"PK\x03\x04", mend=MEND):
        root = contents(path)
        state = root.get("state_dict") if isinstance(root, dict) else None
        if not isinstance(state, dict) or not state:
            raise ValueError("it is no Lightning checkpoint (it has no state_dict)")
        for name, value in state.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise ValueError(f"the entry {str(name)!r} of state_dict is not a tensor")
        size = find_size(state, networks)
        expected = meta_model(networks[size]).state_dict()
        _check_names(state, expected)
        for name, own in expected.items():
            _check_one(f"state_dict entry {name!r}", state[name], own.shape, own.dtype)
        averages = _averages(root, state)
        _check_settings(root.get("hyper_parameters"), networks[size])
        optimizer = root["optimizer_states"][0]
        return Checkpoint(path, size, networks[size], {name: state[name] for name in expected}, averages,
                          _number(root, "epoch"), _number(root, "global_step"), _number(optimizer, "decay"))


def contents(path: Path):
    """What was saved in a checkpoint, tensors as views of the mapped file, strange objects as stand-ins.

    Raises ``ValueError`` (cut short, altered) with the reason alone.
    """
    with open(path, "rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)  # nobody writes; torch wants to be able to
        try:
            with zipfile.ZipFile(stream) as zipped:
                entries = _entries(zipped.infolist(), mapped)
        except (zipfile.BadZipFile, struct.error, OSError, EOFError, NotImplementedError):
            raise ValueError("it is damaged or cut short (no whole zip file)") from None

    def storage(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        start, size = entries.get(f"data/{key}", (0, -1))
        if size != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"lacks the numbers of storage {key} ({count * dtype.itemsize} bytes)")
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=start) if count else torch.empty(0).to(dtype)

    start, size = entries["data.pkl"]
    try:
        return load_checkpoint(mapped[start : start + size], storage)
    except pickle.UnpicklingError as error:
        raise ValueError(f"it holds no readable checkpoint (data.pkl is altered, or it {error})") from None
    except Exception:  # whatever bytes drive the unpickling machine into: nothing of it has run anything
        raise ValueError("it holds no readable checkpoint (data.pkl is altered)") from None


def _entries(infos: list[zipfile.ZipInfo], mapped: mmap.mmap) -> dict[str, tuple[int, int]]:
    """(first byte, bytes) of every entry of a checkpoint, stored as torch does, its checksum verified."""
    pickles = [info for info in infos if info.filename.count("/") == 1 and info.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or len({info.filename for info in infos}) != len(infos):
        raise ValueError("it is a zip file but no torch checkpoint (no data.pkl in it)")
    if any(info.compress_type or info.flag_bits & 1 or info.compress_size != info.file_size for info in infos):
        raise ValueError("it has compressed or encrypted parts, which torch never writes")
    if pickles[0].file_size > LARGEST_PICKLE:
        raise ValueError(f"data.pkl has {pickles[0].file_size} bytes, more than any checkpoint")
    found, prefix = {}, pickles[0].filename.removesuffix("data.pkl")
    with memoryview(mapped) as whole:
        for info in infos:
            lengths = struct.unpack_from("<HH", whole, info.header_offset + 26)  # of the entry's name and extra field
            start = info.header_offset + 30 + sum(lengths)
            if start + info.file_size > len(whole) or zlib.crc32(whole[start : start + info.file_size]) != info.CRC:
                raise ValueError(f"it is damaged or cut short: the checksum of {info.filename} does not fit")
            found[info.filename.removeprefix(prefix)] = start, info.file_size
        start, size = found.get("byteorder", (0, 0))
        if size and bytes(whole[start : start + size])[:6] != b"little":
            raise ValueError("it was written on a big-endian machine, which is not supported")
    return found


def meta_model(network: BackboneConfig) -> PretrainModel:
    """The pre-training network without memory for its weights."""
    with torch.device("meta"):
        return PretrainModel(network, num_tasks=len(PRETRAINING_SETS))


def find_size(state: dict, networks: dict[str, BackboneConfig]) -> str:
    """The network whose edge embedding and number of blocks ``state`` has."""
    blocks = len({name.split(".")[2] for name in state if name.startswith("backbone.int_blocks.")})
    edge = state.get("backbone.bases.edge_emb.dense.linear.weight")
    width = edge.shape[0] if edge is not None and edge.shape else None
    found = [key for key, c in networks.items() if (c.emb_size_edge, c.num_blocks) == (width, blocks)]
    if not found:
        words = (f"{key} ({c.num_blocks} blocks, edge embedding {c.emb_size_edge})" for key, c in networks.items())
        known = " nor ".join(words)
        raise ValueError(f"it has {blocks} interaction blocks and edge embedding {width}: it is neither {known}")
    return found[0]


def trained(name: str) -> bool:
    """Whether the official loader takes an average for this entry of the state dict."""
    return not (name.endswith(BUFFERS) or ALIAS in name or name.startswith("task_steps"))


def _check_names(state: dict, expected: dict) -> None:
    counters = [COUNTER.format(key) for key in PRETRAINING_SETS]
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected and name not in counters]
    if missing:
        raise ValueError(f"state_dict lacks {missing[0]!r} ({len(missing)} entries are missing)")
    if extra:
        raise ValueError(f"state_dict has {extra[0]!r} ({len(extra)} unknown entries), which the network does not have")
    if [name for name in state if name in expected] != list(expected):
        raise ValueError("the entries of state_dict are not in the official order, by which averages are assigned")
    steps = [name for name in state if name in counters]
    if steps and steps != counters:
        known = ", ".join(PRETRAINING_SETS)
        raise ValueError(f"its step counters ({len(steps)}) are not those of {known} in this order: its heads are others")


def _check_one(what: str, tensor, shape, dtype) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{what} is not a tensor")
    if tensor.shape != shape:
        raise ValueError(f"{what} has shape {tuple(tensor.shape)}, the network needs {tuple(shape)}")
    if tensor.dtype != dtype:
        raise ValueError(f"{what} is {tensor.dtype}, the official release has {dtype}")


def _averages(root: dict, state: dict) -> dict[str, torch.Tensor]:
    """The averaged weights by name, assigned as the official loader does."""
    states = root.get("optimizer_states")
    first = states[0] if isinstance(states, (list, tuple)) and states else None
    ema = first.get("ema") if isinstance(first, dict) else None
    if not isinstance(ema, (list, tuple)):
        raise ValueError("it has no averaged (EMA) weights in optimizer_states[0]")
    names = [name for name in state if trained(name)]
    if len(ema) != len(names):
        raise ValueError(f"it has {len(ema)} averaged weights for {len(names)} trained ones")
    for name, tensor in zip(names, ema, strict=True):
        _check_one(f"the averaged {name!r}", tensor, state[name].shape, state[name].dtype)
    return dict(zip(names, ema, strict=True))


def _check_settings(hyper, network: BackboneConfig) -> None:
    """The plain values of ``hyper_parameters.backbone`` must be those of the network (shapes do not show all of them)."""
    hyper = hyper.state if isinstance(hyper, StandIn) else hyper
    backbone = hyper.get("backbone") if isinstance(hyper, dict) else None
    backbone = backbone.state if isinstance(backbone, StandIn) else backbone
    if not isinstance(backbone, dict):
        return
    wanted = {**FIXED, **network.to_dict()}
    for name, value in backbone.items():
        if name in wanted and isinstance(value, (bool, int, float, str)) and value != wanted[name]:
            raise ValueError(f"its configuration has {name} = {value!r}, the network {wanted[name]!r}")


def _number(values: dict, key: str) -> int | float | None:
    value = values.get(key)
    return value if type(value) in (int, float) else None


def published_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) that the published fine-tuning starts from, for every entry of the network's state dict, as views
    of the file.

    Raises ``ValueError`` (the reason alone): a number that is not finite, aliases that differ, other radial functions.
    """
    raw, averages = checkpoint.raw, checkpoint.averages
    for name, tensor in raw.items():
        twin = name.replace(ALIAS, LAYERS)
        if twin != name and not torch.equal(raw[twin], tensor):
            raise ValueError(f"{name!r} and {twin!r} must be the same tensor and differ")
        shared = twin != name or name.replace(LAYERS, ALIAS) in raw and LAYERS in name
        tensor = averages[name] if name in averages and not shared else tensor
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name!r} has numbers that are not finite")
        if name.endswith(BUFFERS[:2]):
            _check_radial(name, tensor)
        yield name, tensor


def _check_radial(name: str, tensor: torch.Tensor) -> None:
    count = len(tensor)
    own = torch.linspace(0, 1, count) if name.endswith("offset") else torch.full((count,), 0.5 * (count - 1) ** 2)
    if not torch.allclose(tensor, own, rtol=1e-5, atol=1e-6):
        raise ValueError(f"{name!r} is not that of evenly spaced Gaussians on [0, 1]")
