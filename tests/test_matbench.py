"""The published MatBench files: rows, official folds (also with a part of the rows), and what is said of bad files."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.data import matbench, splits
from jmp_lib.data.tasks import load_task_data

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
real = pytest.mark.skipif(not DATA, reason="set JMP_DATA to the folder with the published files")


def crystal(symbols=("Na", "Cl"), a=4.0, xyz=True, occu=1, **changes):
    sites = []
    for i, symbol in enumerate(symbols):
        abc = [i / len(symbols)] * 3
        site = {"species": [{"element": symbol, "occu": occu}], "abc": abc, "label": symbol}
        sites.append(site | ({"xyz": [a * x for x in abc]} if xyz else {}))
    return {"lattice": {"matrix": [[a, 0, 0], [0, a, 0], [0, 0, a]]}, "sites": sites} | changes


def write(path, rows, index=None, columns=("structure", "last phdos peak"), **more):
    content = {"index": list(range(len(rows))) if index is None else index, "columns": list(columns), "data": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as stream:
        json.dump(content | more, stream)
    return path


def test_rows_are_read_as_they_are(tmp_path):
    rows = [[crystal(a=4.0 + i, xyz=i % 2), 100.0 + i] for i in range(5)]
    path = write(tmp_path / "matbench_phonons.json.gz", rows, index=[0, 7, 8, 9, 1264], tail="more")
    read = list(matbench.read(path, "phonons"))
    assert [s["id"] for s in read] == [0, 7, 8, 9, 1264]
    assert [s["sid"] for s in read][1:] == [f"mb-phonons-{i}" for i in ("0008", "0009", "0010", "1265")]
    assert [s["y"] for s in read] == [100.0, 101.0, 102.0, 103.0, 104.0]
    for i, structure in enumerate(read):  # with Cartesian positions or with fractional ones
        assert np.allclose(structure["pos"][1], (4.0 + i) / 2)
        assert np.array_equal(structure["cell"], (4.0 + i) * np.eye(3)) and structure["pbc"].all()
        assert structure["atomic_numbers"].tolist() == [11, 17]


def test_the_whole_file_gives_the_official_split(tmp_path):
    rows = [[crystal(), float(i)] for i in range(1265)]
    write(tmp_path / "matbench" / "matbench_phonons.json.gz", rows)
    for fold in (0, 4):
        data, split = matbench.load("phonons", tmp_path, fold)
        assert split.sha256 == splits.matbench(1265, fold).sha256
        assert data.name == "MatBench phonons"


def test_a_part_of_the_rows_stays_in_its_official_parts(tmp_path):
    ids = np.sort(splits.shuffled(1265, seed=1)[:300])
    write(tmp_path / "matbench_phonons_subset.json.gz", [[crystal(), float(i)] for i in ids], index=ids.tolist())
    data, split = matbench.load("phonons", tmp_path, fold=2)
    official = splits.matbench(1265, 2)
    for ours, theirs in zip((split.train, split.val, split.test), (official.train, official.val, official.test)):
        assert data.ids[ours].tolist() == [i for i in theirs.tolist() if i in set(ids.tolist())]
    assert sum(split.counts) == 300
    assert data.name == "MatBench phonons, 300 of 1265"


def test_a_part_that_leaves_a_fold_without_test(tmp_path):
    ids = splits.matbench(1265, 0).train[:50]
    write(tmp_path / "matbench_phonons_subset.json.gz", [[crystal(), 1.0] for _ in ids], index=ids.tolist())
    with pytest.raises(ValueError, match="leave a part of official fold 0 empty.*get the whole file or take another"):
        load_task_data("matbench_phonons", "published", tmp_path)


def test_structures_from_elsewhere_are_named_so(tmp_path):
    ids = list(range(0, 1265, 3))
    write(tmp_path / "matbench_phonons_analog_structures.json.gz", [[crystal(), 1.0] for _ in ids], index=ids)
    assert load_task_data("matbench_phonons", "published", tmp_path).name == (
        "MatBench phonons with analog structures, 422 of 1265 (published)"
    )


@pytest.mark.parametrize(
    "row, words",
    [
        ([crystal(["Na", "Qx"]), 1.0], "unknown element 'Qx'"),
        ([crystal([]), 1.0], "a structure with 0 atoms"),
        ([crystal(a=0.0), 1.0], "lattice vectors span no volume"),
        ([crystal(), None], "y is missing"),
        ([crystal(occu=0.5), 1.0], "shared by several elements or partly empty"),
        ([{"lattice": {}}, 1.0], "cannot be read"),
    ],
)
def test_bad_structures_are_named_or_left_out(tmp_path, row, words):
    path = write(tmp_path / "matbench_phonons.json.gz", [[crystal(), 0.0], row, [crystal(), 2.0]])
    with pytest.raises(ValueError, match=f"matbench_phonons.json.gz: row 1: .*{words}"):
        list(matbench.read(path, "phonons"))


def test_bad_files(tmp_path):
    path = tmp_path / "matbench_phonons.json.gz"
    with pytest.raises(FileNotFoundError, match="no MatBench file of phonons in .*ml.materialsproject.org"):
        matbench.load("phonons", tmp_path)
    path.write_text("<!doctype html><title>404</title>")
    with pytest.raises(ValueError, match="is a web page"):
        list(matbench.read(path, "phonons"))
    write(path, [[crystal(a=4 + 0.01 * i), float(i)] for i in range(300)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        list(matbench.read(path, "phonons"))
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in the checksum's neighbourhood: the text reads well, the check does not
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="cannot be read"):
        list(matbench.read(path, "phonons"))
    write(path, [[crystal(), 1.0]], columns=("structure", "e_form"))
    with pytest.raises(ValueError, match="columns structure, e_form where phonons has structure, last phdos peak"):
        list(matbench.read(path, "phonons"))
    write(path, [[crystal(), 1.0], [crystal(), 2.0]], index=[0])
    with pytest.raises(ValueError, match="more rows than the 1 of its index"):
        list(matbench.read(path, "phonons"))
    write(path, [[crystal(), 1.0], [crystal(), 2.0]], index=[3, 3])
    with pytest.raises(ValueError, match="id 3 occurs 2 times"):
        matbench.load("phonons", tmp_path)
    with pytest.raises(ValueError, match="no structure task 'mp_is_metal'"):
        matbench.load("mp_is_metal", tmp_path)


def test_the_package_has_the_same_ids_and_folds():
    metadata = pytest.importorskip("matbench.metadata")
    for task in ("jdft2d", "log_gvrh"):
        folds = metadata.mbv01_validation["splits"][f"matbench_{task}"]
        for fold in range(splits.MATBENCH_FOLDS):
            ours = splits.matbench_fold(matbench.n_total(task), fold)
            for rows, part in zip(ours, ("train", "test"), strict=True):
                theirs = sorted(folds[f"fold_{fold}"][part])
                assert [matbench.official_id(task, row) for row in rows] == theirs


@real
def test_published_phonons():
    data, split = matbench.load("phonons", DATA)
    assert len(data) == 1265 and split.counts == (910, 102, 253)
    assert data.scalars["y"][0] == 98.58577122703691
    assert np.array_equal(data[0]["atomic_numbers"], [52, 56])
    assert data.scalars["y"].mean() == pytest.approx(581.35, abs=0.01)


@real
@pytest.mark.parametrize(
    "task, n", [("mp_gap", 918), ("mp_e_form", 717), ("dielectric", 769), ("log_kvrh", 562), ("log_gvrh", 566)]
)
def test_published_parts(task, n):
    data, split = matbench.load(task, DATA, fold=1)
    assert len(data) == sum(split.counts) == n
    targets = Path(DATA) / "matbench" / "targets" / f"matbench_{task}_targets.csv.gz"
    with gzip.open(targets, "rt") as stream:
        lines = stream.read().splitlines()[1:]
    assert len(lines) == matbench.n_total(task)
    for row, y in zip(data.ids, data.scalars["y"]):
        name, _, target = lines[row].split(",")
        assert name == matbench.official_id(task, row)
        assert float(target) == pytest.approx(y, abs=1e-9)
