"""What follows from the chemical formula alone."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import RidgeCV

from jmp_lib.train.normalise import element_counts

STRENGTHS = np.logspace(-6, 3, 10)  # of the ridge; the best by leave-one-out on the training part


def linear_composition(train_numbers: list, values: np.ndarray, test_numbers: list, extensive: bool) -> np.ndarray:
    """Ridge regression on element counts (``extensive``: the label grows with size) or fractions; (S_test,), unit of y.

    train_numbers, test_numbers: atomic numbers of each structure; values (S_train,).
    """
    train, test = element_counts(train_numbers), element_counts(test_numbers)
    if not extensive:
        train, test = (counts / counts.sum(axis=1, keepdims=True) for counts in (train, test))
    return RidgeCV(STRENGTHS).fit(train, values).predict(test)
