"""jmp_lib.load("jmp-s"): downloaded, imported, kept; the network is not asked twice."""

import functools
import http.server
import threading

import pytest
from official_files import checkpoint_of, official_model, write
from test_model import NARROW

import jmp_lib
from jmp_lib.official import importing as download
from jmp_lib.official.importing import import_checkpoint


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server of this machine in the place of the official one; returns the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    write(folder / "jmp-s.pt", checkpoint_of(official_model(NARROW)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows = [{"file": file, "url": f"http://127.0.0.1:{server.server_port}/{file}",
             "size_bytes": "", "md5": "", "sha256": ""} for file in ("jmp-s.pt", "jmp-l.pt")]
    monkeypatch.setattr(download, "downloads", lambda: rows)
    monkeypatch.setattr(download, "import_checkpoint", functools.partial(import_checkpoint, networks={"small": NARROW}))
    monkeypatch.setenv("JMP_DATA", str(tmp_path / "data"))
    yield folder
    server.shutdown()


def test_by_name(served, tmp_path):
    loaded = jmp_lib.load("jmp-s")
    assert loaded.path == tmp_path / "data" / "checkpoints" / "jmp-s" / "model.safetensors"
    assert loaded.info["weights"] == "official" and loaded.info["source"]["file"] == "jmp-s.pt"
    (served / "jmp-s.pt").unlink()
    assert jmp_lib.load("jmp-s").info == loaded.info
    with pytest.raises(RuntimeError, match="jmp-l.pt could not be downloaded .* put it at"):
        jmp_lib.load("jmp-l")
