"""Our own OpenAPI description of what the gateway serves: generated from the tables, never written by hand.

It says what is enforced and nothing else: paths, parameters, bodies, statuses and, per operation, what of it a token must have.
A signed body or answer is a string of media type ``application/jwt``; what its ``message`` holds is in ``x-message``.
"""

from collections.abc import Container
from pathlib import Path
from typing import Any, Final

from hub.contract.compiling import SchemaFile, read_schemas
from hub.contract.notation import Type, expand
from hub.contract.tables import Row, is_beside, is_served, read_rows
from hub.model.route import Signing, TokenKind

_JSON: Final = "application/json"
_JWT: Final = "application/jwt"
_WITHOUT_BODY: Final = ("401", "405", "406", "415", "429")
_ERRORS: Final = {
    "type": "object",
    "required": ["Errors"],
    "additionalProperties": False,
    "properties": {
        "Errors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["Code", "Message"],
                "additionalProperties": False,
                "properties": {
                    "Code": {"type": "string"},
                    "Message": {"type": "string", "minLength": 1, "maxLength": 500},
                    "Path": {"type": "string", "minLength": 1, "maxLength": 500},
                    "Url": {"type": "string"},
                },
            },
        }
    },
}
_MESSAGE: Final = {"type": "string", "pattern": r"^[\w-]+\.[\w-]+\.[\w-]+$"}


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
        operation = _operation(row, files[row.schemas])
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
                "Errors": _ERRORS,
                **{
                    f"{name}.{label}": _schema(kind, name)
                    for name, file in files.items()
                    if name in used
                    for label, kind in file.types.items()
                },
            },
        },
    }


def _schema(kind: Type, name: str) -> Any:
    return _placed(expand(kind), name)


def _placed(schema: Any, name: str) -> Any:
    """Point references at the components of one file."""
    if isinstance(schema, list):
        return [_placed(inner, name) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        label = schema["$ref"].removeprefix("#/definitions/")
        return {"$ref": f"#/components/schemas/{name}.{label}"}
    return {key: _placed(value, name) for key, value in schema.items()}


def _operation(row: Row, file: SchemaFile) -> dict[str, Any]:
    route = row.route
    operation: dict[str, Any] = {
        "operationId": route.id,
        "tags": [route.family],
        "parameters": _parameters(row, file),
        "responses": _responses(row, file),
    }
    if route.token is not TokenKind.NONE:
        operation["security"] = [{"token": [], "certificate": []}]
        operation["x-token"] = str(route.token)
        operation["x-scopes"] = list(route.scopes)
    if route.permissions:
        operation["x-permissions"] = list(route.permissions)
    request = file.sites.get(f"{row.site} request")
    if request is not None:
        content = _content(request, route.request_signing, row.schemas)
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
            schema = _schema(row.query.get(plain, kind), row.schemas)
            found.append(_parameter(plain, "query", schema, required=name.endswith("!")))
    if route.paged:
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
    found += [_parameter(n, "header", {"type": "string"}, required=True) for n in route.forward]
    return found


def _parameter(
    name: str, place: str, schema: dict[str, Any], *, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _content(kind: Type, signing: Signing, name: str) -> dict[str, Any]:
    schema = _schema(kind, name)
    plain = {_JSON: {"schema": schema}}
    signed = {_JWT: {"schema": {**_MESSAGE, "x-message": schema}}}
    match signing:
        case Signing.NEVER:
            return plain
        case Signing.ALWAYS:
            return signed
        case Signing.ACCEPT:
            return plain | signed


def _responses(row: Row, file: SchemaFile) -> dict[str, Any]:
    route = row.route
    success = file.sites.get(f"{row.site} {route.success}")
    answer: dict[str, Any] = {"description": "Done."}
    if success is not None:
        answer["content"] = _content(success, route.response_signing, row.schemas)
    elif route.handler == "report":
        answer["content"] = {"*/*": {}}
    refusal = {"$ref": "#/components/schemas/Errors"}
    media = {_JSON: {"schema": refusal}, _JWT: {"schema": {**_MESSAGE, "x-message": refusal}}}
    statuses = ["400", "403", "500", *(["409"] if route.handler == "payment.make" else [])]
    bare = [*_WITHOUT_BODY, *(["404"] if route.finds else [])]
    bare += ["413"] if route.method != "GET" else []
    bare += ["204"] if route.handler == "payee" else []
    return {
        str(route.success): answer,
        **{status: {"description": "Refused.", "content": media} for status in statuses},
        **{status: {"description": "Refused, without a body."} for status in sorted(bare)},
        "503": {"description": "Nothing can be recorded now, so nothing is served."},
    }
