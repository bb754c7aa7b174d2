"""JupyterLab for real: a browser opens notebooks, runs all their cells and sees no error. Run it with `make lab-test`.

The name keeps it out of `make test`: it needs chromium, chromedriver and selenium (Debian: apt-get install chromium
chromium-driver; the Makefile installs selenium) and takes a few minutes. Copies of the notebooks with the parameters
of the smoke profile lie in a temporary folder, away from the checkout. Screenshots go to JMP_SCREENSHOTS, else to
results/smoke/lab.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: make lab-test installs it")

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = Path(os.environ.get("JMP_SCREENSHOTS") or ROOT / "results" / "smoke" / "lab")
NOTEBOOKS = [path for number in ("00", "02", "03", "05", "14")
             for path in sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000")
MINUTES = float(os.environ.get("JMP_LAB_MINUTES", 15))  # per notebook; a slow machine may need more

pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no chromium or chrome here: apt-get install chromium chromium-driver"),
    pytest.mark.skipif(not DRIVER, reason="no chromedriver here: apt-get install chromium-driver"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with copies of the notebooks whose parameters cell says smoke and where the results go."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        cell.source = re.sub(r"^profile = .*$", 'profile = "smoke"', cell.source, flags=re.MULTILINE)
        cell.source = re.sub(r'^results_dir = .*$', f'results_dir = "{folder / "results"}"', cell.source,
                             flags=re.MULTILINE)
        nbformat.write(notebook, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def lab(folder, tmp_path_factory):
    """Address and token of a JupyterLab that serves the folder, with settings of its own (no question about news)."""
    private = tmp_path_factory.mktemp("jupyter")
    settings = private / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {name: str(private / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(private / "settings")
    environment = {**os.environ, **own, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(ROOT), "JUPYTER_TOKEN": token}
    with open(private / "lab.log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
                                   f"--port={port}", "--ServerApp.port_retries=0", f"--notebook-dir={folder}",
                                   "--LabApp.expose_app_in_browser=True"],
                                  env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(f"{address}/api/status?token={token}"), 120, "JupyterLab to start", server, private)
        yield address, token
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless browser with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_notebook_runs_in_jupyterlab(name, folder, lab, browser):
    address, token = lab
    browser.get(f"{address}/lab/workspaces/{name[:2]}/tree/{name}?token={token}&reset")
    _until(lambda: browser.execute_script(READY), 120, "the notebook and its kernel")
    assert browser.execute_script(KERNEL) == "python3"
    browser.execute_script(RUN_ALL)
    _until(lambda: browser.execute_script("return window.jmpDone"), 60 * MINUTES, f"all cells of {name}")
    assert browser.execute_script("return window.jmpDone") == "ran"
    browser.execute_script("window.jmpSaved = false; jupyterapp.commands.execute('docmanager:save')"
                           ".then(() => { window.jmpSaved = true; });")
    _until(lambda: browser.execute_script("return window.jmpSaved"), 60, "the saved notebook")
    notebook = nbformat.read(folder / name, as_version=4)
    pictures = _screenshots(browser, notebook, Path(name).stem)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr" and not _is_progress(o.text)]
    assert not errors, f"{errors}\nscreenshots: {pictures}"
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"), "every cell has run"
    shown = [o for o in outputs if "image/png" in o.get("data", {})]
    assert bool(shown) == (name[:2] != "00"), "figures are shown in the notebook"
    kept = (folder / "results").rglob("*.png" if name[:2] == "14" else f"{name[:2]}_*.png")
    assert bool(list(kept)) == bool(shown), "and saved under results_dir, not under the working directory"
    assert {p.suffix for p in folder.glob("*") if p.is_file()} <= {".ipynb"}, "nothing beside the notebooks"


READY = """
const panel = window.jupyterapp && jupyterapp.shell.currentWidget;
const kernel = panel && panel.sessionContext && panel.sessionContext.session && panel.sessionContext.session.kernel;
return Boolean(kernel && kernel.status === 'idle' && panel.context.isReady);
"""
KERNEL = "return jupyterapp.shell.currentWidget.sessionContext.session.kernel.name"
RUN_ALL = """
window.jmpDone = '';
jupyterapp.commands.execute('notebook:run-all-cells').then(
  () => { window.jmpDone = 'ran'; }, (reason) => { window.jmpDone = 'failed: ' + reason; });
"""


def _is_progress(text: str) -> bool:
    """Whether a text on stderr is the bars of tqdm and nothing else."""
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return all(re.search(r"\d+%\||\d+(\.\d+)?(it|update|run)", line) for line in lines)


def _screenshots(browser, notebook, stem: str) -> list[str]:
    """The top, every cell with a figure or a progress bar, and the end of the notebook, as PNG."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    shown = [i for i, cell in enumerate(notebook.cells) for o in cell.get("outputs", [])
             if "image/png" in o.get("data", {}) or o.get("name") == "stderr"]
    wanted, files = [0, *shown, len(notebook.cells) - 1], []
    for index in dict.fromkeys(wanted):
        browser.execute_script("const list = jupyterapp.shell.currentWidget.content; "
                               "list.activeCellIndex = arguments[0];"
                               "list.scrollToItem(arguments[0], arguments[0] ? 'end' : 'start');", index)
        time.sleep(1.0)  # the list draws the cells that come into view
        files.append(str(SCREENSHOTS / f"{stem}_cell{index:02d}.png"))
        browser.save_screenshot(files[-1])
    return files


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _until(condition, seconds: float, what: str, server=None, private: Path | None = None) -> None:
    """Waits for a true condition; fails with what was waited for, and the server's log where it has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if server is not None and server.poll() is not None:
            pytest.fail(f"JupyterLab ended while waiting for {what}:\n{(private / 'lab.log').read_text()[-2000:]}")
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.5)
