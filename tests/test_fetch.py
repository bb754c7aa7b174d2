"""Downloads against a server on this machine that breaks off, lies, changes its file or answers with a page."""

import errno
import hashlib
import json
import threading
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from jmp_lib.data import catalog as module
from jmp_lib.data.catalog import Source, fetch
from jmp_lib.files import locked

DATA = np.random.default_rng(0).bytes(300_000)
MD5, SHA = "md5:" + hashlib.md5(DATA).hexdigest(), "sha256:" + hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """What it answers is set by the test: data, break_after (bytes of each answer), ranges, kind, status, etag."""

    def __init__(self):
        self.data, self.break_after, self.ranges, self.kind, self.status, self.etag = (
            DATA, None, True, None, None, '"1"')
        self.asked: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name="file.bin"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and self.headers.get("If-Range") not in (None, server.etag):
            start = 0
        if start >= len(server.data) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", server.kind or "application/octet-stream")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(body[: server.break_after])
        self.wfile.flush()
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_WAIT", 0.0)
    monkeypatch.setattr(module, "CHUNK", 1000)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
        yield running
        running.shutdown()


def get(path, *sources):
    return fetch(path, list(sources), progress=False)


def left(folder):
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


@pytest.mark.parametrize("checksum", [MD5, SHA])
def test_whole_file_and_not_again(tmp_path, server, checksum):
    path = tmp_path / "sub" / "file.bin"
    source = Source(server.url(), checksum, len(DATA))
    assert get(path, source).read_bytes() == DATA and get(path, source) == path
    assert server.asked == [None] and left(path.parent) == ["file.bin"]


def test_connection_that_breaks_off(tmp_path, server):
    server.break_after = 70_000
    assert get(tmp_path / "file.bin", Source(server.url(), MD5)).read_bytes() == DATA
    assert server.asked == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"]
    assert left(tmp_path) == ["file.bin"]


def test_goes_on_in_a_later_run(tmp_path, server, monkeypatch):
    server.break_after = 70_000
    monkeypatch.setattr(module.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path / "file.bin", Source(server.url(), MD5))
    assert left(tmp_path) == ["file.bin.partial", "file.bin.partial.json"]
    server.break_after = None
    assert get(tmp_path / "file.bin", Source(server.url(), MD5)).read_bytes() == DATA
    assert server.asked == [None, "bytes=70000-"] and left(tmp_path) == ["file.bin"]


def begin(folder, server, part, etag='"1"', total=None):
    (folder / "file.bin.partial").write_bytes(part)
    (folder / "file.bin.partial.json").write_text(json.dumps({"url": server.url(), "etag": etag, "total": total}))


def test_partial_of_another_version_or_address_is_dropped(tmp_path, server):
    begin(tmp_path, server, b"x" * 1000, etag='"old"')
    assert get(tmp_path / "file.bin", Source(server.url(), MD5)).read_bytes() == DATA
    (tmp_path / "file.bin").unlink()
    begin(tmp_path, server, b"x" * 1000)
    assert get(tmp_path / "file.bin", Source(server.url("mirror"), MD5)).read_bytes() == DATA
    (tmp_path / "file.bin").unlink()
    begin(tmp_path, server, b"x" * 400_000)  # longer than the file
    assert get(tmp_path / "file.bin", Source(server.url(), MD5)).read_bytes() == DATA


def test_complete_partial_and_server_without_ranges(tmp_path, server):
    begin(tmp_path, server, DATA, total=len(DATA))
    assert get(tmp_path / "file.bin", Source(server.url(), MD5)).read_bytes() == DATA
    (tmp_path / "file.bin").unlink()
    begin(tmp_path, server, DATA[:1000])
    server.ranges = False
    assert get(tmp_path / "file.bin", Source(server.url(), MD5)).read_bytes() == DATA


def test_gives_up_without_progress(tmp_path, server):
    server.break_after = 0
    with pytest.raises(RuntimeError,
                       match="file.bin could not be downloaded from http.*; get it by other means and put"):
        get(tmp_path / "file.bin", Source(server.url(), MD5))
    assert len(server.asked) == module.TRIES and "file.bin" not in left(tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"data": DATA[:-1] + b"?"}, "has not the published checksum md5:.*thrown away"),
        ({"data": b"<!DOCTYPE html><p>sign in", "kind": "text/html; charset=utf-8"}, "answers with a web page"),
        ({"data": b"  <html><p>sign in"}, r"file.bin.partial is a web page \(html\), not file.bin"),
        ({"data": b""}, "file.bin.partial is empty"),
        ({"status": 404}, "the server answers 404 Not Found"),
    ],
)
def test_what_is_not_the_file(tmp_path, server, change, words):
    for key, value in change.items():
        setattr(server, key, value)
    for checksum in (MD5, None) if "checksum" not in words else (MD5,):
        with pytest.raises(RuntimeError, match=words):
            get(tmp_path / "file.bin", Source(server.url(), checksum))
        assert [name for name in left(tmp_path) if "partial.json" not in name] == []


def test_mirrors_are_tried_in_turn(tmp_path, server):
    dead = Source("http://127.0.0.1:9/file.bin", MD5)
    assert get(tmp_path / "file.bin", dead, Source(server.url(), MD5)).read_bytes() == DATA
    with pytest.raises(RuntimeError, match="from http://127.0.0.1:9/.*no connection.* nor from http://127.0.0.1:9/"):
        get(tmp_path / "other.bin", dead, dead)


def test_damaged_file_that_is_there(tmp_path, server):
    (tmp_path / "file.bin").write_bytes(DATA[:1000])
    with pytest.raises(ValueError,
                       match="has not the published checksum md5.*damaged or another version; move it away"):
        get(tmp_path / "file.bin", Source(server.url(), MD5))
    assert server.asked == []


def test_two_downloads_at_once(tmp_path, server):
    with locked(f"{tmp_path / 'file.bin'}.lock"):
        with pytest.raises(RuntimeError, match="another process is downloading"):
            get(tmp_path / "file.bin", Source(server.url(), MD5))


def test_too_small_a_disk(tmp_path, server, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": module.SPARE + 1000}))
    with pytest.raises(RuntimeError, match="file.bin needs 0.00 GB more, .* GB free .*make room"):
        get(tmp_path / "file.bin", Source(server.url(), MD5))
    assert left(tmp_path) == []


def test_disk_that_fills_up(tmp_path, server, monkeypatch):
    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "open",
                        lambda path, mode: Full() if mode in ("ab", "wb") else open(path, mode), raising=False)
    with pytest.raises(RuntimeError, match="cannot write .*file.bin.partial: the disk is full"):
        get(tmp_path / "file.bin", Source(server.url(), MD5))
    assert "file.bin" not in left(tmp_path)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="cannot write .*: a file is in the way; make room or choose another place"):
        get(tmp_path / "file" / "sub" / "file.bin", Source("http://127.0.0.1:9/", MD5))


def test_why_a_source_fails_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WAIT", 0.0)
    monkeypatch.setattr(module.requests, "get", lambda *_, **__: (_ for _ in ()).throw(
        module.requests.exceptions.SSLError("certificate\nexpired")))
    with pytest.raises(RuntimeError,
                       match=r"b.bin could not be downloaded from https://here \(certificate expired\); get it"):
        fetch(tmp_path / "b.bin", [Source("https://here")])
    answer = SimpleNamespace(status_code=206, headers={})
    monkeypatch.setattr(module.requests, "get", lambda *_, **__: nullcontext(answer))
    with pytest.raises(RuntimeError,
                       match=r"from https://here \(the part at hand does not fit the file on the server\); get it"):
        fetch(tmp_path / "b.bin", [Source("https://here")])
