"""What an operation answers, as our OpenAPI description says it: statuses, media types, headers, schemas and links.

Every status that the gateway or the edge in front of it gives is named. A refusal is signed where the answer would be. What
is no HTTP message at all never comes to an operation and is not described (400, 417, 431, 501 and 505 of the edge).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from hub.contract.compiling import SchemaFile
from hub.contract.notation import Type, expand
from hub.contract.tables import Row
from hub.model.route import Signing

_JSON: Final = "application/json"
_JWT: Final = "application/jwt"
_WITHOUT_BODY: Final = ("401", "405", "406", "415", "429")
_BEFORE: Final = ("408", "413", "421")
"""Said by the edge, before there is an operation: no interaction id is known yet."""
_CONFLICTING: Final = frozenset({"payment.make"})
ERRORS: Final = {
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
_FORMATS: Final[dict[str, dict[str, Any]]] = {
    "date-or-time": {
        "type": "string",
        "anyOf": [{"format": "date"}, {"format": "date-time"}],
        "description": "The offset may be missing.",
    },
    "url": {"type": "string", "format": "uri"},
}
"""Our own names of formats, in words that every reader of a description knows."""
_TEXT: Final = {"type": "string", "minLength": 1}
_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "401": {"WWW-Authenticate": _TEXT},
    "405": {"Allow": _TEXT},
    "429": {"Retry-After": {"type": "integer", "minimum": 1}},
}
_INTERACTION: Final = {
    "x-fapi-interaction-id": {"required": True, "schema": {"type": "string", "format": "uuid"}}
}
_DEEP: Final = 6


def schema_of(kind: Type, name: str) -> Any:
    """Return the schema of a compact type of our file ``name``."""
    return _placed(expand(kind), name)


def _placed(schema: Any, name: str) -> Any:
    """Point references at the components of one file, and spell our own formats out."""
    if isinstance(schema, list):
        return [_placed(inner, name) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        label = schema["$ref"].removeprefix("#/definitions/")
        return {"$ref": f"#/components/schemas/{name}.{label}"}
    if isinstance(schema.get("format"), str) and schema["format"] in _FORMATS:
        return _FORMATS[schema["format"]]
    return {key: _placed(value, name) for key, value in schema.items()}


def content_of(kind: Type, signing: Signing, name: str) -> dict[str, Any]:
    """Return the media types of a body with their schemas; the message of a signed one is its ``x-message``."""
    return _media(schema_of(kind, name), signing)


def _media(schema: Any, signing: Signing) -> dict[str, Any]:
    plain = {_JSON: {"schema": schema}}
    signed = {_JWT: {"schema": {**_MESSAGE, "x-message": schema}}}
    match signing:
        case Signing.NEVER:
            return plain
        case Signing.ALWAYS:
            return signed
        case Signing.ACCEPT:
            return plain | signed


def responses(row: Row, file: SchemaFile, links: dict[str, Any]) -> dict[str, Any]:
    """Return every answer of an operation by its status."""
    route = row.route
    success = file.sites.get(f"{row.site} {route.success}")
    done: dict[str, Any] = {"description": "Done.", "headers": _INTERACTION}
    if success is not None:
        told = beyond_the_last(success) if route.paged else success
        done["content"] = content_of(told, route.response_signing, row.schemas)
    elif route.handler == "report":
        done["content"] = {"*/*": {}}
    if links:
        done["x-links" if route.response_signing is Signing.ALWAYS else "links"] = links
    if route.handler == "payment.make":
        done["headers"] = {**_INTERACTION, **_required({"Location": {**_TEXT, "format": "uri"}})}
    found = {str(route.success): done}
    if route.handler == "payee":
        found["204"] = {"description": "There is no such account.", "headers": _INTERACTION}
    return found | dict(sorted(_refusals(row).items()))


def beyond_the_last(answer: Type) -> Type:
    """Return the type of a paged answer whose lists may be empty: a page beyond the last one is (DIFFERENCES.md)."""
    if not isinstance(answer, dict):
        return answer
    whole = {n: beyond_the_last(k) if n.startswith("Data") else k for n, k in answer.items()}
    return {
        n: {**k, "$size": f"0..{k['$size'].partition('..')[2]}"}
        if isinstance(k, dict) and "$list" in k and "$size" in k
        else k
        for n, k in whole.items()
    }


def _refusals(row: Row) -> dict[str, Any]:
    route = row.route
    report = route.handler == "report"
    signing = Signing.ALWAYS if report else route.response_signing
    content = _media({"$ref": "#/components/schemas/Errors"}, signing)
    said = ["400", "403", "500", *(["409"] if route.handler in _CONFLICTING else [])]
    bare = [*_WITHOUT_BODY, *(["404"] if route.finds else [])]
    told = "Refused."
    return {
        **{s: {"description": told, "headers": _INTERACTION, "content": content} for s in said},
        **{s: {"description": told, "headers": _refused_headers(s)} for s in bare},
        **{s: {"description": "Refused before the operation."} for s in _BEFORE},
        "503": {"description": "Nothing can be recorded now, so nothing is served."},
    }


def _refused_headers(status: str) -> dict[str, Any]:
    return {**_INTERACTION, **_required(_HEADERS.get(status, {}))}


def _required(schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: {"required": True, "schema": schema} for name, schema in schemas.items()}


def links_of(row: Row, rows: Sequence[Row], file: SchemaFile) -> dict[str, Any]:
    """Return the operations below this one's path, and where its answer has the id that they need.

    A signed answer is no JSON that a link's expression could point into: for its message they stand in ``x-links``.
    """
    route = row.route
    answer = file.sites.get(f"{row.site} {route.success}")
    if answer is None:
        return {}
    found = {}
    for other in rows:
        name, _, rest = other.route.path.removeprefix(f"{route.path}/{{").partition("}")
        if other.route.path.startswith(f"{route.path}/{{") and "{" not in rest:
            pointer = next(_pointers(answer, name, file, _DEEP), None)
            if pointer is not None:
                parameters = {name: f"$response.body#{pointer}"}
                found[other.route.id] = {"operationId": other.route.id, "parameters": parameters}
    return found


def _pointers(kind: Type, name: str, file: SchemaFile, deep: int) -> Iterator[str]:
    """Yield where an answer has a member of this name: of lists the first item."""
    if isinstance(kind, str) and kind.startswith("="):
        yield from _pointers(file.types[kind[1:]], name, file, deep)
    if not isinstance(kind, dict) or not deep:
        return
    for member, inner in kind.items():
        plain = member.removesuffix("!")
        if plain == name:
            yield f"/{name}"
        elif plain == "$list":
            yield from (f"/0{rest}" for rest in _pointers(inner, name, file, deep - 1))
        elif not plain.startswith("$"):
            yield from (f"/{plain}{rest}" for rest in _pointers(inner, name, file, deep - 1))
