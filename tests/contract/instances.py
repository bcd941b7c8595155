"""Make instances of JSON schemas by a seeded generator of ours, biased to boundaries, and mutate them: one mutation per keyword."""

import random
import re
from collections.abc import Iterator
from typing import Any

_CODES = {
    "date": "2024-02-29",
    "date-time": "2025-06-30T23:59:59.123+04:00",
    "uuid": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
    "uri": "https://example.com/a?b=c",
    "url": "https://example.com/a",
    "email": "a@example.com",
    "duration": "P1Y2M",
    "base64": "QUJD",
}
_PATTERNS = {
    r"^[A-Z0-9]{18}[0-9]{2}$": ("ABCDEFGHIJKLMNOPQR12",),
    r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$": (
        "6f9619ff-8b86-4011-b42d-00c04fc964ff",
    ),
    r"^[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?$": ("ABCDAEAD", "ABCDAEADXXX"),
    r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$": ("a@example.com",),
    r"^\+[1-9]\d{1,14}$": ("+971501234567",),
    r"^.+\..+\..+$": ("a.b.c",),
    r"^[A-Za-z]+\.[A-Za-z]+$": ("Resource.Created",),
    r"^.*[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$": (
        "https://example.com/6f9619ff-8b86-4011-b42d-00c04fc964ff",
        "6f9619ff-8b86-4011-b42d-00c04fc964ff",
    ),
    r"^([0-1][0-9]|2[0-3]):[0-5][0-9]$": ("00:00", "23:59"),
    r"^\d{1,13}$|^\d{1,13}\.\d{1,5}$": ("0", "1234567890123.12345", "10.50"),
    r"^\d{1,16}\.\d{2}$": ("0.01", "1234567890123456.99"),
    r"^[A-Z]{3,3}$": ("AED", "ZZZ"),
    r"^[A-Z]{3}$": ("AED",),
    r"^[A-Z]{2}$": ("AE",),
    r"^[A-Z]{2,2}$": ("AE",),
    r"[A-Z]{2,2}": ("AE",),
    r"[A-Z]{2}": ("AE",),
    r"[A-Z]{3}": ("AED",),
    r"[a-z]{2}": ("en",),
    r"^P(\d+Y)?(\d+M)?$": ("P1Y", "P6M"),
    r"^UTC[+-]([01]\d|2[0-4])(:?[0-5]\d)?$": ("UTC+04", "UTC-0330", "UTC+04:00"),
    r"^[A-Za-z]+\.[A-Za-z0-9]+$": ("AANI.AM04",),
    r"^\+?[1-9]\d{1,14}$": ("+971501234567",),
    r"^https:\/\/.+": ("https://example.com/hook",),
    r"^\d{4}-\d{2}-\d{2}$": ("2025-01-31",),
    r"^784-?[0-9]{4}-?[0-9]{7}-?[0-9]{1}$": ("784-1980-1234567-9",),
}


class UnmakeableError(Exception):
    """Say that this generator knows no instance of a pattern."""


class Maker:
    """Make instances of dereferenced schemas."""

    def __init__(self, seed: int) -> None:
        """Start the sequence that ``seed`` names."""
        self._dice = random.Random(seed)

    def make(self, schema: Any, *, full: float = 0.5) -> Any:
        """Return an instance; ``full`` is the chance of each optional member."""
        if "allOf" in schema:
            return self._all(schema, full)
        for union in ("oneOf", "anyOf"):
            if union in schema:
                return self._union(schema, union, full)
        if "enum" in schema:
            return self._dice.choice(schema["enum"])
        kind = schema.get("type") or ("object" if "properties" in schema else "string")
        return getattr(self, f"_{kind}")(schema, full)

    def _union(self, schema: Any, union: str, full: float) -> Any:
        branch = self.make(self._dice.choice(schema[union]), full=full)
        if not isinstance(branch, dict):
            return branch
        rest = {k: v for k, v in schema.items() if k != union}
        common = self._object(rest, full) if "properties" in rest else {}
        return {**common, **branch}

    def _all(self, schema: Any, full: float) -> Any:
        made: Any = None
        rest = {k: v for k, v in schema.items() if k != "allOf"}
        for member in [
            *schema["allOf"],
            *([rest] if "properties" in rest or "oneOf" in rest else []),
        ]:
            value = self.make(member, full=full)
            if isinstance(value, dict):
                made = {**(made or {}), **value}
            elif member.get("enum") or made is None:
                made = value
        return made

    def _object(self, schema: Any, full: float) -> Any:
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        out = {
            name: self.make(inner, full=full)
            for name, inner in properties.items()
            if inner and (name in required or self._dice.random() < full)
        }
        for name, inner in properties.items():
            if len(out) >= schema.get("minProperties", 0):
                break
            if inner:
                out[name] = self.make(inner, full=full)
        return out

    def _array(self, schema: Any, full: float) -> Any:
        low = schema.get("minItems", 0)
        high = min(schema.get("maxItems", low + 2), low + 2)
        return [
            self.make(schema.get("items", {}), full=full)
            for _ in range(self._dice.randint(low, high))
        ]

    def _string(self, schema: Any, _full: float) -> Any:
        pattern = schema.get("pattern")
        low, high = schema.get("minLength", 0), schema.get("maxLength", 50)
        if pattern is not None:
            choices = [c for c in _PATTERNS.get(pattern, ()) if low <= len(c) <= high]
            if not choices:
                raise UnmakeableError(pattern)
            return self._dice.choice(choices)
        if schema.get("format") in _CODES:
            return _CODES[schema["format"]]
        length = self._dice.choice([low, min(high, low + 3), min(high, 50)])
        return "".join(self._dice.choice("abcé漢 Z9") for _ in range(length))

    def _number(self, schema: Any, _full: float) -> Any:
        low, high = schema.get("minimum", -1), schema.get("maximum", 1000)
        return self._dice.choice([low, high, (low + high) / 2])

    def _integer(self, schema: Any, _full: float) -> Any:
        low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
        return self._dice.choice([low, high, (low + high) // 2])

    def _boolean(self, _schema: Any, _full: float) -> Any:
        return self._dice.random() < 0.5


def mutate(value: Any, dice: random.Random) -> Any:
    """Return a copy of an instance with one thing changed: a member gone, one too many, or another type or length."""
    if isinstance(value, dict) and value and dice.random() < 0.7:
        name = dice.choice(sorted(value))
        return {**value, name: mutate(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.7:
        at = dice.randrange(len(value))
        return [*value[:at], mutate(value[at], dice), *value[at + 1 :]]
    if isinstance(value, dict):
        name = dice.choice([*sorted(value), "Zz"])
        return {**value, "Zz": 1} if name == "Zz" else {k: v for k, v in value.items() if k != name}
    if isinstance(value, list):
        return dice.choice([[], value * 9, "list", None])
    if isinstance(value, str):
        changed = [value + "x" * 600, "", 7, None, re.sub("[0-9]", "٣", value), value + "\n"]
        return dice.choice(changed)
    return dice.choice(["text", None, -(10**20), [value]])


GONE = object()
"""In the place of a value: the member is taken away."""
Mutation = tuple[str, tuple[str | int, ...], Any]
"""The keyword that is meant to be broken, where, and what stands there then."""


def mutations(schema: Any, value: Any, at: tuple[str | int, ...] = ()) -> Iterator[Mutation]:
    """Yield, for each keyword that speaks of a value or of what is in it, a change meant to break that keyword alone."""
    for union in ("allOf", "oneOf", "anyOf"):
        for inner in schema.get(union, ()):
            yield from mutations(inner, value, at)
    if "type" in schema:
        yield "type", at, [value] if schema["type"] != "array" else {"0": value}
    if "enum" in schema:
        yield "enum", at, "no such word"
        yield "enum", at, f"{schema['enum'][0]} "
    if isinstance(value, dict):
        yield from _of_object(schema, value, at)
    elif isinstance(value, list):
        yield from _of_array(schema, value, at)
    elif isinstance(value, str):
        yield from _of_string(schema, value, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for keyword, step in (("minimum", -1), ("maximum", 1)):
            if keyword in schema:
                yield keyword, at, schema[keyword] + step


def _of_object(schema: Any, value: Any, at: tuple[str | int, ...]) -> Iterator[Mutation]:
    for name in schema.get("required", ()):
        if name in value:
            yield "required", (*at, name), GONE
    if schema.get("additionalProperties") is False:
        yield "additionalProperties", (*at, "Zz"), 1
    if len(value) == schema.get("minProperties", 0) > 0:
        yield "minProperties", (*at, next(iter(value))), GONE
    for name, inner in schema.get("properties", {}).items():
        if name in value and inner:
            yield from mutations(inner, value[name], (*at, name))


def _of_array(schema: Any, value: Any, at: tuple[str | int, ...]) -> Iterator[Mutation]:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if least:
        yield "minItems", at, value[: least - 1]
    if most is not None and value:
        yield "maxItems", at, (value * (most + 1))[: most + 1]
    if schema.get("items"):
        for number, item in enumerate(value[:2]):
            yield from mutations(schema["items"], item, (*at, number))


def _of_string(schema: Any, value: str, at: tuple[str | int, ...]) -> Iterator[Mutation]:
    if schema.get("minLength", 0) > 0:
        yield "minLength", at, value[: schema["minLength"] - 1]
    if "maxLength" in schema:
        yield "maxLength", at, (value or "x").ljust(schema["maxLength"] + 1, "x")
    if "pattern" in schema:
        yield "pattern", at, value + "\n"
        yield "pattern", at, re.sub("[0-9]", "٣", value) + "-"
    if "format" in schema:
        yield "format", at, re.sub("[0-9]", "9", value)
        yield "format", at, value + " "


def mutated(schema: Any, value: Any, dice: random.Random, turn: int) -> tuple[str, Any]:
    """Return a keyword and an instance mutated by it; each keyword of the schema has its ``turn``."""
    found: dict[str, list[Mutation]] = {}
    for mutation in mutations(schema, value):
        found.setdefault(mutation[0], []).append(mutation)
    keywords = [*sorted(found), ""]
    keyword = keywords[turn % len(keywords)]
    if not keyword:
        return keyword, mutate(value, dice)
    _, path, instead = dice.choice(found[keyword])
    return keyword, changed(value, path, instead)


def changed(value: Any, path: tuple[str | int, ...], instead: Any) -> Any:
    """Return a copy of a value with something else at a place."""
    if not path:
        return instead
    copy = dict(value) if isinstance(value, dict) else list(value)
    name = path[0]
    if len(path) == 1 and instead is GONE:
        del copy[name]
    else:
        inner = copy.get(name) if isinstance(copy, dict) else copy[name]
        copy[name] = changed(inner, path[1:], instead)
    return copy
