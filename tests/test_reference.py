"""Against stored results of the official network where they are at hand, and against our own always."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from structures import methanol, random_molecule, skewed_crystal, slab
from test_model import NARROW

from jmp_lib.graphs import GraphConfig, build_graphs, collate
from jmp_lib.model import PretrainModel
from jmp_lib.model.scaling import scale_modules
from tools.reference_check import check_width, main, recipe_weights

FROZEN = Path(__file__).parent / "frozen_outputs.json"


@pytest.fixture(scope="module")
def reference() -> Path:
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: stored results of the official network are not at hand")
    return Path(folder)


def test_narrow_network_equals_the_official_one(reference, capsys):
    """All structures, single and batched, float64 and float32, graphs included."""
    count, good = check_width(reference, "tiny")
    assert good, capsys.readouterr().out
    assert count >= 18


def test_published_width_equals_the_official_one(reference, tmp_path, capsys):
    """JMP-S with generated weights on the molecule and the crystal (the command checks all of them)."""
    for name in ("golden_jmp_s_quartz.npz", "golden_jmp_s_paracetamol.npz", "golden_tiny_quartz.npz",
                 "golden_tiny_paracetamol.npz", "scale_factors_small.json"):  # fmt: skip
        shutil.copy(reference / name, tmp_path)
    count, good = check_width(tmp_path, "jmp_s")
    assert good, capsys.readouterr().out
    assert count == 4


def test_a_wrong_number_is_noticed(reference, tmp_path, capsys):
    for name in ("golden_tiny_quartz.npz", "golden_tiny_config.json", "golden_tiny_weights.safetensors"):
        shutil.copy(reference / name, tmp_path)
    data = dict(np.load(tmp_path / "golden_tiny_quartz.npz"))
    data["f64_energy"] = data["f64_energy"] * (1 + 1e-6)
    np.savez(tmp_path / "golden_tiny_quartz.npz", **data)
    assert main([str(tmp_path)]) == 1
    assert "PAST THE LIMIT: energy" in capsys.readouterr().out


def test_a_folder_without_results_is_an_error(tmp_path, capsys):
    for folder, words in ((tmp_path, "holds no golden"), (tmp_path / "absent", "is not a folder")):
        assert main([str(folder)]) == 2 and words in capsys.readouterr().err


def frozen_cases() -> dict:
    """Outputs of the narrow network with generated weights on structures made here."""
    model = PretrainModel(NARROW)
    recipe_weights(model)
    for number, module in enumerate(scale_modules(model).values()):
        module.set(0.8 + 0.05 * (number % 7))
    model = model.double().eval()
    results = {}
    for name, structure, config in (
        ("molecule", random_molecule(), GraphConfig(6.0, 30, False)),
        ("methanol", methanol(), GraphConfig(8.0, 30, False)),
        ("crystal", skewed_crystal(), GraphConfig(6.0, 12, True)), ("slab", slab(), GraphConfig(6.0, 12, True)),
    ):  # fmt: skip
        batch = collate([{**structure, "graphs": build_graphs(structure, config)}])
        pos = batch["pos"].double().requires_grad_()
        out = model(batch, pos)
        gradient = torch.autograd.grad(out["energy"][:, 0].sum(), pos)[0]
        results[name] = {
            "energy": out["energy"][0].tolist(), "forces": out["forces"][:2, :, 1].flatten().tolist(),
            "gradient": gradient[:2].flatten().tolist(), "edges": len(out["x_f"]),
        }  # fmt: skip
    return results


def test_outputs_are_those_of_the_verified_network():
    """frozen_outputs.json was written by this network after it had passed tools/reference_check.py."""
    stored = json.loads(FROZEN.read_text())
    for name, values in frozen_cases().items():
        for key, value in values.items():
            assert value == pytest.approx(stored[name][key], rel=1e-8, abs=1e-9), (name, key)


if __name__ == "__main__":  # python tests/test_reference.py rewrites the frozen values
    FROZEN.write_text(json.dumps(frozen_cases(), indent=1) + "\n")
