"""Our own OpenAPI description of what a bank calls on the Hub: the Consent Manager and Headless Heimdall.

Made of ``config/contract/bank-side.yaml``, whose operations are held against the routes that are served by a test. It says
what is answered; what is taken is judged by the operations themselves.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from hub.contract.answers import schema_of
from hub.contract.notation import Type

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX: Final = "bank"
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_TEXT: Final = {"type": "string", "minLength": 1}
_GUARD: Final = ("401", "403", "503")
"""What the guard and the store say, of any operation."""
_BARE: Final = ("408", "413", "421")
"""Said by the edge, before there is an operation."""


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say where an answer has a parameter of other operations: a JSON pointer, and their ids."""

    at: str
    to: tuple[str, ...]


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold one operation of the file; without ``answer`` nothing is answered but that it is done."""

    call: str
    query: dict[str, Type] = {}
    body: Type | None = None
    form: Type | None = None
    answer: Type | None = None
    refusal: Type = "=Error"
    redirects: bool = False
    links: dict[str, Link] = {}

    @property
    def method(self) -> str:
        """Return the method."""
        return self.call.partition(" ")[0]

    @property
    def path(self) -> str:
        """Return the path template."""
        return self.call.partition(" ")[2]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    types: dict[str, Type]
    operations: dict[str, Operation]


def read_bank_side(folder: Path) -> dict[str, Operation]:
    """Return the operations of a contract folder by their ids.

    Raises:
        msgspec.ValidationError: The file has another form.
    """
    return _read(folder).operations


def _read(folder: Path) -> _File:
    raw = yaml.load((folder / "bank-side.yaml").read_text(), Loader=_LOADER)  # noqa: S506 - a safe loader, in C where there is one
    return msgspec.convert(raw, _File)


def describe_bank_side(folder: Path, *, server: str, version: str) -> dict[str, Any]:
    """Return the description.

    Args:
        folder: ``config/contract``.
        server: Base URL of the bank's face, without trailing slash.
        version: Of the Hub.
    """
    file = _read(folder)
    paths: dict[str, Any] = {}
    for name, operation in file.operations.items():
        paths.setdefault(operation.path, {})[operation.method.lower()] = _said(name, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "API Hub, the bank's side", "version": version},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
            "schemas": {f"{_PREFIX}.{n}": schema_of(kind, _PREFIX) for n, kind in file.types.items()},
        },
    }  # fmt: skip


def _said(name: str, operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": name,
        "security": [{"certificate": []}],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    for media, kind in ((_JSON, operation.body), (_FORM, operation.form)):
        if kind is not None:
            content = {media: {"schema": schema_of(kind, _PREFIX)}}
            said["requestBody"] = {"required": media == _JSON, "content": content}
    return said


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [s[1:-1] for s in operation.path.split("/") if s.startswith("{")]
    found = [{"name": n, "in": "path", "required": True, "schema": _TEXT} for n in names]
    for name, kind in operation.query.items():
        plain, required = name.removesuffix("!"), name.endswith("!")
        schema = schema_of(kind, _PREFIX)
        found.append({"name": plain, "in": "query", "required": required, "schema": schema})
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if operation.answer is not None:
        found["200"] = {"description": "Done.", "content": _content(operation.answer)}
        if operation.links:
            found["200"]["links"] = _links(operation)
    elif not operation.redirects:
        found["204"] = {"description": "Done."}
    if operation.redirects:
        location = {"required": True, "schema": {**_TEXT, "format": "uri"}}
        told = "The customer goes back to the TPP."
        found["303"] = {"description": told, "headers": {"Location": location}}
    refused = {"description": "Refused.", "content": _content(operation.refusal)}
    found["400"] = refused
    if "{" in operation.path and not operation.redirects:
        found["404"] = refused
    for status in _GUARD:
        found[status] = {"description": "Refused.", "content": _content("=Error")}
    allow = {"Allow": {"required": True, "schema": _TEXT}}
    found["405"] = {"description": "Refused.", "headers": allow}
    return found | {s: {"description": "Refused before the operation."} for s in _BARE}


def _content(kind: Type) -> dict[str, Any]:
    return {_JSON: {"schema": schema_of(kind, _PREFIX)}}


def _links(operation: Operation) -> dict[str, Any]:
    return {
        other: {"operationId": other, "parameters": {name: f"$response.body#{link.at}"}}
        for name, link in operation.links.items()
        for other in link.to
    }
