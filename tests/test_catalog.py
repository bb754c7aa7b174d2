"""The list of data sets, downloads that are unpacked, and stores made of original files."""

import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jmp_lib.__main__ import main
from jmp_lib.data import catalog, cli, qmof, rmd17
from jmp_lib.data.tasks import FAMILIES
from jmp_lib.data.catalog import Source
from jmp_lib.data.store import open_store
from tests.test_fetch import server  # noqa: F401  (a fixture)

DATA = os.environ.get("JMP_DATA", "").partition(os.pathsep)[0]  # the first, where there are several folders
needs_data = pytest.mark.skipif(not DATA, reason="JMP_DATA names no folder with published files")


def test_every_file_has_addresses_and_the_whole_study_is_covered():
    names = catalog.entries()
    for one in names.values():
        for file in one.files:
            assert one.sources(file) and all(source.url.startswith("http") for source in one.sources(file)), file
        assert one.size and one.licence and one.citation
    pretraining = {row["file"] for row in catalog.downloads() if row["use"] == "pre-training"}
    assert pretraining <= {file for one in names.values() for file in one.files}
    for family in tuple(FAMILIES):
        assert any(name.startswith(family) for name in names)
    assert len([name for name in names if name.startswith("matbench")]) == 8


def test_facts_reach_the_sources():
    (ani,) = catalog.entry("ani1x").sources("ani1x-release.h5")
    assert ani.size == 5590846027 and ani.checksum.startswith("sha256:fe0ba061")
    (spice,) = catalog.entry("spice-dipeptides").sources("SPICE-1.1.4.hdf5")
    assert spice.url == "https://zenodo.org/records/8222043/files/SPICE-1.1.4.hdf5?download=1"
    assert spice.checksum == "md5:f27d4c81da0e37d6547276bf6b4ae6a1"
    # not those of version 1
    assert not any(source.checksum for source in catalog.entry("rmd17").sources("rmd17.tar.bz2"))
    assert catalog.entry("oc20-2m").size == "3.4G (17G unpacked)"
    with pytest.raises(ValueError, match="the nearest valid name is 'matbench-phonons'"):
        catalog.entry("matbench-phonon")


def test_download_unpacks_archives_in_archives_once(tmp_path, monkeypatch, server):  # noqa: F811
    with zipfile.ZipFile(tmp_path / "qmof_database.zip", "w") as archive:
        archive.writestr("qmof_database/qmof.json", "[]")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "qmof_database.zip", "qmof_database.zip")
    server.data = (tmp_path / "outer.zip").read_bytes()
    dead = Source("http://127.0.0.1:9/13147324.zip")
    monkeypatch.setattr(catalog.Entry, "sources", lambda self, file: [dead, Source(server.url(file))])
    root = tmp_path / "root"
    found = cli.download("qmof", root, progress=False)
    assert [str(path.relative_to(root)) for path in found] == ["qmof/qmof_database/qmof.json"]
    assert qmof.find("", root) == found
    changed = found[0].stat().st_mtime_ns
    assert cli.download("qmof", root, progress=False)[0].stat().st_mtime_ns == changed and len(server.asked) == 1
    server.status = 404
    (root / "qmof" / "13147324.zip").unlink()
    with pytest.raises(RuntimeError, match="13147324.zip could not be downloaded.*no connection.* nor from .*404"):
        cli.download("qmof", root, progress=False)


def test_an_archive_is_unpacked_where_its_reader_looks(tmp_path, monkeypatch, server):  # noqa: F811
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with tarfile.open(tmp_path / "rmd17.tar.bz2", "w:bz2") as archive:
        archive.add(tmp_path / "x.npz", "rmd17/npz_data/rmd17_ethanol.npz")
    server.data = (tmp_path / "rmd17.tar.bz2").read_bytes()
    monkeypatch.setattr(catalog.Entry, "sources", lambda self, file: [Source(server.url(file))])
    found = cli.download("rmd17", tmp_path / "root", progress=False)
    assert [str(path.relative_to(tmp_path / "root")) for path in found] == ["rmd17/rmd17/npz_data/rmd17_ethanol.npz"]
    assert rmd17.find("ethanol", tmp_path / "root") == found


@needs_data
def test_a_large_file_serves_the_part_it_has(tmp_path, monkeypatch, server):  # noqa: F811
    original = next(Path(DATA).glob("spice/SPICE_solvated_amino_acids.hdf5"))
    server.data = original.read_bytes()
    monkeypatch.setattr(catalog.Entry, "sources", lambda self, file: [Source(server.url(file))])
    found = cli.download("spice-solvated-amino-acids", tmp_path, progress=False)
    assert [path.name for path in found] == ["SPICE-1.1.4.hdf5"]
    assert len(cli.prepare("spice-solvated-amino-acids", tmp_path, progress=False)[0]) == 1300
    with pytest.raises(ValueError, match="has no conformation of dipeptides"):
        cli.prepare("spice-dipeptides", tmp_path, progress=False)


def linked(tmp_path, *folders):
    for folder in folders:
        (tmp_path / folder).symlink_to(Path(DATA) / folder)
    return tmp_path


@needs_data
def test_stores_of_published_files(tmp_path):
    root = linked(tmp_path, "spice", "matbench", "oc20")
    spice = cli.prepare("spice-solvated-amino-acids", root, progress=False)[0]
    assert len(spice) == 1300 and {"energy", "formation_energy", "forces"} <= set(spice.labels)
    assert spice.about["card"]["licence"] == "CC0" and spice.about["rejected"] == {}
    phonons = cli.prepare("matbench-phonons", root, progress=False)[0]
    assert len(phonons) == 1265 and phonons[0].pbc.all() and phonons.labels == ["y"]
    assert [s["id"] for s in phonons] == list(range(1265))
    table = cli.table(root).set_index("name")
    assert table.loc["matbench-phonons", "present"] == "1 file, 1 store"
    assert table.loc["md22", "present"] == "no"


def test_what_is_left_out_by_reader_or_checks_is_counted(tmp_path, monkeypatch):
    from jmp_lib.data import oc22
    from tests.test_store_writer import good

    def read(path, *, rejected):
        for i, structure in enumerate(good(8)):
            if i in (2, 3):
                rejected.append(f"{path}, frame {i}: no labels")
            else:
                yield {**structure, "energy": np.nan} if i == 5 else structure

    monkeypatch.setattr(oc22, "read", read)
    (tmp_path / "oc22" / "train").mkdir(parents=True)
    (tmp_path / "oc22" / "train" / "data.0000.lmdb").write_text("x")
    store = cli.prepare("oc22", tmp_path, progress=False)[0]
    assert ([s["id"] for s in store] == [0, 1, 4, 6, 7] and store.about["rejected"]["no labels"] == 2
            and sum(store.about["rejected"].values()) == 3)


def test_command_line(tmp_path, capsys):
    assert cli.table(tmp_path)["present"].tolist() == ["no"] * len(catalog.entries())
    assert main(["data", "list", "--data-root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "qm9-mini" in printed and "Smith et al." in printed
    assert main(["data", "prepare", "qmof", "--data-root", str(tmp_path)]) == 2
    assert "or run `python -m jmp_lib data download qmof`" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@needs_data
def test_command_line_prepares(tmp_path, capsys):
    root = linked(tmp_path, "matbench")
    arguments = ["data", "prepare", "matbench-phonons", "--data-root", str(root)]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "1265 structures" in first and open_store(root / "stores" / "matbench-phonons").sha256 in first
    assert main(arguments) == 0 and capsys.readouterr().out == first


def test_the_list_has_every_set_of_the_study():
    """OC20 200K, 2M, 20M, all; OC22; ANI-1x; Transition-1x; QM9; rMD17; MD22; SPICE (2); MatBench (8); QMOF."""
    found = {name: one.dataset for name, one in catalog.entries().items()}
    assert {name for name, dataset in found.items() if dataset == "OC20"} >= {
        f"oc20-{s}" for s in ("200k", "2m", "20m", "all")}
    assert len(set(found.values())) == 10
    assert sum(dataset == "MatBench" for dataset in found.values()) == 8
    assert sum(dataset == "SPICE" for dataset in found.values()) == 2
