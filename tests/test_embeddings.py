"""What lies beside what in an embedding space: known cases, and a network beside the same one untrained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jmp_lib.embeddings import neighbour_shares


@pytest.fixture
def points():
    """Two sets of two domains, 30 structures each, every one with H and O."""
    return pd.DataFrame([{"set": name, "domain": domain, "structure": row, "element": element}
                         for name, domain in (("a", "molecules"), ("b", "crystals"))
                         for row in range(30) for element in "HO"])


def test_shares_of_known_spaces(points):
    element, domain = (points["element"] == "H").to_numpy(float), (points["domain"] == "crystals").to_numpy(float)
    noise = np.random.default_rng(0).normal(0, 0.01, (2, len(points)))
    spaces = {"by element": np.column_stack([element + noise[0], noise[1]]) * [1.0, 1e-12],
              "by both": np.column_stack([element, domain])}
    spaces["by both"] = spaces["by both"] + noise.T
    table = neighbour_shares(points, spaces).set_index("share / %")
    assert list(table.columns) == ["by element", "by both", "by chance"]
    assert (table.loc["neighbours of the same element", "by both"]
            == table.loc["neighbours of the same domain", "by both"] == 100.0)
    given = table.loc["neighbours of the same domain, element given"]
    assert given["by both"] == 100.0 and given["by chance"] == pytest.approx(100 * 29 / 59, abs=0.1)
    explained = table.loc["variance explained by the element"]
    assert explained["by both"] == pytest.approx(50.0, abs=0.5) and explained["by chance"] < 1


def test_too_few_points_for_ten_neighbours_are_not_counted(points):
    few = points[points["set"] == "a"].head(8)
    assert neighbour_shares(few, {"x": np.random.default_rng(1).normal(size=(8, 2))})["x"].isna().any()
