"""Prepared sets: what is written is read back, hashes, damage, subsets, other processes,
other sources of the same set."""

import json
import pickle

import numpy as np
import pytest

from jmp_lib.data.structures import to_set
from jmp_lib.data.store import Part, extra, mapped, open_store, verify, write_store
from jmp_lib.data.structures import StructureSet
from tests.structures import random_molecule, skewed_crystal, slab


def labelled(structure: dict, seed: int, **more) -> dict:
    rng = np.random.default_rng(seed)
    forces = rng.normal(size=structure["pos"].shape).astype(np.float32)
    return {**structure, "forces": forces, "energy": rng.normal() * 1e4, **more}


def mixed() -> list[dict]:
    """Molecules, crystals and slabs with forces, energy, a text that repeats and one that does not; ids with gaps."""
    made = []
    for i in range(30):
        base = [random_molecule(5 + i % 4, seed=i), skewed_crystal(seed=i), slab(seed=i)][i % 3]
        base = {**base, "fixed": base["tags"] == 0}
        made.append(labelled(base, i, id=3 * i, group=f"group {i % 3}", sid=f"random{i}ä"))
    return made


def make(path, structures, **options) -> StructureSet:
    return write_store(path, [Part("source", structures.__iter__)], name="test", **options)


def assert_same(found, expected: dict) -> None:
    assert set(found.keys()) == set(expected)
    for key, value in expected.items():
        assert np.array_equal(found[key], value), key
    assert found.pos.numpy().dtype == np.float32 and found.z.numpy().dtype == found.tags.numpy().dtype == np.int64


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 1 << 20])
def test_every_field_comes_back(tmp_path, chunk_bytes):
    structures = mixed()
    store = make(tmp_path / "s", structures, chunk_bytes=chunk_bytes, description="words", card={"licence": "x"})
    assert len(store) == 30 and store.path == tmp_path / "s"
    for i in (0, 1, 2, 29, -1, 17):
        assert_same(store[i], structures[i])
    for found, expected in zip(store, structures, strict=True):
        assert_same(found, expected)
    assert [store.group_names[g] for g in store.group] == [s["group"] for s in structures]
    assert store.natoms.tolist() == [len(s["pos"]) for s in structures]
    assert store.elements == sorted({int(z) for s in structures for z in s["atomic_numbers"]})
    assert (store.description, store.about["card"], store.about["rejected"]) == ("words", {"licence": "x"}, {})
    with pytest.raises(IndexError, match="no row 30"):
        store[30]
    verify(store)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]
    assert {p.suffix for p in (tmp_path / "s").iterdir()} == {".json", ".bin"}


def test_a_set_on_disk_and_the_same_in_memory_are_one(tmp_path):
    structures = mixed()
    store, memory = make(tmp_path / "s", structures), to_set("test", structures)
    assert store.sha256 == store.contents_sha256() == memory.sha256 == store[:].sha256
    assert list(store.group_names) == list(memory.group_names) and store.labels == memory.labels
    rows = np.array([7, 3, 29, 3])
    for key in ("pos", "forces", "cell", "pbc", "tags", "fixed", "atomic_numbers", "group", "natoms"):
        assert np.array_equal(getattr(store[rows[:3]], key), getattr(memory[rows[:3]], key)), key
    assert store[rows][1].sid == memory[3].sid == "random3ä"
    assert store[4:9].contents_sha256() == memory[4:9].sha256 != store[4:9].sha256 and store[4:9].path


def test_a_row_is_a_copy_of_its_own(tmp_path):
    store = make(tmp_path / "s", mixed())
    store[0].pos[:] = 0
    assert store[0].pos.any()


def test_a_set_and_back(tmp_path):
    rng = np.random.default_rng(0)
    data = StructureSet.from_arrays(
        "set", [3, 2, 4], rng.normal(size=(9, 3)), rng.integers(1, 20, 9), scalars={"energy": rng.normal(size=3)},
        forces=rng.normal(size=(9, 3)), group=[0, 1, 0], group_names=["a", "b"], ids=[7, 5, 9],
    )  # fmt: skip
    store = write_store(tmp_path / "s", [Part("set", lambda: data)], name="set",
                        extras={"split 0 train": np.array([2, 0])})
    assert (store.sha256 == data.sha256 and extra(store, "split 0 train").tolist() == [2, 0]
            and extra(store, "split 1 train") is None)
    assert store.subset([2, 0]).contents_sha256() == data.subset([2, 0]).sha256


def test_numpy_opens_a_column(tmp_path):
    structures = [labelled(random_molecule(seed=i), i) for i in range(4)]
    store = write_store(tmp_path / "s",
                        [Part("a", structures[:2].__iter__), Part("b", structures[2:].__iter__)], name="m")
    assert np.array_equal(np.fromfile(store.path / "pos.bin", np.float32).reshape(-1, 3),
                          np.concatenate([s["pos"] for s in structures]))
    assert np.fromfile(store.path / "scalar.energy.bin").tolist() == [s["energy"] for s in structures]
    assert {p.stem for p in store.path.glob("*.bin")} == {"natoms", "offsets", "pos", "atomic_numbers", "cell", "pbc",
                                                          "tags", "fixed", "forces", "scalar.energy"}
    assert [s.id for s in store] == [0, 1, 2, 3]
    assert store[3].tags.tolist() == [2] * 9 and not store[3].cell.any()


def test_other_processes_get_rows_and_open_the_files_themselves(tmp_path):
    import torch

    structures = mixed()
    store = make(tmp_path / "s", structures)
    part = store[10:20]
    assert len(pickle.dumps(part)) < 3000
    again = pickle.loads(pickle.dumps(part))
    assert again[4].id == 42 and again.sha256 == part.sha256
    loader = torch.utils.data.DataLoader(part, batch_size=None, num_workers=2)
    for found, expected in zip(loader, structures[10:20], strict=True):
        assert found.id == expected["id"] and np.array_equal(found.forces, expected["forces"])


def test_batches_of_a_stranger(tmp_path):
    from torch_geometric.loader import DataLoader

    structures = mixed()
    batch = next(iter(DataLoader(make(tmp_path / "s", structures), batch_size=8)))
    assert (batch.num_graphs == 8 and batch.cell.shape == (8, 3, 3) and batch.pbc.shape == (8, 3)
            and batch.energy.dtype.itemsize == 8)
    assert (np.array_equal(batch.pos, np.concatenate([s["pos"] for s in structures[:8]]))
            and batch.z is batch.atomic_numbers)


def damage(store, how):
    path = store.path / "pos.bin"
    contents = bytearray(path.read_bytes())
    if how == "flipped":
        contents[-100] ^= 1
    path.write_bytes(contents[: len(contents) // 2] if how == "cut" else b"" if how == "empty" else bytes(contents))
    if how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_damage_gets_one_sentence(tmp_path, how):
    make(tmp_path / "s", mixed())
    damage(open_store(tmp_path / "s"), how)
    with pytest.raises((ValueError, FileNotFoundError),
                       match="s(/pos.bin)? is (damaged|missing).*; remove it and make it again with"):
        verify(open_store(tmp_path / "s"))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda m: m.update(version=1), "version 1, this code reads version 4; remove it and make it again"),
        (lambda m: m.pop("sha256"), "counts and files do not add up"),
        (lambda m: m.update(structures=31), "counts and files do not add up"),
        (lambda m: m["columns"].pop("pos"), "counts and files do not add up"),
        (None, "is not the list of a store"),
    ],
)
def test_altered_lists_are_refused(tmp_path, change, words):
    path = make(tmp_path / "s", mixed()).path / "store.json"
    manifest = json.loads(path.read_text())
    if change:
        change(manifest)
    path.write_text(json.dumps(manifest) if change else "<html>")
    with pytest.raises(ValueError, match=words):
        mapped(tmp_path / "s")


def test_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no store in .*: prepare it"):
        open_store(tmp_path / "nothing")
