"""Files of structures that are damaged or something else."""

import ase.io
import pytest
from ase.build import bulk, molecule

from jmp_lib.data.exchange import iter_atoms


def test_damaged_and_foreign_files(tmp_path):
    ase.io.write(tmp_path / "s.extxyz", [molecule("CH3CH2OH")] * 9)
    text = (tmp_path / "s.extxyz").read_text()
    (tmp_path / "cut.extxyz").write_text(text[: int(len(text) * 0.7)])
    (tmp_path / "page.extxyz").write_text("<html>\n<body>sign in</body>\n")
    (tmp_path / "empty.extxyz").write_text("")
    (tmp_path / "page.db").write_text("<html>\n<body>sign in</body>\n" * 100)
    for name in ("cut.extxyz", "page.extxyz", "empty.extxyz"):
        with pytest.raises(ValueError, match=f"{name}(: frame| is a web page| is empty)"):
            list(iter_atoms(tmp_path / name))
    with pytest.raises(ValueError, match="page.db is a web page"):
        list(iter_atoms(tmp_path / "page.db"))
    with pytest.raises(FileNotFoundError, match="none.db is missing"):
        list(iter_atoms(tmp_path / "none.db"))


@pytest.mark.parametrize("name", ["XDATCAR", "XDATCAR.gz"])
def test_files_of_vasp_without_an_ending(tmp_path, name):
    frames = [bulk("NaCl", "rocksalt", a=5.64, cubic=True) for _ in range(3)]
    ase.io.write(tmp_path / name, frames, format="vasp-xdatcar")
    assert [len(atoms) for atoms in iter_atoms(tmp_path / name)] == [8, 8, 8]
