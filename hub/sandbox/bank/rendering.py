"""Forms in, pages out: what every page of the bank shares."""

from pathlib import Path
from typing import Any, Final, final
from urllib.parse import parse_qs

import jinja2

from hub.sandbox.bank.hub import Redirect
from hub.sandbox.bank.people import BANK_NAME
from hub.sandbox.bank.sessions import Session, cookie_for
from hub.sandbox.site import SiteRequest, SiteResponse

_TEMPLATES: Final = Path(__file__).parent / "templates"
_FORM_OCTETS: Final = 16_384
_HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; form-action 'self' https:; "
        "frame-ancestors 'none'; base-uri 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
Form = dict[str, list[str]]


def form_of(request: SiteRequest) -> Form:
    """Return a form's fields; empty where the body is no form, or larger than 16 KiB."""
    if len(request.body) > _FORM_OCTETS:
        return {}
    try:
        return parse_qs(request.body.decode(), keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return {}


def field(form: Form, name: str) -> str:
    """Return a field's first value, or an empty string."""
    return form.get(name, [""])[0]


def sent_to(redirect: Redirect) -> SiteResponse:
    """Send the browser where the Hub said, untouched."""
    return see_other(redirect.location)


def see_other(location: str, *headers: tuple[str, str]) -> SiteResponse:
    """Send the browser somewhere with a GET."""
    fixed = (
        ("location", location),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    )
    return SiteResponse(status=303, headers=(*fixed, *headers))


def stylesheet() -> SiteResponse:
    """Answer the style sheet."""
    headers = (("content-type", "text/css"), ("cache-control", "max-age=300"))
    return SiteResponse(headers=headers, body=(_TEMPLATES / "style.css").read_bytes())


@final
class Renderer:
    """Render pages; everything that is shown is escaped."""

    __slots__ = ("_environment", "base")

    def __init__(self, base: str) -> None:
        """Take the path under which the pages live."""
        self.base = base
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )

    def page(
        self, template: str, status: int, session: Session | None, **values: Any
    ) -> SiteResponse:
        """Render a template; a session's cookie goes with it."""
        shown = {
            "bank": BANK_NAME,
            "base": self.base,
            "problem": "",
            "customer": session.customer if session else None,
            "csrf": session.csrf if session else "",
            **values,
        }
        body = self._environment.get_template(template).render(shown).encode()
        cookie = (("set-cookie", cookie_for(session)),) if session else ()
        return SiteResponse(status=status, headers=(*_HEADERS, *cookie), body=body)

    def error(self, status: int, title: str, sentence: str, code: str = "") -> SiteResponse:
        """Render an error page."""
        return self.page("error.html", status, None, title=title, sentence=sentence, code=code)
