"""environment.yml, pyproject.toml and the lock say the same, and the running environment is the locked one."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_WANTED = {"torch-scatter", "torch-sparse", "torch-cluster", "pyg-lib"}


def exact_pins(lines):
    """``name==version`` lines -> {canonical name: version}; anything that is not an exact pin fails the test."""
    pins = {}
    for line in lines:
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"not an exact pin: {line!r}"
        name = canonicalize_name(match[1])
        assert name not in pins, f"{name} is pinned twice"
        pins[name] = match[2]
    return pins


LOCK = exact_pins((ROOT / "requirements.lock").read_text().splitlines())
NODEPS = exact_pins((ROOT / "requirements-nodeps.txt").read_text().splitlines())


def conda_pip_lines():
    spec = yaml.safe_load((ROOT / "environment.yml").read_text())
    (section,) = [item["pip"] for item in spec["dependencies"] if isinstance(item, dict)]
    return spec, section


def direct_requirements():
    project = PROJECT["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def test_pyproject_dependencies_are_locked_at_fitting_versions():
    for name, requirement in direct_requirements().items():
        assert name in LOCK, f"{name} of pyproject.toml is missing from requirements.lock"
        assert requirement.specifier.contains(LOCK[name]), (f"requirements.lock has {name} "
                                                            f"{LOCK[name]}, not {requirement}")


def test_environment_yml_lists_the_same_packages_at_the_locked_versions():
    spec, section = conda_pip_lines()
    assert spec["name"] == PROJECT["project"]["name"]
    assert "python=3.11" in spec["dependencies"]
    assert section[0] == "-c requirements.lock"
    pins = exact_pins(section[1:])
    assert set(pins) == set(direct_requirements())
    assert pins == {name: LOCK[name] for name in pins}


def test_matbench_is_installed_without_dependencies_both_ways():
    declared = exact_pins(PROJECT["tool"]["jmp-workbook"]["without-dependencies"])
    assert NODEPS == declared == {"matbench": "0.6"}
    assert not set(NODEPS) & (set(LOCK) | set(direct_requirements()))
    step = "--no-deps -r requirements-nodeps.txt"
    assert step in (ROOT / "Makefile").read_text()
    assert step in (ROOT / "environment.yml").read_text()
    assert LOCK["matminer"] == "0.10.1" and Version(LOCK["pandas"]) < Version("3")


def test_torch_is_the_agreed_release_and_compiled_companions_are_absent():
    assert LOCK["torch"] == "2.13.0"
    assert str(direct_requirements()["torch"].specifier) == "==2.13.0"
    assert not NOT_WANTED & (set(LOCK) | set(direct_requirements()))


def test_installed_versions_match_the_lock():
    wrong = {}
    for name, version in {**LOCK, **NODEPS}.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "missing"
        if installed.split("+")[0] != version:  # torch's build label (+cpu) is not part of the pin
            wrong[name] = f"{installed} instead of {version}"
    assert not wrong, wrong


def test_lock_is_complete():
    """Every dependency of every locked package is installed in a version that the package accepts."""
    problems = []
    for name in LOCK:
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            try:
                installed = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                problems.append(f"{name} needs {need}, which is not installed")
                continue
            if not need.specifier.contains(installed, prereleases=True):
                problems.append(f"{name} needs {need}, but {installed} is installed")
    assert not problems, problems


def test_kernel_python3_is_this_interpreter():
    from jupyter_client import KernelManager

    assert KernelManager(kernel_name="python3").format_kernel_cmd()[0] == sys.executable


@pytest.mark.filterwarnings("ignore")
def test_matbench_serves_its_official_folds_with_current_packages():
    from matbench.bench import MatbenchBenchmark

    benchmark = MatbenchBenchmark(subset=["matbench_jdft2d"], autoload=False)
    (task,) = benchmark.tasks
    folds = task.validation
    assert len(task.folds) == len(folds) == 5
    assert [(len(fold["train"]), len(fold["test"])) for fold in folds.values()] == [(508, 128)] + 4 * [(509, 127)]
