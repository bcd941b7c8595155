"""The narrated errands, told to their end and declined."""

import pytest

from hub.sandbox.journey import run_journey

pytestmark = pytest.mark.wire
ERRANDS = [
    ("open_data", ("GET /products: ", "POST /leads: ", "GET /atms: 3 cash machines")),
    ("payee", ("ConfirmationOfPayee.Yes", "ConfirmationOfPayee.No", "POST /payments: ", "GET refund: to AE")),
    ("file", ("POST file: ", "is Received", "octets of text/csv")),
]  # fmt: skip


@pytest.mark.parametrize(("which", "steps"), ERRANDS)
async def test_an_errand_is_told_to_its_end(sandbox, which, steps):
    lines: list[str] = []
    status = await run_journey(sandbox.folder, tell=lines.append, **{which: True})
    told = "\n".join(lines)
    assert status == 0, told
    assert lines[-1].startswith("Done: ")
    assert [step for step in steps if step not in told] == [], told


@pytest.mark.parametrize("which", ["payee", "file"])
async def test_a_declined_errand_pays_nothing(sandbox, which):
    lines: list[str] = []
    assert await run_journey(sandbox.folder, decline=True, tell=lines.append, **{which: True}) == 0
    assert lines[-1] == "Done: the customer declined, and nothing was paid."
