"""Whole files only, hashes, locks, and errors as one sentence."""

import math

import numpy as np
import pytest

from jmp_lib.files import file_sha256, locked, reading, replacing, write_atomically, write_json


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with write_atomically(path) as stream:
        stream.write("Å\n")
        assert not path.exists()
    assert path.read_bytes() == "Å\n".encode()
    with pytest.raises(RuntimeError), write_atomically(path, "wb") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == "Å\n".encode() and [p.name for p in path.parent.iterdir()] == ["a.txt"]
    with replacing(path) as temporary:
        temporary.write_text("b")
    assert path.read_text() == "b" and file_sha256(path).startswith("3e23e816")


def test_json_is_plain(tmp_path):
    write_json(tmp_path / "a.json", {1: (np.float32(0.5), math.inf), "b": np.int64(3), "c": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n "1": [\n  0.5,\n  null\n ],\n "b": 3,\n "c": null\n}\n'


def test_a_lock_is_held_once(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(RuntimeError, match="^somebody else has it$"):
        with locked(tmp_path / "lock", "somebody else has it"):
            pass
    with locked(tmp_path / "lock", "free again"):
        pass


def test_an_error_of_a_library_becomes_a_sentence(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(FileNotFoundError, match="x.bin is missing; get it$"), reading(path, "get it"):
        path.read_text()
    path.write_text("")
    with pytest.raises(ValueError, match=r"x.bin cannot be read \('no such key'\); get it$"), reading(path, "get it"):
        raise KeyError("no such key")
    with pytest.raises(ValueError, match="x.bin is empty$"), reading(path, "get it"):  # said already
        raise ValueError(f"{path} is empty")
    with pytest.raises(MemoryError), reading(path, "get it"):
        raise MemoryError
