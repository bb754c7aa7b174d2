"""The store: what is written is read back, hashes, damage, labels, the number of files open."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from jmp_lib.data import store as store_module
from jmp_lib.data.store import Store
from jmp_lib.data.store_writer import Part, set_part, write_store
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


def make(path, structures, **options) -> Store:
    return write_store(path, [Part("source", structures.__iter__)], name="test", **options)


def assert_same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert np.array_equal(found[key], value), key
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype or key in ("atomic_numbers", "tags"), key
    assert found["atomic_numbers"].dtype == found["tags"].dtype == np.int64


@pytest.mark.parametrize("shard_bytes", [1, 5000, 1 << 20])
def test_every_field_comes_back(tmp_path, shard_bytes):
    structures = mixed()
    store = make(tmp_path / "s", structures, shard_bytes=shard_bytes, description="words", card={"licence": "x"})
    assert len(store) == 30 and (len(store.shards) == 30) == (shard_bytes == 1)
    for i in (0, 1, 2, 29, -1, 17):
        assert_same(store[i], structures[i])
    for found, expected in zip(store, structures, strict=True):
        assert_same(found, expected)
    assert store.natoms.tolist() == [len(s["pos"]) for s in structures]
    assert store.elements == sorted({int(z) for s in structures for z in s["atomic_numbers"]})
    assert (store.description, store.card) == ("words", {"licence": "x"})
    with pytest.raises(IndexError, match="no row 30"):
        store[30]
    store.verify()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s", "s.lock"]
    assert {p.suffix for p in (tmp_path / "s").iterdir()} == {".safetensors", ".json", ".npy"}


def test_a_row_is_a_copy_of_its_own(tmp_path):
    store = make(tmp_path / "s", mixed())
    store[0]["pos"][:] = 0
    assert store[0]["pos"].any()


def test_a_set_and_back(tmp_path):
    rng = np.random.default_rng(0)
    data = StructureSet.from_arrays(
        "set", [3, 2, 4], rng.normal(size=(9, 3)), rng.integers(1, 20, 9), scalars={"energy": rng.normal(size=3)},
        forces=rng.normal(size=(9, 3)), group=[0, 1, 0], group_names=["a", "b"], ids=[7, 5, 9],
    )  # fmt: skip
    store = write_store(tmp_path / "s", [set_part(data)], name="set")
    assert store.load().sha256 == data.sha256
    assert store.load([2, 0]).sha256 == data.subset([2, 0]).sha256


def test_any_safetensors_library_reads_a_shard(tmp_path):
    from safetensors.numpy import load_file

    structures = mixed()
    store = make(tmp_path / "s", structures)
    arrays = load_file(store.path / store.shards[0]["file"])
    assert np.array_equal(arrays["pos"], np.concatenate([s["pos"] for s in structures]))
    assert arrays["scalar/energy"].tolist() == [s["energy"] for s in structures]


def test_molecules_store_no_cells_tags_or_ids(tmp_path):
    from safetensors.numpy import load_file

    structures = [labelled(random_molecule(seed=i), i) for i in range(4)]
    store = write_store(tmp_path / "s", [Part("a", structures[:2].__iter__), Part("b", structures[2:].__iter__)], name="m")
    assert set(load_file(store.path / store.shards[0]["file"])) == {
        "offsets", "pos", "atomic_numbers", "forces", "scalar/energy"}  # fmt: skip
    assert [s["id"] for s in store] == [0, 1, 2, 3]
    assert store[3]["tags"].tolist() == [2] * 9 and not store[3]["cell"].any()


def test_pickled_and_bounded_number_of_open_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_shards_at_once", lambda: 3)
    structures = mixed()
    store = make(tmp_path / "s", structures, shard_bytes=1)
    for i in np.random.default_rng(0).permutation(30):
        assert_same(store[i], structures[i])
        assert len(store._open) <= 3
    again = pickle.loads(pickle.dumps(store))
    assert again._open == {} and again[4]["id"] == 12


def test_file_descriptors_of_a_store_of_many_shards(tmp_path):
    """A store with more shards than the usual limit of open files of a process."""
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 40))
from jmp_lib.data.store import Store
store = Store(sys.argv[1])
assert len(store.shards) == 60 and store._max_open == 20, store._max_open
assert [structure["id"] for structure in store] == list(range(60))
"""
    structures = [labelled(random_molecule(3, seed=i), i, id=i) for i in range(60)]
    store = make(tmp_path / "s", structures, shard_bytes=1)
    subprocess.run([sys.executable, "-c", code, store.path], check=True, timeout=60)


def test_worker_processes_read_at_once(tmp_path):
    import torch

    structures = mixed()
    store = make(tmp_path / "s", structures, shard_bytes=1)
    list(store)  # shards open before the fork, too
    loader = torch.utils.data.DataLoader(store, batch_size=None, num_workers=2)
    for found, expected in zip(loader, structures, strict=True):
        assert found["id"] == expected["id"] and np.array_equal(found["forces"], expected["forces"])


def damage(store, how):
    path = store.path / store.shards[0]["file"]
    contents = bytearray(path.read_bytes())
    if how == "flipped":
        contents[-100] ^= 1
    path.write_bytes(contents[: len(contents) // 2] if how == "cut" else b"" if how == "empty" else bytes(contents))
    if how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_damage_is_found_by_verify(tmp_path, how):
    store = make(tmp_path / "s", mixed())
    damage(store, how)
    with pytest.raises((ValueError, FileNotFoundError), match="p000000-000000.safetensors is (damaged|missing)"):
        store.verify()


@pytest.mark.parametrize("how", ["cut", "empty", "gone"])
def test_a_cut_shard_is_refused_when_read(tmp_path, how):
    make(tmp_path / "s", mixed())
    store = Store(tmp_path / "s")
    damage(store, how)
    with pytest.raises((ValueError, FileNotFoundError), match="(damaged|empty|missing).*; make the store again"):
        store[0]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda m: m.update(version=9), "version 9, this code reads version 1"),
        (lambda m: m.pop("layout"), "has no 'layout'"),
        (lambda m: m.update(structures=31), "counts do not add up"),
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
        Store(tmp_path / "s")


def test_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no store in .*: prepare it"):
        Store(tmp_path / "nothing")
