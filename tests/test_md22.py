"""The published MD22 files: npz with pickled entries left closed, extended xyz, units, split, bad files."""

import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.data import md22, splits
from jmp_lib.data.tasks import TASKS, load_task_data


def frames(n, atoms=42, **changes):
    rng = np.random.default_rng(3)
    made = {
        "z": rng.integers(1, 9, atoms),
        "R": 30 * rng.normal(size=(n, atoms, 3)),
        "E": -620_700 + rng.normal(size=(n, 1)),
        "F": rng.normal(size=(n, atoms, 3)),
        "e_unit": np.array("kcal/mol"),
        "md5": np.array(b"566c78362b66a81c"),
    }
    return made | changes


class Stranger:
    def __reduce__(self):
        return (os.mkdir, ("made by the file",))


def test_npz_is_converted_once_and_its_objects_stay_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = frames(7, theory=np.array([Stranger()], dtype=object), r_unit=np.array(Stranger(), dtype=object))
    np.savez(tmp_path / "md22_Ac-Ala3-NHMe.npz", **raw)
    read = list(md22.read(Path("md22_Ac-Ala3-NHMe.npz"), "ac-ala3-nhme"))
    assert not (tmp_path / "made by the file").exists()
    assert len(read) == 7
    for i, frame in enumerate(read):
        assert frame["energy"] == pytest.approx(raw["E"][i, 0] / 23.061, rel=1e-14)
        assert np.allclose(frame["forces"], raw["F"][i] / 23.061, rtol=1e-6)
        assert np.array_equal(frame["pos"], raw["R"][i].astype(np.float32))
        assert np.array_equal(frame["atomic_numbers"], raw["z"])
        assert (frame["id"], frame["group"]) == (i, "Ac-Ala3-NHMe")


def test_every_task_finds_its_molecule_and_the_official_counts():
    tasks = [task for task in TASKS.values() if task.family == "md22"]
    assert sorted(task.suffix for task in tasks) == sorted(md22.MOLECULES)
    for task in tasks:
        assert splits.md22(task.n_total, task.n_train + task.n_val).counts == (task.n_train, task.n_val, task.n_test)
    with pytest.raises(ValueError, match="no molecule 'aspirin'"):
        md22.mend("aspirin")


def test_split_of_a_pool(tmp_path):
    (tmp_path / "md22").mkdir()
    np.savez(tmp_path / "md22" / "md22_buckyball-catcher.npz", **frames(610, atoms=148))
    data = load_task_data("md22_buckyball-catcher", "published", tmp_path)
    order = splits.shuffled(610)
    assert data.train.ids.tolist() == order[:570].tolist()
    assert data.val.ids.tolist() == order[570:600].tolist()
    assert data.test.ids.tolist() == order[600:].tolist()
    assert data.name == "MD22 buckyball-catcher, 610 of 6102 (published)"


def test_bad_files(tmp_path):
    path = tmp_path / "md22_Ac-Ala3-NHMe.npz"
    with pytest.raises(FileNotFoundError, match="no MD22 file of DHA in .*get md22_DHA.npz from http"):
        load_task_data("md22_dha", "published", tmp_path)
    np.savez(path, **frames(4, atoms=43))
    with pytest.raises(ValueError, match="it has 43 atoms where Ac-Ala3-NHMe has 42"):
        list(md22.read(path, "ac-ala3-nhme"))
    np.savez(path, **frames(4, F=np.zeros((4, 41, 3))))
    with pytest.raises(ValueError, match="array 'F' has shape"):
        list(md22.read(path, "ac-ala3-nhme"))
    np.savez(path, **frames(4, E=np.array([[1.0], [np.inf], [1.0], [1.0]])))
    with pytest.raises(ValueError, match="frame 1: field 'energy' holds NaN or infinity"):
        list(md22.read(path, "ac-ala3-nhme"))
    np.savez(path, **frames(4, e_unit=np.array("eV")))
    with pytest.raises(ValueError, match="its e_unit is 'eV' where MD22 has 'kcal/mol'"):
        list(md22.read(path, "ac-ala3-nhme"))
    np.savez(path, **frames(4, R=np.array([Stranger()] * 4, dtype=object)))
    with pytest.raises(ValueError, match="pickled Python objects, which are never loaded"):
        list(md22.read(path, "ac-ala3-nhme"))
    np.savez(path, **frames(4))
    with pytest.raises(ValueError, match="4 structures are too few for 5700 train.*get md22_Ac-Ala3-NHMe.npz"):
        load_task_data("md22_ac-ala3-nhme", "published", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        list(md22.read(path, "ac-ala3-nhme"))
    path.write_text("<html></html>")
    with pytest.raises(ValueError, match="web page"):
        list(md22.read(path, "ac-ala3-nhme"))
