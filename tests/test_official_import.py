"""Import of checkpoints of the official layout: a narrow network with the same structure, generated weights."""

import json

import pytest
import torch
from official_files import checkpoint_of, noise, official_model, write
from test_model import NARROW

import jmp_lib
from jmp_lib.__main__ import main
from jmp_lib.model.scaling import scale_modules
from jmp_lib.official.checkpoint import StandIn, contents
from jmp_lib.official.importing import default_folder, import_checkpoint

NETWORKS = {"small": NARROW}


@pytest.fixture(scope="module")
def averaged():
    return official_model(NARROW)


@pytest.fixture
def file(averaged, tmp_path):
    write(tmp_path / "jmp.pt", checkpoint_of(averaged))
    return tmp_path / "jmp.pt"


def imported(file) -> torch.nn.Module:
    return jmp_lib.load(import_checkpoint(file, file.parent / "out", networks=NETWORKS)).model


def test_weights_are_those_of_the_official_fine_tuning(file, averaged):
    """Averages everywhere, raw in the layers that have an alias."""
    ours, theirs = imported(file).state_dict(), averaged.state_dict()
    raw = 0
    for name, tensor in theirs.items():
        twin = name.replace(".seq_energy_pre.", ".layers.")
        if twin != name or name.startswith("backbone.out_blocks.") and ".layers." in name:
            assert torch.equal(ours[name], tensor + noise(twin, tensor.shape)), name
            raw += 1
        else:
            assert torch.equal(ours[name], tensor), name
    assert raw == 2 * 7 * (NARROW.num_blocks + 1)  # seven layers in each output block, under two names


def test_what_is_written(file, averaged):
    folder = import_checkpoint(file, file.parent / "out", networks=NETWORKS)
    assert sorted(p.name for p in folder.iterdir()) == ["MODEL_CARD.md", "model.json", "model.safetensors"]
    info = json.loads((folder / "model.json").read_text())
    assert info["kind"] == "pretrain" and info["size"] == "small" and info["weights"] == "official"
    assert info["graphs"]["ani1x"]["cutoff"] == 8.0 and info["graphs"]["oc20"]["periodic"]
    assert list(info["datasets"]) == ["oc20", "oc22", "ani1x", "transition1x"]
    assert info["datasets"]["oc22"]["force_loss_scale"] == 80.0 and info["datasets"]["ani1x"]["energy"]["std"] > 2.8
    assert info["scale_factors"] == {n: m.value for n, m in scale_modules(averaged).items()} and not info["not_fitted"]
    assert info["updates"] == 1000 and info["ema_decay"] == 0.99 and len(info["source"]["sha256"]) == 64
    card = (folder / "MODEL_CARD.md").read_text()
    assert (f"{sum(p.numel() for p in averaged.parameters()):,}" in card
            and "CC-BY-NC" in card and "seq_energy_pre" in card)
    assert info["source"]["sha256"] in card


def test_strange_classes_stay_inert_and_their_plain_state_readable(file):
    hyper = contents(file)["hyper_parameters"]
    assert isinstance(hyper["optimizer"], StandIn)
    assert hyper["optimizer"].state["lr"] == 3e-4 and hyper["edge_dropout"] == 0.1
    with pytest.raises(Exception, match="weights_only|Unsupported|WeightsUnpickler"):
        torch.load(file, weights_only=True)


def test_importing_again_replaces_the_folder(file):
    first = imported(file).state_dict()
    other = official_model(NARROW)
    torch.nn.init.ones_(other.embedding.atom_embedding.weight)
    write(file, checkpoint_of(other))
    second = imported(file).state_dict()
    assert not torch.equal(first["embedding.atom_embedding.weight"], second["embedding.atom_embedding.weight"])


def test_a_factor_of_zero_is_the_identity(averaged, tmp_path):
    parts = checkpoint_of(averaged)
    name = next(n for n in parts["state_dict"] if n.endswith("scale_factor"))
    parts["state_dict"][name] = torch.tensor(0.0)
    write(tmp_path / "jmp.pt", parts)
    folder = import_checkpoint(tmp_path / "jmp.pt", tmp_path / "out", networks=NETWORKS)
    loaded = jmp_lib.load(folder)
    short = name.removesuffix(".scale_factor")
    assert loaded.info["not_fitted"] == [short] and scale_modules(loaded.model)[short](torch.ones(2)).tolist() == [1, 1]
    assert short in (folder / "MODEL_CARD.md").read_text()


def test_the_command_and_the_wrong_size(file, tmp_path, monkeypatch, capsys):
    assert main(["import-checkpoint", str(file), "--out", str(tmp_path / "cli")]) == 2
    assert "neither small (4 blocks, edge embedding 512) nor large" in capsys.readouterr().err
    monkeypatch.setenv("JMP_DATA", str(tmp_path))
    assert default_folder("large") == tmp_path / "checkpoints" / "jmp-l"
