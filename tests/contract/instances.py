"""Make instances of JSON schemas by a seeded generator of ours, biased to boundaries, and mutate them one rule at a time."""

import random
import re
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
