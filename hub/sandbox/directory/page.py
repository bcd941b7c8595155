"""The directory's page: everybody in tables, every act as a form; for people, on loopback only.

A form carries a token made at each start and is taken only from this page's own origin, so that no other page in the same
browser can turn a knob. Everything shown is escaped by the template. The page has an address of its own, so that it stays
when the directory is told to be down.
"""

import hmac
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import jinja2

from hub.model.clock import Dice
from hub.sandbox.directory.acts import KINDS, ROLES, SIZES, ActError, Acts, summary
from hub.sandbox.site import SiteHandler, SiteRequest, SiteResponse

_BODY: Final = 16_384
_HEADERS: Final = (
    ("content-type", "text/html; charset=utf-8"),
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
)
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "role": ROLES,
    "kind": tuple(KINDS),
    "size": SIZES,
    "site": ("directory", "directory-api", "pki"),
}


def directory_page(acts: Acts, origin: str, dice: Dice) -> SiteHandler:
    """Return what answers at the page's address.

    Args:
        acts: What can be done, and the directory to show.
        origin: The page's own, as browsers send it.
        dice: For the forms' token.
    """
    token = dice.token(16).hex()
    loader = jinja2.PackageLoader("hub.sandbox.directory", "templates")
    template = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("directory.html")

    def shown(status: int, done: str = "", problem: str = "") -> SiteResponse:
        organisations = acts.directory.register.organisations.values()
        body = template.render(
            acts={name: act for name, act in acts.table.items() if name != "list"},
            choices=_CHOICES,
            organisations=[summary(o) for o in organisations],
            token=token,
            done=done,
            problem=problem,
        )
        return SiteResponse(status=status, headers=_HEADERS, body=body.encode())

    async def answer(request: SiteRequest) -> SiteResponse:
        if request.path != "/":
            return shown(404, problem="There is only this page.")
        if request.method in {"GET", "HEAD"}:
            return shown(200)
        if request.method != "POST":
            return shown(405, problem="This page takes GET and POST.")
        form = _form(request)
        own = request.header("origin") in {"", origin}
        if not own or not hmac.compare_digest(form.get("token", "").encode(), token.encode()):
            return shown(403, problem="This form is not from this page; load it again.")
        return _carried(form)

    def _carried(form: Mapping[str, str]) -> SiteResponse:
        name = form.get("act", "")
        try:
            came = acts.carry(name, form)
        except ActError as error:
            return shown(400, problem=f"{name}: {error}")
        return shown(200, done=f"{acts.table[name].title}: done. {_told(came)}".strip())

    return answer


def _form(request: SiteRequest) -> dict[str, str]:
    if len(request.body) > _BODY:
        return {}
    try:
        pairs = parse_qs(request.body.decode(), max_num_fields=20)
    except (UnicodeDecodeError, ValueError):
        return {}
    return {name: values[0] for name, values in pairs.items()}


def _told(came: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in came.items())
