"""The official documents beside ours: list, check, use, diff (``hub specs``).

Theory. A document is compared by its facts, site by site, whatever its components are called or how it is arranged: both sides
are brought to the compact form with all names resolved, and the first difference of each member is told by pointer. A route is
compared with its operation: kind of token, scopes, media types, 404. ``use`` writes a contract folder in which the official
facts replace ours; a document whose base path names another version than ours is laid beside it under that version, so the
loader knows no version number.
"""

import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from hub.contract.compiling import SchemaFile, read_schemas
from hub.contract.contract import USED, USED_BEFORE
from hub.contract.mapping import resolved
from hub.contract.notation import Type, condense, name_repeats
from hub.contract.official import (
    Document,
    Operation,
    find_documents,
    read_document,
    readable,
    sites_of,
)
from hub.contract.tables import Row, read_rows
from hub.model.route import Signing, TokenKind

HEAD: Final = "# Facts of the standard in the notation of hub/contract/notation.py; written by scripts/contract.\n"
_LISTED: Final = re.compile(r"^- `([^`]+)`", re.MULTILINE)
_JSON: Final = "application/json"
_JWT: Final = "application/jwt"


class Spec(msgspec.Struct, frozen=True):
    """Hold one line of ``list``: our schema file, the document behind it, its version, base path and sites."""

    name: str
    document: str
    version: str
    base: str
    sites: int


class Difference(msgspec.Struct, frozen=True):
    """Hold one difference: where (``account-information GET /accounts 200 /Data``), what, and whether it is listed."""

    where: str
    what: str
    listed: bool = False

    @property
    def text(self) -> str:
        """Return the line as ``DIFFERENCES.md`` lists it."""
        return f"{self.where}: {self.what}"


class Used(msgspec.Struct, frozen=True):
    """Hold what ``use`` did: the documents laid down, and every repair by operation."""

    documents: tuple[str, ...]
    repairs: tuple[str, ...]


def list_specs(contract: Path) -> tuple[Spec, ...]:
    """Return what our contract folder holds."""
    sources = _sources(contract)
    return tuple(
        Spec(
            n,
            sources.get(n.partition("@")[0], {}).get("document", ""),
            s.version,
            s.base,
            len(s.sites),
        )
        for n, s in read_schemas(contract).items()
    )


def check_specs(contract: Path, official: Path) -> tuple[Difference, ...]:
    """Compare our contract with a folder of official documents, operation by operation.

    Args:
        contract: ``config/contract``.
        official: Base releases and errata below it; the newest of each document counts.

    Returns:
        Every difference; ``listed`` are those that ``DIFFERENCES.md`` gives a reason for.

    Raises:
        ValueError: The folder holds none of our documents.
    """
    documents = find_documents(official)
    schemas, rows = read_schemas(contract), read_rows(contract / "routes")
    found: list[Difference] = []
    for name, source in _sources(contract).items():
        if source["document"] not in documents:
            continue
        document = read_document(documents[source["document"]])
        theirs = _facts(document, source)
        found += _compare_sites(name, schemas[name], SchemaFile("", "", {}, theirs))
        if source["face"] == "tpp":
            found += _compare_routes(
                name, _served(document, source), [r for r in rows if r.schemas == name]
            )
    if not any(s["document"] in documents for s in _sources(contract).values()):
        raise ValueError(f"{official}: none of our documents is here")
    listed = listed_differences(contract)
    return tuple(msgspec.structs.replace(d, listed=d.text in listed) for d in found)


def listed_differences(contract: Path) -> frozenset[str]:
    """Return the differences that ``DIFFERENCES.md`` lists with a reason."""
    path = contract / "DIFFERENCES.md"
    return frozenset(_LISTED.findall(path.read_text())) if path.exists() else frozenset()


def diff_specs(old: Path, new: Path) -> tuple[Difference, ...]:
    """Return what a new release of the official documents would change, document by document."""
    before, after = find_documents(old), find_documents(new)
    found = [Difference(n, "is new") for n in sorted(after.keys() - before.keys())]
    found += [Difference(n, "is gone") for n in sorted(before.keys() - after.keys())]
    for name in sorted(before.keys() & after.keys()):
        one, two = (
            SchemaFile("", "", {}, _facts(read_document(p[name]), {})) for p in (before, after)
        )
        found += [Difference(d.where, _in_time(d.what)) for d in _compare_sites(name, two, one)]
    return tuple(found)


def _in_time(what: str) -> str:
    """Reword a difference between ours and theirs as one between now and before."""
    whole = {"only ours": "is new", "missing in ours": "is gone"}
    return whole.get(what) or what.replace("ours", "now", 1).replace("theirs", "before", 1)


def use_specs(contract: Path, official: Path, target: Path) -> Used:
    """Write a contract folder in which the official documents' facts are the ones enforced.

    Args:
        contract: Ours: routes and exceptions.
        official: The documents, repaired while reading.
        target: Folder to write; what was in it is replaced.

    Raises:
        ValueError: None of our documents is in ``official``.
    """
    documents = find_documents(official)
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(contract, target)
    used, repairs = [], []
    for name, source in _sources(contract).items():
        path = documents.get(source["document"])
        if path is None:
            continue
        document = read_document(path)
        write_schemas(target, _laid_down(target, name, document), _served(document, source))
        used.append(f"{document.file} {document.version}")
        repairs += [f"{document.file}: {repair}" for repair in document.repairs]
    if not used:
        raise ValueError(f"{official}: none of our documents is here")
    return Used(tuple(used), tuple(repairs))


def lay_down(
    official: Path | None,
    contract: Path,
    state: Path,
    *,
    prove: Callable[[Path], object] = lambda _: None,
) -> Used:
    """Lay official documents over ours for one tenant, whole or not at all.

    Args:
        official: The documents; None takes away what was laid down before.
        contract: Ours.
        state: The tenant's state folder.
        prove: Called with the new contract folder before it counts; what it raises leaves everything as it was.

    Raises:
        ValueError: None of our documents is in ``official``, or what is there contradicts itself.
        OSError: The state folder cannot be written.
    """
    target, before, partial = state / USED, state / USED_BEFORE, state / f"{USED}.partial"
    if official is None:
        shutil.rmtree(before, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            target.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)
        return Used((), ())
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        used = use_specs(contract, official, partial)
        with readable(official):
            prove(partial)
        if target.exists():
            shutil.rmtree(before, ignore_errors=True)
            target.rename(before)
        partial.rename(target)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return used


def write_schemas(contract: Path, name: str, document: Document, only: str = "") -> str:
    """Write one schema file of a document's facts; return its text.

    Args:
        contract: Folder.
        name: Of the file.
        document: Read.
        only: Where the paths of the operations begin that we serve; empty for all.
    """
    sites = _facts(document, {"only": only})
    text = HEAD + yaml.dump(
        {"version": document.version, "base": document.base, **name_repeats(sites)},
        default_flow_style=None,
        width=120,
        allow_unicode=True,
    )
    (contract / "schemas").mkdir(exist_ok=True)
    (contract / "schemas" / f"{name}.yaml").write_text(text)
    return text


def _laid_down(target: Path, name: str, document: Document) -> str:
    """Return the schema file's name; a document of another version than our routes gets routes of its own."""
    path = target / "routes" / f"{name}.toml"
    if not path.exists() or not document.base:
        return name
    text = path.read_text()
    family = tomllib.loads(text)["family"]
    if document.base == family["base"]:
        return name
    if not family["base"]:
        return (
            name  # the authorization server's own; its document has a base path that nobody serves
        )
    version = document.base.rsplit("/", 1)[-1]
    beside = f"{name}@{version}"
    text = text.replace(f'version = "{family["version"]}"', f'version = "{version}"', 1)
    text = text.replace(f'base = "{family["base"]}"', f'base = "{document.base}"', 1)
    text = text.replace(f'schemas = "{name}"', f'schemas = "{beside}"', 1)
    (target / "routes" / f"{beside}.toml").write_text(text)
    return beside


def _served(document: Document, source: dict[str, str]) -> Document:
    """Return of a document the operations that we serve: those below ``only``, all where the source has none."""
    only = source.get("only", "")
    kept = {key: value for key, value in document.operations.items() if key[1].startswith(only)}
    return msgspec.structs.replace(document, operations=kept)


def _facts(document: Document, source: dict[str, str]) -> dict[str, Type]:
    with readable(document.file):
        sites = sites_of(_served(document, source))
        return {site: condense(schema) for site, schema in sites.items()}


def _sources(contract: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads((contract / "sources.toml").read_text())


def _compare_sites(name: str, ours: SchemaFile, theirs: SchemaFile) -> Iterator[Difference]:
    for site in sorted(ours.sites.keys() | theirs.sites.keys()):
        if site not in theirs.sites:
            yield Difference(f"{name} {site}", "only ours")
        elif site not in ours.sites:
            yield Difference(f"{name} {site}", "missing in ours")
        else:
            for path, what in _unlike(ours.sites[site], theirs.sites[site], ours, theirs):
                yield Difference(f"{name} {site} {path}".rstrip(), what)


def _unlike(
    ours: Type, theirs: Type, one: SchemaFile, two: SchemaFile, at: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield where two types differ and how."""
    ours, theirs = resolved(ours, one.types), resolved(theirs, two.types)
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        if ours != theirs:
            yield at, f"ours {_shown(ours)}, theirs {_shown(theirs)}"
        return
    for name in sorted(ours.keys() | theirs.keys()):
        step = f"{at}/{name}"
        if name not in ours or name not in theirs:
            yield step, "only ours" if name in ours else "missing in ours"
        elif isinstance(ours[name], list) and name.startswith("$"):
            yield from _unlike_branches(ours[name], theirs[name], one, two, step)
        elif name.startswith("$") and name not in {"$list", "$rest"}:
            if ours[name] != theirs[name]:
                yield step, f"ours {ours[name]}, theirs {theirs[name]}"
        else:
            yield from _unlike(ours[name], theirs[name], one, two, step)


def _unlike_branches(
    ours: list[Type], theirs: list[Type], one: SchemaFile, two: SchemaFile, at: str
) -> Iterator[tuple[str, str]]:
    if len(ours) != len(theirs):
        yield at, f"ours has {len(ours)} alternatives, theirs {len(theirs)}"
        return
    for number, (first, second) in enumerate(zip(ours, theirs, strict=True)):
        yield from _unlike(first, second, one, two, f"{at}/{number}")


def _shown(kind: Type) -> str:
    return (
        kind
        if isinstance(kind, str)
        else f"one of {len(kind)}"
        if isinstance(kind, list)
        else "an object"
    )


def _compare_routes(name: str, document: Document, rows: list[Row]) -> Iterator[Difference]:
    known = {(row.route.method, row.template): row for row in rows}
    for key, operation in document.operations.items():
        where = f"{name} {' '.join(key)}"
        row = known.pop(key, None)
        if row is None:
            yield Difference(where, "not served by the gateway")
            continue
        for what in _unlike_route(row, operation):
            yield Difference(where, what)
    for method, template in known:
        yield Difference(f"{name} {method} {template}", "not in the document")


def _unlike_route(row: Row, operation: Operation) -> Iterator[str]:
    route = row.route
    kinds = {"TPPOAuth2Security": TokenKind.CLIENT, "UserOAuth2Security": TokenKind.USER}
    wanted = {kinds[n] for n, _ in operation.security if n in kinds}
    if wanted and wanted != {route.token}:
        yield f"token is {route.token}, theirs {', '.join(sorted(wanted))}"
    scopes = {s for _, scopes in operation.security for s in scopes if s != "openid"}
    if scopes and scopes != set(route.scopes):
        yield f"scopes are {', '.join(sorted(route.scopes))}, theirs {', '.join(sorted(scopes))}"
    if ("404" in operation.statuses) != route.finds:
        yield f"404 is {'answered' if route.finds else 'not answered'}, theirs the other way"
    if str(route.success) not in operation.statuses:
        yield f"success is {route.success}, theirs is not"
    for what, signing, body in (
        ("request", route.request_signing, operation.bodies.get("request")),
        ("answer", route.response_signing, operation.bodies.get(str(route.success))),
    ):
        if (
            body
            and any(m.startswith((_JSON, _JWT)) for m in body)
            and _signing(body) is not signing
        ):
            yield f"{what} is signed {signing}, theirs {_signing(body)}"
    signed = operation.bodies.get(str(route.success), {}).get(_JWT, {})
    kind = _claims(signed).get("aud", {}).get("type")
    if kind and (kind == "string") is not route.one_audience:
        ours = "one string" if route.one_audience else "a list"
        yield f"answer has {ours} as aud, theirs {kind}"
    for parameter, kind in row.query.items():
        yield f"query {parameter} is {kind}"


def _claims(signed: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a signed body, wherever in a conjunction they are declared."""
    found = dict(signed.get("properties", {}))
    for member in signed.get("allOf", ()):
        found |= _claims(member)
    return found


def _signing(body: dict[str, Any]) -> Signing:
    json = any(media.startswith(_JSON) for media in body)
    if _JWT not in body:
        return Signing.NEVER
    return Signing.ACCEPT if json else Signing.ALWAYS
