"""Imports run one way and in no circle, also those inside functions and for type checking;
starting imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import networkx
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jmp_lib"
# room -> rooms whose files it may import; files of the package's own folder that are no room are below
LOWER = ("", "files", "paths", "units", "parameters", "facts")  # "": the package itself
ROOMS = {
    "graphs": (), "model": (), "data": ("graphs",), "settings": ("data", "graphs", "model"),
    "official": ("data", "model", "settings"),
    "train": ("data", "graphs", "model", "official", "settings", "records", "pool"),
    "results": ("data", "graphs", "model", "settings", "train", "records", "pool"),
    "own": ("data", "graphs", "model", "settings", "train", "results", "predict", "calculator", "records", "pool"),
}


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("jmp_lib", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> networkx.DiGraph:
    """Importing module -> imported module, inside functions and for type checking alone too."""
    known, graph = modules(), networkx.DiGraph()
    graph.add_nodes_from(known)
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                graph.add_edges_from((name, alias.name) for alias in node.names if alias.name in known)
            elif isinstance(node, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
                module = ".".join(filter(None, [base, node.module]))
                for alias in node.names:
                    target = f"{module}.{alias.name}" if f"{module}.{alias.name}" in known else module
                    if target in known and target != name:
                        graph.add_edge(name, target)
    return graph


def test_there_is_no_circle():
    assert list(networkx.simple_cycles(imports())) == []


def test_rooms_import_only_what_lies_below():
    assert networkx.is_directed_acyclic_graph(networkx.DiGraph(ROOMS))
    wrong = []
    for importing, imported in imports().edges:
        room, target = (name.split(".")[1] if "." in name else "" for name in (importing, imported))
        if room in ROOMS and target not in (room, *LOWER, *ROOMS[room]):
            wrong.append(f"{importing} -> {imported}")
    assert wrong == []


@pytest.mark.parametrize("code", ["import jmp_lib", "from jmp_lib.__main__ import parser; parser()"])
def test_what_is_heavy_waits_until_it_is_used(code):
    heavy = ("torch", "torch_geometric", "pydantic", "pandas", "ase", "h5py", "matplotlib")
    done = subprocess.run([sys.executable, "-c",
                           f"import sys; {code}; print([m for m in {heavy} if m in sys.modules])"],
                          cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def imported_packages() -> set[str]:
    """First names of everything that some file of the package imports."""
    found = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def test_the_package_uses_what_it_is_built_on_and_never_its_tools():
    found = imported_packages()
    assert {"torch", "torch_geometric", "papermill", "matplotlib", "seaborn", "ase", "pandas", "matbench"} <= found
    assert "tools" not in found and "tests" not in found
