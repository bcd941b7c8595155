"""Write mappers: plain functions that make the TPP's shape of the bank's, generated from the two schemas.

Theory. Both schemas are walked together. For each member that the TPP's schema declares, the bank's member of the same
name (but for case) is looked for, then the aliases of ``mappers.toml``; what the bank has beyond that is dropped, for the
TPP's objects are closed. Where the types differ, the value is coerced: a numeric text to a number, a list to its first
element, a text cut to the TPP's length, an enumerated word to the TPP's spelling. A value that cannot be coerced is left
out where the member is optional. Members of a union are mapped by the union of its branches' members.

Invariant: a generated function never changes its argument, and raises ``UnmappableError`` (only inside this package) for a
shape the bank must not send.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from hub.contract.notation import Type, expand

Types = Mapping[str, Type]
Function = Callable[[Any], Any]


class UnmappableError(Exception):
    """Say which member of the bank's answer has a shape that cannot be mapped; never its value."""


def number(value: object, *, whole: bool) -> int | float | None:
    """Return a number that may come as text, or None; also for a whole one that JSON writers do not write."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if re.fullmatch(r"-?[0-9]{1,30}(?:\.[0-9]{1,20})?", value) is None:
            return None
        value = float(value) if "." in value else int(value)
    if isinstance(value, float) and value.is_integer() and whole:
        value = int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return None if whole else float(value)
    return value if isinstance(value, int) or (isinstance(value, float) and not whole) else None


def first(value: object) -> object:
    """Return the first element of a list, or the value itself."""
    if isinstance(value, list):
        return value[0] if value else None
    return value


def cut(value: object, low: int, high: int) -> object:
    """Return a text no longer than ``high``; None for one shorter than ``low``."""
    if not isinstance(value, str):
        return value
    return value[:high] if len(value) >= low else None


def whole(value: object, low: int, high: int, name: str) -> object:
    """Return an identifier as it is; one of another length must be neither cut nor left out."""
    if isinstance(value, str) and not low <= len(value) <= high:
        raise UnmappableError(name)
    return value


def must(value: object, name: str) -> object:
    """Return a required member; one that could not be coerced cannot be left out."""
    if value is None:
        raise UnmappableError(name)
    return value


def record(value: Any, name: str) -> Any:
    """Return a JSON object; anything else cannot be mapped."""
    if isinstance(value, dict):
        return value
    raise UnmappableError(name)


def items(value: Any, name: str) -> Any:
    """Return a JSON array; anything else cannot be mapped."""
    if isinstance(value, list):
        return value
    raise UnmappableError(name)


TOOLS: Final = {
    "number": number, "first": first, "cut": cut, "whole": whole, "record": record, "items": items,
    "matches": re.fullmatch, "must": must,
}  # fmt: skip


class Pair(msgspec.Struct, frozen=True):
    """Hold the two sides of a mapping: a type of the TPP's and one of the bank's, with their named types."""

    tpp: Type
    bank: Type
    tpp_types: Types
    bank_types: Types


class Writer:
    """Collect the source of all mappers; ``unmatched`` lists required TPP members that no bank member fills."""

    def __init__(
        self, aliases: Mapping[str, list[str]], spellings: Mapping[str, str] | None = None
    ) -> None:
        """Start empty.

        Args:
            aliases: TPP name to the bank's names, tried where no name matches.
            spellings: A word of the bank's to the TPP's, used where only the bank's schema has it.
        """
        self._aliases = aliases
        self.spellings = dict(spellings or {})
        self._lines: list[str] = []
        self._known: dict[str, str] = {}
        self.unmatched: list[str] = []

    def source(self) -> str:
        """Return the module's source."""
        return "\n".join(self._lines) + "\n"

    def write(self, pair: Pair, path: str) -> str:
        """Write the mapper of a pair; return the name of its function, or "" where the value passes unchanged.

        Args:
            pair: What is mapped to what.
            path: Where the TPP finds it, for messages.
        """
        body = _Body(self, pair, path).lines()
        if body is None:
            return ""
        text = "\n".join(body)
        if text not in self._known:
            self._known[text] = f"m{len(self._known)}"
            self._lines += [f"def {self._known[text]}(s):", *(f"    {line}" for line in body), ""]
        return self._known[text]

    def match(self, name: str, bank_members: Mapping[str, Type]) -> str | None:
        """Return the bank's name of a TPP member, or None."""
        folded = name.casefold()
        found = next((b for b in bank_members if b.casefold() == folded), None)
        return found or next((a for a in self._aliases.get(name, ()) if a in bank_members), None)


class _Body:
    """Write the body of one function."""

    def __init__(self, writer: Writer, pair: Pair, path: str) -> None:
        self._writer = writer
        self._pair = pair
        self._tpp = resolved(pair.tpp, pair.tpp_types)
        self._bank = resolved(pair.bank, pair.bank_types)
        self._path = path

    def lines(self) -> list[str] | None:
        if isinstance(self._tpp, dict) and "$list" in self._tpp:
            return self._list(self._tpp["$list"])
        if is_object(self._tpp, self._pair.tpp_types):
            return self._object()
        return self._scalar()

    def _list(self, element: Type) -> list[str] | None:
        bank = (
            self._bank["$list"]
            if isinstance(self._bank, dict) and "$list" in self._bank
            else self._bank
        )
        inner = self._write(element, bank, "")
        if not inner:
            return None
        made = f"[{inner}(i) for i in items(s, {self._path!r})]"
        if self._may_vanish(element):
            made = f"[m for m in {made} if m is not None]"
        return [f"return {made}"]

    def _object(self) -> list[str] | None:
        tpp = members(self._tpp, self._pair.tpp_types)
        if not tpp:
            return None
        bank = members(self._bank, self._pair.bank_types)
        lines = []
        if not all_objects(self._tpp, self._pair.tpp_types):
            lines.append("if isinstance(s, str): return s")
        # Asked in place: nearly all are objects, and a call for each costs more than its mapping.
        lines += [f"if type(s) is not dict: record(s, {self._path!r})", "o = {}"]
        for name, (kind, required) in tpp.items():
            source = self._writer.match(name, {b: t for b, (t, _) in bank.items()})
            if source is None:
                if required and "$one" not in (self._tpp or ()):
                    self._writer.unmatched.append(f"{self._path}.{name}")
                continue
            inner = self._write(kind, bank[source][0], f".{name}")
            value = f"{inner}(v)" if inner else "v"
            lines.append(f"v = s.get({source!r})")
            if inner and required and self._may_vanish(kind):
                where = f"{self._path}.{name}"
                lines.append(f"if v is not None: o[{name!r}] = must({value}, {where!r})")
            elif inner and self._may_vanish(kind):
                lines.append(f"if v is not None and (v := {value}) is not None: o[{name!r}] = v")
            else:
                lines.append(f"if v is not None: o[{name!r}] = {value}")
        return [*lines, "return o"]

    def _may_vanish(self, kind: Type) -> bool:
        found = resolved(kind, self._pair.tpp_types)
        return not (
            is_object(found, self._pair.tpp_types) or (isinstance(found, dict) and "$list" in found)
        )

    def _write(self, tpp: Type, bank: Type, step: str) -> str:
        pair = msgspec.structs.replace(self._pair, tpp=tpp, bank=bank)
        return self._writer.write(pair, self._path + step)

    def _scalar(self) -> list[str] | None:
        bank = self._bank
        if isinstance(bank, dict) and "$list" in bank:
            inner = self._write(self._pair.tpp, bank["$list"], "")
            return [f"return {inner}(first(s))" if inner else "return first(s)"]
        if isinstance(self._tpp, list):
            return _spelling(self._tpp, words(bank, self._pair.bank_types), self._writer.spellings)
        if not isinstance(self._tpp, str):
            return None
        wanted, given = expand(self._tpp), expand(bank) if isinstance(bank, str) else {}
        if wanted.get("type") in {"integer", "number"}:
            if given.get("type") == wanted["type"]:
                return None
            return [f"return number(s, whole={wanted['type'] == 'integer'})"]
        return self._text(wanted, given)

    def _text(self, wanted: dict[str, Any], given: dict[str, Any]) -> list[str] | None:
        pattern = wanted.get("pattern")
        if pattern is not None and given.get("pattern") != pattern:
            return [
                f"return s if isinstance(s, str) and matches({'(?a)' + pattern!r}, s) else None"
            ]
        high, low = wanted.get("maxLength"), wanted.get("minLength", 0)
        if high is None or pattern is not None:
            return None
        if given.get("maxLength", high + 1) <= high and given.get("minLength", -1) >= low:
            return None
        if self._path.endswith(("Id", "Identification")):
            return [f"return whole(s, {low}, {high}, {self._path!r})"]
        return [f"return cut(s, {low}, {high})"]


def _spelling(
    wanted: list[str], given: list[str], spellings: Mapping[str, str]
) -> list[str] | None:
    """Map the bank's enumerated words that the TPP spells otherwise, in case or as listed."""
    folded = {word.casefold(): word for word in wanted}
    table = {}
    for word in sorted(set(given) - set(wanted)):
        other = folded.get(word.casefold()) or spellings.get(word)
        if other in wanted:
            table[word] = other
    return [f"return {table!r}.get(s, s) if isinstance(s, str) else s"] if table else None


def resolved(kind: Type, types: Types) -> Type:
    """Follow a name to its type."""
    while isinstance(kind, str) and kind.startswith("="):
        kind = types[kind[1:]]
    return kind


def branches(kind: Type, types: Types) -> list[Type]:
    """Return the alternatives of a union, or the type itself."""
    kind = resolved(kind, types)
    if isinstance(kind, dict) and all(name.startswith("$") and name != "$list" for name in kind):
        found = [m for union in ("$one", "$any", "$all") for m in kind.get(union, ())]
        if found:
            return [inner for member in found for inner in branches(member, types)]
    return [kind]


def is_object(kind: Type, types: Types) -> bool:
    """Tell whether a type, or one of its alternatives, is an object."""
    return any(isinstance(b, dict) and "$list" not in b for b in branches(kind, types))


def all_objects(kind: Type, types: Types) -> bool:
    """Tell whether every alternative of a type is an object."""
    return all(isinstance(b, dict) and "$list" not in b for b in branches(kind, types))


def words(kind: Type, types: Types) -> list[str]:
    """Return all enumerated words of a type and its alternatives."""
    return [word for branch in branches(kind, types) if isinstance(branch, list) for word in branch]


def members(kind: Type, types: Types) -> dict[str, tuple[Type, bool]]:
    """Return an object's members, those of its alternatives too, with whether they are required."""
    found: dict[str, tuple[Type, bool]] = {}
    kind = resolved(kind, types)
    if not isinstance(kind, dict) or "$list" in kind:
        return found
    unions = [m for union in ("$one", "$any", "$all") for m in kind.get(union, ())]
    for name, inner in kind.items():
        if not name.startswith("$"):
            found[name.removesuffix("!")] = (inner, name.endswith("!"))
    for branch in unions:
        for name, (inner, _) in members(branch, types).items():
            old = found.get(name)
            if old is None or old[0] == "any":
                found[name] = (inner, False)
            elif inner not in (old[0], "any"):
                found[name] = ({"$any": [old[0], inner]}, False)
            else:
                found[name] = (inner, old[1])
    return found
