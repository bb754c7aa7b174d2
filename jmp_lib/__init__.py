"""A workbook of the JMP study: data, GemNet-OC network, pre-training, fine-tuning, tables and figures.

``jmp_lib.load``, ``Loaded``, ``JMPCalculator``, ``predictions`` and ``embed`` are imported when they are first asked
for: the network needs torch, ``import jmp_lib`` not.
"""

import warnings
from importlib import import_module

# some library asks for bars of ipywidgets; bars of text do
warnings.filterwarnings("ignore", message="IProgress not found")


def lazily(package: str, places: dict[str, str]):
    """``__getattr__`` of ``package``: a name of ``places`` is imported from its module when first asked for."""

    def attribute(name: str):
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return attribute


__getattr__ = lazily(__name__, {"load": "train.loading", "Loaded": "train.loading", "JMPCalculator": "calculator",
                                "predictions": "predict", "embed": "embeddings"})
