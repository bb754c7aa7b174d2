"""The published QM9 in each of its forms: units, order, molecules left out, and what is said of bad files."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from jmp_lib.data import qm9, splits
from jmp_lib.data.tasks import get_task, load_task_data
from jmp_lib.units import HARTREE_QM9

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
real = pytest.mark.skipif(not DATA, reason="set JMP_DATA to the folder with the published files")

# raw values in the order mu alpha homo lumo gap r2 zpve u0 u h g cv (D, a0^3, Hartree, a0^2, cal/(mol K))
RAW = np.array([1.5, 9.0, -0.25, 0.08, 0.33, 26.0, 0.034, -56.5, -56.4, -56.3, -56.6, 6.3])
TASK = get_task("qm9_u0")
ENERGIES = ("eps_HOMO", "eps_LUMO", "delta_eps", "ZPVE", "U0", "U", "H", "G")
WATER = [("O", 0.0, 0.1, 0.2), ("H", 0.9, 0.0, 0.0), ("H", -0.3, 0.9, 0.0)]


def raw_of(number):
    return RAW + 0.001 * number


def write_npz(folder, n, **changes):
    keys = ("mu", "alpha", "HOMO", "LUMO", "gap", "R2", "ZPVE", "U0", "U", "H", "G", "Cv")
    raw = np.stack([raw_of(number) for number in range(1, n + 1)])
    arrays = {"id": np.arange(1, n + 1), "N": np.full(n, 3, np.int8), "Z": np.tile([8, 1, 1], n).astype(np.uint8)}
    arrays["R"] = np.tile([atom[1:] for atom in WATER], (n, 1)).astype(np.float32)
    np.savez(folder / "qm9_parts.npz", **(arrays | dict(zip(keys, raw.T)) | changes))


def check(structures, numbers):
    assert [s["sid"] for s in structures] == [f"dsgdb9nsd_{n:06d}" for n in numbers]
    for structure, number in zip(structures, numbers, strict=True):
        assert structure["id"] == number - 1
        assert structure["atomic_numbers"].tolist() == [8, 1, 1]
        assert np.allclose(structure["pos"], [atom[1:] for atom in WATER], atol=1e-6)
        for key, raw in zip(qm9.TARGETS, raw_of(number)):
            assert structure[key] == pytest.approx(raw * (HARTREE_QM9 if key in ENERGIES else 1.0), rel=1e-12)


def test_npz_form_and_the_split(tmp_path):
    (tmp_path / "qm9").mkdir()
    write_npz(tmp_path / "qm9", 20_003)
    data, split = qm9.load("", tmp_path)
    assert split.counts == (3, 10_000, 10_000)
    assert np.array_equal(np.concatenate([split.train, split.val, split.test]), splits.shuffled(20_003))
    assert data.name == "QM9, 20003 of 130831"
    check([next(iter(qm9.read(tmp_path / "qm9" / "qm9_parts.npz")))], [1])
    task = load_task_data("qm9_u0", "published", tmp_path)
    assert task.name == "QM9, 20003 of 130831 (published)"
    assert task.train[0]["U0"] == data[int(split.train[0])]["U0"] != data[int(split.train[0])]["H"]


def test_official_file(tmp_path):
    entries = []
    for number in (1, 2):
        y = torch.arange(19.0).reshape(1, 19) + number
        pos = torch.tensor([atom[1:] for atom in WATER])
        entries.append({"z": torch.tensor([8, 1, 1]), "pos": pos, "y": y, "name": "gdb"})
    (tmp_path / "qm9" / "raw").mkdir(parents=True)  # where torch_geometric's QM9 keeps it
    torch.save(entries, tmp_path / "qm9" / "raw" / "qm9_v3.pt")
    first, second = qm9.read(*qm9.find("", tmp_path))
    assert (first["mu"], first["U0"], first["Cv"]) == (1.0, 8.0, 12.0)  # in eV already
    assert (second["id"], second["alpha"]) == (1, 3.0)


def test_official_file_runs_nothing(tmp_path):
    class Stranger:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "made by the file"),))

    torch.save([{"z": Stranger()}], tmp_path / "qm9_v3.pt")
    with pytest.raises(ValueError, match="holds more than tensors and lists"):
        list(qm9.read(tmp_path / "qm9_v3.pt"))
    assert not (tmp_path / "made by the file").exists()


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no QM9 file in .*qm9_v3.pt from https"):
        qm9.load("", tmp_path)
    write_npz(tmp_path, 4, U0=np.array([1.0, np.nan, 1.0, 1.0]))
    path = tmp_path / "qm9_parts.npz"
    with pytest.raises(ValueError, match="gdb_2: field 'U0' holds NaN"):
        list(qm9.read(path))
    write_npz(tmp_path, 4, Z=np.zeros(12, np.uint8))
    with pytest.raises(ValueError, match="0 is not an element"):
        list(qm9.read(path))
    write_npz(tmp_path, 4, N=np.array([3, 3, 3, 4]))
    with pytest.raises(ValueError, match="array 'Z' has shape"):
        list(qm9.read(path))
    write_npz(tmp_path, 4, N=np.array([6, 0, 3, 3]))
    with pytest.raises(ValueError, match="are 0 Å apart"):  # the first is a molecule twice at one place
        list(qm9.read(path))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read"):
        list(qm9.read(path))


@real
def test_published_npz():
    first = list(itertools.islice(qm9.read(Path(DATA, "qm9", "qm9_nonF.npz")), 3))
    assert [molecule["sid"] for molecule in first] == [f"dsgdb9nsd_{n:06d}" for n in (1, 2, 3)]  # CH4, NH3, H2O
    assert [len(molecule["pos"]) for molecule in first] == [5, 4, 3]
    for molecule, u0, homo in zip(first, (-40.47893, -56.525887, -76.404702), (-0.3877, -0.257, -0.2928), strict=True):
        assert molecule["U0"] == pytest.approx(u0 * HARTREE_QM9, rel=1e-12)
        assert molecule["eps_HOMO"] == pytest.approx(homo * HARTREE_QM9, rel=1e-12)


def test_the_order_is_that_of_the_numbers(tmp_path):
    n = 20_003
    write_npz(tmp_path, n)
    with np.load(tmp_path / "qm9_parts.npz") as archive:
        turned = {key: archive[key][::-1] if archive[key].shape == (n,) else archive[key] for key in archive.files}
    np.savez(tmp_path / "qm9_parts.npz", **turned)
    data, _ = qm9.load("", tmp_path)
    assert np.array_equal(data.ids, np.arange(n))
    assert data[5]["mu"] == raw_of(6)[0]
