"""Structure sets, their checks, and the mini sets' files."""

import json
import pickle

import numpy as np
import pytest

from jmp_lib.data import mini
from jmp_lib.data.structures import Structure, StructureSet, to_set
from jmp_lib.data.tasks import TASKS
from jmp_lib.files import file_sha256

NATOMS = [3, 1, 2]


def arrays(**changes):
    """Three structures with 3, 1 and 2 atoms, all fields."""
    rng = np.random.default_rng(0)
    made = {
        "natoms": np.array(NATOMS),
        "pos": rng.normal(size=(6, 3)),
        "atomic_numbers": np.array([8, 1, 1, 2, 29, 8]),
        "cell": np.tile(np.eye(3) * 5, (3, 1, 1)),
        "tags": np.array([2, 2, 2, 2, 0, 1]),
        "fixed": np.array([0, 0, 0, 0, 1, 0], dtype=bool),
        "forces": rng.normal(size=(6, 3)),
        "scalars": {"energy": np.array([-1.0, -2.0, -12345.678901234]), "mu": np.array([0.1, 0.2, 0.3])},
        "group": np.array([0, 0, 1]),
        "group_names": ["a", "b"],
    }
    return made | changes


def make(**changes):
    return StructureSet.from_arrays("three", **arrays(**changes))


def test_structures_have_their_own_atoms_and_labels():
    data, raw = make(), arrays()
    assert len(data) == 3
    assert [len(s["pos"]) for s in data] == NATOMS
    assert data[-1]["id"] == data[2]["id"] == 2
    assert np.array_equal(data[2]["atomic_numbers"], [29, 8])
    assert np.array_equal(data[2]["forces"], raw["forces"][4:].astype(np.float32))
    assert data[2]["energy"] == -12345.678901234  # float64 all the way
    assert data[0]["tags"].tolist() == [2, 2, 2]
    assert data[2]["fixed"].tolist() == [True, False]
    assert data.labels == ["energy", "mu", "forces"]
    assert data.elements == [1, 2, 8, 29]
    with pytest.raises(IndexError, match="no row 3"):
        data[3]


def test_types_are_those_that_the_docstring_names():
    structure = make()[0]
    types = {
        "pos": "float32",
        "forces": "float32",
        "cell": "float64",
        "pbc": "bool",
        "fixed": "bool",
        "tags": "int64",
        "atomic_numbers": "int64",
        "energy": "float64",
    }
    assert {key: str(structure[key].dtype).removeprefix("torch.") for key in types} == types
    assert all(key in Structure.__doc__ for key in structure.keys())


def test_defaults_are_those_of_a_molecule():
    data = StructureSet.from_arrays("m", [2], [[0, 0, 0], [0, 0, 1.0]], [1, 1])
    assert not data.periodic
    assert not data[0]["cell"].any()
    assert data[0]["tags"].tolist() == [2, 2]
    assert "forces" not in data[0]


def test_a_structure_is_a_copy():
    data = make()
    before = data.sha256
    data[0]["pos"][:] = 7
    data[0]["forces"][:] = 7
    del data.__dict__["sha256"]
    assert data.sha256 == before


def test_subset_keeps_ids_order_and_contents():
    data = make()
    part = data.subset([2, 0])
    assert [s["id"] for s in part] == [2, 0]
    for row, origin in enumerate([2, 0]):
        assert part[row].keys() == data[origin].keys()
        for key, value in data[origin]:
            assert np.array_equal(part[row][key], value), key
    assert len(data.subset([])) == 0
    with pytest.raises(IndexError, match="rows 1 to 3"):
        data.subset([1, 3])


def test_hash_is_of_the_contents():
    same = StructureSet.from_arrays("other name", **arrays())
    assert make().sha256 == same.sha256
    moved = arrays()["pos"]
    moved[0, 0] += 1e-3
    assert make(pos=moved).sha256 != same.sha256
    assert make(scalars={"energy": arrays()["scalars"]["energy"]}).sha256 != same.sha256
    assert make().subset([1, 0, 2]).sha256 != same.sha256


def bad(key, index, value):
    array = np.array(arrays()[key], dtype=float)
    array[index] = value
    return {key: array}


@pytest.mark.parametrize(
    "changes, words",
    [
        (bad("forces", (4, 1), np.nan), r"three: row 2, field 'forces' holds NaN"),
        (bad("pos", (3, 0), np.inf), r"row 1, field 'pos' holds NaN or inf"),
        ({"scalars": {"mu": np.array([1, np.inf, 2])}}, r"row 1, field 'mu'"),
        (bad("atomic_numbers", 5, 121), r"row 2, field 'atomic_numbers': 121.0 is not an element"),
        (bad("atomic_numbers", 0, 0), r"row 0, field 'atomic_numbers'"),
        (bad("atomic_numbers", 0, np.nan), r"row 0, field 'atomic_numbers'"),
        ({"natoms": np.array([3, 0, 3])}, r"row 1, field 'natoms': a structure with 0 atoms"),
        ({"natoms": np.array([3, 1, 3])}, r"field 'pos' has shape \(6, 3\).*7 atoms need \(7, 3\)"),
        ({"natoms": np.array([], dtype=int)}, r"no structure"),
        ({"natoms": np.array([3.0, 1, 2])}, r"'natoms' must be whole numbers"),
        ({"forces": np.zeros((5, 3))}, r"field 'forces' has shape \(5, 3\)"),
        ({"scalars": {"mu": np.zeros((3, 1))}}, r"field 'mu' has shape \(3, 1\)"),
        ({"scalars": {"mu": np.array(["a", "b", "c"])}}, r"field 'mu' holds <U1"),
        (bad("cell", (1, 2), [5, 5, 0]), r"row 1, field 'cell': periodic, but"),
        (bad("cell", 2, 0), r"row 2, field 'cell'"),
        ({"group": np.array([0, 2, 1])}, r"row 1, field 'group': 2 has no name among the 2"),
        ({"ids": np.array([4, 5, 4])}, r"id 4 occurs 2 times"),
    ],
)
def test_bad_contents_get_one_sentence(changes, words):
    changes = dict(changes)
    if "cell" in changes and changes["cell"][1, 2, 0] == 5:  # three vectors in one plane
        changes["cell"][1] = [[5, 0, 0], [0, 5, 0], [5, 5, 0]]
    with pytest.raises(ValueError, match=words) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_a_flat_cell_is_no_harm_without_periodicity():
    assert len(make(cell=np.zeros((3, 3, 3)), pbc=np.zeros((3, 3), dtype=bool))) == 3


# --- mini sets ---------------------------------------------------------------------------------------------


def write_mini(folder, name="toy-mini", **changes):
    """A mini set with its card in ``folder``; returns the path of its npz."""
    raw = arrays()
    stored = {
        "natoms": raw["natoms"].astype(np.int32),
        "pos": raw["pos"].astype(np.float32),
        "numbers": raw["atomic_numbers"].astype(np.uint8),
        "group": raw["group"].astype(np.int32),
        "group_names": np.array(["a", "b"]),
        "forces": raw["forces"].astype(np.float32),
        **raw["scalars"],
    } | changes
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **{key: value for key, value in stored.items() if value is not None})
    about = {"name": name, "stands_for": "TOY", "level_of_theory": "random numbers", "sha256": file_sha256(path)}
    (folder / f"{name}.card.json").write_text(json.dumps(about))
    return path


def test_mini_set_round_trip(tmp_path):
    write_mini(tmp_path)
    data = mini.load_mini("toy-mini", tmp_path)
    assert mini.list_mini(tmp_path) == ["toy-mini"]
    assert data.labels == ["energy", "mu", "forces"]
    assert data.group_names == ("a", "b")
    assert not data.periodic
    assert "random numbers" in data.description
    raw = arrays()
    assert np.array_equal(data[0]["pos"], raw["pos"][:3].astype(np.float32))


def test_mini_set_with_a_cell_is_periodic(tmp_path):
    write_mini(tmp_path, cell=arrays()["cell"].astype(np.float32))
    assert mini.load_mini("toy-mini", tmp_path)[1]["pbc"].all()


def spoil_html(path):
    path.write_text("<!DOCTYPE html><html>not found</html>")


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def spoil_flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"pos.npy") + 60] ^= 0xFF
    path.write_bytes(content)


def spoil_pickle(path):
    np.savez(path, natoms=np.array([{"a": 1}], dtype=object))


def spoil_swap(path):
    np.savez(
        path,
        natoms=np.array([1]),
        pos=np.zeros((1, 3)),
        numbers=np.array([1]),
        group=np.array([0]),
        group_names=np.array(["x"]),
    )


@pytest.mark.parametrize(
    "spoil, words",
    [
        (spoil_html, "is a web page"),
        (spoil_cut, "cannot be read"),
        (spoil_flip, "cannot be read .Bad CRC"),
        (spoil_pickle, "has no array 'pos', .*restore it"),
        (spoil_swap, "sha256 differs"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("hello"), "is not an npz archive"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_spoiled_mini_set_gets_one_sentence(tmp_path, spoil, words):
    path = write_mini(tmp_path)
    spoil(path)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        mini.load_mini("toy-mini", tmp_path)
    assert str(path) in str(caught.value)
    assert "restore it" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mini_set_without_an_array_or_a_card(tmp_path):
    write_mini(tmp_path, group=None)
    with pytest.raises(ValueError, match="no array 'group'"):
        mini.load_mini("toy-mini", tmp_path)
    with pytest.raises(FileNotFoundError, match="no mini set 'toi-mini'.*toy-mini"):
        mini.load_mini("toi-mini", tmp_path)
    (tmp_path / "toy-mini.card.json").write_text("{}")
    with pytest.raises(ValueError, match="no array 'group'"):
        mini.load_mini("toy-mini", tmp_path)
    (tmp_path / "toy-mini.card.json").write_text("<html>")
    with pytest.raises(ValueError, match="toy-mini.card.json cannot be read"):
        mini.load_mini("toy-mini", tmp_path)


@pytest.mark.parametrize("name", mini.list_mini())
def test_shipped_mini_sets_are_what_their_cards_say(name):
    about = mini.card(name)
    data = mini.load_mini(name)
    assert about["name"] == name
    assert about["what_it_is_not"]
    assert (len(data), len(data.pos)) == (about["counts"]["structures"], about["counts"]["atoms"])
    assert len(data.group_names) == about["counts"]["groups"]
    for label in data.labels:
        known = {task.label_unit for task in TASKS.values() if task.label == label}
        # energy and formation_energy are no task's label
        assert about["units"][label].replace("Å", "A") in (known or {"eV"})


def test_mini_data_is_small():
    assert sum(path.stat().st_size for path in mini.MINI_DIR.glob("*")) < 20e6


def test_elements_of_a_part_are_found_block_by_block(monkeypatch):
    from jmp_lib.data import structures

    data = StructureSet.from_arrays("atoms", [1] * 50, np.zeros((50, 3)), np.arange(1, 51))
    monkeypatch.setattr(structures, "BLOCK", 7)
    rows = np.random.default_rng(0).permutation(50)[:20]
    assert data.subset(rows).elements == sorted((rows + 1).tolist()) and data[10:13].elements == [11, 12, 13]
    assert data[::-5].elements == list(range(5, 51, 5)) and data.subset([]).elements == []


def test_a_label_may_have_a_space_in_its_name():
    molecules = [Structure.of({"pos": [[0.0, 0, 0], [0, 0, 1.0]], "atomic_numbers": [1, 8], "band gap": value, "id": k})
                 for k, value in enumerate((1.0, 2.0))]
    found = to_set("many", molecules)
    assert found.labels == ["band gap"] and found.scalars["band gap"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("rows", [slice(3, 5), [7, 2]])
def test_a_part_travels_without_the_rest(rows):
    """To every process that prepares batches, or trains on own data."""
    n = 5000
    whole = StructureSet.from_arrays("many", [3] * n, 5 * np.arange(9 * n).reshape(-1, 3) % 899, [8, 1, 1] * n,
                                     ids=np.arange(n) + 10, forces=np.ones((3 * n, 3)), scalars={"gap": np.arange(n)},
                                     texts={"sid": [str(i) for i in range(n)]})
    part = whole[rows]
    sent = pickle.dumps(part)
    again = pickle.loads(sent)
    assert len(sent) < 10_000 and again.sha256 == part.sha256 and again.ids.tolist() == part.ids.tolist()
    assert [s["sid"] for s in again] == [s["sid"] for s in part] and again[1]["gap"] == part[1]["gap"]
