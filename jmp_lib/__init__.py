"""A workbook of the JMP study: data, GemNet-OC network, pre-training, fine-tuning, tables and figures."""


def __getattr__(name: str):
    """``jmp_lib.load``, ``Loaded``, ``JMPCalculator`` and ``embed``, imported only when used: the network needs torch, ``import jmp_lib`` not."""
    if name in ("load", "Loaded"):
        from importlib import import_module

        module = import_module("jmp_lib.load")
        return module if name == "load" else module.Loaded
    if name in ("JMPCalculator", "embed"):
        from importlib import import_module

        return getattr(import_module(f"jmp_lib.{'calculator' if name == 'JMPCalculator' else 'embeddings'}"), name)
    raise AttributeError(f"module 'jmp_lib' has no attribute {name!r}")
