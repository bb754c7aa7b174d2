"""The large companion of the pre-training sets: made in parts, read as one (no package of the generator is needed)."""

from __future__ import annotations

import numpy as np
import pytest

from jmp_lib.data.pretraining import load_pretraining_data
from jmp_lib.data.tasks import load_task_data
from jmp_lib.settings import load_profile
from tools.generate import cards, dynamics, large, slabs


class Additive:
    """In place of xTB: an energy that is the sum of the atomic numbers, and no forces."""

    def __init__(self, numbers, pos, **_):
        self.numbers = np.asarray(numbers)

    def __call__(self, pos):
        return float(self.numbers.sum()), np.zeros((len(self.numbers), 3))


@pytest.fixture
def additive(monkeypatch):
    monkeypatch.setattr(slabs, "XTB", Additive)
    monkeypatch.setitem(large.PLANS, "oc20-large", large.PLANS["oc20-large"]._replace(part=7))
    slabs.gas_energies.cache_clear()
    yield
    slabs.gas_energies.cache_clear()


def test_the_sets_grow_together():
    order = large.schedule()
    assert len(set(order)) == len(order) == sum(plan.parts for plan in large.PLANS.values())
    for upto in (20, 100, 300):
        share = [sum(name == one for one, _ in order[:upto]) / plan.parts for name, plan in large.PLANS.items()]
        assert max(share) - min(share) < 0.02
    assert [number for name, number in order if name == "t1x-large"] == list(range(100))


def test_a_part_depends_on_its_name_alone_and_is_not_made_again(tmp_path, additive):
    for folder in ("a", "b"):
        large.make_part("oc20-large", 3, tmp_path / folder)
    large.make_part("oc20-large", 4, tmp_path / "a")
    hashes = [large.summary(tmp_path / folder)["oc20-large"]["sha256"] for folder in ("a", "b")]
    assert hashes[0]["oc20-large-00003"] == hashes[1]["oc20-large-00003"] != hashes[0]["oc20-large-00004"]
    file = tmp_path / "a" / "oc20-large-00003.npz"
    written = file.stat().st_mtime_ns
    large.make_part("oc20-large", 3, tmp_path / "a")
    assert file.stat().st_mtime_ns == written
    file.with_suffix(".card.json").unlink()  # killed between the two files
    large.make_part("oc20-large", 3, tmp_path / "a")
    assert large.summary(tmp_path / "a")["oc20-large"]["parts"] == 2


def test_energies_of_slabs_are_those_of_adsorption(additive):
    structures, names = slabs.large_part(np.random.default_rng(0), 30)
    assert len(structures) == 30 and len(names) == 10
    assert {s["energy"] for s in structures} == {0.0}  # an energy of the composition alone cancels
    assert len({z for s in structures for z in s["numbers"]}) > 12
    for s in structures:
        assert s["fixed"].any() and (s["tags"] == 2).any() and not s["fixed"][s["tags"] == 2].any()


def test_one_failing_part_leaves_the_others(tmp_path, additive, monkeypatch):
    monkeypatch.setattr(large, "schedule", lambda: [("anix-large", 0), ("oc20-large", 0)])
    monkeypatch.setitem(large.PLANS, "anix-large", large.PLANS["anix-large"]._replace(module="not_there"))
    anix, oc20 = large.generate(tmp_path)
    assert "not_there" in anix.error and not oc20.error
    assert [path.name for path in sorted(tmp_path.glob("*.npz"))] == ["oc20-large-00000.npz"]


def toy_part(folder, name: str, number: int, groups):
    """Three structures of each group; groups are named by numbers."""
    structures = [{"numbers": [8, 1, 1], "pos": np.eye(3) + row, "group": g,
                   "energy": -1.0 * row, "forces": np.zeros((3, 3))}
                  for g in range(len(groups)) for row in range(3)]
    if name.startswith("oc"):
        structures = [{**s, "cell": 9.0 * np.eye(3), "tags": [1, 2, 2], "fixed": [True, False, False]}
                      for s in structures]
    cards.write_set(large.part_name(name, number), structures, [f"group {g}" for g in groups],
                    out_dir=folder, stands_for="", seed=0, how_made="", level_of_theory="none", software={},
                    what_it_is_not="", cpu_seconds=0.0)


def sides(folder) -> dict[str, set]:
    found = load_pretraining_data("large", data_root=folder)
    return {f"{one.name} {part}": {s["group"] for s in getattr(one, part)}
            for one in found for part in ("train", "val")}


def test_more_parts_leave_every_group_on_its_side(tmp_path):
    with pytest.raises(FileNotFoundError,
                       match="no part of oc20-large: make some with `python -m tools.generate large --out "):
        load_pretraining_data("large", data_root=tmp_path)
    for name in large.PLANS:
        toy_part(tmp_path / "large", name, 0, range(60))
    before = sides(tmp_path)
    for name in large.PLANS:
        toy_part(tmp_path / "large", name, 5, range(40, 90))
    after = sides(tmp_path)
    for key in ("oc20", "oc22", "ani1x", "transition1x"):
        assert (len(after[f"{key} train"] | after[f"{key} val"]) == 90
                and not after[f"{key} train"] & after[f"{key} val"])
        assert 2 < len(after[f"{key} val"]) < 20
    assert all(before[key] <= after[key] for key in before)
    oc20 = load_pretraining_data("large", {"oc20": {"val": 4}}, tmp_path)[0]
    assert len(oc20.val) == 4 and oc20.train.fixed.any() and oc20.train.pbc.all()
    assert load_profile("mini:backbone").pretraining.data == "large+published"


def test_a_structure_of_a_test_part_is_found_though_it_is_turned_and_permuted(tmp_path):
    test = load_task_data("rmd17_ethanol").test
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    order = np.random.default_rng(1).permutation(9)
    structures = [{"numbers": np.asarray(s["atomic_numbers"])[order],
                   "pos": (np.asarray(s["pos"], float) @ turn)[order] + shift, "group": 0, "energy": 0.0,
                   "forces": np.zeros((9, 3))} for s, shift in ((test[0], 3.0), (test[1], -1.0))]
    structures.append({**structures[0], "pos": structures[0]["pos"] * 1.02})
    cards.write_set("anix-large-00000", structures, ["CCO"], out_dir=tmp_path, stands_for="", seed=0, how_made="",
                    software={}, level_of_theory="none", what_it_is_not="", cpu_seconds=0.0)
    assert large.in_tests(tmp_path, tmp_path / "nothing") == {"anix-large, rmd17_ethanol, mini": 2}


def test_torsions_and_pairs():
    rng = np.random.default_rng(1)
    numbers = np.array([6, 6, 6, 6, 1])
    pos = np.array([[0.0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0], [3.5, 1.4, 0], [3.9, 2.4, 0]])
    made = dynamics.turned(numbers, pos, {(0, 1), (1, 2), (2, 3), (3, 4)}, 8, rng)
    assert made and all(dynamics.closest(m, m) > 0.75 for m in made)
    bonds = np.array([[np.linalg.norm(m[i + 1] - m[i]) for i in range(4)] for m in made])
    assert np.abs(bonds - np.linalg.norm(np.diff(pos, axis=0), axis=1)).max() < 0.25  # 0.03 Å of noise on each atom
    assert max(abs(m[4, 2]) for m in made) > 0.3  # out of the plane
    assert dynamics.turned(numbers[:3], pos[:3], {(0, 1), (1, 2), (0, 2)}, 4, rng) == []  # a ring
    for _ in range(20):
        other = dynamics.dock(pos, pos, rng)
        assert 1.79 < dynamics.closest(pos, other) < 3.5
        np.testing.assert_allclose(np.linalg.norm(other[:, None] - other, axis=-1),
                                   np.linalg.norm(pos[:, None] - pos, axis=-1), atol=1e-9)


def test_a_slab_in_another_state_is_no_adsorption(additive, monkeypatch):
    def energy(self, pos):  # of a slab with something on it, 130 eV below its parts
        return -130.0 * (0 < np.isin(self.numbers, (1, 6, 7, 8)).sum() < len(pos)), np.zeros((len(pos), 3))

    monkeypatch.setattr(Additive, "__call__", energy)
    with pytest.raises(RuntimeError, match="no start converged"):
        slabs.make_system(np.random.default_rng(0), slabs.make_varied_slab, 3, adsorption=True)
