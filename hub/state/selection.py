"""Turn a Query into SQL: drive from the rarest thing asked for, test the rest record by record.

Theory. A condition that holds for at most 1000 records drives, whatever the order: its records are few enough to be
sorted. Otherwise the order drives, and the page is found by walking it and testing each record, so that the first
pages of a common condition are cheap. Every test is a point or range probe of ``lookup_record``.
"""

from collections.abc import Callable
from typing import final

from hub.state.keeper import Query

IsRare = Callable[[str, str, str | int], bool]
"""Tell whether few records of a kind have that value in that index."""


@final
class Selection:
    """Hold the statements of one Query."""

    def __init__(self, query: Query, is_rare: IsRare) -> None:
        """Choose what drives."""
        self._query = query
        self._tests: list[str] = []
        self._bound: list[str | int] = []
        where = list(query.where)
        rare = next((pair for pair in where if is_rare(query.kind, *pair)), None)
        driver = rare or (where[0] if where and not query.order else None)
        if driver is not None:
            where.remove(driver)
        self._from = self._drive(driver)
        for name, value in where:
            self._test("t.value = ?", name, value)
        for name, low in query.at_least:
            self._range(name, "value >= ? AND {0}value < ''", low, driven=driver is None)
        for name, high in query.at_most:
            self._range(name, "value <= ?", high, driven=driver is None)

    def _drive(self, driver: tuple[str, str | int] | None) -> str:
        query = self._query
        if driver is not None:
            self._bound = [query.kind, *driver]
            source = (
                "(SELECT key FROM lookup WHERE kind = ? AND name = ? AND value = ? ORDER BY key) d"
            )
            if not query.order:
                return source
            self._bound += [query.kind, query.order]
            return f"{source} CROSS JOIN lookup o ON o.kind = ? AND o.key = d.key AND o.name = ?"
        self._bound = [query.kind]
        if not query.order:
            return "record d"
        self._bound.append(query.order)
        return "lookup d"

    def _range(self, name: str, test: str, bound: int, *, driven: bool) -> None:
        if driven and name == self._query.order:
            self._tests.append("d." + test.format("d."))
            self._bound.append(bound)
        else:
            self._test("t." + test.format("t."), name, bound)

    def _test(self, test: str, name: str, bound: str | int) -> None:
        self._tests.append(
            "EXISTS (SELECT 1 FROM lookup t WHERE t.kind = ? AND t.key = d.key AND t.name = ? "  # noqa: S608
            f"AND {test})"
        )
        self._bound += [self._query.kind, name, bound]

    def _conditions(self) -> str:
        head = {"record d": ["d.kind = ?"], "lookup d": ["d.kind = ?", "d.name = ?"]}
        tests = head.get(self._from, []) + self._tests
        return " AND ".join(tests) if tests else "1"

    def page(self) -> tuple[str, tuple[str | int, ...]]:
        """Return the statement for the page, and what is bound."""
        way = "DESC" if self._query.descending else "ASC"
        place = ({"lookup d": "d"}.get(self._from, "o") + ".value") if self._query.order else "0"
        sql = (
            f"SELECT r.version, r.body FROM (SELECT {place} AS place, d.key AS key FROM {self._from} "  # noqa: S608
            f"WHERE {self._conditions()} ORDER BY 1 {way}, 2 {way} LIMIT ? OFFSET ?) p "
            f"CROSS JOIN record r ON r.kind = ? AND r.key = p.key ORDER BY p.place {way}, p.key {way}"
        )
        query = self._query
        return sql, (*self._bound, query.limit, query.offset, query.kind)

    def total(self) -> tuple[str, tuple[str | int, ...]]:
        """Return the statement that counts all matches, and what is bound."""
        sql = f"SELECT count(*) FROM {self._from} WHERE {self._conditions()}"  # noqa: S608
        return sql, tuple(self._bound)
