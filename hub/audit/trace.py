"""Tell one interaction from its events: stage by stage, and why it ended as it did, on one screen."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from hub.model.event import Event, Kind, Verdict

Explain = Callable[[str], str | None]
"""Gives the text of the error page for a check, None where there is none."""

_OF_CALL = frozenset({Kind.CALL, Kind.CONSENT, Kind.TOKEN, Kind.REGISTRATION})


def told(events: Sequence[tuple[int, Event]], explain: Explain) -> list[str]:
    """Return the lines that tell an interaction; empty where there are no events."""
    lines: list[str] = []
    for at, event in events:
        lines += _stages(at, event)
        if event.verdict is not Verdict.ALLOWED:
            lines += _why(event, explain)
    return lines


def _stages(at: int, event: Event) -> list[str]:
    moment = datetime.fromtimestamp(event.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    head = f"entry {at}  {moment}  {event.kind}"
    if event.kind not in _OF_CALL:
        parts = (event.route, event.change, event.subject, _status(event))
        return [f"{head}  {'  '.join(part for part in parts if part)}"]
    refused = event.verdict is Verdict.REFUSED
    lines = [head, f"  inbound      {event.face} face, {event.octets_in} octets of body"]
    lines.append(f"  caller       {_caller(event)}")
    lines.append(f"  route        {event.route or 'none matched'}")
    if event.consent_id:
        lines.append(
            f"  consent      {event.consent_id}{f', {event.change}' if event.change else ''}"
        )
    if event.bank_us:
        lines.append(f"  bank         {event.bank_us / 1000:.1f} ms")
    elif refused:
        lines.append("  bank         not asked")
    lines.append(f"  outbound     {_status(event)}, {event.octets_out} octets of body")
    lines.append(f"  hub time     {event.hub_us / 1000:.1f} ms")
    return lines


def _caller(event: Event) -> str:
    if not event.client_id:
        return "not identified" + (f", certificate {event.x5t_s256}" if event.x5t_s256 else "")
    return f"client {event.client_id} of {event.organisation_id}, certificate {event.x5t_s256}"


def _status(event: Event) -> str:
    code = f" {event.code}" if event.code else ""
    return f"{event.status}{code}" if event.status else ""


def _why(event: Event, explain: Explain) -> list[str]:
    lines = [f"  {event.verdict:<12} by the check {event.check or '(none named)'}"]
    text = explain(event.check) if event.check else None
    return lines + [f"    {line}" for line in (text or "").splitlines() if line.strip()]
