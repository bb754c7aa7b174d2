"""Whole files only, hashes, locks, and errors as one sentence."""

import errno
import math
import os
import re
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from jmp_lib.__main__ import main
from jmp_lib.files import file_sha256, locked, reading, replacing, write_atomically, write_json
from jmp_lib.records import save_arrays
from jmp_lib.results import style
from jmp_lib.model.weights import write_tensors
from jmp_lib.train.saving import save_checkpoint


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


@contextmanager
def no_file_above(size: int):
    """Writing a file beyond ``size`` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_lock_is_held_once_and_does_not_stay(tmp_path, capsys):
    lock = tmp_path / "lock"
    with locked(lock), pytest.raises(RuntimeError, match="^somebody else has it$"):
        with locked(lock, "somebody else has it"):
            pass
    assert not lock.exists()
    lock.touch()  # its holder was killed
    with locked(lock, "free again"):
        pass
    inside, most = [], []

    def hold():
        with locked(lock, "busy: waiting", wait=True):
            inside.append(1)
            time.sleep(0.002)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=hold) for _ in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert most == [1] * 20 and not lock.exists() and "busy: waiting" in capsys.readouterr().err


def test_what_a_killed_writer_left_is_taken_over_and_two_writers_take_turns(tmp_path):
    (tmp_path / "a.txt.tmp").write_text("half of something longer")
    with write_atomically(tmp_path / "a.txt") as stream:
        stream.write("new")
    assert (tmp_path / "a.txt").read_text() == "new"

    def write(text):
        for _ in range(20):
            with write_atomically(tmp_path / "a.txt") as stream:
                stream.write(text)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ["a" * 100, "b" * 100, "c" * 100, "d" * 100]))
    assert len(set((tmp_path / "a.txt").read_text())) == 1 and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def writers(path):
    yield "text", lambda: write_json(path, ["a" * 9000])
    yield "numpy", lambda: save_arrays(path, a=np.random.default_rng(0).random(5000))
    yield "safetensors", lambda: write_tensors(path.with_suffix(""), {"a": torch.ones(5000)}, {})
    yield "torch", lambda: save_checkpoint(path, a=torch.ones(5000))
    yield "figure", lambda: style.save(style.new_figure()[0], path.parent, path.stem)


@pytest.mark.parametrize("kind", ["text", "numpy", "safetensors", "torch", "figure"])
def test_a_full_disk_is_one_sentence_whatever_a_library_says(tmp_path, kind):
    path = tmp_path / f"x{'.safetensors' if kind == 'safetensors' else '.svg'}"
    write = dict(writers(path))[kind]
    path.write_text("the old one")
    with pytest.raises(RuntimeError,
                       match=r"^cannot write \S+/x\.\w+: the file becomes larger than is allowed here; make room or "):
        with no_file_above(2000):
            write()
    assert {p.name for p in tmp_path.iterdir()} <= {path.name}
    assert max(tmp_path.iterdir()).read_text() == "the old one"


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "it is read-only"),
                                           (errno.EACCES, "writing there is not permitted")])
def test_what_the_disk_has_against_it_is_said(tmp_path, monkeypatch, number, words):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RuntimeError,
                       match=f"^cannot write {tmp_path}/a.json: {words}; make room or choose another place"):
        write_json(tmp_path / "a.json", 1)
    assert not list(tmp_path.iterdir())


def test_a_folder_or_a_file_in_the_way_is_said_before_anything_is_computed(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RuntimeError, match=f"^cannot write {tmp_path}/folder: a folder is in the way"):
        with write_atomically(tmp_path / "folder"):
            pytest.fail("computed")
    (tmp_path / "file").touch()
    for name in ("file/x.json", "file/new/x.json"):
        with pytest.raises(RuntimeError, match=f"^cannot write {tmp_path}/{name}: a file is in the way"):
            write_json(tmp_path / name, 1)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}
    # of a reading: as it is
    with pytest.raises(FileNotFoundError, match="other"), write_atomically(tmp_path / "x.json"):
        open(tmp_path / "other")


def test_the_command_says_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["tables", "--profile", "smoke", "--results-dir", str(tmp_path / "file")]) == 2
    assert re.fullmatch(r"error: cannot write \S+: a file is in the way; [^\n]*\n", capsys.readouterr().err)


def test_an_error_of_a_library_becomes_a_sentence(tmp_path):
    path = tmp_path / "x.bin"
    with pytest.raises(FileNotFoundError, match="x.bin is missing; get it$"), reading(path, "get it"):
        path.read_text()
    path.write_text("")
    with pytest.raises(ValueError, match=r"x.bin cannot be read \('no such key'\); get it$"), reading(path, "get it"):
        raise KeyError("no such key")
    with pytest.raises(ValueError, match="x.bin is empty$"), reading(path, "get it"):  # said already
        raise ValueError(f"{path} is empty")
    with pytest.raises(ValueError, match="asks for more memory than there is.*; get it$"), reading(path, "get it"):
        raise MemoryError
