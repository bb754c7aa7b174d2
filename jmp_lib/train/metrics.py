"""Errors in the units of the labels, computed in float64 from de-normalised predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mae(predicted: np.ndarray, target: np.ndarray) -> float:
    """Mean absolute error over structures, unit of the target."""
    return float(np.mean(np.abs(np.asarray(predicted, float) - np.asarray(target, float))))


def force_mae(predicted: Sequence[np.ndarray], target: Sequence[np.ndarray],
              fixed: Sequence[np.ndarray] | None = None) -> float:
    """Mean absolute error over all atoms and the three components, eV/Å.

    predicted, target: one (N,3) array per structure.  fixed: masks (N,) of atoms that are left out, as the
    OC20 and OC22 metrics do (their loss counts every atom).
    """
    errors = [np.abs(np.asarray(p, float) - np.asarray(t, float)) for p, t in zip(predicted, target)]
    if fixed is not None:
        errors = [error[~np.asarray(mask, bool)] for error, mask in zip(errors, fixed)]
    return float(np.concatenate(errors).mean())
