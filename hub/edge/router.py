"""Method and path to handler: templates with ``{name}`` segments, compiled once into a tree.

A literal segment goes before a parameter. Paths are compared as they are (the edge lets only the normal form in),
so there is one spelling of each; parameters are percent-decoded by ``path_parameters`` only.
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Final, final
from urllib.parse import unquote

from hub.model.http import Admission, App, Handler, Request, Response

_DEFAULT: Final = Admission()
_REMEMBERED: Final = 1024
_REMEMBERED_OCTETS: Final = 256


@final
class _Node:
    __slots__ = ("literal", "methods", "parameter")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.methods: dict[str, tuple[Handler, Admission]] = {}


@final
class Router:
    """Answer by the handler of the route that matches; implements ``App``."""

    __slots__ = ("_fallback", "_plain", "_remembered", "_root")

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Handler],
        *,
        fallback: App | None = None,
        admissions: Mapping[tuple[str, str], Admission] | None = None,
    ) -> None:
        """Compile the routes.

        Args:
            routes: ``(method, template)`` to handler; templates like ``/consents/{consentId}``.
            fallback: Answers paths that match no template (not wrong methods); None: 404.
            admissions: How bodies are received, per route; the default is up to 1 MiB, complete.

        Raises:
            ValueError: an admission names no route, or a template is not a path.
        """
        self._root = _Node()
        self._plain: dict[str, _Node] = {}
        self._fallback = fallback
        # Asked twice for each request, at its head and at its body.
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._node)
        rules = admissions or {}
        if unknown := rules.keys() - routes.keys():
            raise ValueError(f"admissions without a route: {sorted(unknown)}")
        for (method, template), handler in routes.items():
            node = self._place(template)
            node.methods[method] = (handler, rules.get((method, template), _DEFAULT))
            if "{" not in template:
                self._plain[template] = node

    def admit(self, request: Request) -> Admission | Response:
        """Say how the body is received; 404 and 405 are answered before it."""
        found = self._find(request)
        if isinstance(found, tuple):
            return found[1]
        return found if isinstance(found, Response) else found.admit(request)

    def respond(self, request: Request) -> Awaitable[Response]:
        """Hand the request to its handler. Cancellation: the handler's."""
        found = self._find(request)
        if isinstance(found, tuple):
            return found[0](request)
        return _given(found) if isinstance(found, Response) else found.respond(request)

    def _find(self, request: Request) -> tuple[Handler, Admission] | App | Response:
        path = request.path
        node = (self._remembered if len(path) <= _REMEMBERED_OCTETS else self._node)(path)
        if node is None:
            return self._fallback if self._fallback is not None else Response(status=404)
        methods = node.methods
        found = methods.get(request.method)
        if found is None and request.method == "HEAD":
            found = methods.get("GET")
        return found if found is not None else _method_refused(methods, request.method)

    def _node(self, path: str) -> _Node | None:
        return self._plain.get(path) or _match(self._root, path.split("/")[1:], 0)

    def _place(self, template: str) -> _Node:
        if not template.startswith("/"):
            raise ValueError(f"a template begins with a slash: {template!r}")
        node = self._root
        for segment in template.split("/")[1:]:
            if segment.startswith("{") and segment.endswith("}"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        return node


async def _given(response: Response) -> Response:
    return response


def _match(node: _Node, segments: list[str], at: int) -> _Node | None:
    """Walk down, literal first; depth is bounded by the deepest template."""
    if at == len(segments):
        return node if node.methods else None
    segment = segments[at]
    below = node.literal.get(segment)
    if below is not None and (found := _match(below, segments, at + 1)) is not None:
        return found
    if node.parameter is not None and segment:
        return _match(node.parameter, segments, at + 1)
    return None


def _method_refused(methods: Mapping[str, object], method: str) -> Response:
    known = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    allow = (b"allow", ", ".join(sorted(known)).encode())
    return Response(status=204 if method == "OPTIONS" else 405, headers=(allow,))


def path_parameters(template: str, path: str) -> dict[str, str] | None:
    """Return the percent-decoded parameters of a path, or None if it does not match the template."""
    parts, segments = template.split("/"), path.split("/")
    if len(parts) != len(segments):
        return None
    found: dict[str, str] = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith("{") and part.endswith("}"):
            if not segment:
                return None
            found[part[1:-1]] = unquote(segment, errors="strict")
        elif part != segment:
            return None
    return found
