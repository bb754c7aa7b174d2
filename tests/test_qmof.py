"""The published QMOF frameworks in each form: the two JSON lists, CIF files with a table, npz; bad files."""

import csv
import itertools
import json
import os
import tarfile

import numpy as np
import pytest

from jmp_lib.data import qmof, splits
from jmp_lib.data.tasks import get_task, load_task_data

DATA = os.environ.get("JMP_DATA")
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


def cif(i):
    lines = [f"data_{i}", "_symmetry_space_group_name_H-M   'P 1'", "_symmetry_Int_Tables_number   1"]
    lines += [f"_cell_length_{k} {v}" for k, v in zip("abc", (5.0, 6.0, 7.0))]
    lines += [f"_cell_angle_{k} {v}" for k, v in zip(("alpha", "beta", "gamma"), (90.0, 80.0, 70.0))]
    lines += ["loop_"] + [f"_atom_site_{k}" for k in ("type_symbol", "label", "fract_x", "fract_y", "fract_z")]
    return "\n".join([*lines, "Zn Zn0 0.0 0.0 0.0", "O O1 0.25 0.5 0.5"]) + "\n"


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


def test_cif_files_and_npz_agree(tmp_path):
    npz = write_npz(tmp_path / "qmof_gaps.npz", 4)
    folder = tmp_path / "relaxed_structures"
    folder.mkdir()
    with tarfile.open(tmp_path / "relaxed_structures.tar.gz", "w:gz") as archive:
        for i in range(4):
            path = folder / f"qmof-{i:07d}.cif"
            path.write_text(cif(i))
            archive.add(path, path.name)
    assert qmof.find(TASK, tmp_path) == [npz]  # CIF files alone have no labels
    with pytest.raises(FileNotFoundError, match="put the table qmof.csv"):
        list(qmof.read(folder))
    with open(tmp_path / "qmof.csv", "w", newline="") as stream:
        rows = [[f"qmof-{i:07d}", 0.1 * i] for i in range(4)]
        csv.writer(stream).writerows([["qmof_id", "outputs.pbe.bandgap"], *rows])
    assert qmof.find(TASK, tmp_path) == [folder]
    expected = list(qmof.read(npz))
    for path in (folder, tmp_path / "relaxed_structures.tar.gz"):
        for ours, theirs in zip(qmof.read(path), expected, strict=True):
            assert ours["sid"] == theirs["sid"] and ours["y"] == pytest.approx(theirs["y"])
            assert np.allclose(ours["cell"], theirs["cell"]) and np.allclose(ours["pos"], theirs["pos"], atol=1e-5)
    (folder / "qmof-0000002.cif").write_text("data_x\nloop_\n_cell")
    (folder / "qmof-0000009.cif").write_text(cif(9))
    rejected = []
    assert len(list(qmof.read(folder, rejected=rejected))) == 3
    assert [reason.partition("structures: ")[2] for reason in rejected] == [
        "qmof-0000002: its CIF cannot be read; leave it out or mend it",
        "qmof-0000009: the table has no band gap of it; leave it out or mend it",
    ]


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no QMOF file in .*qmof_structure_data.json from https://figshare"):
        qmof.load(TASK, tmp_path)
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
    rejected = []
    assert not list(qmof.read(npz, rejected=rejected)) and len(rejected) == 3
    write_npz(npz, 3, bandgap_pbe=np.array([1.0, np.inf, 2.0]))
    with pytest.raises(ValueError, match="qmof-0000001: field 'y' holds NaN or infinity"):
        list(qmof.read(npz))
    write_npz(npz, 3, natoms=np.array([2, 2, 3]))
    with pytest.raises(ValueError, match="array 'Z' has shape"):
        list(qmof.read(npz))


@real
def test_published_npz_and_cifs(tmp_path):
    (npz,) = [path for path in (os.path.join(DATA, "qmof", "qmof_bandgap_pbe.npz"),) if os.path.exists(path)]
    with np.load(npz, allow_pickle=False) as archive:
        gaps, names = archive["bandgap_pbe"], archive["qmof_id"]
    assert len(gaps) == 20_372 and gaps.mean() == pytest.approx(2.08758, abs=1e-5)
    table = tmp_path / "qmof.csv"
    with open(table, "w", newline="") as stream:
        csv.writer(stream).writerows([["qmof_id", "bandgap_pbe"], *zip(names.tolist(), gaps.tolist())])
    archive = os.path.join(DATA, "qmof", "relaxed_structures_first100_cif.tar.gz")
    for ours, theirs in itertools.islice(zip(qmof.read(archive, table=table), qmof.read(npz)), 10):
        assert ours["sid"] == theirs["sid"] and ours["y"] == theirs["y"]
        assert np.array_equal(ours["atomic_numbers"], theirs["atomic_numbers"])
        assert np.allclose(ours["cell"], theirs["cell"], atol=1e-5)
        assert np.allclose(ours["pos"], theirs["pos"], atol=1e-4)
