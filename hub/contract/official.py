"""Read the facts out of official OpenAPI documents: operations, and what their bodies look like.

A *site* is one body of one operation: ``("POST", "/par", "request")`` or ``("GET", "/accounts", "200")``. Only facts are
kept (types, names, enumerations, patterns, formats, bounds, required lists); descriptions, titles, examples and
discriminators are dropped while reading. References are followed; there are no cycles in these documents.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from hub.contract.repair import Schema, repair

FACTS: Final = frozenset(
    {
        "type", "properties", "required", "items", "enum", "pattern", "format", "minLength",
        "maxLength", "minItems", "maxItems", "minimum", "maximum", "multipleOf", "minProperties",
        "additionalProperties", "allOf", "anyOf", "oneOf",
    }
)  # fmt: skip
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Site = tuple[str, str, str]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one parameter of an operation: ``place`` is ``query``, ``header`` or ``path``."""

    name: str
    place: str
    required: bool
    schema: Any


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the facts of one operation: ``bodies`` by ``request`` or status, then by media type."""

    method: str
    path: str
    security: tuple[tuple[str, tuple[str, ...]], ...]
    parameters: tuple[Parameter, ...]
    bodies: dict[str, dict[str, Any]]
    statuses: tuple[str, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one document: its file, version, base path and operations by method and path (below the base)."""

    file: str
    version: str
    base: str
    operations: dict[tuple[str, str], Operation]
    repairs: tuple[str, ...]


@contextmanager
def readable(what: object) -> Iterator[None]:
    """Make one sentence about ``what`` of whatever documents of another form than ours lead to.

    Raises:
        ValueError: They are of another form; the message says where.
    """
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise ValueError(f"{what}: not YAML{where}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}: not text in UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"{what}: schemas refer to one another in a circle") from error
    except (AttributeError, KeyError, TypeError, re.error) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"{what}: not of the form of OpenAPI 3.0 documents ({told})") from error


def read_document(path: Path) -> Document:
    """Read one OpenAPI 3 document, repair its schemas, and report the repairs.

    Raises:
        ValueError: The file is not an OpenAPI 3 document.
    """
    with readable(path):
        return _read_document(path)


def _read_document(path: Path) -> Document:
    raw = yaml.load(path.read_text(), Loader=_LOADER)  # noqa: S506 - a safe loader, in C where there is one
    if not isinstance(raw, dict) or not str(raw.get("openapi", "")).startswith("3."):
        raise ValueError(f"{path}: not an OpenAPI 3 document")
    reader = _Reader(raw)
    operations = {
        (method.upper(), template): reader.operation(method.upper(), template, item, body)
        for template, item in raw.get("paths", {}).items()
        for method, body in item.items()
        if method in _METHODS
    }
    base = (raw.get("servers") or [{}])[0].get("url", "")
    return Document(
        file=path.name,
        version=str(raw["info"]["version"]),
        base=base if base.startswith("/") else "",
        operations=operations,
        repairs=tuple(dict.fromkeys(reader.repairs)),
    )


def find_documents(folder: Path) -> dict[str, Path]:
    """Return the newest document of each name below a folder: base releases first, errata over them in their order."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml"), key=lambda p: _release(p.parent.name)):
        found[path.name] = path
    return found


def _release(name: str) -> tuple[tuple[int, ...], int, str]:
    """Order ``v2.1`` before ``v2.1-errata1`` before ``v2.1-errata2``, and ``v2.1`` before ``v2.2``."""
    base, _, erratum = name.partition("-")
    numbers = tuple(int(n) for n in re.findall(r"[0-9]+", base))
    errata = re.findall(r"[0-9]+", erratum)
    return numbers, int(errata[0]) if errata else 0, name


class _Reader:
    """Follow references of one document, each once."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._schemas: dict[str, Any] = {}
        self.repairs: list[str] = []

    def operation(
        self, method: str, template: str, item: dict[str, Any], body: dict[str, Any]
    ) -> Operation:
        parameters = [*item.get("parameters", []), *body.get("parameters", [])]
        bodies = {"request": self._content(body.get("requestBody", {}), f"{method} {template}")}
        for status, answer in body.get("responses", {}).items():
            bodies[str(status)] = self._content(answer, f"{method} {template} {status}")
        security = body.get("security", self._raw.get("security", []))
        return Operation(
            method=method,
            path=template,
            security=tuple((n, tuple(s)) for row in security for n, s in row.items()),
            parameters=tuple(self._parameter(self._resolved(p)) for p in parameters),
            bodies={key: value for key, value in bodies.items() if value},
            statuses=tuple(sorted(str(s) for s in body.get("responses", {}))),
        )

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in value:
            value = self._target(value["$ref"])
        return value

    def _target(self, reference: str) -> Any:
        value: Any = self._raw
        for part in reference.removeprefix("#/").split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or name not in value:
                raise KeyError(f"nothing at {reference}")
            value = value[name]
        return value

    def _parameter(self, raw: dict[str, Any]) -> Parameter:
        return Parameter(
            name=raw["name"],
            place=raw["in"],
            required=bool(raw.get("required")),
            schema=self._schema(raw.get("schema", {})),
        )

    def _content(self, raw: dict[str, Any], where: str) -> dict[str, Any]:
        found = {}
        for media, entry in self._resolved(raw).get("content", {}).items():
            repaired = repair(self._schema(entry.get("schema", {})))
            self.repairs += [f"{where} {media} #{at}" for at in repaired.changed]
            found[media] = repaired.schema
        return found

    def _schema(self, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        reference = raw.get("$ref")
        if reference is not None:
            if reference not in self._schemas:
                self._schemas[reference] = self._schema(self._target(reference))
            return self._schemas[reference]
        return {key: self._fact(key, value) for key, value in raw.items() if key in FACTS}

    def _fact(self, key: str, value: Any) -> Any:
        if key == "properties":
            return {name: self._schema(inner) for name, inner in value.items()}
        if key in {"allOf", "anyOf", "oneOf"}:
            return [self._schema(inner) for inner in value]
        if key in {"items", "additionalProperties"}:
            return self._schema(value)
        return value


def plain_body(operation: Operation, key: str) -> Schema | None:
    """Return what a body means, whatever it is wrapped in: the JSON schema, or the ``message`` of the JWS claims."""
    media = operation.bodies.get(key, {})
    for name, schema in media.items():
        if name.startswith("application/json"):
            return dict(schema)
    signed = media.get("application/jwt")
    return None if signed is None else _message(signed)


def _message(signed: Schema) -> Schema:
    found = signed.get("properties", {}).get("message")
    if found:
        return dict(found)
    for member in signed.get("allOf", ()):
        inner = member.get("properties", {}).get("message")
        if inner:
            return dict(inner)
    return signed


def sites_of(document: Document) -> dict[str, Schema]:
    """Return what each request, query and success of a document means, by ``GET /accounts 200``.

    The three kinds of authorization detail of ``/par`` are sites too: ``authorization_details TYPE``.
    """
    sites: dict[str, Schema] = {}
    for (method, path), operation in document.operations.items():
        for key in operation.bodies:
            schema = plain_body(operation, key) if key == "request" or key < "300" else None
            if schema:
                sites[f"{method} {path} {key}"] = schema
        query = _query(operation)
        if query["properties"]:
            sites[f"{method} {path} query"] = query
    detail = sites.get("POST /par request")
    for union in _authorization_details(detail) if detail else ():
        sites[f"authorization_details {union['properties']['type']['enum'][0]}"] = union
    return sites


def _query(operation: Operation) -> Schema:
    found = [p for p in operation.parameters if p.place == "query"]
    return {
        "type": "object",
        "properties": {p.name: p.schema for p in found},
        "required": [p.name for p in found if p.required],
    }


def _authorization_details(schema: Any) -> list[Schema]:
    """Find the alternatives of ``authorization_details`` inside the request object of ``/par``."""
    if isinstance(schema, list):
        return next((found for inner in schema if (found := _authorization_details(inner))), [])
    if not isinstance(schema, dict):
        return []
    detail = schema.get("authorization_details")
    if isinstance(detail, dict) and "items" in detail:
        item = detail["items"]
        return list(item.get("anyOf") or item.get("oneOf") or [item])
    return _authorization_details(list(schema.values()))
