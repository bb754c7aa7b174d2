"""The GemNet-OC network of JMP: bases -> interactions -> blocks -> heads. All but its sizes is imported
when first asked for."""

from jmp_lib import lazily

from .config import BackboneConfig

__all__ = ["Backbone", "BackboneConfig", "FinetuneModel", "HeadSpec", "PretrainModel",
           "fit_scale_factors", "load_backbone"]
__getattr__ = lazily(__name__, {
    "Backbone": "blocks", "FinetuneModel": "models", "HeadSpec": "heads", "PretrainModel": "models",
    "fit_scale_factors": "scaling", "load_backbone": "models"})
