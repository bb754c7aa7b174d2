"""Bad original files from the command line: exit code 2, one sentence that names the file, no half-written store."""

import re

import pytest

from jmp_lib.__main__ import main
from jmp_lib.data.store import open_store, verify
from tests.test_molecule_readers import write_ani, write_t1x

NAME = "transition1x"


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def page(path):
    path.write_text("<!DOCTYPE html><html>please sign in</html>")


def other_set(path):
    path.unlink()
    write_ani(path)


def header(path):
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(cut, "cut short|damaged|truncated"), (page, "web page"),
     (other_set, "has no group 'train'"), (header, "is not an HDF5"), (empty, "is empty")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_file_leaves_no_store(tmp_path, capsys, spoil, words):
    folder = tmp_path / "transition1x"
    folder.mkdir()
    path = folder / "Transition1x.h5"
    write_t1x(path)
    spoil(path)
    assert main(["data", "prepare", NAME, "--data-root", str(tmp_path)]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "Transition1x.h5" in line]
    assert len(said) == 1 and re.search(words, said[0]), said
    assert not (tmp_path / "stores" / NAME).exists()
    with pytest.raises(FileNotFoundError, match="prepare"):
        open_store(tmp_path / "stores" / NAME)


def test_the_good_file_makes_one(tmp_path):
    (tmp_path / "transition1x").mkdir()
    write_t1x(tmp_path / "transition1x" / "Transition1x.h5")
    assert main(["data", "prepare", NAME, "--data-root", str(tmp_path)]) == 0
    verify(open_store(tmp_path / "stores" / NAME))
