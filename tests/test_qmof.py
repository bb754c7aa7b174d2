"""The published QMOF frameworks in each form: the two JSON lists, npz; bad files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.data import qmof, splits
from jmp_lib.data.tasks import get_task, load_task_data

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
real = pytest.mark.skipif(not DATA, reason="set JMP_DATA to the folder with the published files")
TASK = get_task("qmof_bandgap")
CELL = np.array([[5.0, 0, 0], [1.0, 6.0, 0], [0.5, -0.5, 7.0]])


def entry(i):
    frac = np.array([[0.0, 0.0, 0.0], [0.25, 0.5, 0.5 + 0.001 * i]])
    sites = [{"label": s, "abc": f.tolist(), "xyz": (f @ CELL).tolist()} for s, f in zip(("Zn", "O"), frac)]
    return {"qmof_id": f"qmof-{i:07d}", "structure": {"lattice": {"matrix": CELL.tolist()}, "sites": sites}}


def about(i, **changes):
    return {"qmof_id": f"qmof-{i:07d}", "info": {"natoms": 2}, "outputs": {"pbe": {"bandgap": 0.1 * i}}} | changes


def write_json(folder, gaps, structures):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "qmof.json").write_text(json.dumps(gaps))
    (folder / "qmof_structure_data.json").write_text(json.dumps(structures, indent=1))
    return folder / "qmof.json"


def write_npz(path, n, **changes):
    arrays = {
        "qmof_id": np.array([f"qmof-{i:07d}" for i in range(n)]),
        "natoms": np.full(n, 2),
        "cellpar": np.tile([5.0, 6.0, 7.0, 90.0, 80.0, 70.0], (n, 1)),
        "Z": np.tile([30, 8], n),
        "frac": np.tile([[0, 0, 0], [0.25, 0.5, 0.5]], (n, 1)).astype(np.float32),
        "bandgap_pbe": 0.1 * np.arange(n),
    }
    np.savez(path, **(arrays | changes))
    return path


def test_json_lists(tmp_path):
    write_json(tmp_path / "qmof" / "qmof_database", [about(i) for i in range(30)], [entry(i) for i in range(30)])
    data = load_task_data("qmof_bandgap", "published", tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (24, 3, 3)
    assert np.array_equal(data.train.ids, splits.shuffled(30)[:24])
    assert data.name == "QMOF, 30 of 20375 (published)"
    first = data.train[0]
    assert first["y"] == 0.1 * first["id"]
    assert np.array_equal(first["cell"], CELL)
    assert np.allclose(first["pos"][1], np.array([0.25, 0.5, 0.5 + 0.001 * first["id"]]) @ CELL)
    assert first["atomic_numbers"].tolist() == [30, 8] and first["pbc"].all()


def test_npz(tmp_path):
    path = write_npz(tmp_path / "qmof_gaps.npz", 4)
    assert qmof.find("", tmp_path) == [path]
    found = list(qmof.read(path))
    assert [(s["id"], s["sid"]) for s in found] == [(i, f"qmof-{i:07d}") for i in range(4)]
    assert [s["y"] for s in found] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    lengths = np.linalg.norm(found[0]["cell"], axis=1)
    assert lengths == pytest.approx([5.0, 6.0, 7.0])
    assert found[0]["cell"][0] @ found[0]["cell"][1] / 30 == pytest.approx(np.cos(np.radians(70.0)))
    assert np.allclose(found[1]["pos"], [[0, 0, 0], np.array([0.25, 0.5, 0.5]) @ found[1]["cell"]], atol=1e-6)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no QMOF file in .*qmof_structure_data.json from https://figshare"):
        qmof.load("", tmp_path)
    path = write_json(tmp_path, [about(1), about(2)], [entry(1), entry(3)])
    with pytest.raises(ValueError, match="qmof-0000002 in one list, qmof-0000003 in the other"):
        list(qmof.read(path))
    write_json(tmp_path, [about(1), about(2)], [entry(1)])
    with pytest.raises(ValueError, match="one of the two lists ends after 1"):
        list(qmof.read(path))
    write_json(tmp_path, [about(1), about(2, info={"natoms": 3})], [entry(1), entry(2)])
    with pytest.raises(ValueError, match="qmof-0000002: qmof.json says 3 atoms, its structure has 2"):
        list(qmof.read(path))
    write_json(tmp_path, [about(1), about(2, outputs={"pbe": {"bandgap": None}})], [entry(1), entry(2)])
    with pytest.raises(ValueError, match="qmof-0000002: its PBE band gap is missing"):
        list(qmof.read(path))
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match="cut short"):
        list(qmof.read(path))
    path.write_text('{"error": 404}')
    with pytest.raises(ValueError, match="is not a JSON list"):
        list(qmof.read(path))
    npz = write_npz(tmp_path / "qmof.npz", 3, cellpar=np.tile([5.0, 6.0, 7.0, 90.0, 180.0, 90.0], (3, 1)))
    with pytest.raises(ValueError, match="its lattice vectors span no volume|lengths and angles"):
        list(qmof.read(npz))
    write_npz(npz, 3, bandgap_pbe=np.array([1.0, np.inf, 2.0]))
    with pytest.raises(ValueError, match="qmof-0000001: field 'y' holds NaN or infinity"):
        list(qmof.read(npz))
    write_npz(npz, 3, natoms=np.array([2, 2, 3]))
    with pytest.raises(ValueError, match="array 'Z' has shape"):
        list(qmof.read(npz))


@real
def test_published_npz():
    path = Path(DATA, "qmof", "qmof_bandgap_pbe.npz")
    gaps = np.array([structure["y"] for structure in qmof.read(path)])
    assert len(gaps) == 20_372 and gaps.mean() == pytest.approx(2.08758, abs=1e-5)
