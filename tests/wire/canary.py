"""Marks: a unique one for each text of a body, a bank that answers with them, and the search for what became of them.

A mark carries a number of seven digits in whatever form its field allows: a text, a URI, a UUID, an amount, the fraction of a
second. So one pass over any octets finds all marks in them, in the clear or in base64 (JWS, binary members).
"""

import re
import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from hub.contract.official import find_documents, read_document, sites_of
from hub.contract.tables import Row
from hub.sandbox.site import SiteRequest, SiteResponse
from tests.contract.instances import Maker

DIGITS = 7
UNDECLARED = "bank.undeclared"
"""The field of members that no schema of the bank's declares."""
FORMATS = {
    "date-time": "2025-06-30T23:59:59.{n}Z",
    "uuid": "ca0a1100-0000-4000-8000-0000{n}f",
    "uri": "https://canary{n}x.example/",
    "url": "https://canary{n}x.example/",
    "email": "canary{n}x@example.com",
}
PATTERNS = {
    r"^[A-Z0-9]{18}[0-9]{2}$": "CANARYLEI00{n}12",
    r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$": FORMATS["email"],
    r"^\+[1-9]\d{1,14}$": "+83719{n}",
    r"^\+?[1-9]\d{1,14}$": "+83719{n}",
    r"^.+\..+\..+$": "Canary{n}x.b.c",
    r"^\d{1,13}$|^\d{1,13}\.\d{1,5}$": "83719{n}.50",
    r"^\d{1,16}\.\d{2}$": "83719{n}.50",
    r"^[A-Za-z]+\.[A-Za-z0-9]+$": "Some.Canary{n}x",
    r"^https:\/\/.+": FORMATS["url"],
    r"^784-?[0-9]{4}-?[0-9]{7}-?[0-9]{1}$": "784-8371-{n}-9",
    r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$": FORMATS[
        "uuid"
    ],
    r"^.*[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$": FORMATS[
        "uuid"
    ],
    r"^[0-9]+$": "83719{n}",
    r"^[A-Z0-9]+$": "CANARYLEI00{n}",
}
MARK = re.compile(
    rb"(?:[Cc]anary|CANARYLEI00|83719|784-8371-|ca0a1100-0000-4000-8000-0000|T23:59:59\.)(\d{7})"
)
FIGURES = re.compile("(amount|rate)$", re.IGNORECASE)
NOT_BASE64 = re.compile(rb"[^A-Za-z0-9_+/-]")


def _stems() -> re.Pattern[bytes]:
    """Return what a mark looks like in base64, wherever in a group of three octets it begins."""
    found = []
    for stem in (b"anary", b"CANARYLEI", b"83719", b"784-8371-", b"ca0a1100-", b"T23:59:59."):
        for before in range(3):
            text = urlsafe_b64encode(b"\0" * before + stem)
            found.append(text[-(-before * 8 // 6) : (before + len(stem)) * 8 // 6])
    return re.compile(b"|".join(map(re.escape, found)))


STEMS = _stems()


class Marks:
    """Give marks, each with the field that it goes into."""

    def __init__(self) -> None:
        self.fields: list[str] = []

    def make(self, field: str, form: str = "Canary{n}x") -> str:
        self.fields.append(field)
        return form.format(n=f"{len(self.fields) - 1:07d}")

    def spread(self, value: Any, where: str) -> Any:
        """Return a copy whose texts are all marks, lawful or not."""
        if isinstance(value, str):
            return self.make(where)
        if isinstance(value, dict):
            return {k: self.spread(v, f"{where}.{k}") for k, v in value.items()}
        if isinstance(value, list):
            return [self.spread(v, f"{where}[]") for v in value]
        return value

    def lawful(self, schema: Any, where: str) -> Any:
        """Return an instance of a schema with all its members, a mark in each text that can hold one."""
        first = len(self.fields)
        value = in_figures(_Marker(self).make(schema, full=1))
        for path, text in leaves(value, where):
            for number in numbers_in(text):
                if number >= first:
                    self.fields[number] = path
        return value


def in_figures(value: Any) -> Any:
    """Return a copy in which a mark that stands for an amount is a number: the bank's schema allows any text there."""
    if isinstance(value, list):
        return [in_figures(v) for v in value]
    if not isinstance(value, dict):
        return value
    copy = {name: in_figures(inner) for name, inner in value.items()}
    for name, inner in copy.items():
        if FIGURES.search(name) and isinstance(inner, str) and inner.startswith("Canary"):
            copy[name] = f"83719{inner[6 : 6 + DIGITS]}.50"
    return copy


class _Marker(Maker):
    """Make lawful instances whose texts are marks."""

    def __init__(self, marks: Marks) -> None:
        super().__init__(len(marks.fields))
        self._marks = marks

    def _number(self, schema: Any, full: float) -> Any:
        """Return a number that the TPP's schema takes too: the text beside it is to go all the way."""
        return min(max(schema.get("minimum", 1), 1), schema.get("maximum", 1))

    _integer = _number

    def _string(self, schema: Any, full: float) -> Any:
        form = "Canary{n}x"
        if "pattern" in schema:
            form = PATTERNS.get(schema["pattern"], "")
        elif "format" in schema:
            form = FORMATS.get(schema["format"], "")
        length = len(form.format(n="0" * DIGITS))
        if not form or not schema.get("minLength", 0) <= length <= schema.get("maxLength", 999):
            return super()._string(schema, full)
        return self._marks.make("", form)


def leaves(value: Any, where: str) -> Iterator[tuple[str, bytes]]:
    """Yield every text and octets of a value with where it stands."""
    if isinstance(value, str):
        yield where, value.encode()
    elif isinstance(value, bytes):
        yield where, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner, f"{where}[]")


def numbers_in(octets: bytes) -> set[int]:
    """Return the numbers of all marks in some octets, also of those in base64."""
    found = {int(n) for n in MARK.findall(octets)}
    for stem in STEMS.finditer(octets):
        run = _run_around(octets, *stem.span())
        for start in range(4):  # where a group begins is not known
            part = run[start:]
            decoded = urlsafe_b64decode(part[: len(part) // 4 * 4])
            found |= {int(n) for n in MARK.findall(decoded)}
    return found


def _run_around(octets: bytes, start: int, end: int) -> bytes:
    """Return what of the alphabet stands around a place, as far as a mark may reach."""
    before = NOT_BASE64.split(octets[max(0, start - 8) : start])[-1]
    after = NOT_BASE64.split(octets[end : end + 48])[0]
    run = before + octets[start:end] + after
    return run.translate(bytes.maketrans(b"+/", b"-_"))


def schemas_of(folder: Path, sources: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the official schemas by our file's name and site."""
    documents = find_documents(folder)
    return {n: sites_of(read_document(documents[r["document"]])) for n, r in sources.items()}


class MarkedBank:
    """A bank whose every answer carries marks: lawful, spoiled, a refusal, or no JSON at all."""

    MODES = ("lawful", "spoiled", "refusal", "text")
    STATUSES = (400, 403, 404, 409, 429, 500, 503, 418)

    def __init__(self, marks: Marks, rows: tuple[Row, ...], schemas: dict[str, Any]) -> None:
        self.mode = "lawful"
        self.bodies = 0
        self.silent = False
        self._marks = marks
        self._schemas = schemas
        self._turn = 0
        self._sites = [
            (row.route.bank_method, _shape(row.bank_template), row.bank_schemas, row.bank_template)
            for row in rows
            if row.bank_template
        ]

    async def __call__(self, request: SiteRequest) -> SiteResponse:
        """Answer one call of the Hub."""
        if request.path in {"/hello", "/hello-mtls", "/echo-cert"}:
            return _answer(200, {"connectionEstablished": True, "mtlsStatus": "established"})
        if self.silent and request.path == "/payments":
            return SiteResponse(status=503)
        self.bodies += 1
        if request.path.startswith("/consent/"):
            return self._consent_call(request.path)
        where = "bank" + re.sub(r"[0-9a-f-]{30,}|Canary\w+", "*", request.path)
        value, status = self._lawful(request, where)
        match self.mode:
            case "spoiled":
                return _answer(status, self._marks.spread(value, where + ".spoiled"))
            case "refusal":
                return self._refusal()
            case "text":
                return _answer(200, self._marks.make(where + ".text"), "text/plain")
        return _answer(status, value)

    def _lawful(self, request: SiteRequest, where: str) -> tuple[Any, int]:
        for method, shape, schemas, template in self._sites:
            if method == request.method and shape.fullmatch(request.path):
                for status in (200, 201):
                    schema = self._schemas[schemas].get(f"{method} {template} {status}")
                    if schema is not None:
                        return self._with_more(self._marks.lawful(schema, where)), status
        return {"report": self._marks.make(where)}, 200

    def _with_more(self, value: Any) -> Any:
        """Add members that no schema declares."""
        data = value.get("data")
        for place in (value, *(data if isinstance(data, list) else [data])):
            if isinstance(place, dict):
                place["further"] = self._marks.make(UNDECLARED)
        return value

    def _refusal(self) -> SiteResponse:
        self._turn += 1
        status = self.STATUSES[self._turn % len(self.STATUSES)]
        code = (
            "Consent.Invalid"
            if self._turn % 2
            else self._marks.make("bank.errorCode", "LFI.Canary{n}x")
        )
        body = {
            "errorCode": code,
            "errorMessage": self._marks.make("bank.errorMessage"),
            "debug": {"query": self._marks.make(UNDECLARED)},
        }
        return _answer(status, body)

    def _consent_call(self, path: str) -> SiteResponse:
        marks = self._marks
        if path.startswith("/consent/event"):
            return SiteResponse(status=204)
        if self.mode == "lawful":
            return _answer(
                200, {"data": {"status": "valid"}, "meta": {}, "note": marks.make(UNDECLARED)}
            )
        data = {
            "status": "invalid",
            "code": marks.make("bank.validate.code"),
            "description": marks.make("bank.validate.description"),
            "further": marks.make(UNDECLARED),
        }
        return _answer(200, {"data": data, "meta": {"note": marks.make(UNDECLARED)}})


def _shape(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{[^}]+\}", "[^/]+", template))


def _answer(status: int, body: Any, kind: str = "application/json") -> SiteResponse:
    octets = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    return SiteResponse(status=status, headers=(("content-type", kind),), body=octets)


def kept_fields(database: Path) -> dict[str, set[int]]:
    """Return which marks the records hold, by the record's field; the audit log's events are told as ``event.*``.

    A field that is filled and holds no mark is there with an empty set.
    """
    found: dict[str, set[int]] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
        records = [
            (kind, msgspec.msgpack.decode(body))
            for kind, body in store.execute("SELECT kind, body FROM record")
        ]
        leaves_of_log = store.execute("SELECT leaf FROM event").fetchall()
    records += [("event", msgspec.json.decode(leaf)) for (leaf,) in leaves_of_log]
    for kind, value in records:
        for path, octets in leaves(value, kind):
            if octets:
                found.setdefault(path, set()).update(numbers_in(octets))
    return found


def written_files(folder: Path, pids: list[int]) -> dict[str, bytes]:
    """Return every file below a folder, what lies in shared memory, and the deleted files that processes hold open."""
    paths = [p for root in (folder, Path("/dev/shm")) for p in root.rglob("*")]
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(link.readlink())
                if target.endswith("(deleted)") and target.startswith("/"):
                    paths.append(link)
    found = {}
    for path in paths:
        with suppress(OSError):
            if path.is_file():
                found[str(path)] = path.read_bytes()
    return found
