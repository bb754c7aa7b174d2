"""Stores to extended XYZ and back, to the last digit."""

import ase.io
import numpy as np
import pytest

from jmp_lib.data.exchange import read_atoms, read_extxyz, write_extxyz
from jmp_lib.data.store import Part, file_part, write_store
from tests.structures import random_molecule, skewed_crystal, slab


def labelled() -> list[dict]:
    """Numbers with many digits; targets whose names are element symbols; a text with a space and a quote."""
    made = []
    for i in range(9):
        base = [random_molecule(5, seed=i), skewed_crystal(seed=i), slab(seed=i)][i % 3]
        rng = np.random.default_rng(i)
        made.append({
            **base, "fixed": base["tags"] == 0, "pos": base["pos"] * np.float32(1 / 3),
            "forces": (rng.normal(size=base["pos"].shape) * 10.0 ** rng.integers(-6, 3)).astype(np.float32),
            "energy": float(rng.normal() * 1e5), "U": float(rng.normal()), "H": 1 / 3, "id": 11 * i,
            "group": f'a "b" {i % 2}', "sid": f"random{i}",
        })  # fmt: skip
    return made


def test_there_and_back(tmp_path):
    name = "s.extxyz"
    store = write_store(tmp_path / "s", [Part("f", labelled().__iter__)], name="s", chunk_bytes=1000)
    assert write_extxyz(tmp_path / name, store) == 9
    again = write_store(tmp_path / "t", [file_part(read_extxyz, tmp_path / name)], name="s", chunk_bytes=1000)
    for found, expected in zip(again, store, strict=True):
        assert set(found.keys()) == set(expected.keys())
        for key, value in expected:
            assert np.array_equal(found[key], value), key
    assert again.sha256 == store.sha256
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["s", name, "t"]


def test_ase_reads_what_is_written(tmp_path):
    write_extxyz(tmp_path / "s.extxyz", labelled())
    frames = ase.io.read(tmp_path / "s.extxyz", ":")
    for atoms, structure in zip(frames, labelled(), strict=True):
        assert atoms.get_potential_energy() == structure["energy"]
        assert np.allclose(atoms.get_forces(apply_constraint=False), structure["forces"], rtol=1e-7, atol=0)
        assert atoms.pbc.tolist() == structure["pbc"].tolist() and (atoms.get_tags() == structure["tags"]).all()


def test_a_writer_that_is_stopped_leaves_no_file(tmp_path):
    def stops():
        yield labelled()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_extxyz(tmp_path / "s.extxyz", stops())
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files(tmp_path):
    write_extxyz(tmp_path / "s.extxyz", labelled())
    text = (tmp_path / "s.extxyz").read_text()
    (tmp_path / "cut.extxyz").write_text(text[: int(len(text) * 0.7)])
    (tmp_path / "page.extxyz").write_text("<html>\n<body>sign in</body>\n")
    (tmp_path / "empty.extxyz").write_text("")
    (tmp_path / "page.db").write_text("<html>\n<body>sign in</body>\n" * 100)
    for name in ("cut.extxyz", "page.extxyz", "empty.extxyz"):
        with pytest.raises(ValueError, match=f"{name}(: frame| is a web page| is empty)"):
            list(read_extxyz(tmp_path / name))
    with pytest.raises(ValueError, match="page.db is a web page"):
        read_atoms(tmp_path / "page.db")
    with pytest.raises(FileNotFoundError, match="none.db is missing"):
        read_atoms(tmp_path / "none.db")
