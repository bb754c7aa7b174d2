"""Fine-tuning from given weights: an imported checkpoint, or a folder of somebody's pre-training."""

import pytest
import torch
from official_files import checkpoint_of, official_model, write
from safetensors.torch import load_file

from jmp_lib import paths
from jmp_lib.model.scaling import scale_modules
from jmp_lib.official.importing import import_checkpoint
from jmp_lib.settings import load_profile
from jmp_lib.train import finetuning as finetune_module
from jmp_lib.train.loading import weights_path


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Folder of an imported checkpoint of the smoke profile's small network."""
    folder = tmp_path_factory.mktemp("given")
    network = load_profile("smoke").models["small"]
    write(folder / "jmp.pt", checkpoint_of(official_model(network)))
    return import_checkpoint(folder / "jmp.pt", folder / "weights", networks={"small": network})


def test_a_relative_folder_is_sought_in_the_checkout_too(given, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "checkout_dir", lambda: given.parent)
    monkeypatch.chdir(tmp_path)
    assert weights_path(given.name).parent == given


def test_both_arms_start_from_the_given_folder(given, tmp_path, monkeypatch):
    """JMP-S has its weights and factors, GN-OC-S its factors; nothing is pre-trained or fitted here."""
    for name in ("pretrain", "scale_factors"):
        monkeypatch.setattr(finetune_module, name, lambda *_, **__: pytest.fail("the given weights are not used"))
    profile = load_profile("smoke", device="cpu", pretrained={"small": str(given)})
    seen = []
    real = finetune_module.set_factors

    def watch(model, factors):
        real(model, factors)
        seen.append((model.state_dict()["embedding.weight"].clone(), factors))

    monkeypatch.setattr(finetune_module, "set_factors", watch)
    trained = finetune_module.finetune(profile, "qm9_mu", "JMP-S", tmp_path, progress=False)
    scratch = finetune_module.finetune(profile, "qm9_mu", "GN-OC-S", tmp_path, progress=False)
    weights = load_file(given / "model.safetensors")
    assert torch.equal(seen[0][0], weights["embedding.atom_embedding.weight"])
    assert not torch.equal(seen[1][0], seen[0][0])
    stated = {n: m.value for n, m in scale_modules(official_model(profile.models["small"])).items()}
    assert trained["start"]["scale_factors"] == scratch["start"]["scale_factors"] == stated
    assert trained["start"]["pretrained"]["file"] == "work/given/small/model.safetensors"
    assert "pretrained" not in scratch["start"]


def test_weights_of_another_network_or_none(given, tmp_path):
    def start(**changes):
        return finetune_module.finetune(load_profile("smoke", device="cpu", **changes),
                                        "qm9_mu", "JMP-S", tmp_path, False)

    with pytest.raises(ValueError, match="another network than models.small .num_blocks differ"):
        start(pretrained={"small": str(given)},
              **{"models.small.num_blocks": 2, "finetuning.layerwise.small": [0.3, 0.4]})
    with pytest.raises(FileNotFoundError, match="model.json is missing"):
        start(pretrained={"small": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="unknown key 'smal'"):
        load_profile("smoke", pretrained={"smal": "official"})
