"""The customer's browser: follows redirects, keeps cookies, fills in forms by their field names; runs no script."""

import ssl
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from types import TracebackType
from typing import Final, Self, final
from urllib.parse import urljoin

import httpx
import msgspec
from typing_extensions import override

CALL_S: Final = 15.0
REDIRECTS: Final = 8
PAGE_OCTETS: Final = 1_048_576
_CHOICES: Final = frozenset({"checkbox", "radio"})
_BUTTONS: Final = frozenset({"submit", "image", "button", "reset"})


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one form: what it would send untouched (``preset``), and each field's name with the values it offers."""

    action: str
    method: str
    preset: tuple[tuple[str, str], ...]
    offers: dict[str, tuple[str, ...]]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the page that a request ended at."""

    url: str
    status: int
    text: str
    forms: tuple[Form, ...]

    def form_with(self, *names: str) -> Form | None:
        """Return the first form that has all these fields, or None."""
        return next((form for form in self.forms if set(names) <= set(form.offers)), None)


@final
class _Forms(HTMLParser):
    """Collect the forms of a page."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._open: dict[str, str] | None = None
        self._preset: list[tuple[str, str]] = []
        self._offers: dict[str, list[str]] = {}
        self.forms: list[Form] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open, self._preset, self._offers = found, [], {}
        elif self._open is not None and tag in {"input", "button", "select", "textarea"}:
            self._field(tag, found, checked="checked" in found)

    def _field(self, tag: str, found: dict[str, str], *, checked: bool) -> None:
        name = found.get("name", "")
        if not name:
            return
        kind = found.get("type", "submit" if tag == "button" else "text").lower()
        value = found.get("value", "on" if kind in _CHOICES else "")
        self._offers.setdefault(name, []).append(value)
        if kind not in _BUTTONS and (checked or kind not in _CHOICES):
            self._preset.append((name, value))

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag != "form" or self._open is None:
            return
        self.forms.append(
            Form(
                action=urljoin(self._url, self._open.get("action", "") or self._url),
                method=self._open.get("method", "get").upper(),
                preset=tuple(self._preset),
                offers={name: tuple(values) for name, values in self._offers.items()},
            )
        )
        self._open = None


def forms_of(html: str, url: str) -> tuple[Form, ...]:
    """Return the forms of a page that was read from ``url``."""
    parser = _Forms(url)
    parser.feed(html)
    parser.close()
    return tuple(parser.forms)


Watch = Callable[[httpx.Response], None]


@final
class Browser:
    """Browse as one person; use as ``async with``."""

    def __init__(self, context: ssl.SSLContext, watch: Watch | None = None) -> None:
        """Take the TLS context (no client certificate) and an observer that is shown each answer."""
        self._client = httpx.AsyncClient(
            verify=context, timeout=CALL_S, follow_redirects=False, trust_env=False
        )
        self._watch = watch

    async def __aenter__(self) -> Self:
        """Open it."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; cookies are forgotten."""
        await self._client.__aexit__(kind, error, trace)

    async def visit(self, url: str) -> Page:
        """Open an address and follow its redirects.

        Raises:
            httpx.HTTPError: No answer, too many redirects, or TLS refused.
        """
        return await self._end_of(await self._client.get(url))

    async def submit(self, form: Form, fields: Mapping[str, str | list[str]]) -> Page:
        """Send a form with these fields set and the others as they came.

        Raises:
            httpx.HTTPError: No answer, too many redirects, or TLS refused.
        """
        data: dict[str, list[str]] = {}
        for name, value in form.preset:
            if name not in fields:
                data.setdefault(name, []).append(value)
        data |= {name: [v] if isinstance(v, str) else list(v) for name, v in fields.items()}
        if form.method == "GET":
            return await self._end_of(await self._client.get(form.action, params=data))
        return await self._end_of(await self._client.post(form.action, data=data))

    async def _end_of(self, got: httpx.Response) -> Page:
        self._show(got)
        for _ in range(REDIRECTS):
            if not got.has_redirect_location:
                break
            got = await self._client.get(urljoin(str(got.url), got.headers["location"]))
            self._show(got)
        else:
            raise httpx.TooManyRedirects("more redirects than a browser follows")
        text = got.text[:PAGE_OCTETS]
        url = str(got.url)
        return Page(url=url, status=got.status_code, text=text, forms=forms_of(text, url))

    def _show(self, got: httpx.Response) -> None:
        if self._watch is not None:
            self._watch(got)
