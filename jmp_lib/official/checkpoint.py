"""What an official pre-training checkpoint holds, checked against the network, and the weights that are taken from it.

``state_dict`` has the raw weights, ``optimizer_states[0]["ema"]`` the averaged ones, one tensor per parameter. The
official fine-tuning walks the names of ``state_dict`` in order and replaces each trained one by the next average. It
passes over the names with ``.seq_energy_pre.``, which are the same tensors as ``.layers.`` of each output block and are
loaded after them: so the network that it starts from has raw weights in ``out_blocks.<k>.layers`` and averages
everywhere else, and so have the weights taken here.

The file is a zip of a pickle (structure and names) and of numbers. ``torch.load`` maps it, with an unpickler in which
no name of the file is imported: those of tensors are made by torch, every other one is a stand-in that does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from jmp_lib.data.formats import opened
from jmp_lib.data.pickles import Call, check_size
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.model import BackboneConfig, PretrainModel
from jmp_lib.model.config import FIXED

MEND = "get the file again (jmp-s.pt or jmp-l.pt of the official release)"
NETWORKS = {"small": BackboneConfig(), "large": BackboneConfig.large()}
COUNTER = "task_steps._module_dict._typed_moduledict_{}.sum_value"
ALIAS, LAYERS = ".seq_energy_pre.", ".layers."
BUFFERS = ("rbf.offset", "rbf.temps", "scale_factor")


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint. size: small or large; tensors: what the published fine-tuning starts from, by the names
    of the network's state dict, as views of the file."""

    path: Path
    size: str
    network: BackboneConfig
    tensors: dict[str, torch.Tensor]
    epoch: int | None
    updates: int | None
    ema_decay: float | None


def read_checkpoint(path: str | Path, networks: dict[str, BackboneConfig] = NETWORKS) -> Checkpoint:
    """Open a checkpoint and check names, order, shapes, dtypes, counts and numbers against the network whose size it
    has; raises ``FileNotFoundError`` or ``ValueError`` in one sentence."""
    path = Path(path)
    with opened(path, "a torch checkpoint (no zip file)", b"PK\x03\x04", mend=MEND):
        root = contents(path)
        state = root.get("state_dict") if isinstance(root, dict) else None
        if not isinstance(state, dict) or not state:
            raise ValueError("it is no Lightning checkpoint (it has no state_dict)")
        size = find_size(state, networks)
        expected = meta_model(networks[size]).state_dict()
        _check_names(state, expected)
        for name, own in expected.items():
            _check_one(f"state_dict entry {name!r}", state[name], own)
        _check_settings(root.get("hyper_parameters"), networks[size])
        optimizer, averages = _averages(root, expected)
        facts = [value if type(value) in (int, float) else None
                 for value in (root.get("epoch"), root.get("global_step"), optimizer.get("decay"))]
        return Checkpoint(path, size, networks[size], {name: taken(name, state, averages) for name in expected}, *facts)


def contents(path: Path):
    """What was saved in a checkpoint, tensors as views of the mapped file, strange objects as stand-ins.

    Raises ``ValueError`` (cut short, altered) with the reason alone.
    """
    try:
        with zipfile.ZipFile(path) as zipped, open(path, "rb") as stream:
            entries, program = zipped.infolist(), "constants.pkl"
            listed = [info.filename.partition("/")[2] for info in entries]
            if any(info.compress_type for info in entries) or program in listed:
                raise ValueError("it is a zip file but no torch checkpoint (compressed, or a program)")
            # a file can have two directories, of which torch.load, which runs programs, finds another than Python
            seen = torch._C.PyTorchFileReader(stream).get_all_records()
            if program in seen or sorted(seen) != sorted(listed) or min(info.header_offset for info in entries):
                raise ValueError("it is no checkpoint as torch writes it (a zip file with two directories)")
            damaged = zipped.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError):
        raise ValueError("it is damaged or cut short (no whole zip file)") from None
    if damaged:
        raise ValueError(f"it is damaged or cut short: the checksum of {damaged} does not fit")
    inert = SimpleNamespace(Unpickler=_Unpickler, __name__="inert")
    try:
        return torch.load(path, "cpu", inert, weights_only=False, mmap=True)
    except Exception:  # whatever bytes drive the unpickling machine into: nothing of it has run anything
        raise ValueError("it holds no readable torch checkpoint (data.pkl is altered or "
                         "missing, or numbers are)") from None


MAKERS = {  # all that a pickle can have made; a tensor is a view of a storage, and torch refuses one that leaves it
    "torch._utils._rebuild_tensor_v2": lambda *args: torch._utils._rebuild_tensor(*args[:4]),
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch.Size": lambda sizes: tuple(sizes),
    "collections.OrderedDict": lambda *_: OrderedDict(),
    "builtins.set": lambda items: set(items),
}


class StandIn(dict):
    """What a pickle makes by a strange name, or gets from a call of it: keeps its ``state``, does nothing."""

    state, __hash__ = None, object.__hash__

    def __init__(self, *_args, **_kwargs):
        super().__init__()

    def __setstate__(self, state):
        self.state = state

    def append(self, _value):
        pass

    extend = add = append


class _Unpickler(pickle.Unpickler):
    """No name is imported; what a pickle does to a name, it does to an object of its own."""

    def __init__(self, stream, **options):
        check_size(stream)
        super().__init__(stream, **options)

    def find_class(self, module, name):
        origin = f"{module}.{name}".replace("__builtin__", "builtins")
        return Call(MAKERS[origin]) if origin in MAKERS else type("StandIn", (StandIn,), {})


def meta_model(network: BackboneConfig) -> PretrainModel:
    """The pre-training network without memory for its weights."""
    with torch.device("meta"):
        return PretrainModel(network, num_tasks=len(PRETRAINING_SETS))


def find_size(state: dict, networks: dict[str, BackboneConfig]) -> str:
    """The network whose edge embedding and number of blocks ``state`` has."""
    blocks = len({name.split(".")[2] for name in map(str, state) if name.startswith("backbone.int_blocks.")})
    width = next(iter(getattr(state.get("backbone.bases.edge_emb.dense.linear.weight"), "shape", ())), None)
    for size, network in networks.items():
        if (network.emb_size_edge, network.num_blocks) == (width, blocks):
            return size
    known = " nor ".join(f"{size} ({c.num_blocks} blocks, edge embedding {c.emb_size_edge})"
                         for size, c in networks.items())
    raise ValueError(f"it has {blocks} interaction blocks and edge embedding {width}: it is neither {known}")


def trained(name: str) -> bool:
    """Whether the official loader takes an average for this entry of the state dict."""
    return not (name.endswith(BUFFERS) or ALIAS in name or name.startswith("task_steps"))


def _check_names(state: dict, expected: dict) -> None:
    """Entries are those of the network, in the official order, by which averages are assigned; beside them the step
    counters of the heads, whose order is that of the heads, or none."""
    counters = [COUNTER.format(key) for key in PRETRAINING_SETS]
    missing, unknown = expected.keys() - state.keys(), state.keys() - expected.keys() - set(counters)
    for words, names in (("lacks", missing), ("has the unknown", unknown)):
        if names:
            raise ValueError(f"its state_dict {words} {min(map(str, names))!r} ({len(names)} such entries)")
    if [name for name in state if name in expected] != list(expected):
        raise ValueError("the entries of its state_dict are not in the official order, by which averages are assigned")
    if (steps := [name for name in state if name in counters]) and steps != counters:
        raise ValueError(f"its step counters ({len(steps)}) are not those of {', '.join(PRETRAINING_SETS)} in this "
                         "order: its heads are others")


def _check_settings(hyper, network: BackboneConfig) -> None:
    """The plain values of ``hyper_parameters.backbone`` are those of the network (shapes do not show all of them)."""

    def fields(item) -> dict:
        item = item.state if isinstance(item, StandIn) and item.state else item
        return item if isinstance(item, dict) else {}

    wanted = FIXED | network.to_dict()
    for name, value in fields(fields(hyper).get("backbone")).items():
        if name in wanted and isinstance(value, (bool, int, float, str)) and value != wanted[name]:
            raise ValueError(f"its configuration has {name} = {value!r}, the network {wanted[name]!r}")


def _check_one(what: str, tensor, own: torch.Tensor) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{what} is not a tensor")
    if (tensor.shape, tensor.dtype) != (own.shape, own.dtype):
        raise ValueError(f"{what} is {tuple(tensor.shape)} {tensor.dtype}, "
                         f"that of the network {tuple(own.shape)} {own.dtype}")


def _averages(root: dict, expected: dict) -> tuple[dict, dict[str, torch.Tensor]]:
    """State of the optimiser, and the averaged weights by name, assigned as the official loader does."""
    optimizer = (*root.get("optimizer_states", ()), None)[0]
    ema = optimizer.get("ema") if isinstance(optimizer, dict) else None
    if not isinstance(ema, (list, tuple)):
        raise ValueError("it has no averaged (EMA) weights in optimizer_states[0]")
    names = [name for name in expected if trained(name)]
    if len(ema) != len(names):
        raise ValueError(f"it has {len(ema)} averaged weights for {len(names)} trained ones")
    for name, tensor in zip(names, ema):
        _check_one(f"the averaged {name!r}", tensor, expected[name])
    return optimizer, dict(zip(names, ema))


def taken(name: str, raw: dict, averages: dict) -> torch.Tensor:
    """The tensor that the published fine-tuning starts from. Raises ``ValueError`` (the reason alone): a number that
    is not finite, aliases that differ, other radial functions."""
    twin = name.replace(ALIAS, LAYERS)
    if twin != name and not torch.equal(raw[twin], raw[name]):
        raise ValueError(f"{name!r} and {twin!r} must be the same tensor and differ")
    shared = twin != name or LAYERS in name and name.replace(LAYERS, ALIAS) in raw
    tensor = raw[name] if shared else averages.get(name, raw[name])
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name!r} has numbers that are not finite")
    if name.endswith(BUFFERS[:2]):
        count = len(tensor)
        own = torch.linspace(0, 1, count) if name.endswith("offset") else torch.full((count,), 0.5 * (count - 1) ** 2)
        if not torch.allclose(tensor, own, rtol=1e-5, atol=1e-6):
            raise ValueError(f"{name!r} is not that of evenly spaced Gaussians on [0, 1]")
    return tensor
