"""The GemNet-OC network of JMP: bases -> interaction blocks -> backbone -> heads."""

from .blocks import Backbone
from .config import BackboneConfig
from .heads import HeadSpec
from .models import FinetuneModel, PretrainModel, load_backbone
from .scaling import fit_scale_factors

__all__ = ["Backbone", "BackboneConfig", "FinetuneModel", "HeadSpec", "PretrainModel", "fit_scale_factors",
           "load_backbone"]  # fmt: skip
