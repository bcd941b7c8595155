"""The ops face on plain loopback HTTP: is it alive, is it ready, what does it count."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import orjson
import trio

from hub.model.http import Handler, Request, Response, json_response
from hub.observe import Observer

Readiness = Callable[[], Mapping[str, bool]]
"""Name of each condition -> whether it holds now."""


def ops_routes(
    observer: Observer,
    ready: Readiness,
    workers: Callable[[], Awaitable[bytes]] | None = None,
    descriptions: Mapping[str, Callable[[], bytes]] = MappingProxyType({}),
) -> dict[tuple[str, str], Handler]:
    """Return the handlers of ``/livez``, ``/readyz``, ``/metrics`` and of our OpenAPI documents.

    ``/readyz`` answers 200 when every condition holds (store, keys, trust snapshot, log lag, not draining), else 503,
    and names each in its body. ``workers`` gives the metrics of the worker processes, ``descriptions`` our OpenAPI
    documents by their paths; each is made in a thread, once.
    """

    async def livez(_request: Request) -> Response:
        return json_response(200, b'{"alive":true}')

    async def readyz(_request: Request) -> Response:
        conditions = dict(ready())
        good = all(conditions.values())
        return json_response(200 if good else 503, orjson.dumps({"ready": good, **conditions}))

    async def metrics(_request: Request) -> Response:
        return Response(
            status=200,
            headers=((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),),
            body=observer.exposition() + (await workers() if workers is not None else b""),
        )

    return {
        ("GET", "/livez"): livez,
        ("GET", "/readyz"): readyz,
        ("GET", "/metrics"): metrics,
        **{("GET", path): _document(make) for path, make in descriptions.items()},
    }


def _document(make: Callable[[], bytes]) -> Handler:
    made: list[bytes] = []

    async def answer(_request: Request) -> Response:
        if not made:
            made.append(await trio.to_thread.run_sync(make))
        return json_response(200, made[0])

    return answer
