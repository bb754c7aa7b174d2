"""Turn plain dictionaries (from YAML or JSON) into frozen dataclasses, without forgiving anything.

``build(cls, mapping, where)`` walks the type hints of a dataclass.  Unknown keys, missing keys and
values of a wrong type raise ``ValueError`` with one sentence that names the place and the mend.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing


def nearest(word: str, valid: typing.Iterable[str]) -> str:
    """Text that names the valid key nearest to ``word``, or all of them when none is near."""
    valid = sorted(valid)
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.6)
    return f"the nearest valid key is '{close[0]}'" if close else f"valid keys are {', '.join(valid)}"


def check_keys(mapping: dict, valid: typing.Iterable[str], where: str) -> None:
    """Raise ``ValueError`` when ``mapping`` is not a dictionary or has a key outside ``valid``."""
    valid = list(valid)
    if not isinstance(mapping, dict):
        raise ValueError(f"{where} must be a mapping with the keys {', '.join(valid)}, not {mapping!r}")
    for key in mapping:
        if key not in valid:
            raise ValueError(f"{where}: unknown key '{key}'; {nearest(key, valid)}")


def build(cls, mapping: dict, where: str):
    """An instance of the dataclass ``cls`` with every field of ``mapping`` checked against its type hint.

    Raises ``ValueError`` (unknown key, missing key, wrong type), naming ``where`` and the field.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    check_keys(mapping, fields, where)
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = convert(hints[name], mapping[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: the key '{name}' is missing; add it")
    return cls(**values)


def convert(kind, value, where: str):
    """``value`` as ``kind`` (a type hint), or ``ValueError`` naming ``where`` and what is expected."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (kind,) = [arg for arg in args if arg is not type(None)]
        return convert(kind, value, where)
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{where} must be one of {', '.join(map(repr, args))}, not {value!r}; "
                             f"{nearest(value, map(str, args))}".replace("valid key", "valid value"))
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, not {value!r}")
        return tuple(convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return {convert(args[0], key, f"{where} key"): convert(args[1], item, f"{where}.{key}")
                for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)
    if kind is typing.Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and kind is not bool or not isinstance(value, kind):
        raise ValueError(f"{where} must be {_NAMES.get(kind, kind.__name__)}, not {value!r}{_mend(kind, value)}")
    return value


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _mend(kind, value) -> str:
    """A hint for the classic YAML trap: 5e-5 is text in YAML, 5.0e-5 is a number."""
    if kind is float and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        mantissa, _, exponent = f"{number:e}".partition("e")
        mantissa = mantissa.rstrip("0")
        mantissa += "0" if mantissa.endswith(".") else ""
        return f" (text); write {mantissa}e{int(exponent)} without quotes, with a decimal point"
    return ""


def merge(base: dict, change: dict) -> dict:
    """A new dictionary: ``base`` with the nested values of ``change`` put over it."""
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
