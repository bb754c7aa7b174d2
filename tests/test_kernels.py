"""The chains that are one kernel on a GPU, against plain operators: on the card where there is one,
else in Triton's interpreter."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs only (pip install triton: "
                    "its interpreter runs anywhere)")

from jmp_lib.model import BackboneConfig, fast_grad, interactions, kernels
from jmp_lib.model.fast_grad import chain_of_residuals, only_positions, scaled_silu
from jmp_lib.model.interactions import Triplets, _symmetric

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def both(monkeypatch, work):
    """What ``work`` gives with the kernels and by plain operators."""
    found = []
    for chosen in (kernels, None):
        for module in (fast_grad, interactions):
            monkeypatch.setattr(module, "kernels_for", lambda x, chosen=chosen: chosen)
        torch.manual_seed(0)
        found.append(work())
    return found


def near(found, wanted, limit):
    def size(x):
        return float(x.detach().float().norm())

    return all(a.dtype == b.dtype and size(a - b) <= limit * size(b)
               for a, b in zip(found, wanted, strict=True))  # fmt: skip


@pytest.mark.parametrize("rows", [1, 37])
@pytest.mark.parametrize("dtype, limit", [(torch.float32, 2e-6), (torch.bfloat16, 4e-2)])
def test_activation(monkeypatch, rows, dtype, limit):
    def work():
        x = torch.randn(rows, 60, device=DEVICE).to(dtype).requires_grad_()
        y = scaled_silu(x, 1.3)
        first, = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)
        return [y, first, *torch.autograd.grad(first.float().norm(), x)]

    assert near(*both(monkeypatch, work), limit)


@pytest.mark.parametrize("low, limit", [(None, 3e-6), (torch.bfloat16, 6e-2)])
def test_residuals(monkeypatch, low, limit):
    """Values, first and second derivatives, as pre-training and gradient forces take them; x of 32 bits,
    products of ``low``."""

    def work():
        x = torch.randn(21, 16, device=DEVICE, requires_grad=True)
        weights = [(torch.randn(16, 16, device=DEVICE) / 4).requires_grad_() for _ in range(4)]
        with torch.autocast(DEVICE, low or torch.bfloat16, low is not None):
            y = chain_of_residuals(x, *weights)
        found = [y, *torch.autograd.grad(y.pow(2).sum(), [x, *weights], retain_graph=True)]
        with only_positions():
            force, = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return [*found, force, *torch.autograd.grad(force.pow(2).sum(), [x, *weights])]

    assert near(*both(monkeypatch, work), limit)


@pytest.mark.parametrize("width", [16, 20])
@pytest.mark.parametrize("dtype, limit", [(torch.float32, 3e-6), (torch.bfloat16, 5e-2)])
def test_lift(monkeypatch, width, dtype, limit):
    """Both products of the symmetric up-projection as one, and the sum of their two halves."""
    reverse = torch.tensor([3, 2, 1, 0, 5, 4], device=DEVICE)

    def work():
        z, ca, ac = (torch.randn(n, 8, device=DEVICE).to(dtype).requires_grad_() for n in (6, width, width))
        return with_derivatives(_symmetric(z, ca, ac, reverse), [z, ca, ac])

    assert near(*both(monkeypatch, work), limit)


@pytest.mark.parametrize("gather", [None, [0, 4, 4, 2, 1]])
@pytest.mark.parametrize("dtype, limit", [(torch.float32, 3e-6), (torch.bfloat16, 5e-2)])
def test_gate(monkeypatch, gather, dtype, limit):
    """Activated rows, weighted by the radial basis."""
    c = BackboneConfig(emb_size_edge=24, emb_size_trip_in=8, emb_size_rbf=6)
    gather = gather and torch.tensor(gather, device=DEVICE)

    def work():
        part = Triplets(c, c.emb_size_edge).to(DEVICE, dtype)
        part.scale_rbf.set(1.3)
        x, rad = (torch.randn(5, n, device=DEVICE).to(dtype).requires_grad_() for n in (24, 6))
        weights = [part.dense_ba.linear.weight, part.mlp_rbf.linear.weight, part.down_projection.linear.weight]
        return with_derivatives(part.project(x, rad, gather), [x, rad, *weights])

    assert near(*both(monkeypatch, work), limit)


def with_derivatives(y, inputs) -> list:
    """y, derivatives with respect to the inputs, and those of the norm of the first."""
    first = torch.autograd.grad(y.float().pow(2).sum(), inputs, create_graph=True)
    return [y, *first, *torch.autograd.grad(first[0].float().norm(), inputs)]


def test_chosen_on_a_gpu_in_at_most_32_bits():
    x = torch.ones(2, 2, device=DEVICE)
    assert (fast_grad.kernels_for(x) is not None) == (DEVICE == "cuda")
    assert fast_grad.kernels_for(x.double()) is None and fast_grad.kernels_for(x[:0]) is None
