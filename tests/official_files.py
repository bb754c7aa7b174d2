"""Checkpoints of the official layout with generated weights, as Lightning would have written them."""

import collections
import sys
import types
import zipfile
import zlib

import numpy as np
import torch

from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.model import PretrainModel
from jmp_lib.model.scaling import scale_modules
from jmp_lib.official.checkpoint import COUNTER
from tools.reference_check import recipe_weights


def official_model(network, factors=None) -> PretrainModel:
    """A network with weights of the recipe; factors: name without ``backbone.`` -> value (None: invented ones)."""
    with torch.device("meta"):
        empty = PretrainModel(network)
    model = empty.to_empty(device="cpu").eval()
    for name, buffer in model.named_buffers():
        if name.endswith("offset"):
            buffer.copy_(torch.linspace(0, 1, len(buffer)))
        elif name.endswith("temps"):
            buffer.fill_(0.5 * (len(buffer) - 1) ** 2)
    recipe_weights(model)
    for number, (name, module) in enumerate(scale_modules(model).items()):
        module.set(factors[name.removeprefix("backbone.")] if factors else 0.75 + 0.25 * (number % 4))
    return model


def foreign(module: str, name: str):
    """A class that the reader cannot know; gone from this process as soon as the file is written."""
    made = type(name, (), {"__module__": module, "__qualname__": name})
    holder = sys.modules.setdefault(module, types.ModuleType(module))
    setattr(holder, name, made)
    return made


def noise(name: str, shape) -> torch.Tensor:
    """Raw weights differ from the averages by this."""
    rng = np.random.default_rng(zlib.crc32(b"raw " + name.encode()))
    return torch.from_numpy(0.01 * rng.standard_normal(tuple(shape), np.float32))


def checkpoint_of(model, swap_layers: bool = False) -> dict:
    """The parts of a checkpoint whose averages are the weights of ``model``, with strange classes in them.

    The raw weights differ by ``noise``. swap_layers: in the layers that have an alias the raw weights are those of
    ``model`` and the averages differ, so that the official loader ends with exactly the weights of ``model``.
    """
    parameters = dict(model.named_parameters())
    swapped = {n for n in parameters if swap_layers and n.startswith("backbone.out_blocks.") and ".layers." in n}
    other = {n: p.detach() + noise(n, p.shape) for n, p in parameters.items()}
    raw = {n: parameters[n].detach() if n in swapped else other[n] for n in parameters}
    shared = {id(p): n for n, p in parameters.items()}
    state = collections.OrderedDict()
    for name, tensor in model.state_dict(keep_vars=True).items():
        state[name] = raw[shared[id(tensor)]] if id(tensor) in shared else tensor.clone()
    for key in PRETRAINING_SETS:
        state[COUNTER.format(key)] = torch.tensor(1000.0)
    averages = tuple((other[n] if n in swapped else p).detach().clone() for n, p in parameters.items())
    config = foreign("absent_configs", "OptimizerConfig")()
    config.lr, config.hook = 3e-4, foreign("absent_configs", "Hook")
    opt = {"state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(3)}},
           "param_groups": [{"lr": 3e-4, "params": [0]}]}
    return {
        "epoch": 1, "global_step": 1000, "pytorch-lightning_version": "2.1.0", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5),
                                          "path": foreign("pathlib_absent", "PosixPath")()}},
        "optimizer_states": [{"opt": opt, "ema": averages, "current_step": 1000, "decay": 0.99, "every_n_steps": 1}],
        "lr_schedulers": [], "hparams_name": "config", "MixedPrecisionPlugin": {"scale": 65536.0, "_growth_tracker": 3},
        "hyper_parameters": {"backbone": {**model.config.to_dict(), "activation": "scaled_silu", "scale_file": None},
                             "optimizer": config, "tasks": [config], "edge_dropout": 0.1, "numbers": np.float64(0.5)},
    }  # fmt: skip


def write(path, parts) -> None:
    """``torch.save``, then forget the modules of the strange classes."""
    torch.save(parts, path)
    for name in [n for n in sys.modules if n.startswith(("absent_configs", "pathlib_absent"))]:
        del sys.modules[name]


class Call:
    """Pickles as a call of ``function`` (arguments plain)."""

    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


def rewrite(path, change) -> None:
    """Write a zip again with ``change(name, data)`` of every entry; None leaves an entry out."""
    with zipfile.ZipFile(path) as old:
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, data in entries:
            data = change(name, data)
            if data is not None:
                new.writestr(name, data)

