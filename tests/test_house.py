"""The package as a house: imports run one way, and what starts quickly imports nothing large."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jmp_lib"


def imports() -> dict[str, set[str]]:
    """Module -> modules of jmp_lib that it imports, at its top or inside a function."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in PACKAGE.rglob("*.py")}
    edges: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.rsplit(".", node.level - 1)[0] if node.level else ""
                module = ".".join(part for part in (above, node.module or "") if part)
                found = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            else:
                continue
            edges[name] |= {f for f in found if f in files and f != name and files[f].name != "__init__.py"}
    return edges


def test_no_import_circles_not_even_inside_functions():
    edges = imports()

    def reachable(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for other in edges[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    assert not [name for name in edges if name in reachable(name)]


# What a room may import. Whoever needs an arrow that is not here puts the code into another room.
BASE = {"paths", "units", "files", "facts"}
ROOMS = {
    "model": {"graphs", *BASE},
    "graphs": {"model", *BASE},
    "data": {"graphs", *BASE},
    "settings": {"data", "graphs", "model", *BASE},
    "train": {"data", "graphs", "model", "settings", "records", *BASE},
}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_arrows_run_from_the_story_to_the_atoms():
    """notebooks -> results, own -> train -> data -> graphs, model: never back up."""
    back = {(name, other) for name, others in imports().items() for other in others
            if room(name) in ROOMS and room(other) not in {room(name), *ROOMS[room(name)]}}
    assert not back


def test_the_package_never_imports_the_tools():
    assert not [path for path in PACKAGE.rglob("*.py") if "import tools" in (text := path.read_text(encoding="utf-8")) or "from tools" in text]


def modules_after(code: str) -> set[str]:
    text = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_and_help_wait_for_nothing_large():
    large = {"torch", "torch_geometric", "pandas", "matplotlib", "h5py", "ase", "pydantic", "lightning_fabric"}
    assert not modules_after("import jmp_lib") & large
    assert not modules_after("from jmp_lib.__main__ import parser\nparser().format_help()") & large


def test_reading_a_profile_opens_no_reader_of_a_data_set():
    assert not modules_after("from jmp_lib.settings import load_profile\nload_profile('mini')") & {"h5py", "ase", "lmdb"}


def test_packages_that_the_user_named_are_used():
    named = {"torch", "torch_geometric", "papermill", "matplotlib", "seaborn", "ase", "pandas", "matbench"}
    found = {alias for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             for alias in ([a.name.split(".")[0] for a in node.names] if isinstance(node, ast.Import)
                           else [(node.module or "").split(".")[0]] if isinstance(node, ast.ImportFrom) and not node.level else [])}
    assert named <= found
