"""The GemNet-OC network of JMP: bases -> interactions -> blocks -> heads. All but its sizes is imported when first asked for."""

import importlib

from .config import BackboneConfig

__all__ = ["Backbone", "BackboneConfig", "FinetuneModel", "HeadSpec", "PretrainModel", "fit_scale_factors", "load_backbone"]
_MODULE_OF = {"Backbone": "blocks", "FinetuneModel": "models", "HeadSpec": "heads", "PretrainModel": "models",
              "fit_scale_factors": "scaling", "load_backbone": "models"}  # fmt: skip


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
