# SPDX-License-Identifier: GPL-2.0-only
"""Dataclasses out of JSON: each value is what its field is declared as, or a ValueError names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

_T = TypeVar("_T")
_NAMES: dict[object, str] = {str: "text", int: "whole number", float: "number", dict: "object", list: "list"}


def build(kind: type[_T], record: object, where: str = "") -> _T:
    """A `kind` of the members of `record`, a JSON object; what is not there has the field's default.

    A list becomes the tuple that the field is. `where`: of which field this is the value, for messages.
    Raises ValueError.
    """
    declared, required = _declared(cast(Any, kind))
    values = {}
    for name, value in _is(dict, record, where).items():
        if name not in declared:
            raise ValueError(f"nothing is called {name!r}{_of(where)}")
        values[name] = _value(declared[name], value, name)
    for name in required:
        if name not in values:
            raise ValueError(f"there is no {name!r}{_of(where)}")
    return kind(**values)


@cache
def _declared(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """The types of the fields that `kind` is made of, and those that have no default."""
    hints = get_type_hints(kind)
    made_of = [each for each in fields(kind) if each.init]
    required = [each.name for each in made_of if each.default is MISSING and each.default_factory is MISSING]
    return {each.name: hints[each.name] for each in made_of}, required


def _value(declared: Any, value: object, name: str) -> Any:
    """`value` as what is `declared`: a type of JSON, an enumeration, a dataclass, or a tuple or mapping of these."""
    origin, parts = get_origin(declared), get_args(declared)
    if origin is UnionType:
        (other,) = (each for each in parts if each is not type(None))
        return None if value is None else _value(other, value, name)
    if origin is tuple:
        items = _is(list, value, name)
        if parts[1:] == (...,):
            parts = (parts[0],) * len(items)
        if len(parts) != len(items):
            raise ValueError(f"{name!r} has {len(items)} parts instead of {len(parts)}")
        return tuple(_value(part, item, name) for part, item in zip(parts, items, strict=True))
    if origin is Mapping:
        return {key: _value(parts[1], each, name) for key, each in _is(dict, value, name).items()}
    if declared is float:
        return _number(value, name)
    kind: Any = declared
    if is_dataclass(declared):
        return build(kind, value, name)
    if issubclass(declared, Enum):
        return declared(_is(str, value, name))
    return _is(declared, value, name)


def _is(kind: type[_T], value: object, name: str) -> _T:
    if type(value) is not kind:  # True is an int, too
        raise ValueError(f"{name!r} is no {_NAMES[kind]}" if name else f"it is no {_NAMES[kind]}")
    return value


def _number(value: object, name: str) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(number := float(value)):  # type: ignore[arg-type]
            return number
    except OverflowError:
        pass
    raise ValueError(f"{name!r} is no number")


def _of(where: str) -> str:
    return f" in {where!r}" if where else ""
