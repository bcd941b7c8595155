"""The contract, compiled: routes to match, validators to judge requests with, mappers for the bank's answers.

Compiling writes Python source from the documents in ``config/contract`` (validators.py, mapping.py) and byte-compiles it.
With a cache folder the result is kept under a key of everything it depends on: content of the folder, our generators,
Python's version. A cache file that cannot be read is compiled anew; the folder must be the Hub's own (mode 0700), for
what is in it is run. What fills the cache is a process of its own (compiling.py): compiling takes 120 MB, which the Hub
would never give back, and none of the Hub's other starts need to import what compiling needs.
"""

import hashlib
import marshal
import subprocess
import sys
import tomllib
from collections.abc import Container, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, Final
from urllib.parse import parse_qsl

import fastjsonschema
import msgspec

from hub.contract.mapper import Mapper
from hub.contract.mapping import TOOLS
from hub.contract.shape import Shape, Strip
from hub.contract.tables import Matcher, Row, is_beside, is_served, plain_id, read_rows
from hub.contract.validators import Violation, judge, load_checks
from hub.model.fault import Fault, caller_fault
from hub.model.route import Route

_AUTHORIZATION: Final = "authorization_details "
USED: Final = "specs"
"""Below a tenant's state folder: the contract in which official documents were laid over ours."""
USED_BEFORE: Final = "specs.before"
_COMPILING: Final = "hub.contract.compiling"
_COMPILING_S: Final = 120.0
GENERATORS: Final = (
    "compiling",
    "mapper",
    "mapping",
    "notation",
    "repair",
    "shape",
    "tables",
    "validators",
)
"""The modules that what is compiled depends on."""


class Compiled(msgspec.Struct, frozen=True):
    """Hold what the cache keeps: byte code, and the functions' names."""

    modules: dict[str, tuple[CodeType, dict[str, str]]]
    mappers: CodeType
    shapes: dict[str, Shape]
    projections: dict[str, str]
    queries: dict[str, tuple[str, ...]]
    requests: dict[str, str]


class Contract:
    """Hold one compiled contract; immutable, shared by all stages."""

    def __init__(
        self, rows: tuple[Row, ...], compiled: Compiled, strips: Mapping[str, tuple[Strip, ...]]
    ) -> None:
        """Bind generated functions to the rows that use them; ``load_contract`` is the way to make one."""
        self.rows = rows
        self.routes: tuple[Route, ...] = tuple(row.route for row in rows)
        self._matcher = Matcher(self.routes)
        self._rows = {row.route.id: row for row in rows}
        self._checks = {
            name: load_checks(code, names) for name, (code, names) in compiled.modules.items()
        }
        namespace: dict[str, Any] = dict(TOOLS)
        exec(compiled.mappers, namespace)  # noqa: S102 - our own generated source
        self._mappers = {
            name: Mapper(shape, namespace.get(shape.function), strips.get(plain_id(name), ()))
            for name, shape in compiled.shapes.items()
        }
        self._without_query = cache(self._judge_no_query)
        self._queries = compiled.queries
        self._requests = {r: namespace.get(name) for r, name in compiled.requests.items()}
        self._projections = {
            route_id: namespace[name] for route_id, name in compiled.projections.items()
        }

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route of a request and its path parameters (decoded), or None."""
        return self._matcher.match(method, path)

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the methods that a path knows; none for an unknown path."""
        return self._matcher.methods(path)

    def mapper(self, name: str) -> Mapper:
        """Return the response mapper of that name (``Route.mapper``)."""
        return self._mappers[name]

    def query_names(self, route_id: str) -> tuple[str, ...]:
        """Return the query parameters that a route declares; others are neither judged nor forwarded."""
        return self._queries.get(route_id, ())

    def project(self, route_id: str, value: Any) -> Any:
        """Return our own answer with only the members that the TPP's schema declares (routes whose target is the Hub).

        Raises:
            KeyError: The route's answer has no body.
        """
        return self._projections[route_id](value)

    def request(self, route_id: str, value: Any) -> Any:
        """Return a validated body in the bank's shape; a route without a mapper passes it unchanged."""
        function = self._requests.get(route_id)
        return value if function is None else function(value)

    def takes_body(self, route_id: str) -> bool:
        """Tell whether a route's requests have a body that the contract judges."""
        row = self._rows[route_id]
        return f"{row.site} request" in self._checks[row.schemas]

    def check_body(self, route_id: str, value: Any) -> Fault | None:
        """Judge a request's body (unwrapped, decoded).

        Faults: 400 ``Body.InvalidFormat``, check ``request.body``, ``path`` naming the member.
        """
        row = self._rows[route_id]
        check = self._checks[row.schemas].get(f"{row.site} request")
        broken = judge(check, value) if check is not None else None
        return None if broken is None else _fault(broken, "Body.InvalidFormat", "request.body")

    def check_query(self, route: Route, query: str) -> Fault | None:
        """Judge a request's query parameters; ``page`` and ``page-size`` are the gateway's business.

        Faults: 400 ``Resource.InvalidFormat``, check ``request.query``.
        """
        if not query:
            return self._without_query(route.id)
        row = self._rows[route.id]
        check = self._checks[row.schemas].get(f"{row.site} query")
        spelt = row.spelt.get
        pairs = [(spelt(n, n), v) for n, v in parse_qsl(query, keep_blank_values=True)]
        if len({name for name, _ in pairs}) != len(pairs):
            text = "A query parameter occurs twice."
            return caller_fault(400, "Resource.InvalidFormat", text, check="request.query")
        known = {n: _query_value(v) for n, v in pairs if n not in {"page", "page-size"}}
        if check is None:
            return None
        broken = judge(check, known)
        return None if broken is None else _fault(broken, "Resource.InvalidFormat", "request.query")

    def _judge_no_query(self, route_id: str) -> Fault | None:
        """Judge a request without a query; decided once per route."""
        row = self._rows[route_id]
        check = self._checks[row.schemas].get(f"{row.site} query")
        broken = judge(check, {}) if check is not None else None
        return None if broken is None else _fault(broken, "Resource.InvalidFormat", "request.query")

    def check_authorization_details(self, rar_type: str, element: dict[str, Any]) -> Fault | None:
        """Judge one element of ``authorization_details`` (RFC 9396 section 2).

        Args:
            rar_type: Its ``type``; selects the schema.
            element: The whole element.

        Faults: 400 ``invalid_authorization_details``, ``path`` naming the member, never a value.
        """
        code = "invalid_authorization_details"
        check = self._checks["authorization"].get(_AUTHORIZATION + rar_type)
        if check is None:
            text = "The type of the authorization detail is not supported."
            return caller_fault(400, code, text, check="authorization_details.type", path="/type")
        broken = judge(check, element)
        return None if broken is None else _fault(broken, code, "authorization_details.schema")

    @property
    def authorization_types(self) -> tuple[str, ...]:
        """Return the supported values of ``type``, for the metadata document."""
        sites = self._checks["authorization"]
        return tuple(s.removeprefix(_AUTHORIZATION) for s in sites if s.startswith(_AUTHORIZATION))

    def check_bank_answer(self, route_id: str, value: Any) -> Violation | None:
        """Judge a bank's answer against the bank's schema; the caller counts and reports by pointer."""
        row = self._rows[route_id]
        checks = self._checks.get(row.bank_schemas, {})
        check = checks.get(f"{row.bank_site} 200") or checks.get(f"{row.bank_site} 201")
        return judge(check, value) if check is not None else None

    def check_answer(self, route_id: str, value: Any) -> Violation | None:
        """Judge our own answer against the TPP's schema."""
        row = self._rows[route_id]
        check = self._checks[row.schemas].get(f"{row.site} {row.route.success}")
        return judge(check, value) if check is not None else None


def _query_value(text: str) -> Any:
    return {"true": True, "false": False}.get(text, text)


def _fault(broken: Violation, code: str, check: str) -> Fault:
    where = broken.path or "the whole"
    text = f"{where}: expected {broken.expected}"[:500]
    return caller_fault(400, code, text, check=check, path=broken.path, private=broken.rule)


def load_contract(
    folder: Path, cache: Path | None, beside: Container[str] | None = None
) -> Contract:
    """Compile the contract of a folder, or take it from the cache.

    Args:
        folder: ``config/contract``.
        cache: A folder of the Hub's own, or None for no cache.
        beside: The versions laid beside ours that are served; None serves all.

    Raises:
        ValueError: The folder contradicts itself; the message says where.
    """
    rows = read_rows(folder / "routes")
    compiled = _found(folder, cache)
    if compiled is None and cache is not None:
        _compile_apart(folder, cache)
        compiled = _found(folder, cache)
    if compiled is None:
        from hub.contract.compiling import compile_contract  # noqa: PLC0415 - seldom needed, and it needs much

        compiled = compile_contract(folder, rows)
    exceptions = tomllib.loads((folder / "mappers.toml").read_text())
    served = tuple(
        r
        for r in rows
        if is_served(r) and (beside is None or not is_beside(r) or r.route.version in beside)
    )
    return Contract(served, compiled, _strips(exceptions))


def prepare_contract(folder: Path, cache: Path) -> None:
    """Have the cache hold the contract of a folder, so that several processes need not compile it each.

    A folder that cannot be compiled leaves the cache as it is; ``load_contract`` tells why.
    """
    if _found(folder, cache) is None:
        _compile_apart(folder, cache)


def _compile_apart(folder: Path, cache: Path) -> None:
    """Fill the cache by a process of its own; whatever goes wrong in it, the cache stays as it is."""
    command = [sys.executable, "-m", _COMPILING, str(folder), str(cache)]
    none = subprocess.DEVNULL
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603 - ourselves
            command, stdin=none, stdout=none, stderr=none, timeout=_COMPILING_S, check=False
        )


def used_specs(state: Path) -> Path | None:
    """Return the contract folder that ``hub specs use`` left in a tenant's state folder, or None.

    Where that was ended between taking one folder away and putting the next in its place, it is the one before.
    """
    for folder in (state / USED, state / USED_BEFORE):
        if folder.is_dir():
            return folder if (folder / "sources.toml").is_file() else None
    return None


def _found(folder: Path, cache: Path | None) -> Compiled | None:
    """Return what was compiled of a folder; the standalone binary brings what was compiled when it was built."""
    key = key_of(folder)
    return _cached(cache, key) or _cached(folder.parent / "compiled", key)


def _strips(exceptions: dict[str, Any]) -> dict[str, tuple[Strip, ...]]:
    found: dict[str, tuple[Strip, ...]] = {}
    for raw in exceptions.get("strip", ()):
        strip = Strip(frozenset(raw["unless"]), tuple(tuple(m.split(".")) for m in raw["members"]))
        for name in raw["mapper"]:
            found[name] = (*found.get(name, ()), strip)
    return found


def key_of(folder: Path) -> str:
    """Return the key of everything that compiling a folder depends on."""
    digest = hashlib.sha256(f"{sys.version}|{fastjsonschema.VERSION}|1".encode())
    # In the standalone binary modules have no files of their own, but these lie where they would.
    ours = [Path(__file__).with_name(f"{name}.py") for name in GENERATORS]
    for path in [*sorted(folder.rglob("*.yaml")), *sorted(folder.rglob("*.toml")), *ours]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def cached_at(cache: Path, key: str) -> Path:
    """Return where a cache keeps what was compiled under a key."""
    return cache / f"contract-{key}.bin"


def _cached(cache: Path | None, key: str) -> Compiled | None:
    if cache is None:
        return None
    try:
        kept = cached_at(cache, key).read_bytes()
        modules, mappers, shapes, *rest = marshal.loads(kept)  # noqa: S302 - the Hub's own folder
        known = {name: msgspec.convert(raw, Shape) for name, raw in shapes.items()}
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return None
    return Compiled(modules, mappers, known, *rest)
