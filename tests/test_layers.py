"""Hand-written derivatives of the activation and of the joined residual."""

import torch
from torch.autograd import gradcheck, gradgradcheck

from jmp_lib.model import layers, recompute
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


def _weigh(x, rad, radial, down, gather):
    return layers.scaled_silu((layers.scaled_silu(x).index_select(0, gather) * (rad @ radial.t())) @ down.t())


def _weigh_inputs(dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((5, 4), (7, 3), (4, 3), (2, 4))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes] + [torch.tensor([0, 4, 1, 1, 2, 3, 0])]


def test_what_is_formed_again_has_the_same_derivatives(monkeypatch):
    """First and second derivatives by finite differences, and the first equal to those of the plain form to the bit."""
    inputs = _weigh_inputs()
    plain = torch.autograd.grad(_weigh(*inputs).square().sum(), inputs[:-1])
    monkeypatch.setattr(recompute, "LARGE", 0)
    again = lambda *tensors: recompute.formed_again(_weigh, 1, *tensors)  # noqa: E731
    assert type(again(*inputs).grad_fn).__name__ == "_FormedAgainBackward"
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(again(*inputs).square().sum(), inputs[:-1]), plain))
    assert torch.autograd.gradcheck(again, inputs) and torch.autograd.gradgradcheck(again, inputs)


def test_small_arrays_and_second_derivatives_are_not_formed_again():
    inputs = _weigh_inputs()
    for elements, twice in ((recompute.LARGE - 1, False), (recompute.LARGE, True)):
        result = recompute.formed_again(_weigh, elements, *inputs, twice=twice)
        assert type(result.grad_fn).__name__ != "_FormedAgainBackward"


def test_what_is_formed_again_keeps_its_inputs_alone(monkeypatch):
    monkeypatch.setattr(recompute, "LARGE", 0)
    inputs, kept = _weigh_inputs(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        recompute.formed_again(_weigh, 1, *inputs)
    assert kept == [t.shape for t in inputs]


def test_a_chain_of_residuals_is_the_residuals_one_by_one():
    torch.manual_seed(0)
    chain, x = layers.residuals(3, 6).double(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    joined = layers.apply_all(chain, x)
    assert joined.grad_fn.name().startswith("_JoinedResiduals")
    for layer in chain:
        layer.twice = True
    plain = layers.apply_all(chain, x)
    torch.testing.assert_close(joined, plain, rtol=1e-12, atol=1e-12)
    wanted = (x, *chain.parameters())
    for one, other in zip(torch.autograd.grad(joined.sin().sum(), wanted), torch.autograd.grad(plain.sin().sum(), wanted)):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    weights = [w for layer in chain for w in layer.weights()]
    assert torch.autograd.gradcheck(layers._JoinedResiduals.apply, (x, *weights))
    assert torch.autograd.gradgradcheck(layers._JoinedResiduals.apply, (x, *weights))
