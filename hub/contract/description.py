"""Our own OpenAPI description of what the gateway serves: generated from the tables, never written by hand.

It says what is enforced and nothing else: paths, parameters, bodies, statuses and, per operation, what of it a token must have.
A signed body or answer is a string of media type ``application/jwt``; what its ``message`` holds is in ``x-message``.
What the answers look like is in ``answers``.
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Final

from hub.contract.answers import ERRORS, content_of, links_of, responses, schema_of
from hub.contract.compiling import SchemaFile, read_schemas
from hub.contract.tables import Row, is_beside, is_served, read_rows
from hub.model.route import TokenKind

_ADDRESS: Final = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}


def describe(
    folder: Path, *, server: str, version: str, beside: Container[str] = ()
) -> dict[str, Any]:
    """Return the description of a contract folder.

    Args:
        folder: ``config/contract``, or what ``hub specs use`` made of it.
        server: Base URL of the resources, without trailing slash.
        version: Of the Hub.
        beside: The versions laid beside ours that are served.
    """
    files = read_schemas(folder)
    paths: dict[str, Any] = {}
    rows = [
        row
        for row in read_rows(folder / "routes")
        if is_served(row) and (not is_beside(row) or row.route.version in beside)
    ]
    for row in rows:
        operation = _operation(row, rows, files[row.schemas])
        paths.setdefault(row.route.path, {})[row.route.method.lower()] = operation
    used = {row.schemas for row in rows}
    return {
        "openapi": "3.1.0",
        "info": {"title": "API Hub", "version": version},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
            "schemas": {
                "Errors": ERRORS,
                **{
                    f"{name}.{label}": schema_of(kind, name)
                    for name, file in files.items()
                    if name in used
                    for label, kind in file.types.items()
                },
            },
        },
    }


def _operation(row: Row, rows: Sequence[Row], file: SchemaFile) -> dict[str, Any]:
    route = row.route
    operation: dict[str, Any] = {
        "operationId": route.id,
        "tags": [route.family],
        "parameters": _parameters(row, file),
        "responses": responses(row, file, links_of(row, rows, file)),
    }
    if route.token is not TokenKind.NONE:
        operation["security"] = [{"token": [], "certificate": []}]
        operation["x-token"] = str(route.token)
        operation["x-scopes"] = list(route.scopes)
    if route.permissions:
        operation["x-permissions"] = list(route.permissions)
    request = file.sites.get(f"{row.site} request")
    if request is not None:
        content = content_of(request, route.request_signing, row.schemas)
        operation["requestBody"] = {"required": True, "content": content}
    elif route.handler == "file":
        operation["requestBody"] = {"required": True, "content": {"*/*": {}}}
    return operation


def _parameters(row: Row, file: SchemaFile) -> list[dict[str, Any]]:
    route = row.route
    names = [s[1:-1] for s in route.path.split("/") if s.startswith("{")]
    found = [_parameter(name, "path", {"type": "string"}, required=True) for name in names]
    query = file.sites.get(f"{row.site} query")
    members: dict[str, Any] = query if isinstance(query, dict) else {}
    for name, kind in members.items():
        if not name.startswith("$"):
            plain = name.removesuffix("!")
            schema = schema_of(row.query.get(plain, kind), row.schemas)
            found.append(_parameter(plain, "query", schema, required=name.endswith("!")))
    if route.paged and route.method == "GET":
        most = {"page": 100_000, "page-size": 1000}
        for name, high in most.items():
            schema = {"type": "integer", "minimum": 1, "maximum": high}
            found.append(_parameter(name, "query", schema))
    found.append(
        _parameter("x-fapi-interaction-id", "header", {"type": "string", "format": "uuid"})
    )
    if route.idempotent:
        key = {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[!-~]+$"}
        found.append(_parameter("x-idempotency-key", "header", key, required=True))
    found += [_parameter(n, "header", _ADDRESS, required=True) for n in route.forward]
    return found


def _parameter(
    name: str, place: str, schema: dict[str, Any], *, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}
