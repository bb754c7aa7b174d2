"""Pre-training on generated and published structures together."""


import numpy as np
import pytest
import torch

from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.data.store import open_store
from jmp_lib.model.scaling import scale_modules
from jmp_lib.settings import load_profile
from jmp_lib.train.joint_sets import JointSet, heads, joint_sets
from jmp_lib.data.normalise import fit
from jmp_lib.train.pretraining import new_model
from jmp_lib.train.pretraining import parts_of_run
from jmp_lib.train.processes import Processes
from jmp_lib.train.sampling import Sampler


def test_without_published_files_the_generated_ones_remain(tmp_path):
    both = load_pretraining_data("mini+published", data_root=tmp_path)
    mini = load_pretraining_data("mini")
    assert [one.name for one in both] == [one.name for one in mini]
    for a, b in zip(both, mini):
        assert a.train.sha256 == b.train.sha256 and a.val.sha256 == b.val.sha256


def test_sets_that_are_not_sampled_are_never_drawn():
    sampler = Sampler.joint([10, 20, 30, 40], 2.0, 8, 0, [True, False, True, False])
    drawn = {which for step in range(sampler.batches_per_epoch) for which, _ in sampler.batch(step)}
    assert drawn == {0, 2}
    with pytest.raises(ValueError, match="no pre-training set is sampled"):
        Sampler.joint([10, 20], 2.0, 8, 0, [False, False])


def test_each_source_has_a_head_and_scales_of_its_own_and_prepared_sets_stay_on_disk(tmp_path):
    from tests.test_pretraining_files import make_all

    make_all(tmp_path)
    profile = load_profile("published_small", data_root=str(tmp_path))
    sets = joint_sets(profile)
    mini = joint_sets(load_profile("published_small", data_root=str(tmp_path / "nothing")))
    by_head = heads(sets)
    assert list(by_head)[:5] == ["oc20", "oc22", "ani1x", "transition1x", "oc20-published"] and len(by_head) == 8
    assert [s.train.sha256 for s in sets[:4]] == [s.train.sha256 for s in mini] and sets[1].energy == mini[1].energy
    oc22, stored = by_head["oc22-published"], open_store(tmp_path / "stores" / "oc22")
    assert oc22.train.path == stored.path and oc22.train.sha256 == stored.sha256
    assert np.array_equal(oc22.train[7].forces, stored[7].forces) and oc22.forces != by_head["oc22"].forces
    model, data, loss, _ = parts_of_run(profile, "small", sets,
                                        dict.fromkeys(scale_modules(new_model(profile, "small")), 1.0),
                                        Processes(torch.device("cpu")))
    assert model(data[0].parts[0])["energy"].shape[1] == 8


class Rows(list):
    """As a StructureSet gives them."""

    arrays = list.__getitem__


def few(elements: int, compositions: int):
    """Structures of random energy, two of each composition."""
    rng = np.random.default_rng(0)
    for row in range(compositions):
        numbers = rng.choice(np.arange(1, elements + 1), 12)
        numbers[:2] = 1 + np.array([row, row + 1]) % elements
        for _ in range(2):
            yield {"atomic_numbers": numbers, "energy": float(-4.0 * len(numbers) + rng.normal()),
                   "forces": np.ones((12, 3))}


def test_fewer_compositions_than_elements_give_no_reference_for_each_element():
    """They would explain every energy, leave rounding to learn, and be far off elsewhere."""
    sparse, dense = fit(few(30, 12)), fit(few(4, 40))
    exact, mended = sparse.energy(), sparse.energy(per_atom=True)
    assert np.std(exact.reference[1:31]) > 0.1 and set(mended.reference[1:]) == {mended.reference[1]}
    assert mended.reference[1] == pytest.approx(-4.0, abs=0.1) and mended.std > 0.5
    errors = [{n.offset(s["atomic_numbers"]) - s["energy"] for s in few(30, 40)} for n in (exact, mended)]
    assert max(map(abs, errors[1])) < 4.0 < max(map(abs, errors[0]))
    assert dense.energy() == dense.energy(per_atom=True) and sparse.few_compositions and not dense.few_compositions
    settings = load_profile("mini").pretraining.datasets["oc20"]
    for structures, published, scale in ((few(30, 12), True, 0.0), (few(30, 12), False, 5.0), (few(4, 40), True, 5.0)):
        assert JointSet("oc20", Rows(structures), [], settings, published).energy_scale == scale
