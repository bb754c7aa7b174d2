"""Preparing a store: bad structures, interruptions, two at once, full and read-only disks."""

import errno
import json
import os
import re
from functools import partial

import numpy as np
import pytest

from jmp_lib.data.store import Part, verify, write_store
from jmp_lib.files import locked
from tests.structures import random_molecule, skewed_crystal


def stream(first: int, count: int):
    """Structures made from their number; quick, and never all in memory."""
    rng = np.random.default_rng(first)
    for i in range(first, first + count):
        n = 3 + i % 5
        yield {"pos": 30 * rng.normal(size=(n, 3)).astype(np.float32), "atomic_numbers": np.full(n, 1 + i % 9),
               "forces": rng.normal(size=(n, 3)).astype(np.float32), "energy": float(i),
               "sid": f"random{i}"}  # fmt: skip


def contents(store):
    return {path.name: path.read_bytes() for path in store.path.glob("*.bin")}


def parts():
    return [Part(f"part {k}", partial(stream, 100 * k, 100), "v1") for k in range(3)]


def test_same_bytes_after_an_error(tmp_path):
    options = {"name": "s", "chunk_bytes": 4000}
    one = write_store(tmp_path / "one", parts(), **options)
    assert [float(s.energy) for s in one] == list(range(300))

    read: list[int] = []

    def stumbling(fail_at):
        for i, structure in enumerate(stream(100, 100)):
            if i == fail_at:
                raise OSError("the drive was unplugged")
            read.append(i)
            yield structure

    broken = parts()
    broken[1] = Part("part 1", partial(stumbling, 57), "v1")
    with pytest.raises(OSError, match="unplugged"):
        write_store(tmp_path / "three", broken, **options)
    assert not (tmp_path / "three").exists()
    state = json.loads((tmp_path / "three.building" / "store.json").read_text())
    part, consumed = state["position"]
    assert part == 1 and 0 < consumed < 57 and state["structures"] == 100 + consumed
    with open(tmp_path / "three.building" / "pos.bin", "ab") as file:
        file.write(b"what a killed process wrote beyond the last chunk that counts")
    read.clear()
    broken[1] = Part("part 1", partial(stumbling, None), "v1")
    three = write_store(tmp_path / "three", broken, **options)
    assert contents(three) == contents(one)


def good(n=6):
    return [{**random_molecule(seed=i), "energy": float(i), "forces": np.zeros((9, 3)), "id": i} for i in range(n)]


def spoil(key, value):
    structures = good()
    structures[3] = {**structures[3], key: value}
    return structures


def no_atoms():
    empty = {"pos": np.zeros((0, 3)), "atomic_numbers": np.zeros(0, dtype=int), "forces": np.zeros((0, 3))}
    return {**good()[3], "tags": np.zeros(0, int), "fixed": np.zeros(0, bool), **empty}


BAD = {
    "nan energy": (spoil("energy", np.nan), "field 'energy' holds NaN or infinity"),
    "infinite force": (spoil("forces", np.full((9, 3), np.inf)), "field 'forces' holds NaN or infinity"),
    "force count": (spoil("forces", np.zeros((8, 3))),
                    r"field 'forces' has shape \(8, 3\) where 9 atoms need \(9, 3\)"),
    "position count": (spoil("pos", np.zeros((10, 3))), r"field 'pos' has shape \(10, 3\)"),
    "element": (spoil("atomic_numbers", np.full(9, 121)), "field 'atomic_numbers': 121 is not an element"),
    "no element": (spoil("atomic_numbers", np.full(9, 0)), "field 'atomic_numbers': 0 is not an element"),
    "no atoms": ([*good()[:3], no_atoms(), *good()[4:]], "field 'natoms': a structure with 0 atoms"),
    "flat cell": ([*good()[:3], {**good()[3], "cell": np.ones((3, 3)), "pbc": np.ones(3, bool)}, *good()[4:]],
                  "field 'cell': periodic, but its lattice vectors span no volume"),
    "label missing": ([*good()[:3], {k: v for k, v in good()[3].items() if k != "energy"}, *good()[4:]],
                      "its labels are forces where the first structure of the store has forces, scalar energy"),
    "label shape": (spoil("energy", np.zeros(2)), "field 'energy' is neither a number nor a text"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_structure_is_left_out_and_counted(tmp_path, kind):
    structures, words = BAD[kind]
    store = write_store(tmp_path / "t", [Part("file.xyz", structures.__iter__)], name="s")
    assert [s["id"] for s in store] == [0, 1, 2, 4, 5] and "energy" in store.labels
    ((reason, number),) = store.about["rejected"].items()
    assert re.match(words, reason) and number == 1
    verify(store)


def test_duplicate_ids_are_refused_within_and_across_shards(tmp_path):
    for chunk_bytes in (1, 1 << 20):
        with pytest.raises(ValueError, match="id 2 occurs (2 times|more than once)"):
            write_store(tmp_path / f"s{chunk_bytes}", [Part("f", spoil("id", 2).__iter__)],
                        name="s", chunk_bytes=chunk_bytes)


def test_nothing_good_and_nothing_at_all(tmp_path):
    bad = [{**s, "energy": np.nan} for s in good()]
    with pytest.raises(ValueError, match="no structure in the source that is good .6 times: field 'energy' holds NaN"):
        write_store(tmp_path / "s", [Part("f", bad.__iter__)], name="s")
    with pytest.raises(ValueError, match="no source file was found"):
        write_store(tmp_path / "t", [], name="s")
    assert not (tmp_path / "s").exists()


def test_two_preparations_at_once(tmp_path):
    with locked(f"{tmp_path / 's'}.lock"):
        with pytest.raises(RuntimeError, match="another process is preparing .*s; wait"):
            write_store(tmp_path / "s", [Part("f", good().__iter__)], name="s")
    assert not (tmp_path / "s.building").exists()


def test_again_is_the_same_and_other_sources_are_refused(tmp_path):
    store = write_store(tmp_path / "s", [Part("f", good().__iter__, "v1")], name="s")

    def unread():
        raise AssertionError("a finished store is not made again")

    assert write_store(tmp_path / "s", [Part("f", unread, "v1")], name="s").sha256 == store.sha256
    with pytest.raises(ValueError, match="is a store made from other files or settings; remove it"):
        write_store(tmp_path / "s", [Part("f", unread, "v2")], name="s")
    with pytest.raises(AssertionError):
        write_store(tmp_path / "t", [Part("f", unread, "v1")], name="s")
    with pytest.raises(ValueError, match="t.building was begun from other files or settings; remove that folder"):
        write_store(tmp_path / "t", [Part("f", unread, "v2")], name="s")


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "it is read-only")])
def test_full_and_read_only_disks(tmp_path, monkeypatch, number, words, writes):
    """The disk refuses the plan, its folder, the first column or the second."""
    done = []

    def refuse(_):
        done.append(1)
        if len(done) > writes:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RuntimeError, match=f"cannot write .*: {words}; make room or choose another place"):
        write_store(tmp_path / "s", [Part("f", good().__iter__)], name="s")
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "s").exists()
    assert len(write_store(tmp_path / "s", [Part("f", good().__iter__)], name="s")) == 6


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="cannot write .*: a file is in the way"):
        write_store(tmp_path / "file" / "s", [Part("f", good().__iter__)], name="s")


def test_memory_does_not_grow_with_the_number_of_structures(tmp_path):
    import tracemalloc

    def peak(count):
        tracemalloc.start()
        write_store(tmp_path / str(count), [Part("f", partial(stream, 0, count))], name="s", chunk_bytes=50_000)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(50)  # imports
    assert peak(4000) < 1.3 * peak(500)


def test_crystals_and_molecules_together(tmp_path):
    structures = [random_molecule(), skewed_crystal()]
    store = write_store(tmp_path / "s", [Part("f", structures.__iter__)], name="s")
    assert not store[0].pbc.any() and store[1].pbc.all() and np.array_equal(store[1]["cell"], structures[1]["cell"])
