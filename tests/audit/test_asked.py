"""What the options of ``hub audit`` select."""

from types import SimpleNamespace

from hub.cli_audit_asked import selection_of

NOTHING = dict.fromkeys(
    ("since", "until", "consent", "tpp", "interaction", "route", "verdict", "customer"), ""
)


class Consents:
    """A reader with that many consents of one customer."""

    def __init__(self, count):
        self.keys = [f"c{n}" for n in range(count)]

    async def search(self, query):
        assert query.where == (("psu", "u1"),)
        some = self.keys[query.offset : query.offset + query.limit]
        records = [SimpleNamespace(record=SimpleNamespace(key=key)) for key in some]
        return SimpleNamespace(items=records)


async def test_a_customer_stands_for_every_one_of_the_customers_consents():
    for count in (1, 999, 1000, 2500):
        reader = Consents(count)
        chosen = await selection_of(reader, {**NOTHING, "customer": "u1", "status": 0})
        assert chosen.consent_ids == frozenset(reader.keys)


async def test_a_customer_without_consents_selects_nothing():
    chosen = await selection_of(Consents(0), {**NOTHING, "customer": "u1", "status": 0})
    assert chosen.consent_ids == {"-"}
