"""Profiles: every number that decides a run, in one readable YAML file, checked strictly.

    profile = load_profile("mini")
    profile = load_profile("mini", seed=1, **{"finetuning.defaults.lr": 1.0e-4})
    profile = load_profile("paper", alternative="packaged")      # the other official settings
    settings = profile.finetune_settings("rmd17", "rmd17_ethanol")

The profiles that ship are smoke, mini, published_small, one_gpu and paper (``jmp_lib/profiles``); a path to a YAML
file of your own works as well.  Units: Å, eV, eV/Å.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from jmp_lib.data.tasks import FAMILIES, TASKS
from jmp_lib.data.tasks import PRETRAINING_SETS as MINI_NAMES
from jmp_lib.graphs import GraphConfig
from jmp_lib.model.config import BackboneConfig
from jmp_lib.strict import build, check_keys, merge, nearest

PROFILE_DIR = Path(__file__).parent / "profiles"
PRETRAINING_SETS = tuple(MINI_NAMES)  # oc20, oc22, ani1x, transition1x: the order of the pre-training heads
ARMS = ("GN-OC-S", "GN-OC-L", "JMP-S", "JMP-L")
SIZES = ("small", "large")

Precision = Literal["float32", "bfloat16-mixed", "float16-mixed"]


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up, cosine, (fine-tuning only) reduce-on-plateau.

    Lengths are texts such as ``2000 updates`` or ``5 epochs``.
    """

    warmup: str
    warmup_start_factor: float
    cosine_until: str
    min_factor: float
    stop_at: str
    validate_every: str

    def __post_init__(self):
        for name in ("warmup", "cosine_until", "stop_at", "validate_every"):
            length(getattr(self, name), f"schedule.{name}")


def length(text: str, where: str) -> tuple[int, str]:
    """``5 epochs`` -> (5, "epochs"); units are updates and epochs.  Raises ``ValueError`` for anything else."""
    found = re.fullmatch(r"(\d+) (update|epoch)s?", text)
    if not found:
        raise ValueError(f"{where} must be a length such as '2000 updates' or '5 epochs', not {text!r}")
    return int(found[1]), found[2] + "s"


@dataclass(frozen=True)
class PretrainingSet:
    """One of the four pre-training sets. A value of null is measured on the training part."""

    energy_loss_scale: float = 1.0
    force_loss_scale: float | None = None  # null: mean number of atoms per structure, the rule behind 73, 80, 15, 14
    linear_reference: bool = True  # subtract per-element energies (least squares on the training part)
    energy_mean: float | None = None  # eV
    energy_std: float | None = None  # eV
    force_std: float | None = None  # eV/Å (the mean of forces is 0)
    max_train: int | None = None  # null: all
    max_val: int | None = None
    sampled: bool = True  # false: its structures are never drawn (an ablation); its head stays


@dataclass(frozen=True)
class Pretraining:
    """Joint pre-training: data, sampling, optimiser, schedule, regularisation."""

    data: Literal["mini", "published", "mini+published"]
    datasets: dict[str, PretrainingSet]
    temperature: float
    batch_size: int
    eval_batch_size: int
    lr: float
    betas: tuple[float, ...]
    weight_decay: float
    clip_norm: float
    ema_decay: float
    edge_dropout: float
    schedule: Schedule
    scale_factor_batches: int
    checkpoint_every: int  # updates
    precision: Precision
    # random numbers of edge dropout: one sequence per update (every process then builds the graphs of the whole
    # batch), or one per structure (every process builds those of its own share)
    edge_dropout_draws: Literal["batch", "structure"] = "batch"
    structurewise_loss: bool = True  # false: the force loss is a mean over all atoms of a batch (an ablation)


@dataclass(frozen=True)
class Layerwise:
    """Learning-rate multipliers of pre-trained parts; one number per interaction block."""

    embedding: float
    small: tuple[float, ...]
    large: tuple[float, ...]


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of one fine-tuning run, after family and task overrides."""

    batch_size: int
    eval_batch_size: int
    lr: float
    betas: tuple[float, ...]
    weight_decay: float
    clip_value: float  # every gradient component is clipped to ± this
    ema_decay: float | None
    schedule: Schedule
    plateau_factor: float
    plateau_patience: int  # validations
    early_stopping_patience: int  # validations without improvement
    min_delta: float
    stop_below_lr: float
    force_head: Literal["gradient_forces", "direct_forces"] | None  # null: as in the task table
    energy_coefficient: float  # of energy-and-force tasks; published runs use the force term only
    force_coefficient: float
    reduction: Literal["sum", "mean", "max"] | None  # null: as in the task table
    normaliser: Literal["standard", "scale", "none"]  # (y-mean)/std, y/std, y
    mean: float | None  # null: of the training part, loader unit
    std: float | None
    linear_reference: bool
    reference_values: tuple[float, ...] | None  # per atomic number from 0; null: least squares on the training part
    precision: Precision
    max_train: int | None
    max_val: int | None
    max_test: int | None
    checkpoint_every: int  # updates


@dataclass(frozen=True)
class Finetuning:
    """Defaults, then overrides per family, then per task id (each a part of FinetuneSettings)."""

    defaults: FinetuneSettings
    layerwise: Layerwise
    folds: int  # MatBench folds that are run, 1 to 5
    families: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    task_folds: dict[str, tuple[int, ...]] = field(default_factory=dict)  # instead of folds 0 to folds - 1, per task


@dataclass(frozen=True)
class Engine:
    """How a training is carried out. None of it but ``cpu_autocast`` decides the numbers, beyond the order in which sums are
    rounded."""

    devices: int = 1  # processes on this machine that share every batch, each with a GPU (or on the CPU)
    nodes: int = 1  # machines; for more than one start the command with torchrun or srun, which then count
    workers_data: int = 0  # processes that prepare batches ahead, per training process; 0: none
    max_edges: int | None = None  # edges (main graph) that are computed at once; null: the whole share of a batch
    memory_gb: float | None = None  # on a CPU: what one pass may take before the batch is split; null: no limit
    nonfinite_budget: int = 0  # updates that may be left out because their loss or gradient is not finite
    logs: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv",)  # csv is always written
    cpu_autocast: bool = False  # on a CPU too, compute in the precision that the settings say; else float32 there

    @property
    def numbers(self) -> dict:
        """What of it decides the numbers after all, for fingerprints; nothing where it is as it always was."""
        return {"cpu_autocast": True} if self.cpu_autocast else {}

    def __post_init__(self):
        for name, least in (("devices", 1), ("nodes", 1), ("workers_data", 0), ("nonfinite_budget", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"engine.{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("max_edges", "memory_gb"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"engine.{name} must be above 0 or null, not {getattr(self, name)}")


@dataclass(frozen=True)
class Profile:
    """Everything that decides a run, except where files lie."""

    name: str
    purpose: str
    seed: int
    data: Literal["mini", "published"]
    data_root: str | None  # folder of the published data
    device: Literal["auto", "cpu", "cuda"]
    workers: int  # processes that run fine-tunings side by side
    threads: int  # CPU threads of each process; 1 gives the same numbers on every run
    arms: tuple[Literal["GN-OC-S", "GN-OC-L", "JMP-S", "JMP-L"], ...]
    tasks_per_family: int | None  # null: all 40 tasks
    max_steps: int | None  # at most this many updates per run, schedules shortened to fit; null: as the schedules say
    models: dict[str, BackboneConfig]  # small and large
    graphs: dict[str, GraphConfig]  # per pre-training set and per family
    pretraining: Pretraining
    finetuning: Finetuning
    engine: Engine = field(default_factory=Engine)
    pretrained: dict[str, str] = field(default_factory=dict)  # size: official, base or a folder; else pre-trained here
    tasks: tuple[str, ...] | None = None  # of these only; null: all of tasks_per_family
    variant: str | None = None  # set by load_profile: the block of ``variants`` that was put over the rest
    variants: tuple[str, ...] = ()  # set by load_profile: names of the blocks there are

    def folds_of(self, task_id: str) -> tuple[int, ...]:
        """Folds of a task that are run: (0,) where there are none."""
        if task_id in self.finetuning.task_folds:
            return self.finetuning.task_folds[task_id]
        return tuple(range(self.finetuning.folds)) if TASKS[task_id].n_folds > 1 else (0,)

    def finetune_settings(self, family: str, task_id: str) -> FinetuneSettings:
        """Settings of one task: defaults, then the family's overrides, then the task's."""
        values = dataclasses.asdict(self.finetuning.defaults)
        for group, key in ((self.finetuning.families, family), (self.finetuning.tasks, task_id)):
            values = merge(values, group.get(key, {}))
        return build(FinetuneSettings, values, f"finetuning of {task_id}")


def available_profiles() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in PROFILE_DIR.glob("*.yaml"))


def load_profile(name: str, *, alternative: str | None = None, **overrides) -> Profile:
    """Read and check a profile.

    ``name``: smoke, mini, one_gpu, paper, or the path of a YAML file.  ``alternative``: a named block of
    the file's ``alternatives`` that is put over the rest; ``paper:packaged`` says the same in one word, for the
    command line and the notebooks.  The name becomes ``paper-packaged``, so results stay apart.  ``overrides``:
    nested dictionaries or dotted keys.  Raises ``ValueError`` naming the key and the nearest valid one,
    ``FileNotFoundError`` for a path.
    """
    if alternative is None and ":" in Path(name).name:
        name, alternative = name.rsplit(":", 1)
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILE_DIR / f"{name}.yaml"
        if not path.exists():
            raise ValueError(f"unknown profile '{name}'; {nearest(name, available_profiles())}".replace("key", "name"))
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of settings")
    alternatives, variants = values.pop("alternatives", {}), values.pop("variants", {})
    if alternative is not None:
        check_keys({alternative: None}, alternatives | variants, f"{path.name}: alternatives and variants")
        values = merge(values, (alternatives | variants)[alternative])
        values["name"] = f"{values.get('name', path.stem)}-{alternative}"
        values["variant"] = alternative if alternative in variants else None
    values["variants"] = list(variants)
    return profile_from_dict(_with_overrides(values, overrides), f"profile {path.stem}")


def profile_from_dict(values: dict, where: str = "profile") -> Profile:
    """Build and check a Profile from nested plain values (the inverse of ``dataclasses.asdict``)."""
    profile = build(Profile, values, where)
    for got, wanted, place in ((profile.models, SIZES, "models"),
                               (profile.graphs, PRETRAINING_SETS + FAMILIES, "graphs"),
                               (profile.pretraining.datasets, PRETRAINING_SETS, "pretraining.datasets")):
        check_keys(got, wanted, f"{where}.{place}")
        for key in wanted:
            if key not in got:
                raise ValueError(f"{where}.{place}: the key '{key}' is missing; add it")
    check_keys(profile.pretrained, SIZES, f"{where}.pretrained")
    check_keys(dict.fromkeys(profile.tasks or ()), TASKS, f"{where}.tasks")
    check_keys(profile.finetuning.task_folds, TASKS, f"{where}.finetuning.task_folds")
    for task, folds in profile.finetuning.task_folds.items():
        if not folds or not set(folds) <= set(range(TASKS[task].n_folds)):
            raise ValueError(f"{where}.finetuning.task_folds.{task} is {list(folds)}; its folds are 0 to {TASKS[task].n_folds - 1}")
    check_keys(profile.finetuning.families, FAMILIES, f"{where}.finetuning.families")
    check_keys(profile.finetuning.tasks, TASKS, f"{where}.finetuning.tasks")
    base = dataclasses.asdict(profile.finetuning.defaults)
    for group in ("families", "tasks"):
        for key, change in getattr(profile.finetuning, group).items():
            build(FinetuneSettings, merge(base, change), f"{where}.finetuning.{group}.{key}")
    for size in SIZES:
        given, blocks = len(getattr(profile.finetuning.layerwise, size)), profile.models[size].num_blocks
        if given != blocks:
            raise ValueError(f"{where}.finetuning.layerwise.{size} has {given} multipliers, but models.{size} has "
                             f"{blocks} blocks; give one number per block")
    return profile


def _with_overrides(values: dict, overrides: dict) -> dict:
    """``values`` with nested or dotted overrides put over them."""
    for key, value in overrides.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merge(values, value)
    return values
