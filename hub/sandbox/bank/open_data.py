"""What needs no customer: products on offer, leads, cash machines (products v2.1.2, open data v2.1.1)."""

from typing import Any, Final, final

from hub.model.clock import Dice
from hub.sandbox.bank.book import Book
from hub.sandbox.bank.calendar import seconds_of, timestamp
from hub.sandbox.bank.connect import Answer, Call, Route, paged, refused, route

Json = dict[str, Any]


def _charge(kind: str, name: str, amount: str, description: str) -> Json:
    return {
        "Type": kind,
        "Name": name,
        "Description": description,
        "Charge": [{"Amount": {"Amount": amount, "Currency": "AED"}}],
    }


_RETAIL: Final[Json] = {
    "ResidenceStatus": [{"Type": "UaeResident", "Description": "Residents"}],
    "CustomerType": [{"Type": "Retail", "Description": "Private customers"}],
    "Age": [{"Type": "MinimumAge", "Description": "From this age", "Value": 21}],
}
_CURRENT: Final[Json] = {
    "CurrentAccount": {
        "Type": "Basic",
        "IsOverdraftAvailable": False,
        "Features": [{"Type": "DebitCard", "Description": "A card that works everywhere"}],
        "Charges": [_charge("MonthlyFees", "Monthly fee", "25.00", "Waived from 3,000 dirhams")],
    }
}
_SAVINGS: Final[Json] = {
    "SavingsAccount": {
        "Type": "Savings",
        "MinimumBalance": {"Amount": "0.00", "Currency": "AED"},
        "Features": [{"Type": "NoLockIn", "Description": "Take it out whenever you like"}],
    }
}


def _product(
    product_id: str, name: str, category: str, changed: str, details: Json, **rest: object
) -> Json:
    return {
        "ProductId": product_id,
        "ProductName": name,
        "ProductCategory": category,
        "Description": name,
        "EffectiveFromDateTime": "2024-01-01T00:00:00Z",
        "LastUpdatedDateTime": changed,
        "IsShariaCompliant": False,
        "IsSalaryTransferRequired": False,
        "DenominationCurrency": "AED",
        "Links": {"OverviewUri": f"https://bank.example/products/{product_id}"},
        "Eligibility": _RETAIL,
        "Channels": [{"Type": "Internet", "Description": "On our pages"}],
        "Product": details,
        **rest,
    }


PRODUCTS: Final = (
    _product("business", "Business current account", "CurrentAccount", "2026-01-10T08:00:00Z",
             _CURRENT),
    _product("card", "Cashback credit card", "CreditCard", "2026-02-11T08:00:00Z", {}),
    _product("everyday", "Everyday current account", "CurrentAccount", "2026-03-12T08:00:00Z",
             _CURRENT),
    _product("saver", "Sharia savings account", "SavingsAccount", "2026-04-13T08:00:00Z", _SAVINGS,
             IsShariaCompliant=True, ShariaStructure="Murabaha"),
)  # fmt: skip


def _atm(number: int, name: str, line: str, emirate: str, latitude: str, longitude: str) -> Json:
    return {
        "LFIId": "model-bank",
        "LFIBrandId": "model-bank",
        "ATMId": f"ATM-{number:04d}",
        "SupportedLanguages": ["en", "ar"],
        "Services": ["CashWithdrawal", "Balance", "CashDeposits"],
        "Accessibility": ["WheelchairAccess", "AudioCashMachine"],
        "IsAccess24Hour": True,
        "Availability": {"Status": "Available"},
        "SupportedCurrencies": ["AED"],
        "MinimumPossibleAmount": {"Amount": "50.00", "Currency": "AED"},
        "MaximumPossibleAmount": {"Amount": "5000.00", "Currency": "AED"},
        "Notes": [name],
        "Location": {
            "LocationCategory": ["BranchExternal"],
            "Site": {"Identification": f"S{number:04d}", "Name": name},
            "PostalAddress": {
                "AddressType": "Business",
                "AddressLine": [line],
                "TownName": emirate,
                "CountrySubDivision": emirate,
                "Country": "AE",
            },
            "GeoLocation": {"Latitude": latitude, "Longitude": longitude},
        },
        "ATMFee": [
            {
                "Type": "DomesticCrossBank",
                "Amount": {"Amount": "2.10", "Currency": "AED"},
                "Conditions": "For cards of other banks",
            }
        ],
    }


ATMS: Final = (
    _atm(1, "Creek branch", "1 Creek Road", "Dubai", "25.2637", "55.3091"),
    _atm(2, "Corniche branch", "8 Corniche Street", "AbuDhabi", "24.4764", "54.3547"),
    _atm(3, "Old market", "31 Old Market Road", "Ajman", "25.4052", "55.5136"),
)


@final
class OpenDesk:
    """Answer what needs no customer."""

    __slots__ = ("_book", "_dice", "_provider_id")

    def __init__(self, book: Book, dice: Dice, provider_id: str) -> None:
        """Take the book (for its clock), the dice for lead ids, and the bank's code."""
        self._book = book
        self._dice = dice
        self._provider_id = provider_id

    def routes(self) -> tuple[Route, ...]:
        """Return the operations."""
        return (
            route("GET", "/products", self._products, "products", "accounts"),
            route("POST", "/leads", self._lead, "products", "accounts"),
            route("GET", "/atm", self._atms, "atm"),
        )

    def _products(self, call: Call) -> Answer:
        _customer_address(call)
        found = [product for product in PRODUCTS if _fits(call, product)]
        by = call.one("SortField") or "LastUpdatedDateTime"
        if by not in {"LastUpdatedDateTime", "ProductId"}:
            raise refused(400, "Resource.InvalidFormat", "SortField is unknown")
        found.sort(key=lambda product: str(product[by]), reverse=call.one("SortOrder") == "desc")
        answer = paged(call, found)
        body = dict(answer.body or {})
        shown = body["data"]
        who = {"LFIId": self._provider_id, "LFIBrandId": self._provider_id}
        body["data"] = [{**who, "Products": shown}] if shown else []
        return Answer(body=body)

    def _lead(self, call: Call) -> Answer:
        _customer_address(call)
        data = call.json().get("data")
        if not isinstance(data, dict) or not {"Email", "Name", "MarketingOptOut"} <= set(data):
            raise refused(400, "Body.InvalidFormat", "data lacks Email, Name or MarketingOptOut")
        return Answer(status=201, body={"data": {"LeadId": self._dice.uuid(), **data}})

    def _atms(self, _call: Call) -> Answer:
        updated = timestamp(self._book.begins())
        meta = {"LastUpdatedDateTime": updated, "TotalRecords": len(ATMS)}
        own = [{**atm, "LFIId": self._provider_id, "LFIBrandId": self._provider_id} for atm in ATMS]
        return Answer(body={"data": own, "meta": meta})


def _customer_address(call: Call) -> None:
    if not call.request.header("x-fapi-customer-ip-address"):
        raise refused(400, "Resource.InvalidFormat", "x-fapi-customer-ip-address is missing")


def _fits(call: Call, product: Json) -> bool:
    category, sharia = call.one("ProductCategory"), call.one("IsShariaCompliant").lower()
    since = call.one("LastUpdatedDateTime")
    if since:
        moment, changed = seconds_of(since.replace(" ", "+")), product["LastUpdatedDateTime"]
        if moment is None:
            raise refused(400, "Resource.InvalidFormat", "LastUpdatedDateTime is no date-time")
        if (seconds_of(changed) or 0) < moment:
            return False
    if category and product["ProductCategory"] != category:
        return False
    return not sharia or product["IsShariaCompliant"] == (sharia == "true")
