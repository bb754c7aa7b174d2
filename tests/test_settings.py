"""Profiles: those that ship, strictness, overrides."""


import pytest
import yaml

from jmp_lib.data.tasks import TASKS
from jmp_lib.settings import ARMS, PROFILE_DIR, Rates, available_profiles, load_profile, profile_from_dict


def test_the_shipped_profiles_load():
    assert available_profiles() == ["mini", "one_gpu", "paper", "published_small", "smoke"]
    for name in available_profiles():
        profile = load_profile(name)
        assert profile.name == name and profile.arms == ARMS
        for task in TASKS.values():
            assert profile.finetune_settings(task.family, task.id).batch_size >= 1


@pytest.mark.parametrize("name", ["mini", "published_small"])
def test_same_budget_for_all_arms(name):
    """Nothing in the settings of a task depends on the arm or size except rate and multipliers of each arm."""
    from jmp_lib.train.finetuning import finetuning_parameters

    profile = load_profile(name)
    for task in TASKS.values():
        settings = [finetuning_parameters(profile, task, arm)["settings"] for arm in ARMS]
        rates = profile.finetune_settings(task.family, task.id).lr
        assert [s.pop("lr") for s in settings] == [rates.scratch.small, rates.scratch.large,
                                                   rates.pretrained.small, rates.pretrained.large]
        assert all(s == settings[0] for s in settings)


def test_rates_of_the_arms():
    """A number stands for all arms, or for both sizes of a kind; a family may change one of them."""
    families = {"rmd17": {"lr": {"pretrained": 5.0e-3}}, "md22": {"lr": {"scratch": {"large": 1.0e-3}}}}
    profile = load_profile("smoke", **{"finetuning.defaults.lr": 2.0e-3, "finetuning.families": families})
    assert profile.finetune_settings("md22", "md22_stachyose").lr.scratch.model_dump() == {
        "small": 2.0e-3, "large": 1.0e-3}
    assert profile.finetune_settings("qm9", "qm9_mu").lr == Rates(scratch=2.0e-3, pretrained=2.0e-3)
    assert profile.finetune_settings("rmd17", "rmd17_ethanol").lr == Rates(scratch=2.0e-3, pretrained=5.0e-3)


def test_paper_profile_has_the_official_settings():
    paper = load_profile("paper")
    assert (paper.models["small"].num_blocks, paper.models["large"].emb_size_edge) == (4, 1024)
    assert ([paper.pretraining.datasets[k].force_loss_scale for k in ("oc20", "oc22", "ani1x", "transition1x")]
            == [73, 80, 15, 14])
    assert (paper.pretraining.lr, paper.pretraining.ema_decay, paper.pretraining.clip_norm) == (3.0e-4, 0.99, 1.0)
    rmd17 = paper.finetune_settings("rmd17", "rmd17_ethanol")
    assert (rmd17.lr, rmd17.batch_size) == (Rates(scratch=8.0e-5, pretrained=8.0e-5), 1)
    assert (rmd17.plateau_patience, rmd17.precision) == (10, "float32")
    assert (rmd17.schedule.stop_at, rmd17.schedule.warmup) == ("100000 epochs", "5 epochs")
    assert paper.finetune_settings("qm9", "qm9_mu").batch_size == 48
    assert paper.finetuning.folds == 5


def test_packaged_alternative():
    packaged = load_profile("paper:packaged")
    assert packaged.finetune_settings("qm9", "qm9_mu").lr.pretrained.large == 5.0e-6
    assert packaged.finetune_settings("rmd17", "rmd17_ethanol").plateau_patience == 25
    assert packaged.finetune_settings("md22", "md22_ac-ala3-nhme").force_head == "gradient_forces"
    with pytest.raises(ValueError, match="'packaged'"):
        load_profile("paper:packages")


@pytest.mark.parametrize("overrides, message", [
    ({"seeed": 1}, "'seeed'.*'seed'"),
    ({"pretraining.batchsize": 3}, "'batchsize'.*'batch_size'"),
    ({"models.small.emb_size_edg": 3}, "'emb_size_edg'.*'emb_size_edge'"),
    ({"graphs.qm9.cutof": 3.0}, "'cutof'.*'cutoff'"),
    ({"finetuning.families.rmd18.lr": 1.0}, "'rmd18'.*'rmd17'"),
    ({"finetuning.families.rmd17.learning_rate": 1.0}, "unknown key 'learning_rate'"),
    ({"finetuning.tasks.qm9_muu.lr": 1.0}, "'qm9_muu'.*'qm9_mu'"),
    ({"finetuning.families.rmd17.lr": {"pretraind": 1.0}}, "unknown key 'pretraind'.*'pretrained'"),
    ({"finetuning.families.rmd17.lr": "5e-5"},
     r"lr.scratch.small must be a valid number, not '5e-5' \(text\); write 5.0e-5"),
    ({"finetuning.defaults.lr": {"scratch": 1.0, "pretrained": None}}, "lr.pretrained.small must be a valid number"),
    ({"pretraining.schedule.warm_up": "1 epoch"}, "'warm_up'.*'warmup'"),
    ({"seed": "1"}, "seed must be a valid integer"),
    ({"seed": True}, "seed must be a valid integer"),
    ({"workers": 1.5}, "workers must be a valid integer"),
    ({"pretraining.temperature": 0.0}, "profile mini.pretraining.temperature must be greater than 0, not 0.0"),
    ({"pretraining.ema_decay": -0.1}, "pretraining.ema_decay must be greater than or equal to 0, not -0.1"),
    ({"finetuning.families.qm9.ema_decay": 1.0}, "qm9.ema_decay must be less than 1, not 1.0"),
    ({"device": "gpu"}, "'auto', 'cpu' or 'cuda'"),
    ({"arms": "JMP-S"}, "arms must be a valid array"),
    ({"arms": ["JMP-M"]}, "JMP-M"),
    ({"pretraining.schedule.stop_at": 500}, "stop_at must be a valid string"),
    ({"pretraining.schedule.stop_at": "500 steps"}, "length such as"),
    ({"finetuning.layerwise.small": [0.3]}, "1 multipliers, but models.small has 2 blocks"),
])
def test_bad_settings_name_the_mend(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_profile("mini", **overrides)


def test_yaml_trap_5e_5(tmp_path):
    """YAML reads 5e-5 as text; the message says how to write the number."""
    text = (PROFILE_DIR / "mini.yaml").read_text()
    assert "lr: 5.0e-4" in text or "lr: 1.0e-3" in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("lr: 1.0e-3", "lr: 5e-5"))
    with pytest.raises(ValueError, match=r"pretraining.lr must be a valid number, not '5e-5' \(text\); write 5.0e-5"):
        load_profile(str(path))


def test_missing_key_and_bad_file(tmp_path):
    values = yaml.safe_load((PROFILE_DIR / "mini.yaml").read_text())
    del values["graphs"]["qmof"], values["alternatives"]
    with pytest.raises(ValueError, match="'qmof' is missing"):
        profile_from_dict(values)
    del values["seed"]
    with pytest.raises(ValueError, match="'seed' is missing"):
        profile_from_dict(values)
    path = tmp_path / "broken.yaml"
    path.write_text("seed: [1")
    with pytest.raises(ValueError, match="broken.yaml cannot be read .*give a valid YAML"):
        load_profile(str(path))
    with pytest.raises(ValueError, match="unknown profile 'mni'.*'mini'"):
        load_profile("mni")
    with pytest.raises(FileNotFoundError):
        load_profile(str(tmp_path / "none.yaml"))


def test_overrides_reach_their_place():
    profile = load_profile("mini", seed=7,
                           **{"finetuning.defaults.lr": 1.0e-4, "finetuning.tasks.qm9_mu.batch_size": 3})
    assert profile.seed == 7
    assert profile.finetune_settings("qm9", "qm9_mu").batch_size == 3
    assert profile.finetune_settings("qm9", "qm9_alpha").lr.scratch.small == 1.0e-4


def test_round_trip():
    profile = load_profile("paper")
    assert profile_from_dict(profile.model_dump()) == profile


@pytest.mark.parametrize("name", ["nowhere/paper", "./paper", "nowhere/paper:packaged"])
def test_a_path_without_yaml_is_no_profile_that_ships(name):
    with pytest.raises(ValueError, match="unknown profile '.*/paper'; .*valid name.*paper"):
        load_profile(name)
