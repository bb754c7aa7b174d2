"""Settings: every number that decides a run, in one readable YAML file (a profile), checked strictly by pydantic.

    profile = load_profile("mini")
    profile = load_profile("mini", seed=1, **{"finetuning.defaults.lr": 1.0e-4})
    profile = load_profile("paper:packaged")      # the other official settings
    settings = profile.finetune_settings("rmd17", "rmd17_ethanol")

The profiles that ship are smoke, mini, published_small, one_gpu and paper (``jmp_lib/profiles``); a path to a YAML
file of your own works as well. Models are frozen: ``profile.model_copy(update={...})`` makes another one,
``profile.model_dump()`` gives plain values. Units: Å, eV, eV/Å.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jmp_lib.data.tasks import FAMILIES, PRETRAINING_SETS, TASKS
from jmp_lib.facts import ARMS
from jmp_lib.files import reading
from jmp_lib.graphs import GraphConfig
from jmp_lib.model.config import BackboneConfig
from jmp_lib.parameters import check_keys, merge, nearest

PROFILE_DIR = Path(__file__).parent / "profiles"
SIZES = ("small", "large")


class Settings(BaseModel):
    """Frozen; unknown keys and values of another type are refused. :func:`build` says so in one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def length(text: str) -> tuple[int, str]:
    """``5 epochs`` -> (5, "epochs"); units are updates and epochs. Raises ``ValueError`` for anything else."""
    found = re.fullmatch(r"(\d+) (update|epoch)s?", text)
    if not found:
        raise ValueError("must be a length such as '2000 updates' or '5 epochs'")
    return int(found[1]), found[2] + "s"


Length = Annotated[str, AfterValidator(lambda text: length(text) and text)]
Precision = Literal["float32", "tf32", "bfloat16-mixed", "float16-mixed"]  # tf32: products rounded to 10 bits, on a GPU


class Schedule(Settings):
    """Learning rate: linear warm-up, cosine, (fine-tuning only) reduce-on-plateau. Lengths: ``2000 updates``,
    ``5 epochs``."""

    warmup: Length
    warmup_start_factor: float
    cosine_until: Length
    min_factor: float
    stop_at: Length
    validate_every: Length


class PretrainingSet(Settings):
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


class Pretraining(Settings):
    """Joint pre-training: data, sampling, optimiser, schedule, regularisation."""

    data: Literal["mini", "published", "large", "mini+published", "large+published"]
    datasets: dict[str, PretrainingSet]
    temperature: float = Field(gt=0)
    batch_size: int
    eval_batch_size: int
    lr: float
    betas: tuple[float, ...]
    weight_decay: float
    clip_norm: float
    ema_decay: float = Field(ge=0, lt=1)
    edge_dropout: float
    schedule: Schedule
    scale_factor_batches: int
    checkpoint_every: int  # updates
    precision: Precision
    # random numbers of edge dropout: one sequence per update (every process then builds the graphs of the whole
    # batch), or one per structure (every process builds those of its own share)
    edge_dropout_draws: Literal["batch", "structure"] = "batch"
    structurewise_loss: bool = True  # false: the force loss is a mean over all atoms of a batch (an ablation)
    # false: forces on atoms held still count in no loss, as they count in no reported error
    fixed_atoms_loss: bool = True


class Layerwise(Settings):
    """Learning-rate multipliers of pre-trained parts; one number per interaction block."""

    embedding: float
    small: tuple[float, ...]
    large: tuple[float, ...]


def _for_all(*names: str):
    """A number alone stands for all ``names``."""
    return lambda value: value if isinstance(value, dict | Settings) else dict.fromkeys(names, value)


class BySize(Settings):
    small: float
    large: float


class Rates(Settings):
    """Learning rate of every arm, so that each has its own best; a number alone in a profile stands
    for all that it covers."""

    scratch: Annotated[BySize, BeforeValidator(_for_all("small", "large"))]
    pretrained: Annotated[BySize, BeforeValidator(_for_all("small", "large"))]


class FinetuneSettings(Settings):
    """Settings of one fine-tuning run, after family and task overrides."""

    batch_size: int
    eval_batch_size: int
    lr: Annotated[Rates, BeforeValidator(_for_all("scratch", "pretrained"))]
    betas: tuple[float, ...]
    weight_decay: float
    clip_value: float  # every gradient component is clipped to ± this
    ema_decay: float | None = Field(ge=0, lt=1)
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

    def rate(self, pretrained: bool, size: str) -> float:
        """The learning rate of an arm; size: small or large."""
        return getattr(self.lr.pretrained if pretrained else self.lr.scratch, size)

    def of_arm(self, pretrained: bool, size: str) -> dict:
        """Plain values of what decides the numbers of one arm, for records: of the rates its own."""
        return {**self.model_dump(), "lr": self.rate(pretrained, size)}


class Finetuning(Settings):
    """Defaults, then overrides per family, then per task id (each a part of FinetuneSettings)."""

    defaults: FinetuneSettings
    layerwise: Layerwise
    folds: int  # MatBench folds that are run, 1 to 5
    families: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    task_folds: dict[str, tuple[int, ...]] = {}  # instead of folds 0 to folds - 1, per task


class Engine(Settings):
    """How a training is carried out. None of it but ``cpu_autocast`` decides the numbers, beyond the order in which
    sums are rounded."""

    # processes on this machine that share every batch, each with a GPU (or on the CPU); torchrun or srun, which reach
    # more than one machine, count their own
    devices: int = Field(1, ge=1)
    workers_data: int = Field(0, ge=0)  # processes that prepare batches ahead, per training process; 0: none
    # edges (and quadruplets, in edges) computed at once; null: the whole batch
    max_edges: int | None = Field(None, gt=0)
    # batches padded to a few shapes, and the step of each shape recorded as a CUDA graph; auto: on a GPU, except in
    # float16; on: a CPU pads too (and records nothing), to try it
    graphs: Literal["auto", "on", "off"] = "auto"
    cpu_autocast: bool = False  # on a CPU too, compute in the precision that the settings say; else float32 there

    @property
    def numbers(self) -> dict:
        """What of it decides the numbers after all, for fingerprints; nothing where it is as it always was."""
        return {"cpu_autocast": True} if self.cpu_autocast else {}


class Profile(Settings):
    """Everything that decides a run, except where files lie."""

    name: str
    purpose: str
    seed: int
    data: Literal["mini", "published"]
    data_root: str | None  # folder of the published data
    device: Literal["auto", "cpu", "cuda"]
    workers: int  # processes that run fine-tunings side by side
    threads: int  # CPU threads of each process; 1 gives the same numbers on every run
    arms: tuple[Literal[ARMS], ...]
    tasks_per_family: int | None  # null: all 40 tasks
    max_steps: int | None  # at most this many updates per run, schedules shortened to fit; null: as the schedules say
    models: dict[str, BackboneConfig]  # small and large
    graphs: dict[str, GraphConfig]  # per pre-training set and per family
    pretraining: Pretraining
    finetuning: Finetuning
    engine: Engine = Engine()
    pretrained: Annotated[dict[str, str | None], AfterValidator(
        lambda given: {size: name for size, name in given.items() if name is not None}
    )] = {}  # size: a network that ships (mini-small), official, base or a folder; null or none: pre-trained here
    tasks: tuple[str, ...] | None = None  # of these only; null: all of tasks_per_family
    comparable: bool = True  # false: its numbers mean nothing and never stand beside others
    # made for the published files at hand: without data_root they lie in JMP_DATA or data/,
    published_at_hand: bool = False
    # its results need no "-published" in their name, and its pre-training is its own, not that of the mini data
    # family -> tasks that are run when published data are chosen for it
    published_tasks: dict[str, tuple[str, ...]] = {}
    variant: str | None = None  # set by load_profile: the block of ``variants`` that was put over the rest
    variants: tuple[str, ...] = ()  # set by load_profile: names of the blocks there are

    @property
    def results_name(self) -> str:
        """Folder of its results: the name without the variant, and ``-published`` for such data where it is not made
        for them."""
        name = self.name.removesuffix(f"-{self.variant}")
        return name if self.data == "mini" or self.published_at_hand else f"{name}-{self.data}"

    def folds_of(self, task_id: str) -> tuple[int, ...]:
        """Folds of a task that are run: (0,) where there are none."""
        if task_id in self.finetuning.task_folds:
            return self.finetuning.task_folds[task_id]
        return tuple(range(self.finetuning.folds)) if TASKS[task_id].n_folds > 1 else (0,)

    def finetune_settings(self, family: str, task_id: str) -> FinetuneSettings:
        """Settings of one task: defaults, then the family's overrides, then the task's."""
        own = merge(self.finetuning.families.get(family, {}), self.finetuning.tasks.get(task_id, {}))
        return build(FinetuneSettings, merge(self.finetuning.defaults.model_dump(), own), f"finetuning of {task_id}")


def available_profiles() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(path.stem for path in PROFILE_DIR.glob("*.yaml"))


def load_profile(name: str, **overrides) -> Profile:
    """Read and check a profile.

    ``name``: smoke, mini, one_gpu, paper, or the path of a YAML file; after a colon a named block of the file's
    ``alternatives`` that is put over the rest (``paper:packaged``; ``mini:ablations:molecules`` is a variant of one).
    The name becomes ``paper-packaged``, so results stay apart. ``overrides``: nested dictionaries or dotted keys.
    Raises ``ValueError`` naming the key and the nearest valid one, ``FileNotFoundError`` for a path.
    """
    last, _, blocks = Path(name).name.partition(":")
    path = Path(name).with_name(last)
    if path.suffix not in (".yaml", ".yml"):
        bare = name.removesuffix(f":{blocks}")
        if bare not in available_profiles():
            raise ValueError(f"unknown profile '{bare}'; {nearest(bare, available_profiles())}".replace("key", "name"))
        path = PROFILE_DIR / f"{bare}.yaml"
    with reading(path, f"give a valid YAML file, or the name of a profile: {', '.join(available_profiles())}"):
        values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of settings")
    alternatives, variants = values.pop("alternatives", {}), values.pop("variants", {})
    for block in filter(None, blocks.split(":")):  # an alternative, then a variant of it
        check_keys({block: None}, alternatives | variants, f"{path.name}: alternatives and variants")
        change = dict((alternatives | variants)[block])
        values["variant"] = block if block in variants else None
        variants = variants if block in variants else change.pop("variants", {})
        values = merge(values, change)
        values["name"] = f"{values.get('name', path.stem)}-{block}"
    values["variants"] = list(variants)
    for key, value in overrides.items():
        values = merge(values, reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value))
    return profile_from_dict(values, f"profile {path.stem}")


def profile_from_dict(values: dict, where: str = "profile") -> Profile:
    """Build and check a Profile from nested plain values (the inverse of ``model_dump``)."""
    if isinstance(values.get("graphs"), dict):  # families registered from outside bring their own
        given = {family.name: dict(family.graph) for family in FAMILIES.values() if family.graph}
        values = {**values, "graphs": given | values["graphs"]}
    profile = build(Profile, values, where)
    tuned, sets = profile.finetuning, profile.pretraining.datasets
    for place, got, valid, all_needed in (
            ("models", profile.models, SIZES, True), ("graphs", profile.graphs, (*PRETRAINING_SETS, *FAMILIES), True),
            ("pretraining.datasets", sets, PRETRAINING_SETS, True), ("pretrained", profile.pretrained, SIZES, False),
            ("tasks", dict.fromkeys(profile.tasks or ()), TASKS, False),
            ("published_tasks", profile.published_tasks, FAMILIES, False),
            ("finetuning.task_folds", tuned.task_folds, TASKS, False),
            ("finetuning.families", tuned.families, FAMILIES, False), ("finetuning.tasks", tuned.tasks, TASKS, False)):
        check_keys(got, valid, f"{where}.{place}")
        if all_needed and (missing := [key for key in valid if key not in got]):
            raise ValueError(f"{where}.{place}: the key '{missing[0]}' is missing; add it")
    for task, folds in tuned.task_folds.items():
        if not folds or not set(folds) <= set(range(TASKS[task].n_folds)):
            raise ValueError(f"{where}.finetuning.task_folds.{task}: {list(folds)}; "
                             f"its folds are 0 to {TASKS[task].n_folds - 1}")
    base = tuned.defaults.model_dump()
    for group in ("families", "tasks"):
        for key, change in getattr(tuned, group).items():
            build(FinetuneSettings, merge(base, change), f"{where}.finetuning.{group}.{key}")
    for size in SIZES:
        given, blocks = len(getattr(tuned.layerwise, size)), profile.models[size].num_blocks
        if given != blocks:
            raise ValueError(f"{where}.finetuning.layerwise.{size} has {given} multipliers, but models.{size} has "
                             f"{blocks} blocks; give one number per block")
    return profile


Model = TypeVar("Model", bound=Settings)


def build(cls: type[Model], values: dict, where: str) -> Model:
    """``values`` (plain, from YAML or JSON) as a model; ``ValueError`` in one sentence for the first
    thing that is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping with the keys {', '.join(cls.model_fields)}, not {values!r}")
    try:
        return cls.model_validate_json(json.dumps(values, default=str))  # JSON, so that lists become tuples
    except ValidationError as error:
        # a mistyped key before the one it lacks
        errors = sorted(error.errors(), key=lambda e: e["type"] not in UNKNOWN)
        raise ValueError(_sentence(errors[0], cls, where)) from None


UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, of a dataclass


def _sentence(error: dict, cls: type, where: str) -> str:
    """pydantic's ``error`` in one sentence with the place and the mend."""
    *parents, last = error["loc"]
    parent, value = ".".join([where, *map(str, parents)]), error["input"]
    if error["type"] in UNKNOWN:
        return f"{parent}: unknown key '{last}'; {nearest(last, _fields(cls, parents))}"
    if error["type"] == "missing":
        return f"{parent}: the key '{last}' is missing; add it"
    words = error["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    # 5e-5 is text in YAML
    trap = re.fullmatch(r"(-?\d+)(\.\d+)?e([+-]?)(\d+)", value) if isinstance(value, str) else None
    mend = f" (text); write {trap[1]}{trap[2] or '.0'}e{trap[3] or '+'}{trap[4]}, without quotes" if trap else ""
    return f"{parent}.{last} {words}, not {value!r}{mend}"


def _fields(kind: Any, path: list) -> list[str]:
    """Names of the fields of the model or dataclass that lies at ``path`` under the type ``kind``."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (kind,) = [arg for arg in typing.get_args(kind) if arg is not type(None)]
    hints = ({name: field.annotation for name, field in kind.model_fields.items()} if hasattr(kind, "model_fields")
             else typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else None)
    if not path:
        return list(hints or ())
    return _fields(hints[path[0]] if hints else typing.get_args(kind)[-1], path[1:])
