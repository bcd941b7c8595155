"""How a journey is told: numbered lines on any terminal, colours only on one that has them, secrets never whole."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, final
from urllib.parse import parse_qsl

import httpx
import msgspec

from hub.sandbox.tpp import Exchange

Tell = Callable[[str], object]

SECRET: Final = frozenset(
    {
        "authorization",
        "client_assertion",
        "request",
        "code",
        "code_verifier",
        "refresh_token",
        "access_token",
        "id_token",
        "password",
        "cookie",
        "set-cookie",
        "csrf",
    }
)
SHOWN_HEADERS: Final = (
    "authorization",
    "content-type",
    "location",
    "x-fapi-interaction-id",
    "x-fapi-customer-ip-address",
    "set-cookie",
)
BODY_LINES: Final = 40
_BOLD, _DIM, _GREEN, _RED, _END = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


def shortened(name: str, value: str) -> str:
    """Return a value fit for the screen: the first 12 characters of a secret, and how long it is."""
    if name.lower() not in SECRET:
        return value
    return f"{value[: min(12, len(value) // 3)]}… ({len(value)} characters)"


def shortened_query(text: str) -> str:
    """Return a URL whose secret query parameters are shortened."""
    base, mark, query = text.partition("?")
    if not mark:
        return text
    return base + "?" + "&".join(f"{n}={shortened(n, v)}" for n, v in parse_qsl(query))


def _without_secrets(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item, name) for item in value]
    return shortened(name, value) if isinstance(value, str) else value


@final
class Narrator:
    """Tell numbered steps, and exchanges where they are wanted."""

    def __init__(self, tell: Tell, *, show_http: bool = False, colour: bool | None = None) -> None:
        """Take where lines go; ``colour`` is on by default where standard output is a terminal."""
        self._tell = tell
        self._show_http = show_http
        self._colour = sys.stdout.isatty() if colour is None else colour
        self._step = 0

    def title(self, text: str) -> None:
        """Tell what is about to happen."""
        self._tell(self._paint(_BOLD, text))

    def step(self, what: str, why: str) -> None:
        """Tell one step: what happened, and why it matters."""
        self._step += 1
        self._tell(f"{self._paint(_BOLD, f'{self._step:3}')}  {what}")
        self._tell(f"     {self._paint(_DIM, why)}")

    def good(self, text: str) -> None:
        """Tell that it went as it should."""
        self._tell(self._paint(_GREEN, text))

    def bad(self, text: str) -> None:
        """Tell that it did not."""
        self._tell(self._paint(_RED, text))

    def exchange(self, exchange: Exchange) -> None:
        """Show one exchange of the TPP, if exchanges are to be shown."""
        if not self._show_http:
            return
        ask, answer = exchange.ask, exchange.answer
        self._line(f"> {ask.method} {shortened_query(ask.url)}")
        self._headers(">", ask.headers)
        for name, value in {**ask.query, **(ask.form or {})}.items():
            self._line(f">   {name} = {shortened(name, value)}")
        self._line(f"< {answer.status}")
        self._headers("<", answer.headers)
        self._body(answer.body)

    def visit(self, got: httpx.Response) -> None:
        """Show one exchange of the customer's browser, if exchanges are to be shown."""
        if not self._show_http:
            return
        self._line(f"> browser: {got.request.method} {shortened_query(str(got.request.url))}")
        if got.request.method == "POST":
            for name, value in parse_qsl(got.request.content.decode()):
                self._line(f">   {name} = {shortened(name, value)}")
        self._line(f"< {got.status_code}")
        self._headers("<", got.headers)

    def _headers(self, mark: str, headers: Mapping[str, str]) -> None:
        for name in SHOWN_HEADERS:
            if value := headers.get(name):
                text = shortened_query(value) if name == "location" else shortened(name, value)
                self._line(f"{mark}   {name}: {text}")

    def _body(self, body: bytes) -> None:
        try:
            safe = _without_secrets(msgspec.json.decode(body))
        except msgspec.DecodeError:
            return
        lines = msgspec.json.format(msgspec.json.encode(safe), indent=2).decode().splitlines()
        for line in lines[:BODY_LINES]:
            self._line(f"<   {line}")
        if len(lines) > BODY_LINES:
            self._line(f"<   … {len(lines) - BODY_LINES} lines more")

    def _line(self, text: str) -> None:
        self._tell(self._paint(_DIM, f"     {text}"))

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_END}" if self._colour else text
