"""One look at the framework: fetch, verify, and turn into parts of the mirror. No state of its own.

A software statement is believed only with its assertion: signed PS256 by a key of the framework's own key set, about
the same client and organisation. Key sets come from the key store below the configured base; the addresses that a
statement names are followed only where they lie there too.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
import trio
from cryptography import x509

from hub.protocol.jose import (
    UAE_ALGS,
    JoseFault,
    PublicKey,
    load_key_set,
    parse,
    verify,
)
from hub.trust.fetch import KEY_SET_OCTETS, Absent, Document, Fetched, Fetcher, Unreachable
from hub.trust.mirror import (
    Client,
    DocumentFault,
    Index,
    Organisation,
    Revoked,
    find_statement,
    read_client,
    read_organisation,
    read_revoked_kids,
    split_organisations,
)
from hub.trust.revocation import read_crl

_EMPTY: Final = b'{"keys":[]}'
_STEP: Final = 32
_ID: Final = frozenset("0123456789abcdefABCDEF-")

Problem = Unreachable | DocumentFault
"""Why a part could not be refreshed; the old one is kept."""


def is_id(value: str) -> bool:
    """Tell whether a value may stand in a path: the 36 characters of a UUID."""
    return len(value) == 36 and set(value) <= _ID


async def look_at_index(fetcher: Fetcher, known: Index, now: int) -> Index | Problem:
    """Fetch all organisations; an unchanged list is only dated anew."""
    answer = await fetcher.organisations()
    if isinstance(answer, Document):
        if not answer.changed and known.fetched:
            return msgspec.structs.replace(known, fetched=now)
        return await _read_gently(answer.body, now)
    return _problem(answer)


async def _read_gently(document: bytes, now: int) -> Index | DocumentFault:
    """Read a list of any size in steps of about a millisecond, so that requests in flight do not wait for it."""
    rows = split_organisations(document)
    if isinstance(rows, DocumentFault):
        return rows
    found: dict[str, Organisation] = {}
    for at, row in enumerate(rows):
        if at % _STEP == 0:
            await trio.lowlevel.checkpoint()
        organisation = read_organisation(row)
        if organisation is not None:
            found[organisation.id] = organisation
    return Index(organisations=found, fetched=now)


async def look_at_revocations(
    fetcher: Fetcher, authorities: Sequence[x509.Certificate], now: int
) -> Revoked | Problem:
    """Fetch and verify the revocation list."""
    answer = await fetcher.revocation_list()
    if isinstance(answer, Document):
        return read_crl(answer.body, authorities, now)
    return _problem(answer)


async def look_at_statement_keys(fetcher: Fetcher) -> tuple[PublicKey, ...] | Problem:
    """Fetch the keys that assertions are signed with."""
    answer = await fetcher.statement_keys()
    if not isinstance(answer, Document):
        return _problem(answer)
    keys = load_key_set(answer.body, limit=KEY_SET_OCTETS)
    return DocumentFault(keys.why) if isinstance(keys, JoseFault) else keys


async def look_at_client(
    fetcher: Fetcher,
    organisation_id: str,
    client_id: str,
    statement_keys: Sequence[PublicKey],
    now: int,
) -> Client | Absent | Problem:
    """Fetch everything about one application: statement, assertion, keys, revoked keys.

    Returns ``Absent`` when the framework does not know it (any more).
    """
    if not (is_id(organisation_id) and is_id(client_id)):
        return Absent("")
    statement_id = client_id
    statement = await fetcher.statement(organisation_id, client_id)
    if isinstance(statement, Absent):
        listed = await fetcher.statements(organisation_id)
        if not isinstance(listed, Document):
            return listed
        statement_id = find_statement(listed.body, client_id)
        if not is_id(statement_id):
            return statement
        statement = await fetcher.statement(organisation_id, statement_id)
    if not isinstance(statement, Document):
        return statement
    assertion = await fetcher.assertion(organisation_id, statement_id)
    if not isinstance(assertion, Document):
        return assertion
    claims = read_assertion(assertion.body, statement_keys)
    if isinstance(claims, DocumentFault):
        return claims
    client = read_client(statement.body, claims, organisation_id)
    if isinstance(client, DocumentFault):
        return client
    return await look_at_keys(fetcher, client, now)


def read_assertion(
    token: bytes, statement_keys: Sequence[PublicKey]
) -> dict[str, Any] | DocumentFault:
    """Verify a software statement assertion and return its claims.

    Source: trust-framework.md 5 (no ``exp``: its age is that of the fetch); RFC 8725 section 3.1.
    """
    parsed = parse(token.strip(), limit=KEY_SET_OCTETS)
    if isinstance(parsed, JoseFault):
        return DocumentFault(f"the assertion is malformed: {parsed.why}")
    kid = parsed.header.get("kid")
    key = next((k for k in statement_keys if k.kid == kid and k.use == "sig"), None)
    if key is None:
        return DocumentFault("the assertion is signed with a key that the framework does not list")
    fault = verify(parsed, key, UAE_ALGS)
    if fault is not None:
        return DocumentFault(f"the assertion does not verify: {fault.why}")
    return dict(parsed.claims)


async def look_at_keys(fetcher: Fetcher, client: Client, now: int) -> Client | Problem:
    """Fetch the key sets of a client and return it with them."""
    home = f"/{client.organisation_id}/{client.software_statement_id}"
    keys = await fetcher.key_store(f"{home}/application.jwks")
    if isinstance(keys, Unreachable):
        return keys
    body = keys.body if isinstance(keys, Document) else _EMPTY
    if isinstance(fault := load_key_set(body, limit=KEY_SET_OCTETS), JoseFault):
        return DocumentFault(fault.why)
    revoked: list[str] = []
    for name in ("application", "transport"):
        answer = await fetcher.key_store(f"{home}/revoked/{name}.jwks")
        if isinstance(answer, Unreachable):
            return answer
        if isinstance(answer, Absent):
            continue
        kids = read_revoked_kids(answer.body)
        if isinstance(kids, DocumentFault):
            return kids
        revoked += kids
    return msgspec.structs.replace(client, key_set=body, revoked=tuple(revoked), fetched=now)


def usable_keys(client: Client) -> dict[tuple[str, str], PublicKey]:
    """Return a client's keys by ``kid`` and ``use``, in the order of the set, revoked ones left out."""
    keys = load_key_set(client.key_set, limit=KEY_SET_OCTETS)
    if isinstance(keys, JoseFault):
        return {}
    return {(key.kid, key.use): key for key in keys if key.kid not in client.revoked}


def described(problem: Problem) -> str:
    """Return a problem as one line for the log."""
    if isinstance(problem, Unreachable):
        return orjson.dumps([problem.url, problem.why]).decode()
    return problem.why


def _problem(answer: Fetched) -> Problem:
    if isinstance(answer, Unreachable):
        return answer
    return DocumentFault("the framework says that there is no such document")
