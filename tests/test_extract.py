"""Unpacking archives: what is refused, and that nothing is left behind."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from jmp_lib.data import catalog as module
from jmp_lib.data.catalog import extract

FILES = {"set/a.txt": b"alpha" * 1000, "set/deep/b.bin": bytes(range(256)) * 40, "c": b""}


def make_tar(path, files=FILES, mode="w", special=None):
    with tarfile.open(path, mode) as archive:
        for name, contents in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(contents)
            archive.addfile(item, io.BytesIO(contents))
        if special:
            archive.addfile(special)
    return path


def make_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return path


MAKERS = {
    "x.tar": lambda p, f=FILES: make_tar(p, f), "x.tar.gz": lambda p, f=FILES: make_tar(p, f, "w:gz"),
    "x.tar.bz2": lambda p, f=FILES: make_tar(p, f, "w:bz2"), "x.tar.xz": lambda p, f=FILES: make_tar(p, f, "w:xz"),
    "x.zip": make_zip,
}  # fmt: skip


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", MAKERS)
def test_unpacks(tmp_path, name):
    MAKERS[name](tmp_path / name)
    found = extract(tmp_path / name, tmp_path / "out")
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in found} == FILES
    assert left(tmp_path / "out") == sorted(FILES) and module.is_archive(name) and not module.is_archive("x.npz")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("bad", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil"])
def test_paths_that_climb_out(tmp_path, name, bad):
    """A tar of such names is refused, or they are written inside the folder, as zipfile does."""
    MAKERS[name](tmp_path / name, {"good": b"x", bad: b"evil"})
    if name != "x.zip" and ".." in bad.split("/"):
        with pytest.raises(ValueError,
                           match=f"{name} cannot be read .*evil' would be extracted to .*outside the destination"):
            extract(tmp_path / name, tmp_path / "out")
        assert left(tmp_path) == [name]
    else:
        assert all(path.resolve().is_relative_to(tmp_path / "out")
                   for path in extract(tmp_path / name, tmp_path / "out"))
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", name])
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path, kind):
    item = tarfile.TarInfo("set/link")
    item.type, item.linkname = kind, "/etc/passwd"
    make_tar(tmp_path / "x.tar", special=item)
    with pytest.raises(ValueError, match="'set/link' is a link or a device"):
        extract(tmp_path / "x.tar", tmp_path / "out")
    assert left(tmp_path) == ["x.tar"]


def test_links_in_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        item = zipfile.ZipInfo("link")
        item.external_attr = 0o120777 << 16
        archive.writestr(item, "/etc/passwd")
    (made,) = extract(tmp_path / "x.zip", tmp_path / "out")
    assert not made.is_symlink() and made.read_text() == "/etc/passwd"  # a file with the name in it


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("how", ["cut", "flipped", "page"])
def test_damage(tmp_path, name, how):
    path = MAKERS[name](tmp_path / name)
    contents = bytearray(path.read_bytes())
    if how == "flipped":
        if name == "x.tar":
            contents[10] ^= 0xFF  # a header; the contents of a plain tar carry no sum
        else:
            contents[len(contents) // 3] ^= 0xFF
    page = b"<!DOCTYPE html><html>sign in</html>"
    path.write_bytes(page if how == "page" else contents[: int(len(contents) * 0.4)] if how == "cut" else contents)
    with pytest.raises(ValueError, match=f"{name} (cannot be read|is a web page)"):
        extract(path, tmp_path / "out")
    assert left(tmp_path) == [name]


def test_no_room_and_no_file(tmp_path, monkeypatch):
    make_tar(tmp_path / "x.tar")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(RuntimeError, match="x.tar needs .* GB more, .* GB free .*make room"):
        extract(tmp_path / "x.tar", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="y.tar is missing; remove it and download it again"):
        extract(tmp_path / "y.tar", tmp_path / "out")
    assert left(tmp_path) == ["x.tar"]


def test_a_folder_that_may_not_be_written_is_no_fault_of_the_archive(tmp_path):
    make_tar(tmp_path / "x.tar")
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(Exception, match="out.*a file is in the way") as caught:
        extract(tmp_path / "x.tar", tmp_path / "out")
    assert "download it again" not in str(caught.value)
