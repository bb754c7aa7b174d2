"""Element-wise chains of ``fast_grad`` as one kernel each, for a GPU (Triton comes with PyTorch there).

A chain of PyTorch's operators reads and writes its arrays once for every operator; with sizes of a few MB, that and the
starting of kernels take longer than the matrix products between. Computed in float32 whatever the number types.
``fast_grad`` holds the same formulas by plain operators, which a CPU and float64 use.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _read(x, at, inside):
    return tl.load(x + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _write(out, at, inside, value):
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _silu(out, x, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _read(x, at, at < n)
    _write(out, at, at < n, scale * x * tl.sigmoid(x))


@triton.jit
def _slope(out, gradient, x, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = _read(x, at, at < n)
    s = tl.sigmoid(x)
    _write(out, at, at < n, scale * _read(gradient, at, at < n) * s * (1 + x * (1 - s)))


@triton.jit
def _sum(out, low, x, p, n, a, b, SILU: tl.constexpr, LOW: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    p = _read(p, at, at < n)
    if SILU:
        p = p * tl.sigmoid(p)
    total = a * _read(x, at, at < n) + b * p
    _write(out, at, at < n, total)
    if LOW:
        _write(low, at, at < n, total)


@triton.jit
def _second(curved, outer_slope, slope, x, gradient, outer, onto, n, scale, onto_scale, ONTO: tl.constexpr,
            SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x, g, o = _read(x, at, at < n), _read(gradient, at, at < n), _read(outer, at, at < n)
    s = tl.sigmoid(x)
    first = s * (1 + x * (1 - s))
    _write(curved, at, at < n, scale * g * o * s * (1 - s) * (2 + x * (1 - 2 * s)))
    o = scale * o * first
    if ONTO:
        o += onto_scale * _read(onto, at, at < n)
    _write(outer_slope, at, at < n, o)
    if SLOPE:
        _write(slope, at, at < n, g * first)


def _start(kernel, out: Tensor, *arguments, **fixed) -> Tensor:
    arguments = [a.contiguous() if torch.is_tensor(a) else a for a in arguments]
    kernel[(triton.cdiv(out.numel(), BLOCK),)](out, *arguments, BLOCK=BLOCK, **fixed)
    return out


def silu(x: Tensor, scale: float) -> Tensor:
    """scale · silu(x)"""
    return _start(_silu, torch.empty_like(x, memory_format=torch.contiguous_format), x, x.numel(), scale)


def slope(gradient: Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
    """scale · gradient · silu'(x), in the number type of x."""
    return _start(_slope, torch.empty_like(x, memory_format=torch.contiguous_format), gradient, x, x.numel(), scale)


def weighted_sum(x: Tensor, p: Tensor, a: float, b: float, activated: bool = False,
                 low: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """a · x + b · p, or b · silu(p), in the number type of x, and in the number type ``low``."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    another = low not in (None, x.dtype)
    lower = torch.empty_like(out, dtype=low) if another else out
    _start(_sum, out, lower, x, p, x.numel(), a, b, SILU=activated, LOW=another)
    return out, lower


def second(x: Tensor, gradient: Tensor, outer: Tensor, scale: float, onto: Tensor | None = None,
           onto_scale: float = 0.0, with_slope: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """(scale · gradient · outer · silu''(x), scale · outer · silu'(x) + onto_scale · onto, gradient
    · silu'(x) or None)."""
    curved = torch.empty_like(x, memory_format=torch.contiguous_format)
    moved = torch.empty_like(x if onto is None else onto, memory_format=torch.contiguous_format)
    slope_ = torch.empty_like(curved) if with_slope else curved
    _start(_second, curved, moved, slope_, x, gradient, outer, x if onto is None else onto, x.numel(), scale,
           onto_scale, ONTO=onto is not None, SLOPE=with_slope)
    return curved, moved, slope_ if with_slope else None
