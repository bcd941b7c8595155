"""What a mapper is given: the shape of an answer, what the request was, what is shown with which permission only."""

from typing import Any

import msgspec


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a mapper needs beyond the bank's answer.

    Attributes:
        url: Of the TPP's request, without its query: the base of all links.
        query: The TPP's other query parameters, encoded, without leading ``?``.
        page: Which page was asked for, from 1.
        account_id: From the path; empty for none.
        permissions: Of the consent, for what is stripped.
        extra: Members of ``Data`` that the bank does not send and the Hub knows.
        related: ``Links.Related``, a URL or a list of them; None for none.
    """

    url: str
    query: str = ""
    page: int = 1
    account_id: str = ""
    permissions: frozenset[str] = frozenset()
    extra: dict[str, Any] = {}
    related: str | list[str] | None = None


class Strip(msgspec.Struct, frozen=True):
    """Hold members that are shown only with one of these permissions."""

    unless: frozenset[str]
    members: tuple[tuple[str, ...], ...]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Say how one answer is put together.

    Attributes:
        name: Of the mapper.
        function: Generated function for the data; empty where it passes unchanged.
        place: Member of ``Data`` that holds the bank's data; empty where that is ``Data`` itself.
        listed: The bank's data is a list.
        account: ``Data`` has ``AccountId``.
        links: Members of ``Links``; empty for no ``Links``.
        meta: Members of ``Meta``; None for no ``Meta``.
    """

    name: str
    function: str
    place: str
    listed: bool
    account: bool
    links: tuple[str, ...]
    meta: tuple[str, ...] | None
