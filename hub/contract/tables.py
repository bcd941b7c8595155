"""Read the route tables of ``config/contract/routes`` and match requests against them.

A row says of one operation all that the gateway must know; what it does not say it has from its ``[family]``. Unknown
keys are errors: a misspelt permission list must not open a door.
"""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from hub.contract.notation import Type
from hub.model.route import Route

_OWN: Final = frozenset(
    {
        "id",
        "path",
        "bank",
        "query",
        "spelt",
        "schemas",
        "bank_schemas",
        "base",
        "name",
        "custom",
        "envelope",
    }
)

_REMEMBERED: Final = 2048
_REMEMBERED_OCTETS: Final = 256
"""Longer paths are not remembered, so that what a caller writes takes no memory here."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a Route with where its schemas are.

    Attributes:
        route: What the gateway sees.
        template: Path below the family's base, the schema site's name.
        schemas: Our schema file of the TPP's side.
        bank_schemas: Our schema file of the bank's side.
        bank_template: The bank's path.
        query: Types of query parameters that replace the document's.
        spelt: Other spellings of query parameters, with the document's.
        envelope: The request's body is not mapped, but put inside a record of the call.
    """

    route: Route
    template: str
    schemas: str
    bank_schemas: str = ""
    bank_template: str = ""
    query: dict[str, Type] = {}
    spelt: dict[str, str] = {}
    envelope: bool = False

    @property
    def site(self) -> str:
        """Return the name of the operation in its schema file."""
        return f"{self.route.method} {self.template}"

    @property
    def bank_site(self) -> str:
        """Return the name of the bank's operation in its schema file."""
        return f"{self.route.bank_method} {self.bank_template}"


def read_rows(folder: Path) -> tuple[Row, ...]:
    """Return all rows of a folder of route tables, in the order of files and rows.

    Raises:
        ValueError: A table names something that does not exist.
    """
    rows = [
        _row(table["family"], raw, path)
        for path in sorted(folder.glob("*.toml"))
        for table in [tomllib.loads(path.read_text())]
        for raw in table["route"]
    ]
    if len({row.route.id for row in rows}) != len(rows):
        raise ValueError(f"{folder}: two routes have the same id")
    return tuple(rows)


def _row(family: dict[str, Any], raw: dict[str, Any], path: Path) -> Row:
    merged = {**family, **raw}
    unknown = set(merged) - _OWN - set(Route.__struct_fields__)
    if unknown:
        raise ValueError(f"{path}: unknown keys {sorted(unknown)} in route {raw.get('id')}")
    method, template = merged["path"].split(" ")
    bank_method, _, bank_path = merged.get("bank", "").partition(" ")
    fields = {k: v for k, v in merged.items() if k in Route.__struct_fields__}
    fields |= {
        "id": f"{family['name']}.{raw['id']}{_beside(path)}",
        "family": family["name"],
        "method": method,
        "path": family["base"] + template,
        "bank_method": bank_method,
        "bank_path": bank_path,
        "account_parameter": "AccountId" if "{AccountId}" in template else "",
    }
    if bank_method and not merged.get("custom"):
        fields.setdefault("mapper", fields["id"])
    return Row(
        route=msgspec.convert(fields, Route),
        template=template,
        schemas=merged["schemas"],
        bank_schemas=merged.get("bank_schemas", ""),
        bank_template=bank_path,
        query=merged.get("query", {}),
        spelt=merged.get("spelt", {}),
        envelope=merged.get("envelope", False),
    )


def _beside(path: Path) -> str:
    """Return what a table of another version, laid beside ours, adds to its routes' ids (``@v2.2``)."""
    _, mark, version = path.stem.partition("@")
    return mark + version


def plain_id(route_id: str) -> str:
    """Return a route's id without its version: what exceptions are listed under."""
    return route_id.partition("@")[0]


def is_served(row: Row) -> bool:
    """Tell whether the gateway serves a row; the authorization server's are for the comparison (``hub specs``) only."""
    return row.route.target != "authorization"


def is_beside(row: Row) -> bool:
    """Tell whether a row is of another version, laid beside ours."""
    return "@" in row.route.id


class Matcher:
    """Find the route of a method and path: a tree of path segments, at each leaf the routes by method."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        """Build the tree.

        Args:
            routes: All routes; no two may share method and shape.
        """
        self._root: dict[str, Any] = {}
        for route in routes:
            node = self._root
            for segment in route.path.split("/")[1:]:
                node = node.setdefault("{}" if segment.startswith("{") else segment, {})
            leaf = node.setdefault("", {})
            if route.method in leaf:
                raise ValueError(f"{route.method} {route.path}: two routes match")
            names = [s[1:-1] for s in route.path.split("/")[1:] if s.startswith("{")]
            leaf[route.method] = (route, names)
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._find)

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route and its path parameters (percent-decoded, not to be changed), or None."""
        if len(path) > _REMEMBERED_OCTETS:
            return self._find(method, path)
        return self._remembered(method, path)

    def _find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        leaf, values = self._leaf(path)
        found = leaf.get(method)
        if found is None:
            return None
        route, names = found
        return route, dict(zip(names, values, strict=True))

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the methods that a path knows; none for an unknown path."""
        return tuple(sorted(self._leaf(path)[0]))

    def _leaf(self, path: str) -> tuple[dict[str, Any], list[str]]:
        node, values = self._root, []
        for segment in path.split("/")[1:]:
            inner = node.get(segment) if segment not in {"", "{}"} else None
            if inner is None:
                inner = node.get("{}")
                if inner is None or not segment:
                    return {}, []
                values.append(unquote(segment, errors="replace"))
            node = inner
        return node.get("", {}), values
