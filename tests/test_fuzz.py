"""Damaged files of every format are read or refused in one sentence, and no size that a file states is believed."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
import torch
from catalyst_files import record, slab, write_lmdb
from torch_geometric.data import Data

from jmp_lib.data import ani1x, apart, oc22, spice
from jmp_lib.data.exchange import iter_atoms
from jmp_lib.data.formats import open_h5, read_npz
from jmp_lib.data.pickles import loads
from tools import fuzz

CASES = os.environ.get("JMP_CASES")
cases = pytest.mark.skipif(not CASES, reason="set JMP_CASES to the folder of reported cases")


def test_damaged_files_of_every_format():  # about 20 s, which is how long it takes to try each format some times
    found = fuzz.fuzz(400, seed=1)
    assert len(found) == 19
    assert not [(name, word) for name, counts in found.items() for word in counts if word in fuzz.BAD]


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [(lambda: os.kill(os.getpid(), 9), "end"), (lambda: {}["a"], "traceback"), (lambda: bytearray(1 << 50), "memory"),
        (lambda: int("a"), "no file"), (lambda: (2, 4, 0, True), "lost"), (lambda: (3, 126, 0, False), "nonsense"),
        (lambda: (2, 84, 1, True), "read"),
    ],
)  # fmt: skip
def test_the_fuzzer_tells_faults_apart(monkeypatch, tmp_path, broken, verdict):
    monkeypatch.setattr(fuzz, "read", lambda kind, folder: broken())
    monkeypatch.setattr(fuzz, "SECONDS", 3.0)
    worker = fuzz.Worker()
    kind = fuzz.Kind("md22.npz", "md22", {"a.npz": b""}, 3, 126)
    assert worker.ask(kind, tmp_path, True)[0] == verdict
    worker.close()


def test_a_poscar_that_says_that_it_has_many_atoms(tmp_path):
    (tmp_path / "POSCAR").write_text("a\n1\n4 0 0\n0 4 0\n0 0 4\nNa\n99999999999\nDirect\n0 0 0\n")
    with pytest.raises(ValueError, match="POSCAR says that it has 99999999999 atoms, in 9 lines"):
        list(iter_atoms(tmp_path / "POSCAR"))


@cases
def test_damaged_files_that_were_reported():
    for path in sorted(Path(CASES, "49-damaged-spice").iterdir()):  # one of them ends the process inside libhdf5
        with pytest.raises(ValueError, match=path.name):
            list(spice.read(path, "dipeptides"))


def test_a_process_that_reads_hdf5_may_die(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/b"] = np.arange(3)
    with pytest.raises(ValueError,
                       match=r"a.h5 cannot be read \(it is damaged: the library .* broke down over it\); get another"):
        with open_h5(tmp_path / "a.h5", mend="get another") as file:
            assert file.arrays("a", ["b"])["b"].tolist() == [0, 1, 2]
            file._process.kill()
            file._process.wait()
            file.names("a")


def test_a_reader_that_is_left_leaves_no_process(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for key, shape in (("coordinates", (2, 3, 3)), (ani1x.ENERGY, 2), (ani1x.FORCES, (2, 3, 3))):
            file[f"H2O/{key}"] = 30 * np.random.default_rng(0).normal(size=shape)
        file["H2O/atomic_numbers"] = [8, 1, 1]
    begun, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen",
                        lambda *args, **options: begun.append(start(*args, **options)) or begun[-1])
    structures = ani1x.read(tmp_path / "a.h5")
    next(structures)
    assert begun[0].poll() is None
    structures.close()
    assert begun[0].poll() is not None


def test_sizes_that_hdf5_states_are_not_believed(tmp_path):
    with h5py.File(tmp_path / "dipeptides.h5", "w") as file:
        for key in spice._SHAPES:
            file.create_dataset(f"ala/{key}", (10**12,), "f8", chunks=(1000,), compression="gzip")
    with pytest.raises(ValueError, match="says that it has shape .1000000000000,., "
                       "which the 0 bytes that are stored of it cannot hold"):
        list(spice.read(tmp_path / "dipeptides.h5", "dipeptides"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["a"] = h5py.ExternalLink("dipeptides.h5", "/ala")
        file.create_dataset("c/b", (2, 3), "f8", external=[("dipeptides.h5", 0, 48)])
    for group in ("a", "c"):
        with pytest.raises(ValueError, match="another file"), open_h5(tmp_path / "b.h5", mend="get another") as file:
            file.arrays(group, ["b"])


def test_sizes_that_npz_states_are_not_believed(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file, file.open("R.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
        stream.write(b"\0" * 72)
    with pytest.raises(ValueError, match="a.npz (asks for more memory|cannot be read)"):
        read_npz(tmp_path / "a.npz", {"R": ("atoms", 3)}, mend="get another")


@pytest.mark.parametrize("length", [10**18, 1, -1, "3", None])
def test_lengths_that_an_lmdb_states_are_not_believed(tmp_path, length):
    write_lmdb(tmp_path / "a.lmdb", [record(slab(n)) for n in range(3)])
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False) as base, base.begin(write=True) as transaction:
        transaction.put(b"length", pickle.dumps(length))
    with pytest.raises(ValueError,
                       match=f"a.lmdb cannot be read .it says that it has {length} records where there are 3"):
        list(oc22.read(tmp_path / "a.lmdb"))


def test_small_pickles_do_not_fill_the_memory():
    repeats = pickle.dumps(Data(pos=torch.zeros(1).expand(10**8, 3)))
    for data in (repeats, b"\x80\x02]r\xf0\xff\xff\x7f.", b"]p1999999999\n."):  # places in a table of 34 and 32 GB
        with pytest.raises(ValueError, match="here is not a readable pickle"):
            loads(data, where="here", mend="get it again")


def test_a_library_that_finds_no_end_is_told(tmp_path, monkeypatch):
    """A damaged file sent libhdf5 round in circles: here its process is stopped."""
    monkeypatch.setattr(apart, "_PATIENCE", 0.5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
    with pytest.raises(ValueError, match="found no end in 1 s"), apart.reads("h5", tmp_path / "a.h5") as file:
        file._process.send_signal(signal.SIGSTOP)
        file.names("")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_process_of_its_own_ends_with_a_killed_parent(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3)
    script = ("import sys, time; from jmp_lib.data.apart import reads\n"
              "with reads('h5', sys.argv[1]) as file:\n"
              "    file.names(''); print(file._process.pid, flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a.h5")], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the process is still there")
