"""The compact form of our contract documents: what a body may hold, in as few marks as possible.

Theory. A *type* is one of
  ``"str 1..40"``, ``"str /^[A-Z]{3}$/"``, ``"date-time"`` ...  a scalar: kind, bounds (of length or value), format, pattern;
  ``[Credit, Debit]``                   one of these strings;
  ``{$list: TYPE, $size: "1..7"}``      an array;
  ``{Name!: TYPE, Other: TYPE}``        an object, ``!`` marks the required; closed, unless it says ``$open: true``;
  ``{..., $one: [TYPE, ...]}``          and exactly one of these as well (``$any``: at least one, ``$all``: each);
  ``"=Name"``                           the type of that name in the same document.
``condense`` makes it of a JSON schema (merging ``allOf``), ``name_repeats`` takes out what occurs more than once, and
``expand`` makes a draft-07 schema of it again. Invariant: an instance gets the same verdict from a repaired schema and
from ``expand(condense(schema))``; what JSON schema ignores (a length of a number) is left out.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import orjson

Type = str | list[str] | dict[str, Any]
_KINDS: Final = {"str": "string", "int": "integer", "num": "number", "bool": "boolean"}
_SHORT: Final = {long: short for short, long in _KINDS.items()}
_BOUNDS: Final = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
}
_UNIONS: Final = {"$one": "oneOf", "$any": "anyOf", "$all": "allOf"}
_IGNORED_FORMATS: Final = frozenset({"int32", "int64", "float", "decimal"})


def condense(schema: Any) -> Type:
    """Return the compact form of a dereferenced and repaired JSON schema."""
    schema = _flat(schema)
    if "enum" in schema:
        return sorted(schema["enum"])
    kind = schema.get("type")
    if kind == "object" or "properties" in schema or "required" in schema:
        return _object(schema)
    if kind == "array" or "items" in schema:
        return _array(schema)
    unions = _unions(schema)
    if len(unions) == 1 and len(only := next(iter(unions.values()))) == 1:
        return only[0]
    return unions or _scalar(schema)


def _flat(schema: Any) -> dict[str, Any]:
    """Merge the members of ``allOf`` into one schema where they allow it."""
    if not isinstance(schema, dict):
        return {}
    if "allOf" not in schema:
        return schema
    merged = {k: v for k, v in schema.items() if k != "allOf"}
    rest = []
    for member in schema["allOf"]:
        combined = _merge(merged, _flat(member))
        if combined is None:
            rest.append(member)
        else:
            merged = combined
    return {**merged, "allOf": rest} if rest else merged


def _merge(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any] | None:
    """Return the conjunction of two schemas as one, or None where a single object cannot say it."""
    out = dict(one)
    for key, value in two.items():
        if key not in out or out[key] == value:
            out[key] = value
        elif key == "properties":
            out[key] = _merge_properties(out[key], value)
        elif key == "required":
            out[key] = sorted({*out[key], *value})
        elif key == "enum":
            out[key] = [v for v in out[key] if v in value]
        elif key == "format":
            return None
        elif key in {"minLength", "minimum", "minItems", "minProperties"}:
            out[key] = max(out[key], value)
        elif key in {"maxLength", "maximum", "maxItems"}:
            out[key] = min(out[key], value)
        else:
            return None
    return out


def _merge_properties(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    out = dict(one)
    for name, schema in two.items():
        out[name] = _flat({"allOf": [out[name], schema]}) if name in out else schema
    return out


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    out: dict[str, Any] = {
        name + "!" * (name in required): condense(inner)
        for name, inner in sorted(schema.get("properties", {}).items())
    }
    for name in sorted(required - set(schema.get("properties", ()))):
        out[name + "!"] = "any"
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        out["$rest"] = condense(extra)
    elif extra is not False:
        out["$open"] = True
    if schema.get("minProperties"):
        out["$min"] = schema["minProperties"]
    return {**out, **_unions(schema)}


def _array(schema: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"$list": condense(schema.get("items", {}))}
    size = _range(schema, "array")
    return {**out, "$size": size} if size else out


def _unions(schema: dict[str, Any]) -> dict[str, list[Type]]:
    return {
        short: [condense(member) for member in schema[long]]
        for short, long in _UNIONS.items()
        if schema.get(long)
    }


def _scalar(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "")
    parts = [_SHORT.get(kind, "any")]
    fmt = schema.get("format", "")
    if fmt and kind == "string" and fmt not in _IGNORED_FORMATS:
        parts = [fmt]
    bounds = _range(schema, kind)
    if bounds:
        parts.append(bounds)
    if "multipleOf" in schema:
        parts.append(f"*{schema['multipleOf']}")
    if "pattern" in schema and kind in {"string", ""}:
        parts.append(f"/{schema['pattern']}/")
    return " ".join(parts)


def _range(schema: dict[str, Any], kind: str) -> str:
    low, high = (schema.get(name) for name in _BOUNDS.get(kind, ("", "")))
    if low is None and high is None:
        return ""
    return f"{'' if low is None else low}..{'' if high is None else high}"


def expand(kind: Type) -> dict[str, Any]:
    """Return the draft-07 schema of a compact type; names become references to ``definitions``."""
    if isinstance(kind, list):
        return {"enum": kind}
    if isinstance(kind, str):
        return (
            {"$ref": f"#/definitions/{kind[1:]}"} if kind.startswith("=") else _expand_scalar(kind)
        )
    unions = {
        long: [expand(m) for m in kind[short]] for short, long in _UNIONS.items() if short in kind
    }
    if "$list" in kind:
        return {
            "type": "array",
            "items": expand(kind["$list"]),
            **_expand_range(kind.get("$size", ""), "array"),
        }
    if unions and all(name in _UNIONS for name in kind):
        return unions
    return {**_expand_object(kind), **unions}


def _expand_object(kind: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in kind if not name.startswith("$")]
    required = [name[:-1] for name in names if name.endswith("!")]
    out: dict[str, Any] = {"type": "object"}
    if names:
        out["properties"] = {name.removesuffix("!"): expand(kind[name]) for name in names}
    if required:
        out["required"] = required
    if "$rest" in kind:
        out["additionalProperties"] = expand(kind["$rest"])
    elif not kind.get("$open"):
        out["additionalProperties"] = False
    if "$min" in kind:
        out["minProperties"] = kind["$min"]
    return out


_SCALAR: Final = re.compile(
    r"([a-zA-Z0-9-]+)(?: (-?[0-9.]*\.\.[0-9.]*))?(?: \*([0-9.]+))?(?: /(.*)/)?", re.DOTALL
)


def _expand_scalar(text: str) -> dict[str, Any]:
    found = _SCALAR.fullmatch(text)
    if found is None:
        raise ValueError(f"not a type: {text!r}")
    kind, bounds, step, pattern = found.groups()
    out: dict[str, Any] = {}
    if kind in _KINDS:
        out["type"] = _KINDS[kind]
    elif kind != "any":
        out |= {"type": "string", "format": kind}
    out |= _expand_range(bounds or "", out.get("type", ""))
    if step:
        out["multipleOf"] = orjson.loads(step)
    if pattern:
        out["pattern"] = pattern
    return out


def _expand_range(text: str, kind: str) -> dict[str, Any]:
    if not text:
        return {}
    low, _, high = text.partition("..")
    names = _BOUNDS[kind]
    return {name: orjson.loads(v) for name, v in zip(names, (low, high), strict=True) if v}


def children(kind: Type) -> Iterator[tuple[str, Type]]:
    """Yield the types inside a type, with the member's name they stand under."""
    if not isinstance(kind, dict):
        return
    for name, inner in kind.items():
        if name in _UNIONS:
            yield from ((name, member) for member in inner)
        elif name in {"$list", "$rest"} or not name.startswith("$"):
            yield name.removesuffix("!"), inner


def name_repeats(sites: dict[str, Type], *, worth: int = 48) -> dict[str, dict[str, Type]]:
    """Take what occurs more than once out of the sites' types and give it a name: the member's, numbered if need be.

    Args:
        sites: Types by the site's name.
        worth: Smallest size, in octets of JSON, that is worth a name.
    """
    counts: Counter[bytes] = Counter()
    labels: dict[bytes, str] = {}
    for kind in sites.values():
        _count(kind, "", counts, labels)
    names: dict[bytes, str] = {}
    for key in sorted(
        (k for k, n in counts.items() if n > 1 and len(k) >= worth), key=lambda k: (labels[k], k)
    ):
        names[key] = _free_name(labels[key], set(names.values()))
    types = {name: _named(orjson.loads(key), names, top=True) for key, name in names.items()}
    out = {site: _named(kind, names) for site, kind in sites.items()}
    return {"types": dict(sorted(types.items())), "sites": dict(sorted(out.items()))}


def _key(kind: Type) -> bytes:
    return orjson.dumps(kind, option=orjson.OPT_SORT_KEYS)


def _count(kind: Type, label: str, counts: Counter[bytes], labels: dict[bytes, str]) -> None:
    key = _key(kind)
    counts[key] += 1
    if label and not label.startswith("$"):
        labels[key] = min(labels.get(key, label), label, key=lambda t: (t[:1].islower(), t))
    labels.setdefault(key, "Item")
    if counts[key] == 1:
        for name, inner in children(kind):
            _count(inner, label if name.startswith("$") else name, counts, labels)


def _free_name(label: str, taken: set[str]) -> str:
    label = label[:1].upper() + label[1:]
    if label not in taken:
        return label
    return next(f"{label}{n}" for n in range(2, 10_000) if f"{label}{n}" not in taken)


def _named(kind: Type, names: dict[bytes, str], *, top: bool = False) -> Type:
    key = _key(kind)
    if not top and key in names:
        return "=" + names[key]
    if not isinstance(kind, dict):
        return kind
    out: dict[str, Any] = {}
    for name, inner in kind.items():
        if name in _UNIONS:
            out[name] = [_named(member, names) for member in inner]
        elif name in {"$list", "$rest"} or not name.startswith("$"):
            out[name] = _named(inner, names)
        else:
            out[name] = inner
    return out
