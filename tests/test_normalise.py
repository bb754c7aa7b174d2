"""References, normalisers and metrics."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.train.losses import mae
from jmp_lib.data.normalise import (
    Normaliser,
    composition,
    fit_composition,
    fit_forces,
    fit_linear_reference,
    fit_property,
)

WATER, METHANE, HYDROGEN = np.array([8, 1, 1]), np.array([6, 1, 1, 1, 1]), np.array([1, 1])


def test_linear_reference_finds_the_contributions():
    molecules = [WATER, METHANE, HYDROGEN, np.array([6, 8])]
    true = np.zeros(120)
    true[[1, 6, 8]] = [-16.4, -1036.0, -2047.0]
    found = np.array(fit_linear_reference(molecules, np.array([true[z].sum() for z in molecules])))
    assert found[[1, 6, 8]] == pytest.approx(true[[1, 6, 8]], rel=1e-9)
    assert found[0] == 0.0
    assert found[79] == pytest.approx(true[[1, 6, 8]].mean())  # an element never seen


def test_undetermined_composition_is_shared():
    found = fit_linear_reference([np.array([11, 17]), np.array([11, 17, 11, 17])], np.array([-8.0, -16.0]))
    assert found[11] == pytest.approx(-4.0) and found[17] == pytest.approx(-4.0)


def test_bad_labels_are_refused():
    with pytest.raises(ValueError, match="two different"):
        fit_property([WATER, WATER], np.array([2.0, 2.0]))


def test_normalised_training_part_has_mean_0_and_std_1():
    rng = np.random.default_rng(0)
    numbers = [rng.choice([1, 6, 8], size=rng.integers(2, 9)) for _ in range(50)]
    values = np.array([-500.0 * (z == 6).sum() - 7.0 * (z == 1).sum() for z in numbers]) + rng.normal(3.0, 2.0, 50)
    normaliser = fit_property(numbers, values, linear_reference=True)
    scaled = np.array([normaliser.normalise(v, z) for v, z in zip(values, numbers)])
    assert scaled.mean() == pytest.approx(0.0, abs=1e-9) and scaled.std() == pytest.approx(1.0)
    back = [normaliser.denormalise(s, z) for s, z in zip(scaled, numbers)]
    assert back == pytest.approx(values.tolist(), rel=1e-12)


def test_references_of_a_property_that_does_not_grow_with_size():
    """They belong to the fractions of the elements, so a doubled cell has the same value;
    they are the composition model."""
    rng = np.random.default_rng(1)
    numbers = [rng.choice([3, 8, 22], size=rng.integers(2, 9)) for _ in range(60)]
    values = np.array([2.0 * (z == 8).mean() - (z == 22).mean() for z in numbers]) + 5.0 + rng.normal(0.0, 0.01, 60)
    normaliser = fit_property(numbers, values, linear_reference=True, extensive=False)
    assert (normaliser.std < 0.02
            and normaliser.offset(numbers[0]) == pytest.approx(normaliser.offset(np.tile(numbers[0], 2))))
    coefficients, intercept = fit_composition(numbers, values, extensive=False)
    predicted = composition(numbers, extensive=False) @ coefficients + intercept
    assert predicted == pytest.approx([normaliser.offset(z) for z in numbers], abs=1e-9)
    assert np.isfinite(normaliser.offset(np.array([79, 8])))  # an element never seen


def test_kinds_and_given_values():
    numbers, values = [WATER, METHANE], np.array([1.0, 3.0])
    assert fit_property(numbers, values, "none") == Normaliser(0.0, 1.0)
    assert fit_property(numbers, values, "scale") == Normaliser(0.0, 1.0)
    assert fit_property(numbers, values, mean=5.0, std=2.0) == Normaliser(5.0, 2.0)
    given = fit_property(numbers, values, linear_reference=True, mean=0.0, std=1.0,
                         reference_values=(0.0, 0.5, 0, 0, 0, 0, 1.0, 0, 2.0))
    assert given.offset(WATER) == pytest.approx(3.0) and given.offset(METHANE) == pytest.approx(3.0)


def test_forces_are_scaled_by_their_root_mean_square():
    normaliser = fit_forces(np.array([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    assert normaliser.mean == 0.0 and normaliser.std == pytest.approx(np.sqrt(25 / 9))


def test_against_reference():
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: no reference fixtures")
    case = json.loads((Path(folder) / "golden_training.json").read_text())["normalization"]
    normaliser = Normaliser(case["mean"], case["std"])
    scaled = [normaliser.normalise(v, WATER) for v in case["value"]]
    assert scaled == pytest.approx(case["normalized"], rel=1e-6)
    assert [normaliser.denormalise(s, WATER) for s in scaled] == pytest.approx(case["denormalized_again"], abs=1e-9)


def test_errors():
    assert mae(np.array([1.0, 2.0]), np.array([0.0, 4.0])) == pytest.approx(1.5)
    forces = np.array([[3.0, 0, 0], [0, 6.0, 0], [0, 0, 9.0]])
    assert mae(np.zeros((3, 3)), forces) == pytest.approx(18 / 9)  # over atoms and components
