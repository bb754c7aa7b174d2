"""A workbook of the JMP study: data, GemNet-OC network, pre-training, fine-tuning, tables and figures.

``jmp_lib.load``, ``Loaded``, ``JMPCalculator``, ``predictions`` and ``embed`` are imported when they are first asked for: the
network needs torch, ``import jmp_lib`` not.
"""

import warnings
from importlib import import_module

warnings.filterwarnings("ignore", message="IProgress not found")  # some library asks for bars of ipywidgets; bars of text do

_PLACES = {"load": "train.loading", "Loaded": "train.loading", "JMPCalculator": "calculator", "predictions": "predict",
           "embed": "embeddings"}


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'jmp_lib' has no attribute {name!r}")
    return getattr(import_module(f"jmp_lib.{_PLACES[name]}"), name)
