"""Temperature sampling: published probabilities, expanded sizes, batches as a function of the update number."""

import json
import math
import os
from collections import Counter
from pathlib import Path

import pytest

from jmp_lib.train.sampling import Sampler, expanded_sizes, temperature_ratios

PAPER = [100_000_000, 8_000_000, 2_000_000, 10_000_000]


def test_published_probabilities():
    assert temperature_ratios(PAPER, 2.0) == pytest.approx(
        [0.5745502392177768, 0.1625073481132972, 0.0812536740566486, 0.18168873861227738], rel=1e-12)
    assert temperature_ratios(PAPER, math.inf) == pytest.approx([0.25] * 4)
    assert temperature_ratios(PAPER, 1.0) == pytest.approx([n / 120e6 for n in PAPER])


@pytest.mark.parametrize("sizes, temperature, wanted", [
    (PAPER, 2.0, [100_000_000, 28_284_272, 14_142_136, 31_622_777]),
    (PAPER, 1.0, PAPER),
    ([1000, 80, 20, 100], 2.0, [1000, 283, 142, 317]),
    ([997, 83, 21, 104], 1.0, [997, 84, 22, 105]),  # rounding noise gains entries: part of the rule
    ([997, 83, 21, 104], 4.0, [997, 536, 380, 567]),
    ([997, 83, 21, 104], math.inf, [997, 997, 997, 997]),
])
def test_expanded_sizes(sizes, temperature, wanted):
    assert expanded_sizes(sizes, temperature_ratios(sizes, temperature)) == wanted


def test_against_reference():
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: no reference fixtures")
    cases = json.loads((Path(folder) / "golden_training.json").read_text())["sampling"]
    compared = 0
    for case in cases.values():
        if isinstance(case, dict) and "expanded_sizes" in case:
            ratios = temperature_ratios(case["sizes"], case.get("temperature", math.inf))
            assert ratios == pytest.approx(case["ratios"], rel=1e-12)
            assert expanded_sizes(case["sizes"], case["ratios"]) == case["expanded_sizes"]
            compared += 1
    assert compared >= 12


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="at least one structure"):
        temperature_ratios([10, 0], 2.0)
    with pytest.raises(ValueError, match="empty"):
        Sampler.single(0, 4, 0)


def test_an_epoch_holds_every_draw():
    sampler = Sampler.joint([40, 7, 2], 2.0, batch_size=8, seed=3)
    drawn = [pair for step in range(sampler.batches_per_epoch) for pair in sampler.batch(step)]
    counts = Counter(which for which, _ in drawn)
    assert [counts[i] for i in range(3)] == list(sampler.draws)
    per_structure = Counter(drawn)
    assert len(per_structure) == 49  # every structure of every set occurs
    for which, size in enumerate(sampler.sizes):
        repeats = [per_structure[which, i] for i in range(size)]
        assert max(repeats) - min(repeats) <= 1  # cyclic repetition, nothing favoured


def test_batches_depend_on_seed_and_step_only():
    first, second = (Sampler.joint([40, 7], 2.0, 8, seed=3) for _ in range(2))
    steps = [11, 2, 30, 0]
    wanted = {step: first.batch(step) for step in range(31)}
    assert [second.batch(step) for step in steps] == [wanted[step] for step in steps]
    assert Sampler.joint([40, 7], 2.0, 8, seed=4).batch(0) != wanted[0]
    assert wanted[0] != wanted[first.batches_per_epoch]  # another order in the next epoch


def test_last_batch_of_an_epoch_is_smaller():
    sampler = Sampler.single(10, 4, seed=0)
    assert [len(sampler.batch(step)) for step in range(4)] == [4, 4, 2, 4]
