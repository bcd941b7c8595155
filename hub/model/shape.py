"""Small checks of foreign JSON, combined into shapes; each says which member is wrong and what was expected.

A check takes a value and returns None or a ``Wrong`` with the path below the value. Values are never repeated in it.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec


class Wrong(msgspec.Struct, frozen=True):
    """Say where (a path like ``.Amount`` or ``[2].code``) and what was expected."""

    path: str
    expected: str

    def below(self, step: str) -> "Wrong":
        """Return the same, seen from one level further up."""
        return Wrong(step + self.path, self.expected)


Check = Callable[[Any], Wrong | None]


def text(least: int = 0, most: int = 65536, pattern: str = "") -> Check:
    """Accept a string of that many characters that fits a pattern whole."""
    fits = re.compile(pattern) if pattern else None

    def check(value: Any) -> Wrong | None:
        if not isinstance(value, str):
            return Wrong("", f"expected a string, got {kind_of(value)}")
        if not least <= len(value) <= most:
            return Wrong("", f"expected {least} to {most} characters, got {len(value)}")
        if fits is not None and not fits.fullmatch(value):
            return Wrong("", f"expected a string that fits {pattern}")
        return None

    return check


def one_of(*values: str) -> Check:
    """Accept one of these strings."""
    known = frozenset(values)

    def check(value: Any) -> Wrong | None:
        if isinstance(value, str) and value in known:
            return None
        return Wrong("", f"expected one of {', '.join(values)}")

    return check


def boolean(value: Any) -> Wrong | None:
    """Accept true or false."""
    if isinstance(value, bool):
        return None
    return Wrong("", f"expected true or false, got {kind_of(value)}")


def number(value: Any) -> Wrong | None:
    """Accept a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None
    return Wrong("", f"expected a number, got {kind_of(value)}")


def integer(value: Any) -> Wrong | None:
    """Accept a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    return Wrong("", f"expected an integer, got {kind_of(value)}")


def date_time(value: Any) -> Wrong | None:
    """Accept an RFC 3339 date-time with an offset."""
    if isinstance(value, str) and _DATE_TIME.fullmatch(value) and parse_date_time(value):
        return None
    return Wrong("", "expected a date-time with an offset, as 2026-01-31T08:00:00Z")


_DATE_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_date_time(value: str) -> datetime | None:
    """Return the moment, or None if there is no such one."""
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def anything(value: Any) -> Wrong | None:
    """Accept any JSON object."""
    if isinstance(value, dict):
        return None
    return Wrong("", f"expected an object, got {kind_of(value)}")


def items(check_item: Check, least: int = 0, most: int = 1000) -> Check:
    """Accept an array of that many items, each of which fits."""

    def check(value: Any) -> Wrong | None:
        if not isinstance(value, list):
            return Wrong("", f"expected an array, got {kind_of(value)}")
        if not least <= len(value) <= most:
            return Wrong("", f"expected {least} to {most} items, got {len(value)}")
        for at, item in enumerate(value):
            wrong = check_item(item)
            if wrong is not None:
                return wrong.below(f"[{at}]")
        return None

    return check


def members(
    required: Mapping[str, Check],
    optional: Mapping[str, Check] | None = None,
    *,
    closed: bool = True,
) -> Check:
    """Accept an object with these members; others only if it is not closed."""
    known = {**(optional or {}), **required}

    def check(value: Any) -> Wrong | None:
        if not isinstance(value, dict):
            return Wrong("", f"expected an object, got {kind_of(value)}")
        for name in required:
            if name not in value:
                return Wrong(f".{name}", "is required")
        for name, member in value.items():
            if name in known:
                wrong = known[name](member)
                if wrong is not None:
                    return wrong.below(f".{name}")
            elif closed:
                return Wrong(f".{name[:64]}", f"is not one of {', '.join(known)}")
        return None

    return check


def deeper_than(value: Any, most: int) -> bool:
    """Tell whether objects and arrays lie in each other on more than that many levels."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


AMOUNT: Final = members(
    {"Amount": text(4, 19, r"[0-9]{1,16}\.[0-9]{2}"), "Currency": text(3, 3, "[A-Z]{3}")}
)


def kind_of(value: Any) -> str:
    """Name the JSON kind of a value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
