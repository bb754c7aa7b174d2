"""``data inspect``: counts and statistics of original files, and what it says about bad ones."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from catalyst_files import ENERGY, REFERENCE, forces, frames, record, slab, write_lmdb, write_release

from jmp_lib.__main__ import main
from jmp_lib.data.families import FAMILIES
from jmp_lib.data.inspect import inspect, reader
from jmp_lib.data.tasks import PRETRAINING_SETS

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
published = pytest.mark.skipif(not DATA, reason="JMP_DATA names no folder of published files")


def test_release_of_oc20(tmp_path):
    images = frames(5)
    found = inspect(write_release(tmp_path / "a", images), "oc20")
    energies = [atoms.get_potential_energy() for atoms in images]
    assert (found["structures"], found["atoms"], found["groups"], found["periodic"]) == (5, 30, 1, 5)
    assert found["elements"] == {"H": 5, "O": 5, "Cu": 20}
    assert found["labels"]["energy"] == pytest.approx([min(energies), max(energies)])
    components = np.concatenate([forces(atoms) for atoms in images])
    assert found["labels"]["forces"] == pytest.approx([components.min(), components.max()], rel=1e-6)
    assert found["left_out"] == [] and found["options"] == {"energy": "stored"}
    assert found["example"] == {"name": "random77/0", "atoms": 6, "energy": pytest.approx(energies[0])}
    adsorption = inspect(tmp_path / "a", "OC20", energy="adsorption")
    assert adsorption["example"]["energy"] == pytest.approx(energies[0] - REFERENCE)


def test_what_would_be_left_out(tmp_path):
    records = [record(slab(n), fid=n, y=float("nan") if n in (3, 5) else ENERGY) for n in range(8)]
    records[7] = record(slab(1), fid=1, y=float("inf"), tags=None)
    records[6] = record(slab(1), fid=1, force=None)
    found = inspect(write_lmdb(tmp_path / "a.lmdb", records), "oc22")
    assert found["structures"] == 4
    assert [about["count"] for about in found["left_out"]] == [3, 1]
    assert "record 3: field 'energy' holds NaN" in found["left_out"][0]["reason"]
    assert "record 6: field 'force' is missing" in found["left_out"][1]["reason"]


def test_a_file_of_which_all_is_left_out(tmp_path):
    found = inspect(write_lmdb(tmp_path / "a.lmdb", [record(slab(), y=float("inf"))]), "oc22")
    assert (found["structures"], found["labels"], found["example"], found["elements"]) == (0, {}, None, {})
    assert found["left_out"][0]["count"] == 1
    assert main(["data", "inspect", str(tmp_path / "a.lmdb"), "--dataset", "oc22"]) == 0


def test_command_line(tmp_path, capsys):
    path = str(write_release(tmp_path / "a", frames(2)))
    assert main(["data", "inspect", path, "--dataset", "oc20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structures"] == 2
    options = ["--option", "energy=adsorption"]
    assert main(["data", "inspect", path, "--dataset", "OC20", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]["energy"] == pytest.approx([ENERGY - 1 - REFERENCE, ENERGY - REFERENCE])
    assert main(["data", "inspect", path, "--dataset", "oc20"]) == 0
    text = capsys.readouterr().out
    assert "structures   2" in text and "energy: -31.25 to -30.25 eV\n" in text and "left out     0" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{file}", "--dataset", "oc21"], "there is no data set 'oc21'; the nearest valid name is 'oc2"),
        (["{file}", "--dataset", "oc20", "--option", "energi=total"], "the reader of oc20 has no option 'energi'; the nearest valid key is 'energy'"),
        (["{file}", "--dataset", "oc20", "--option", "total"], "--option takes NAME=VALUE, not 'total'"),
        (["{file}", "--dataset", "oc20", "--option", "rejected=1"], "the reader of oc20 has no option 'rejected'"),
        (["nowhere.h5", "--dataset", "ani1x"], "nowhere.h5 is missing"),
        (["{file}", "--dataset", "ani1x"], "0.extxyz.xz is not an HDF5 file; get ani1x-release.h5 from http"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, says):
    path = write_release(tmp_path / "a", frames(2))
    assert main(["data", "inspect", *(argument.format(file=path) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_hostile_file_is_not_run_from_the_command_line(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "mark"),)

    (tmp_path / "a.pkl").write_bytes(pickle.dumps([Runs()]))
    command = [sys.executable, "-m", "jmp_lib", "data", "inspect", str(tmp_path / "a.pkl"), "--dataset", "oc22"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "asks for posix.mkdir, which is never loaded" in done.stderr
    assert not (tmp_path / "mark").exists()


def test_every_data_set_has_a_reader():
    assert len([*FAMILIES, *PRETRAINING_SETS]) == 10
    for name in [*FAMILIES, *PRETRAINING_SETS]:
        assert callable(reader(name))
    assert reader("Transition-1x") is reader("transition1x") and reader("ANI-1x") is reader("ani1x")


@published
@pytest.mark.parametrize(
    ("file", "dataset", "structures", "atoms", "elements"),
    [
        ("oc20/random1000100.traj", "oc20", 33, 33 * 33, "O Na Au"),
        ("oc22/oc22_train_pickle16.pkl", "oc22", 16, 1294, None),
        ("ani1x/ani1x_n5.hdf5", "ani1x", 8, 120, "H C N O"),
        ("ani1x/ani1x_train_pickle16.pkl", "ani1x", 16, 227, "H C N O"),
        ("transition1x/horm_sample_100.lmdb", "transition1x", 100, 1414, "H C N O"),
        ("rmd17/rmd17_ethanol_train_01.npz", "rmd17", 1000, 9000, "H C O"),
        ("md22/md22_Ac-Ala3-NHMe_5frames.xyz", "md22", 5, 210, "H C N O"),
        ("spice/SPICE-1.1.4_n2.hdf5", "spice", 55, None, None),
        ("matbench/matbench_phonons.json.gz", "matbench", 1265, None, None),
    ],
)
def test_published_files(file, dataset, structures, atoms, elements):
    found = inspect(Path(DATA) / file, dataset)
    assert found["structures"] == structures and not found["left_out"]
    assert atoms is None or found["atoms"] == atoms
    assert elements is None or " ".join(found["elements"]) == elements
    assert sum(found["elements"].values()) == found["atoms"]
    assert found["labels"] and found["example"]["atoms"]


@published
def test_published_rmd17_in_units_of_the_package():
    path = Path(DATA) / "rmd17" / "rmd17_ethanol_train_01.npz"
    raw, found = np.load(path), inspect(path, "rmd17")
    assert found["labels"]["energy"] == pytest.approx([raw["energies"].min() / 23.061, raw["energies"].max() / 23.061])
    assert found["labels"]["forces"] == pytest.approx([raw["forces"].min() / 23.061, raw["forces"].max() / 23.061], rel=1e-6)
