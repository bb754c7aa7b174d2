"""Mixed precision: every head forward, backward and in training, near float32.

The networks are small and the same for all precisions. bfloat16 has 8 binary digits and float16 11, and sums of many
terms of either sign (energies, R²) lose some of them: tolerances are relative to the norm of what is compared.
"""

import pytest
import torch
from structures import methanol, random_molecule, slab
from test_model import CRYSTAL, MOLECULE, NARROW, batch_of
from torch.utils._python_dispatch import TorchDispatchMode

from jmp_lib.graphs import build_graphs, collate
from jmp_lib.model import FinetuneModel, HeadSpec, PretrainModel, fast_grad, fit_scale_factors, models

HEADS = {
    "sum": [HeadSpec("y", "scalar", "sum")],
    "mean": [HeadSpec("y", "scalar", "mean")],
    "max": [HeadSpec("y", "scalar", "max")],
    "spatial extent": [HeadSpec("R2", "spatial_extent")],
    "direct forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "direct_forces")],
    "gradient forces": [HeadSpec("energy", "energy"), HeadSpec("forces", "gradient_forces")],
}
KINDS = ["pre-training", *HEADS]
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
LOSS_SCALE = {torch.bfloat16: 1.0, torch.float16: 1024.0}  # as torch.amp.GradScaler: small gradients vanish in float16


def a_batch():
    return batch_of(random_molecule(), methanol(), random_molecule(6, 5))


def a_model(kind, batch):
    torch.manual_seed(0)
    model = PretrainModel(NARROW) if kind == "pre-training" else FinetuneModel(NARROW, HEADS[kind])
    fit_scale_factors(model, [batch])
    return model.train()


def outputs(model, batch, dtype):
    """The predictions; ``dtype`` None: float32."""
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        found = model(batch)
    return {name: value for name, value in found.items() if name not in ("h", "x_f")}


def step(model, batch, dtype, target=0.3):
    """(loss, predictions, gradient of all parameters) of a mean squared error with every output."""
    model.zero_grad(set_to_none=True)
    found = outputs(model, batch, dtype)
    loss = sum((value - target).square().mean() for value in found.values())
    scale = LOSS_SCALE.get(dtype, 1.0)
    (loss * scale).backward()
    for parameter in model.parameters():
        parameter.grad /= scale
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    return loss.detach(), {name: value.detach() for name, value in found.items()}, gradient


def away(value, reference):
    """Error relative to the norm of the reference."""
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_finite_and_near_float32(kind, dtype):
    batch = a_batch()
    model = a_model(kind, batch)
    _, reference, reference_gradient = step(model, batch, None)
    _, found, gradient = step(model, batch, dtype)
    for name, value in found.items():
        assert value.dtype == torch.float32, f"{name} is summed in 16 bits"
        assert torch.isfinite(value).all() and away(value, reference[name]) < TOLERANCE[dtype], name
        assert not torch.equal(value, reference[name]), "mixed precision was not used"
    assert torch.isfinite(gradient).all() and away(gradient, reference_gradient) < 1.5 * TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss(kind, dtype):
    batch = a_batch()
    model = a_model(kind, batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    losses = []
    for _ in range(12):
        losses.append(float(step(model, batch, dtype)[0]))
        optimizer.step()
    assert all(loss == loss for loss in losses) and losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_formed_again_is_formed_in_the_same_precision(kind, monkeypatch):
    """As on a batch so large that intermediate arrays are not kept: gradients equal those of the plain form."""
    batch = a_batch()
    model = a_model(kind, batch)
    loss, _, gradient = step(model, batch, torch.bfloat16)
    monkeypatch.setattr(fast_grad, "LARGE", 0)
    again_loss, _, again = step(model, batch, torch.bfloat16)
    # the order of sums in 16 bits differs in second derivatives
    tolerance = 0.01 if kind == "gradient forces" else 1e-6
    assert torch.equal(again_loss, loss) and away(again, gradient) < tolerance
    with torch.autocast("cpu", dtype=torch.bfloat16):  # small after large within one context
        model(batch)
        monkeypatch.undo()
        model.zero_grad()
        found = model(batch)
    sum(value.square().sum() for name, value in found.items() if name not in ("h", "x_f")).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_each_structure_s_own_heads_in_mixed_precision(dtype):
    items = [{**s, "graphs": build_graphs(s, config)}
             for s, config in ((random_molecule(), MOLECULE), (slab(), CRYSTAL))]
    batch = collate([{**item, "dataset_index": index} for item, index in zip(items, (2, 0))])
    model = a_model("pre-training", batch)
    reference, found = outputs(model, batch, None), outputs(model, batch, dtype)
    for name, value in found.items():
        assert away(value.detach(), reference[name].detach()) < TOLERANCE[dtype], name
    sum(value.square().sum() for value in found.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


class Operators(TorchDispatchMode):
    """The operators of a pass, with the storage of their first tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        at = args[0].untyped_storage().data_ptr() if args and torch.is_tensor(args[0]) else None
        self.found.append((func._overloadpacket.__name__, at))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["pre-training", "gradient forces"])
def test_weights_are_converted_together_and_stay_what_they_are(kind):
    batch = a_batch()
    model = a_model(kind, batch)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with Operators() as seen:
        step(model, batch, torch.bfloat16)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert not [at for name, at in seen.found if name == "_to_copy" and at in weights]
    assert [name for name, _ in seen.found].count("_foreach_copy_") == 2
    assert dict(model.named_parameters()).keys() == before.keys()
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, torch.nn.Parameter) and torch.equal(parameter, before[name]), name
        assert parameter.grad.dtype == torch.float32, name


@pytest.mark.parametrize("large", [False, True])
def test_an_evaluation_forms_no_gradient_of_a_weight(large, monkeypatch):
    """Under autocast weights are no leaves; as many products as in float32 all the same."""
    monkeypatch.setattr(fast_grad, "LARGE", 0 if large else fast_grad.LARGE)
    batch = a_batch()
    model = a_model("gradient forces", batch).eval()
    products = []
    for dtype in (None, torch.bfloat16):
        with Operators() as seen:
            outputs(model, batch, dtype)
        products.append(sum("mm" in name for name, _ in seen.found))
    assert products[0] == products[1] > 0


def kept_bytes(model, batch, dtype):
    """What a forward pass keeps for its gradients, besides weights and the batch."""
    kept, own = {}, [*model.parameters(), *model.buffers(), *(v for v in dict(batch).values() if torch.is_tensor(v))]
    outside = {t.untyped_storage().data_ptr() for t in own}

    def keep(t):
        if t.untyped_storage().data_ptr() not in outside:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs(model, batch, dtype)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", ["pre-training", "direct forces", "gradient forces"])
def test_sixteen_bits_keep_less_than_float32(kind, dtype, monkeypatch):
    """As on a large batch: less than three quarters (distances, angles and sums on atoms stay as they are)."""
    monkeypatch.setattr(fast_grad, "LARGE", 0)
    batch = batch_of(*[random_molecule(12, seed) for seed in range(6)])
    model = a_model(kind, batch)
    assert kept_bytes(model, batch, dtype) < 0.75 * kept_bytes(model, batch, None)


def test_gradient_forces_of_an_evaluation_in_mixed_precision():
    batch = a_batch()
    model = a_model("gradient forces", batch).eval()
    with torch.no_grad():
        reference, found = outputs(model, batch, None), outputs(model, batch, torch.bfloat16)
    assert not found["forces"].requires_grad and away(found["forces"], reference["forces"]) < 0.1


def test_the_energy_is_scaled_only_in_mixed_precision_before_it_is_differentiated(monkeypatch):
    seen = []

    def spy(energy, pos, **options):
        seen.append(energy.item())
        return gradient(energy, pos, **options)

    gradient = torch.autograd.grad
    monkeypatch.setattr(models.torch.autograd, "grad", spy)
    pos = torch.tensor([[1.0, 2.0, 2.0]], requires_grad=True)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.float16, enabled=enabled):
            assert torch.equal(models.position_gradient(pos.square().sum(), pos, False), 2 * pos.detach())
    assert seen == [9.0, 9.0 * models.FORCE_SCALE]
