"""Turn compact types into Python functions that judge a value and name what is wrong, never the value.

Theory. A whole document becomes one generated module: each named type and each site is a definition, so nothing is
inlined twice. What the generator's own format checks take too lightly (or ignore) is replaced: dates are calendar
dates, date-times carry a zone, URIs may have any lawful scheme, UUIDs are checked at all. Patterns match ASCII digits
only: in Python ``\\d`` would also take Arabic ones.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import date, datetime
from types import CodeType
from typing import Any, Final

import fastjsonschema
import msgspec

from hub.contract.notation import Type, expand
from hub.contract.repair import Schema

Check = Callable[..., Any]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URI: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})+"
)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL: Final = re.compile(
    rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*"
)
_DURATION: Final = re.compile(
    r"P(?:[0-9]+W|(?=[0-9T])(?:[0-9]+Y)?(?:[0-9]+M)?(?:[0-9]+D)?"
    r"(?:T(?=[0-9])(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+S)?)?)"
)


class Violation(msgspec.Struct, frozen=True):
    """Say where a value breaks a rule and which; never the value. ``path`` is a JSON pointer, "" for the whole."""

    path: str
    rule: str
    expected: str


def is_date(text: str) -> bool:
    """Tell whether a text is a calendar date (RFC 3339 full-date); Python alone would also take weeks and other forms."""
    try:
        return _DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def is_date_time(text: str) -> bool:
    """Tell whether a text is a date-time with a zone (RFC 3339 section 5.6)."""
    if _DATE_TIME.fullmatch(text) is None:
        return False
    try:
        datetime.fromisoformat(text[:17] + text[17:19].replace("60", "59"))
    except ValueError:
        return False
    zone = text[-5:]
    return text[-1] in "Zz" or (zone[:2] <= "23" and zone[3:] <= "59")


def is_date_or_time(text: str) -> bool:
    """Tell whether a text is a date-time, with or without zone, or a bare date (the standard's guides allow both)."""
    return is_date(text) or is_date_time(text) or is_date_time(text + "Z")


def is_uuid(text: str) -> bool:
    """Tell whether a text is a UUID (RFC 9562 section 4)."""
    return _UUID.fullmatch(text) is not None


def is_base64(text: str) -> bool:
    """Tell whether a text is base64 (RFC 4648 section 4)."""
    try:
        return b64decode(text, validate=True) is not None
    except ValueError:
        return False


FORMATS: Final[Mapping[str, Callable[[str], bool]]] = {
    "date": is_date,
    "date-time": is_date_time,
    "date-or-time": is_date_or_time,
    "uuid": is_uuid,
    "uri": lambda text: _URI.fullmatch(text) is not None,
    "url": lambda text: _URI.fullmatch(text) is not None,
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "base64": is_base64,
}


def draft(types: Mapping[str, Type]) -> dict[str, Schema]:
    """Return draft-07 definitions of named types, patterns narrowed to ASCII."""
    return {name: ascii_patterns(expand(kind)) for name, kind in types.items()}


def ascii_patterns(schema: Any) -> Any:
    """Return a schema whose patterns know ASCII digits, letters and spaces only."""
    if isinstance(schema, list):
        return [ascii_patterns(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"(?a){value}"
        if key == "pattern" and isinstance(value, str)
        else ascii_patterns(value)
        for key, value in schema.items()
    }


def generate(types: Mapping[str, Type], sites: Mapping[str, Type]) -> tuple[str, dict[str, str]]:
    """Return the source of a module that judges the sites, and the function's name of each site."""
    labels = {name: f"t{number}" for number, name in enumerate([*types, *sites])}
    if len(labels) != len(types) + len(sites):
        raise ValueError("a site has the name of a type")
    definitions = {labels[n]: _relabelled(s, labels) for n, s in draft({**types, **sites}).items()}
    definitions = {
        label: _scalars_first(schema, definitions) for label, schema in definitions.items()
    }
    root = {
        "definitions": definitions,
        "type": "object",
        "properties": {label: {"$ref": f"#/definitions/{label}"} for label in definitions},
    }
    source = fastjsonschema.compile_to_code(root, formats=dict(FORMATS), use_default=False)
    return source, {site: f"validate___definitions_{labels[site]}" for site in sites}


def _relabelled(schema: Any, labels: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_relabelled(inner, labels) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return {"$ref": f"#/definitions/{labels[reference.removeprefix('#/definitions/')]}"}
    return {key: _relabelled(value, labels) for key, value in schema.items()}


def _scalars_first(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """Return a schema whose alternatives (``anyOf``) are tried in the order of what failing costs.

    An object's branch that does not fit builds its whole definition for a message that nobody reads; a sealed text, of which
    the standard has one beside most objects, would pay for all of them.
    """
    if isinstance(schema, list):
        return [_scalars_first(inner, definitions) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _scalars_first(value, definitions) for key, value in schema.items()}
    if isinstance(out.get("anyOf"), list):
        out["anyOf"].sort(key=lambda branch: not _is_text(branch, definitions))
    return out


def _is_text(branch: Any, definitions: Mapping[str, Schema]) -> bool:
    while isinstance(branch, dict) and "$ref" in branch:
        branch = definitions[branch["$ref"].removeprefix("#/definitions/")]
    return isinstance(branch, dict) and branch.get("type") == "string"


def load_checks(code: CodeType, names: Mapping[str, str]) -> dict[str, Check]:
    """Run a generated module and return its function for each site."""
    namespace: dict[str, Any] = {}
    exec(code, namespace)  # noqa: S102 - our own generated source, from a folder only the Hub may write
    return {site: namespace[function] for site, function in names.items()}


def judge(check: Check, value: Any) -> Violation | None:
    """Return the first rule that a value breaks, or None."""
    try:
        check(value, FORMATS)
    except fastjsonschema.JsonSchemaValueException as fault:
        return Violation(_pointer(fault), str(fault.rule), _expected(fault))
    return None


def _pointer(fault: fastjsonschema.JsonSchemaValueException) -> str:
    return "".join(f"/{part}" for part in fault.path[1:])


def _expected(fault: fastjsonschema.JsonSchemaValueException) -> str:
    """Say what the rule wants, from the schema alone."""
    want = fault.rule_definition
    match fault.rule:
        case "required":
            return f"the members {', '.join(want)}"
        case "additionalProperties":
            return "no members but the declared ones"
        case "enum":
            return f"one of {', '.join(str(v) for v in want)}"
        case "anyOf" | "oneOf":
            return "one of the declared forms"
        case "format" | "type" | "pattern":
            return f"{fault.rule} {str(want).removeprefix('(?a)')}"
        case _:
            return f"{fault.rule} {want}"[:200]
