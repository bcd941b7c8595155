"""One look at the framework: fetch, verify, and turn into parts of the mirror. No state of its own.

A software statement is believed only with its assertion: signed PS256 by a key of the framework's own key set, about
the same client and organisation. Key sets come from the key store below the configured base; the addresses that a
statement names are followed only where they lie there too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson
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
    Revoked,
    find_statement,
    read_client,
    read_kids,
)
from hub.trust.reading import reading
from hub.trust.revocation import OcspAnswer, ask_for, read_crl, read_ocsp

_EMPTY: Final = b'{"keys":[]}'
_ID: Final = frozenset("0123456789abcdefABCDEF-")

Problem = Unreachable | DocumentFault
"""Why a part could not be refreshed; the old one is kept."""


def is_id(value: str) -> bool:
    """Tell whether a value may stand in a path: the 36 characters of a UUID."""
    return len(value) == 36 and set(value) <= _ID


async def look_at_index(
    fetcher: Fetcher, held: Mapping[str, bytes]
) -> tuple[dict[str, bytes], int] | Problem:
    """Fetch all organisations; return the buckets that differ from those held, and when the list was last confirmed."""
    async with reading(held) as reader:
        answer = await fetcher.organisations(reader.take)
        if not isinstance(answer, Document):
            return _problem(answer)
        if not answer.changed:
            return {}, answer.confirmed
        buckets = await reader.changed()
    if isinstance(buckets, DocumentFault):
        fetcher.forget_organisations()
        return buckets
    return buckets, answer.confirmed


async def look_at_revocations(
    fetcher: Fetcher, authorities: Sequence[x509.Certificate], now: int, former: Revoked
) -> Revoked | Problem:
    """Fetch and verify the revocation list; one that did not change since ``former`` must only be in date still."""
    answer = await fetcher.revocation_list()
    if not isinstance(answer, Document):
        return _problem(answer)
    if not answer.changed and former.next_update > now:
        return msgspec.structs.replace(former, fetched=answer.confirmed)
    read = read_crl(answer.body, authorities, now)
    if isinstance(read, Revoked):
        return msgspec.structs.replace(read, fetched=answer.confirmed)
    fetcher.forget_revocation_list()
    return read


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
    former: Client | None = None,
) -> Client | Absent | Problem:
    """Fetch everything about one application: statement, assertion, keys, revoked keys.

    ``former`` is what was known of it: the same key set is not judged twice.

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
    if former is not None:
        client = msgspec.structs.replace(client, key_set=former.key_set)
    return await look_at_keys(fetcher, client)


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


async def look_at_keys(fetcher: Fetcher, client: Client) -> Client | Problem:
    """Fetch the key sets of a client and return it with them."""
    home = f"/{client.organisation_id}/{client.software_statement_id}"
    keys = await fetcher.key_store(f"{home}/application.jwks")
    if isinstance(keys, Unreachable):
        return keys
    body = keys.body if isinstance(keys, Document) else _EMPTY
    if body != client.key_set:
        judged = load_key_set(body, limit=KEY_SET_OCTETS)
        if isinstance(judged, JoseFault):
            return DocumentFault(judged.why)
    revoked: list[str] = []
    for name in ("application", "transport"):
        kids = await _kids(fetcher, f"{home}/revoked/{name}.jwks")
        if not isinstance(kids, tuple):
            return kids
        revoked += kids
    transport = await _kids(fetcher, f"{home}/transport.jwks")
    if not isinstance(transport, tuple):
        return transport
    return msgspec.structs.replace(
        client, key_set=body, revoked=tuple(revoked), transport=transport
    )


async def _kids(fetcher: Fetcher, path: str) -> tuple[str, ...] | Problem:
    """Fetch a key set and return its key ids; none where there is no such set."""
    answer = await fetcher.key_store(path)
    if isinstance(answer, Unreachable):
        return answer
    return () if isinstance(answer, Absent) else read_kids(answer.body)


def published_kids(client: Client) -> tuple[str, ...]:
    """Return the ids of all keys that a client has published and that are not revoked."""
    kids = read_kids(client.key_set)
    return (*(kids if isinstance(kids, tuple) else ()), *client.transport)


def missing_ends(client: Client) -> list[str]:
    """Return the ids of published keys whose end is not known yet."""
    return [kid for kid in published_kids(client) if kid not in client.ends and _is_kid(kid)]


def _is_kid(kid: str) -> bool:
    """Tell whether a key id may stand in a path: base64url of a thumbprint."""
    return (
        20 <= len(kid) <= 64 and kid.isascii() and kid.replace("-", "").replace("_", "").isalnum()
    )


async def look_at_ends(fetcher: Fetcher, client: Client, kids: Sequence[str]) -> dict[str, int]:
    """Return when published certificates end, 0 for those that the key store has no certificate of."""
    found: dict[str, int] = {}
    for kid in kids:
        answer = await fetcher.key_store(f"/{client.organisation_id}/{kid}.pem")
        if isinstance(answer, Unreachable):
            break
        found[kid] = 0 if isinstance(answer, Absent) else _end_of(answer.body)
    return found


def _end_of(pem: bytes) -> int:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return 0
    return int(certificate.not_valid_after_utc.timestamp())


async def look_at_ocsp(
    fetcher: Fetcher, certificate: bytes, authorities: Sequence[x509.Certificate], now: int
) -> OcspAnswer | None:
    """Ask the responder about one certificate; None where it gives no answer to believe."""
    question = ask_for(certificate, authorities)
    if question is None:
        return None
    answer = await fetcher.ask_ocsp(question)
    if not isinstance(answer, Document):
        return None
    read = read_ocsp(answer.body, certificate, authorities, now)
    return None if isinstance(read, DocumentFault) else read


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
