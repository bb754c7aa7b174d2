"""Hand-written derivatives of the activation and of the joined residual."""

import torch
from torch.autograd import gradcheck, gradgradcheck

from jmp_lib.model.layers import Residual, scaled_silu


def test_activation_first_and_second_derivatives():
    x = torch.linspace(-6, 6, 24, dtype=torch.float64).view(4, 6).requires_grad_()
    assert gradcheck(scaled_silu, (x,)) and gradgradcheck(scaled_silu, (x,))


def test_joined_residual_equals_the_plain_one():
    torch.manual_seed(0)
    layer, x = Residual(5).double(), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for twice in (False, True):
        layer.twice = twice
        layer.zero_grad()
        y = layer(x)
        first = torch.autograd.grad(y.pow(2).sum(), x, create_graph=True)[0]
        first.pow(2).sum().backward()
        once = torch.autograd.grad(layer(x).pow(3).sum(), (x, *layer.parameters()))
        results.append([y, first, *once, *(p.grad for p in layer.parameters())])
    for joined, plain in zip(*results, strict=True):
        assert torch.allclose(joined, plain, rtol=1e-12, atol=1e-13)
