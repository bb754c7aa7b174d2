"""No update asks the host: no number of it is read, no constant of the host is copied, no shape depends on numbers."""

import pytest
import torch
from structures import methanol, random_molecule
from test_model import MOLECULE, NARROW
from torch.utils._python_dispatch import TorchDispatchMode

from jmp_lib.graphs import build_graphs, collate
from jmp_lib.model import FinetuneModel, HeadSpec, PretrainModel, fast_grad, geometry
from jmp_lib.train.batches import Share
from jmp_lib.train.losses import Counts, finetuning_loss, pretraining_loss
from jmp_lib.train.processes import Processes
from jmp_lib.train.schedule import EMA, Updates
from jmp_lib.train.trainer import Progress, Training, _update

aten = torch.ops.aten
# Reads a number on the host, or gives an array as long as numbers say, for which a GPU must have finished.
WAITS = {aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.nonzero, aten.bincount, aten.masked_select,
         aten.unique_dim, aten._unique2, aten.equal, aten.repeat_interleave}  # fmt: skip
HEADS = {
    "scalar": [HeadSpec("energy", "scalar", "mean")],
    "spatial extent": [HeadSpec("energy", "spatial_extent")],
    "direct forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "direct_forces")],
    "gradient forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")],
}


class NoHost(TorchDispatchMode):
    """Refuses what waits, and tensors that are neither from ``known`` nor made by an operator within (from Python's
    numbers, or tables of the host)."""

    def __init__(self, known):
        super().__init__()
        self.known = {t.untyped_storage().data_ptr(): t for t in known}
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket
        if name in WAITS or name is aten.lift_fresh:
            self.found.append(str(func))
        if name is aten._to_copy and args[0].untyped_storage().data_ptr() not in self.known:
            self.found.append(f"{func} of {tuple(args[0].shape)}")
        if name is aten.index.Tensor.overloadpacket and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.found.append(f"{func} by truth values")
        result = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(result):
            if torch.is_tensor(t):
                self.known[t.untyped_storage().data_ptr()] = t
        return result


def a_run(kind, precision, folder) -> tuple[Training, Share]:
    structures = [random_molecule(), methanol(), random_molecule(6, 5)]
    items = [{**s, "graphs": build_graphs(s, MOLECULE), "energy": 0.5, "forces": 0 * s["pos"], "dataset_index": k}
             for s, k in zip(structures, (2, 0, 2))]  # fmt: skip
    torch.manual_seed(0)
    model = PretrainModel(NARROW) if kind == "pre-training" else FinetuneModel(NARROW, HEADS[kind])
    scales = torch.ones(4)

    def loss(batch, counts):
        out = model(batch)
        if kind == "pre-training":
            return pretraining_loss(out["energy"], out["forces"], batch["energy"], batch["forces"], batch["batch"],
                                    batch["dataset_index"], scales, scales, counts=counts)
        return {"total": finetuning_loss(out, batch,
                                         {name: 1.0 for name in out if name in ("energy", "forces")}, counts)}

    clip = ((lambda norm: torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, norm)) if kind == "pre-training"
            else (lambda norm: torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    names = ("total", "energy", "force") if kind == "pre-training" else ("total",)
    run = Training(model=model, optimizer=optimizer, schedule=Updates(0, 1.0, 1, 0.1, 9, 9), updates_per_epoch=1,
                   data=None, loss=loss, validate=dict, clip=clip, checkpoint=folder / "c", checkpoint_every=9,
                   processes=Processes("cpu", precision, cpu_autocast=True), loss_names=names, ema=EMA(model, 0.9),
                   gradient_divisors=model.gradient_divisors())
    return run, Share([collate(items)] * 2, [0, 0], [[]], Counts(6, 6), None)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16-mixed"])
@pytest.mark.parametrize("kind", ["pre-training", *HEADS])
def test_an_update_never_waits(kind, precision, large, tmp_path, monkeypatch):
    monkeypatch.setattr(fast_grad, "LARGE", 0 if large else fast_grad.LARGE)
    run, share = a_run(kind, precision, tmp_path)
    _update(run, Progress(), share, False)  # tables are copied to a device once
    before = [p.detach().clone() for p in run.model.parameters()]
    tables = [table(NARROW.num_spherical, torch.float32, torch.device("cpu"))
              for table in (geometry.cosine_expansion, geometry._norms, geometry._slopes)]
    known = [*tables, *run.model.parameters(), *run.model.buffers(),
             *(t for t in share.parts[0].to_dict().values() if torch.is_tensor(t))]
    with NoHost(known) as mode:
        numbers, _ = _update(run, Progress(), share, False)
    assert mode.found == [] and torch.isfinite(numbers).all()
    assert any(not torch.equal(a, b) for a, b in zip(before, run.model.parameters()))


@pytest.mark.parametrize("kind", ["pre-training", "gradient forces"])
def test_what_waits_is_found(kind, tmp_path):
    """The test of the test: a loss that is read, a mask, a constant."""
    run, share = a_run(kind, "float32", tmp_path)
    usual = run.loss

    def loss(batch, counts):
        found = usual(batch, counts)
        batch["pos"][batch["batch"] > 0]
        return {**found, "total": found["total"] * torch.tensor(2.0) * float(found["total"] > -1)}

    run.loss = loss
    with NoHost([]) as mode:
        _update(run, Progress(), share, False)
    assert {"aten._local_scalar_dense.default", "aten.lift_fresh.default"} <= set(mode.found)
    assert any("truth values" in f for f in mode.found)
