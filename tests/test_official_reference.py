"""The published widths: layout against the lists of the official release, outputs against its stored results."""

import json
import os
import shutil
from pathlib import Path

import pytest
from official_files import checkpoint_of, official_model, write

import jmp_lib
from jmp_lib.data.tasks import PRETRAINING_SETS
from jmp_lib.model.scaling import scale_modules
from jmp_lib.official.checkpoint import COUNTER, NETWORKS, meta_model, trained
from jmp_lib.official.importing import import_checkpoint
from tools.reference_check import check_width

COUNTS = {"small": 44_131_328, "large": 234_267_648}


@pytest.fixture(scope="module")
def reference() -> Path:
    folder = os.environ.get("JMP_REFERENCE")
    if not folder:
        pytest.skip("JMP_REFERENCE is not set: the lists of the official release are not at hand")
    return Path(folder)


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size):
    assert sum(p.numel() for p in meta_model(NETWORKS[size]).parameters()) == COUNTS[size]


@pytest.mark.parametrize("size", COUNTS)
def test_names_shapes_order_and_averages_are_those_of_the_release(reference, size):
    stored = json.loads((reference / f"jmp_{size[0]}_state_dict.json").read_text())
    own = {name: list(t.shape) for name, t in meta_model(NETWORKS[size]).state_dict().items()}
    own |= {COUNTER.format(key): [] for key in PRETRAINING_SETS}
    assert list(own.items()) == [(entry["name"], entry["shape"]) for entry in stored["state_dict"]]
    assert [name for name in own if trained(name)] == stored["ema_parameter_order"]
    aliases = {entry["name"]: entry["alias_of"] for entry in stored["state_dict"] if entry["kind"] == "alias"}
    assert aliases == {n: n.replace(".seq_energy_pre.", ".layers.") for n in own if ".seq_energy_pre." in n}
    factors = json.loads((reference / f"scale_factors_{size}.json").read_text())
    assert {f"backbone.{name}" for name in factors} == scale_modules(meta_model(NETWORKS[size])).keys()


def test_an_imported_jmp_s_gives_the_stored_outputs(reference, tmp_path, monkeypatch, capsys):
    """A checkpoint from which the official loader gets the recipe's weights, alias quirk and all."""
    factors = reference / "scale_factors_small.json"
    write(tmp_path / "jmp-s.pt",
          checkpoint_of(official_model(NETWORKS["small"], json.loads(factors.read_text())), True))
    folder = import_checkpoint(tmp_path / "jmp-s.pt", tmp_path / "out")
    (tmp_path / "jmp-s.pt").unlink()
    loaded = jmp_lib.load(folder)
    assert loaded.info["parameters"] == {"total": COUNTS["small"], "backbone": 38_842_368, "embedding": 30_720,
                                         "heads": 5_258_240}  # fmt: skip
    monkeypatch.setattr("tools.reference_check.reference_model", lambda *_: loaded.model)
    golden = tmp_path / "golden"
    golden.mkdir()
    for name in ("golden_jmp_s_quartz.npz", "golden_tiny_quartz.npz", "golden_jmp_s_paracetamol.npz",
                 "golden_tiny_paracetamol.npz"):  # fmt: skip
        shutil.copy(reference / name, golden)
    count, good = check_width(golden, "jmp_s")
    assert good and count == 4, capsys.readouterr().out
