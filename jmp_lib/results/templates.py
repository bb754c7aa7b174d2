"""The HTML templates of this folder (jinja2). Every value is escaped unless the template says it is HTML already."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jinja2


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    made.policies["json.dumps_function"] = lambda value, **_: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return made


def render(name: str, filters: dict | None = None, **values) -> str:
    """The template ``name``.html.j2 filled with ``values``; ``filters`` are functions that it calls by name."""
    environment = _environment()
    environment.filters |= filters or {}
    return environment.get_template(f"{name}.html.j2").render(values)
