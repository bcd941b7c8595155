"""Compile the contract: schemas and route tables of a folder become byte code and names of functions.

As a program (``python -m hub.contract.compiling FOLDER CACHE``) it fills a cache and ends, so that what compiling takes
in memory is given back; ``contract.prepare_contract`` runs it. See contract.py for what the cache is.
"""

import marshal
import os
import sys
import tomllib
from pathlib import Path
from typing import Final

import msgspec
import yaml

from hub.contract.contract import Compiled, cached_at, key_of
from hub.contract.mapper import plan
from hub.contract.mapping import Pair, Writer
from hub.contract.notation import Type
from hub.contract.tables import Row, read_rows
from hub.contract.validators import generate

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SchemaFile(msgspec.Struct, frozen=True):
    """Hold one file of ``config/contract/schemas``."""

    version: str
    base: str
    types: dict[str, Type]
    sites: dict[str, Type]


def read_schemas(folder: Path) -> dict[str, SchemaFile]:
    """Return all schema files of a contract folder by name."""
    found = {}
    for path in sorted((folder / "schemas").glob("*.yaml")):
        raw = yaml.load(path.read_text(), Loader=_LOADER)  # noqa: S506 - a safe loader, in C where there is one
        found[path.stem] = SchemaFile(raw["version"], raw["base"], raw["types"], raw["sites"])
    return found


def compile_contract(folder: Path, rows: tuple[Row, ...]) -> Compiled:
    """Compile the contract of a folder.

    Raises:
        ValueError: The folder contradicts itself; the message says where.
    """
    schemas = read_schemas(folder)
    overrides = _query_overrides(rows, schemas)
    modules = {}
    for name, schema in schemas.items():
        source, names = generate(schema.types, {**schema.sites, **overrides.get(name, {})})
        modules[name] = (compile(source, f"contract/{name}", "exec"), names)
    exceptions = tomllib.loads((folder / "mappers.toml").read_text())
    writer = Writer(exceptions.get("alias", {}), exceptions.get("word", {}))
    shapes = {}
    for row in rows:
        if row.route.mapper and row.route.mapper not in shapes:
            shapes[row.route.mapper] = plan(row.route.mapper, _pair(row, schemas), writer)
    projections = {
        row.route.id: writer.write(
            Pair(kind, kind, schemas[row.schemas].types, schemas[row.schemas].types), row.route.id
        )
        for row in rows
        if row.route.target == "hub"
        and (kind := schemas[row.schemas].sites.get(f"{row.site} {row.route.success}"))
    }
    queries = {
        row.route.id: tuple(n.removesuffix("!") for n in kind if not n.startswith("$"))
        for row in rows
        if isinstance(kind := schemas[row.schemas].sites.get(f"{row.site} query"), dict)
    }
    requests = {
        row.route.id: writer.write(pair, row.route.id)
        for row in rows
        if row.route.mapper
        and not row.envelope
        and (pair := _request_pair(row, schemas)) is not None
    }
    unmatched = set(writer.unmatched) - set(exceptions.get("filled", ()))
    if unmatched:
        raise ValueError(
            f"{folder}: required members that no bank member fills: {sorted(unmatched)}"
        )
    code = compile(writer.source(), "contract/mappers", "exec")
    return Compiled(modules, code, shapes, projections, queries, requests)


def _query_overrides(
    rows: tuple[Row, ...], schemas: dict[str, SchemaFile]
) -> dict[str, dict[str, Type]]:
    found: dict[str, dict[str, Type]] = {}
    for row in rows:
        site = f"{row.site} query"
        kind = schemas[row.schemas].sites.get(site)
        if row.query and isinstance(kind, dict):
            changed = {n: row.query.get(n.removesuffix("!"), t) for n, t in kind.items()}
            found.setdefault(row.schemas, {})[site] = changed
    return found


def _pair(row: Row, schemas: dict[str, SchemaFile]) -> Pair:
    tpp, bank = schemas[row.schemas], schemas[row.bank_schemas]
    given = bank.sites.get(f"{row.bank_site} 200") or bank.sites.get(f"{row.bank_site} 201")
    wanted = tpp.sites.get(f"{row.site} {row.route.success}")
    if given is None or wanted is None:
        raise ValueError(
            f"{row.route.id}: no schema for the answer of {row.site} or {row.bank_site}"
        )
    return Pair(wanted, given, tpp.types, bank.types)


def _request_pair(row: Row, schemas: dict[str, SchemaFile]) -> Pair | None:
    """Return the pair of a request's mapping, which goes the other way: the bank's shape is made of the TPP's."""
    tpp, bank = schemas[row.schemas], schemas[row.bank_schemas]
    wanted, given = bank.sites.get(f"{row.bank_site} request"), tpp.sites.get(f"{row.site} request")
    if wanted is None or given is None:
        return None
    return Pair(wanted, given, bank.types, tpp.types)


def keep(cache: Path, key: str, compiled: Compiled) -> None:
    """Keep what was compiled, and nothing older, in a cache folder."""
    shapes = {name: msgspec.to_builtins(shape) for name, shape in compiled.shapes.items()}
    data = marshal.dumps(
        (
            compiled.modules,
            compiled.mappers,
            shapes,
            compiled.projections,
            compiled.queries,
            compiled.requests,
        )
    )
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in cache.glob("contract-*.bin"):
        old.unlink(missing_ok=True)
    partial = cache / f"contract-{key}.{os.getpid()}.partial"
    partial.write_bytes(data)
    partial.replace(cached_at(cache, key))


def main(folder: Path, cache: Path) -> None:
    """Compile the contract of a folder into a cache."""
    keep(cache, key_of(folder), compile_contract(folder, read_rows(folder / "routes")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
