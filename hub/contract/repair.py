"""Repair closed objects that no instance can satisfy, and say which were repaired.

Theory. ``additionalProperties: false`` looks only at the ``properties`` beside it. In an ``allOf`` whose members declare
different names, a closed member therefore forbids what its siblings require, and nothing validates. The authors meant
"nothing but what any member declares". So: where a closed member of one object's conjunction forbids a name that is
declared elsewhere in the same object, all members are opened and the result is closed over the union of the names;
beside a ``oneOf`` or ``anyOf``, each branch is closed over the common names and its own.

Invariant: a schema without such a contradiction comes back equal.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

Schema = dict[str, Any]
_COMBINERS: Final = ("allOf", "oneOf", "anyOf")


class Repaired(msgspec.Struct, frozen=True):
    """Hold a repaired schema with the JSON pointers of the objects that were changed."""

    schema: Any
    changed: tuple[str, ...]


def repair(schema: Any, at: str = "") -> Repaired:
    """Return a schema that says what was meant.

    Args:
        schema: Fully dereferenced, without examples.
        at: JSON pointer of the schema, the prefix of what is reported.
    """
    changed: list[str] = []
    return Repaired(_repair(schema, at, changed), tuple(changed))


def _repair(schema: Any, at: str, changed: list[str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    if schema.get("type", "object") == "object" and _contradicts(schema):
        changed.append(at)
        schema = _reclosed(schema)
    out: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {n: _repair(v, f"{at}/properties/{n}", changed) for n, v in value.items()}
        elif key in _COMBINERS:
            out[key] = [_repair(v, f"{at}/{key}/{i}", changed) for i, v in enumerate(value)]
        elif key == "items":
            out[key] = _repair(value, f"{at}/items", changed)
        else:
            out[key] = value
    return out


def _contradicts(schema: Schema) -> bool:
    everything = _names(schema)
    return any(everything - allowed for allowed in _closures(schema))


def _names(schema: Schema) -> set[str]:
    """Return every name that any member of the conjunction or any branch declares."""
    found = set(schema.get("properties", ()))
    for combiner in _COMBINERS:
        for member in schema.get(combiner, ()):
            found |= _names(member)
    return found


def _closures(schema: Schema) -> Iterator[set[str]]:
    """Yield the names that each closed member of the conjunction allows."""
    if schema.get("additionalProperties") is False:
        yield set(schema.get("properties", ()))
    for member in schema.get("allOf", ()):
        yield from _closures(member)


def _opened(schema: Schema) -> Schema:
    out = {k: v for k, v in schema.items() if (k, v) != ("additionalProperties", False)}
    for combiner in _COMBINERS:
        if combiner in out:
            out[combiner] = [_opened(member) for member in out[combiner]]
    return out


def _reclosed(schema: Schema) -> Schema:
    base = _opened(schema)
    union = next((c for c in ("oneOf", "anyOf") if c in base), None)
    if union is None:
        return _closed(base, _names(base))
    rest = {k: v for k, v in base.items() if k != union}
    common = _names(rest)
    return {**rest, union: [_closed(branch, common | _names(branch)) for branch in base[union]]}


def _closed(schema: Schema, allowed: set[str]) -> Schema:
    properties = {**{name: {} for name in sorted(allowed)}, **schema.get("properties", {})}
    return {**schema, "additionalProperties": False, "properties": properties}
