"""Reading, checking and splitting a user's own data; one sentence for every kind of bad input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from jmp_lib.graphs import GraphConfig
from jmp_lib.own.data import factor, read_own, split_own
from jmp_lib.own.evaluation import doubts, summary


def waters(count: int = 20, seed: int = 0) -> list[Atoms]:
    rng, frames = np.random.default_rng(seed), []
    for i in range(count):
        atoms = Atoms("OHH", np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]) + rng.normal(0, 0.05, (3, 3)))
        atoms.info.update(gap=float(rng.normal(5, 1)), source=f"run{i % 4}")
        frames.append(atoms)
    return frames


def with_forces(frames, scale: float = 1.0):
    rng = np.random.default_rng(1)
    for atoms in frames:
        atoms.calc = SinglePointCalculator(atoms, energy=scale * rng.normal(-400, 0.2),
                                           forces=scale * rng.normal(0, 1, (3, 3)))
    return frames


def test_file_folder_database_and_table_give_the_same(tmp_path):
    from ase.db import connect

    frames = waters()
    write(tmp_path / "a.extxyz", frames)
    (tmp_path / "folder").mkdir()
    for i, atoms in enumerate(frames):
        write(tmp_path / "folder" / f"s{i}.xyz", atoms, format="extxyz")
    pd.DataFrame({"file": [f"s{i}" for i in range(20)], "gap": [a.info["gap"] for a in frames]}).to_csv(
        tmp_path / "l.csv")
    with connect(tmp_path / "a.db") as database:
        for atoms in frames:
            database.write(atoms, gap=atoms.info["gap"])
    table = pd.DataFrame({"structure": frames, "gap": [a.info["gap"] for a in frames]})
    sets = [read_own(tmp_path / "a.extxyz", ["gap"], ["eV"]), read_own(tmp_path / "a.db", ["gap"], ["eV"]),
            read_own(tmp_path / "folder", ["gap"], ["eV"], labels_csv=tmp_path / "l.csv"),
            read_own(table, ["gap"], ["eV"])]
    for data in sets:
        np.testing.assert_allclose(data.structures.scalars["gap"], [a.info["gap"] for a in frames], rtol=1e-6)
        np.testing.assert_allclose(data.structures.pos, sets[0].structures.pos, atol=1e-6)


def test_energies_and_forces_are_converted_and_doubted_in_wrong_units(tmp_path):
    write(tmp_path / "a.extxyz", with_forces(waters(), 23.061))
    right = read_own(tmp_path / "a.extxyz", ["energy", "forces"], ["kcal/mol", "kcal/mol/Å"])
    wrong = read_own(tmp_path / "a.extxyz", ["energy", "forces"], ["eV", "eV/Å"])
    mixed = read_own(tmp_path / "a.extxyz", ["energy", "forces"], ["Hartree", "kcal/mol/Å"])
    graph = GraphConfig(6.0, 8, False)
    assert right.units == {"energy": "eV", "forces": "eV/Å"} and doubts(right, graph) == []
    assert "kcal/mol/Å" in doubts(wrong, graph)[0] and "units given" in doubts(mixed, graph)[0]
    assert factor("Hartree/bohr", "forces") == pytest.approx(51.42, abs=0.01)
    assert factor("kcal/(mol Å)", "forces") == factor("kcal/mol/Å", "forces")
    assert "O" in summary(right)["found"][2]


@pytest.mark.parametrize("change, keys, units, words", [
    (lambda f: f, ["energy", "forces"], ["eV", "eV/Å"], "no 'energy' in it \\(there is: gap"),
    (lambda f: with_forces(f[:16]) + f[16:], ["energy", "forces"], ["eV", "eV/Å"],
     "structure 16: no 'energy' in it \\(there is: gap, source\\); "
     "4 of 20 structures lack it: leave them out, or set properties"),
    (lambda f: [f[3].info.update(gap=np.nan), f][1], ["gap"], ["eV"], "structure 3: field 'gap' holds NaN"),
    (lambda f: f[:1], ["gap"], ["eV"], "holds 1 structure: at least 10"),
    (lambda f: [[a.info.update(gap=1.0) for a in f], f][1], ["gap"], ["eV"], "is the same for all 20"),
    (lambda f: f, ["gap"], None, "give the unit of each"),
    (lambda f: with_forces(f), ["energy", "forces"], ["furlong", "eV/Å"], "unknown energy unit"),
    (lambda f: with_forces(f), ["energy", "forces"], ["eV/Å", "eV/Å"], "unknown energy unit 'eV/Å'"),
    (lambda f: with_forces(f), ["energy", "forces"], ["eV", "KJ/Mole/Å"], "unknown energy unit 'KJ/Mole'"),
    (lambda f: with_forces(f), ["forces"], ["eV/Å"], "together with one energy"),
    (lambda f: f, ["name"], ["eV"], "'name' cannot be a name here"),
])
def test_bad_labels(tmp_path, change, keys, units, words):
    write(tmp_path / "a.extxyz", change(waters()))
    with pytest.raises(ValueError, match=words):
        read_own(tmp_path / "a.extxyz", keys, units)


def test_other_data_have_another_name_and_the_same_data_the_same(tmp_path):
    def name(properties, units, moved: float = 0.0) -> str:
        frames = waters()
        frames[0].positions[0] += moved
        for i, atoms in enumerate(frames):
            atoms.info["dipole"] = float(i)
        write(tmp_path / "a.extxyz", frames)
        return read_own(tmp_path / "a.extxyz", properties, units, name="a").name

    assert name(["gap"], ["eV"]) == name(["gap"], ["eV"]) and name(["gap"], ["eV"]).startswith("a-")
    assert len({name(["gap"], ["eV"]), name(["dipole"], ["eV"]), name(["gap"], ["meV"]),
                name(["gap"], ["eV"], 0.01)}) == 4


@pytest.mark.parametrize("length, sign, words", [(1.0, 1, None), (1 / 0.529177, 1, "positions and cells in Å"),
                                                 (1.0, -1, "are these gradients")])
def test_positions_in_bohr_and_gradients_are_doubted(length, sign, words):
    frames = waters(30)
    for atoms in frames:
        moved = atoms.positions - waters(1)[0].positions  # harmonic, 20 eV/Å²
        atoms.info.update(energy=10 * float((moved**2).sum()), forces=-20.0 * sign * moved)
        atoms.positions *= length
    table = pd.DataFrame({"structure": frames} | {key: [atoms.info.pop(key) for atoms in frames]
                                                  for key in ("energy", "forces")})
    found = doubts(read_own(table, ["energy", "forces"], ["eV", "eV/Å"]), GraphConfig(6.0, 8, False))
    assert found == [] if words is None else len(found) == 1 and words in found[0]


def test_bad_files(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"x")
    (tmp_path / "a.foo").write_text("nothing\n")
    for name, words in (("a.pkl", "files are not read"), ("a.foo", "a.foo cannot be read .*known are extended XYZ")):
        with pytest.raises(ValueError, match=words):
            read_own(tmp_path / name, ["gap"], ["eV"])
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_own(tmp_path / "none.extxyz", ["gap"], ["eV"])
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "x.cif", Atoms("Na", cell=[3, 3, 3], pbc=True))
    pd.DataFrame({"file": ["y"], "gap": [1.0]}).to_csv(tmp_path / "l.csv", index=False)
    with pytest.raises(ValueError, match="rows name no file"):
        read_own(tmp_path / "folder", ["gap"], ["eV"], labels_csv=tmp_path / "l.csv")


def test_a_blank_line_does_not_end_a_file(tmp_path):
    write(tmp_path / "a.extxyz", waters())
    text = (tmp_path / "a.extxyz").read_text()
    (tmp_path / "a.extxyz").write_text(f"{text}\n{text}")
    assert len(read_own(tmp_path / "a.extxyz", ["gap"], ["eV"]).structures) == 40


def test_splits_keep_copies_and_groups_together(tmp_path):
    frames = waters(40)
    turned = [atoms.copy()[[2, 0, 1]] for atoms in frames[:5]]
    for atoms in turned:
        atoms.rotate(40, (1, 2, 3))
    write(tmp_path / "a.extxyz", [*frames, *turned])
    data = read_own(tmp_path / "a.extxyz", ["gap"], ["eV"], group_key="source")
    split = split_own(data, "random")
    part = {row: name for name in ("train", "val", "test") for row in getattr(split, name)}
    assert len(part) == 45 and all(part[i] == part[40 + i] for i in range(5))
    assert any("repeat" in sentence for sentence in doubts(data, GraphConfig(6.0, 8, False)))
    split = split_own(data, "group")
    groups = [set(data.groups[getattr(split, name)]) for name in ("train", "val", "test")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and all(groups)


def test_a_given_split_with_copies_in_two_parts_is_refused(tmp_path):
    frames = waters(20)
    for i, atoms in enumerate(frames):
        atoms.info["split"] = "train" if i < 12 else "val" if i < 15 else "test"
    frames[19].positions = frames[0].positions
    write(tmp_path / "a.extxyz", frames)
    data = read_own(tmp_path / "a.extxyz", ["gap"], ["eV"])
    with pytest.raises(ValueError, match="structures 0 and 19 are the same but lie in train and test"):
        split_own(data, "given")
    with pytest.raises(ValueError, match="unknown split"):
        split_own(data, "rndom")
