"""Make the TPP's answer of the bank's: place the data, build ``Links`` and ``Meta``, strip what the consent does not show.

The standard's envelope is ``{Data, Links, Meta}``, the bank's ``{data, meta}``. Where ``Data`` goes follows from the two
schemas: a list at the bank becomes the one list inside the TPP's ``Data``, an object its one object, unless the bank's
object already is ``Data``. ``Links`` are always ours, made of the page arithmetic.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from hub.contract.mapping import (
    Pair,
    UnmappableError,
    Writer,
    branches,
    members,
    number,
    resolved,
)
from hub.contract.shape import Context, Shape, Strip
from hub.model.fault import Fault, bank_fault

_PAGES: Final = 1_000_000


def plan(name: str, pair: Pair, writer: Writer) -> Shape:
    """Write the mapper of one operation and return its shape.

    Args:
        name: Of the mapper.
        pair: The two answers.
        writer: Collects the functions.

    Raises:
        ValueError: The TPP's answer has no place for the bank's data.
    """
    tpp = members(pair.tpp, pair.tpp_types)
    bank = members(pair.bank, pair.bank_types)
    data, given = tpp["Data"][0], bank["data"][0]
    place = _place(name, data, given, pair)
    inner = members(data, pair.tpp_types)[place][0] if place else data
    function = writer.write(msgspec.structs.replace(pair, tpp=inner, bank=given), name)
    return Shape(
        name=name,
        function=function,
        place=place,
        listed=_is_list(given, pair, bank=True),
        account="AccountId" in members(data, pair.tpp_types),
        links=tuple(members(tpp["Links"][0], pair.tpp_types)) if "Links" in tpp else (),
        meta=tuple(members(tpp["Meta"][0], pair.tpp_types)) if "Meta" in tpp else None,
    )


def _place(name: str, data: Any, given: Any, pair: Pair) -> str:
    if _is_list(data, pair, bank=False) or len(branches(data, pair.tpp_types)) > 1:
        return ""
    inside = members(data, pair.tpp_types)
    outside = {n.casefold() for n in members(given, pair.bank_types)}
    listed = _is_list(given, pair, bank=True)
    if not listed and any(n.casefold() in outside for n in inside if n != "AccountId"):
        return ""
    found = [n for n in inside if n != "AccountId"]
    if len(found) != 1:
        raise ValueError(f"{name}: no single place for the bank's data in {found}")
    return found[0]


def _is_list(kind: Any, pair: Pair, *, bank: bool) -> bool:
    found = resolved(kind, pair.bank_types if bank else pair.tpp_types)
    return isinstance(found, dict) and "$list" in found


class Mapper:
    """Map one operation's answers."""

    def __init__(
        self, shape: Shape, function: Callable[[Any], Any] | None, strips: Sequence[Strip]
    ) -> None:
        """Bind a shape to its generated function.

        Args:
            shape: How the answer is put together.
            function: None where the data passes unchanged.
            strips: What the consent may hide.
        """
        self._shape = shape
        self._function = function
        self._strips = tuple(strips)
        self._meta = tuple((name.casefold(), name) for name in shape.meta or ())
        self._counts_pages = "TotalPages" in (shape.meta or ())

    def __call__(
        self, body: Any, context: Context, *, strip: bool = True
    ) -> dict[str, Any] | Fault:
        """Return the TPP's answer.

        Args:
            body: The bank's, decoded; not changed.
            context: What the bank does not know.
            strip: Hide what the consent's permissions do not show.

        Faults: 500 ``GenericError``, check ``bank.unmappable``, for a shape that the bank must not send.
        """
        try:
            return self._answer(body, context, strip=strip)
        except (UnmappableError, AttributeError, TypeError, KeyError) as fault:
            where = str(fault) if isinstance(fault, UnmappableError) else "body"
            return bank_fault(
                500, "GenericError", "The bank's answer cannot be read.",
                check="bank.unmappable", private=f"{self._shape.name}: {where}",
            )  # fmt: skip

    def _answer(self, body: Any, context: Context, *, strip: bool) -> dict[str, Any]:
        shape = self._shape
        if not isinstance(body, dict):
            raise UnmappableError("body")
        given = body.get("data")
        if given is None:
            if not shape.listed:
                raise UnmappableError("data")
            given = []
        mapped = self._function(given) if self._function is not None else given
        if strip and self._strips:
            self._hide(mapped, context.permissions)
        data = self._placed(mapped, context)
        answer: dict[str, Any] = {"Data": data}
        self._envelope(answer, body.get("meta") or {}, context, empty=shape.listed and not given)
        return answer

    def _placed(self, mapped: Any, context: Context) -> Any:
        """Put the mapped data where the TPP looks for it."""
        place = self._shape.place
        if not place and not isinstance(mapped, dict):
            return mapped
        data = dict(context.extra)
        if self._shape.account:
            data["AccountId"] = context.account_id
        if place:
            data[place] = mapped
        else:
            data.update(mapped)
        return data

    def _envelope(
        self, answer: dict[str, Any], meta: dict[str, Any], context: Context, *, empty: bool
    ) -> None:
        shape = self._shape
        pages = 0 if empty and context.page == 1 else _pages(meta.get("totalPages"))
        if shape.links:
            answer["Links"] = links(shape.links, context, pages)
        if shape.meta is not None:
            answer["Meta"] = self._known_of(meta, pages)

    def _known_of(self, meta: dict[str, Any], pages: int) -> dict[str, Any]:
        """Return what ``Meta`` declares of the bank's, whatever the case of its names."""
        if self._counts_pages and len(self._meta) == 1:
            return {"TotalPages": pages}
        given = {name.casefold(): value for name, value in meta.items() if value is not None}
        out = {name: given[folded] for folded, name in self._meta if folded in given}
        if self._counts_pages:
            out["TotalPages"] = pages
        return out

    def _hide(self, mapped: Any, permissions: frozenset[str]) -> None:
        hidden = [m for s in self._strips if not s.unless & permissions for m in s.members]
        for item in mapped if isinstance(mapped, list) else [mapped]:
            for path in hidden:
                _remove(item, path)


def _remove(item: Any, path: tuple[str, ...]) -> None:
    for step in path[:-1]:
        item = item.get(step) if isinstance(item, dict) else None
    if isinstance(item, dict):
        item.pop(path[-1], None)


def _pages(value: Any) -> int:
    found = number(value, whole=False)
    return int(found) if found is not None and 0 <= found <= _PAGES else 1


def links(names: tuple[str, ...], context: Context, pages: int) -> dict[str, Any]:
    """Return the links of a page: ``Self`` always, the others only where there is more than one page."""
    query = f"?{context.query}" if context.query else ""
    own = _page_url(context, context.page) if context.page > 1 else context.url + query
    out: dict[str, Any] = {"Self": own}
    if context.related is not None and "Related" in names:
        out["Related"] = context.related
    if pages > 1 and "Next" in names:
        out["First"] = _page_url(context, 1)
        out["Last"] = _page_url(context, pages)
        if 1 < context.page <= pages:
            out["Prev"] = _page_url(context, context.page - 1)
        if context.page < pages:
            out["Next"] = _page_url(context, context.page + 1)
    return out


def _page_url(context: Context, page: int) -> str:
    query = f"{context.query}&" if context.query else ""
    return f"{context.url}?{query}page={page}"
