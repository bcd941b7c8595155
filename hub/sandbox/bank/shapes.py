"""Accounts, movements and parties as Ozone Connect wants them (bank data sharing, v2.1)."""

from typing import Any, Final

from hub.sandbox.bank.book import Line
from hub.sandbox.bank.calendar import money, timestamp
from hub.sandbox.bank.history import MERCHANTS
from hub.sandbox.bank.ledger import Entry
from hub.sandbox.bank.people import BANK_NAME, BIC, PARTIES, Account, Holding, Party

Shape = dict[str, Any]
_CARDS: Final = frozenset({"POS", "ECommerce", "ATM"})


def amount(minor: int, currency: str) -> Shape:
    """Return an amount in lower case keys."""
    return {"amount": money(minor), "currency": currency}


def capital_amount(minor: int, currency: str) -> Shape:
    """Return an amount in capitalised keys, as products and statements have it."""
    return {"Amount": money(minor), "Currency": currency}


def indicator(minor: int) -> str:
    """Return ``Debit`` below zero, else ``Credit``."""
    return "Debit" if minor < 0 else "Credit"


def _named(holding: Holding) -> Shape:
    party = PARTIES[holding.party]
    return {"id": party.id, "customerName": party.name}


def holder_name(account: Account) -> str:
    """Return the name an account is kept under."""
    return PARTIES[account.holdings[0].party].name


def _numbers(account: Account) -> list[Shape]:
    name = holder_name(account)
    if account.subtype == "CreditCard":
        masked = f"{account.number[:6]}******{account.number[-4:]}"
        return [{"schemeName": "MaskedPAN", "identification": masked, "name": name}]
    if account.subtype == "Finance":
        return [{"schemeName": "FinanceReference", "identification": account.number, "name": name}]
    return [
        {"schemeName": "IBAN", "identification": account.iban, "name": name},
        {"schemeName": "AccountNumber", "identification": account.number, "name": name},
    ]


def account_shape(account: Account) -> Shape:
    """Return an account."""
    companies = [h for h in account.holdings if not PARTIES[h.party].given]
    people = [h for h in account.holdings if PARTIES[h.party].given] or list(account.holdings)
    shape: Shape = {
        "id": account.id,
        "product": {"id": account.product, "productName": account.description},
        "multiAuth": account.signatures > 1,
        "customers": [_named(h) for h in people],
        "accountHolderName": holder_name(account),
        "accountHolderShortName": holder_name(account).split()[0],
        "status": account.status,
        "statusUpdateDateTime": f"{account.opened}T08:00:00Z",
        "currency": account.currency,
        "accountType": account.category,
        "accountSubType": account.subtype,
        "description": account.description,
        "nickName": account.nickname,
        "openingDate": f"{account.opened}T08:00:00Z",
        "accountNumbers": _numbers(account),
        "servicer": {"schemeName": "BICFI", "identification": BIC},
        "isShariaCompliant": account.sharia,
    }
    if companies:
        shape["businessCustomer"] = [_named(h) for h in companies]
    return shape


def balance_shapes(account: Account, now_minor: int, closed_minor: int, now: int) -> list[Shape]:
    """Return an account's balances: available and booked now, booked at the end of yesterday."""
    out = []
    for kind, minor in (
        ("InterimAvailable", now_minor),
        ("InterimBooked", now_minor),
        ("ClosingBooked", closed_minor),
    ):
        shape: Shape = {
            "accountId": account.id,
            "creditDebitIndicator": indicator(minor),
            "balanceType": kind,
            "timestamp": timestamp(now),
            "amount": amount(minor, account.currency),
        }
        if account.credit_limit and kind == "InterimAvailable":
            shape["creditLines"] = _credit_lines(account, minor)
        out.append(shape)
    return out


def _credit_lines(account: Account, minor: int) -> list[Shape]:
    left = max(0, account.credit_limit + minor)
    rows = (("Credit", account.credit_limit), ("Available", left))
    return [
        {"included": False, "creditType": kind, "amount": amount(value, account.currency)}
        for kind, value in rows
    ]


def transaction_shape(account: Account, line: Line) -> Shape:
    """Return one movement as an account sees it."""
    entry = line.entry
    moment = timestamp(entry.at)
    shape: Shape = {
        "accountId": account.id,
        "transactionId": entry.id,
        "transactionDateTime": moment,
        "localTimeZone": "UTC+04:00",
        "transactionReference": entry.reference or entry.id,
        "transactionType": entry.type,
        "subTransactionType": entry.subtype,
        "paymentModes": "Online",
        "creditDebitIndicator": indicator(line.change),
        "status": "Booked",
        "transactionMutability": "Immutable",
        "bookingDateTime": moment,
        "valueDateTime": moment,
        "transactionInformation": entry.text,
        "amount": amount(entry.amount, account.currency),
        "balance": {
            "creditDebitIndicator": indicator(line.balance),
            "balanceType": "InterimBooked",
            "amount": amount(line.balance, account.currency),
        },
    }
    if entry.flags:
        shape["flags"] = list(entry.flags)
    if entry.purpose:
        shape["paymentPurposeCode"] = entry.purpose
    _add_parties(shape, account, line)
    _add_card(shape, account, entry)
    _add_exchange(shape, account, entry)
    return shape


def _add_parties(shape: Shape, account: Account, line: Line) -> None:
    entry = line.entry
    own = {"schemeName": "IBAN", "identification": account.iban, "name": holder_name(account)}
    far: Shape = {}
    if entry.party_iban:
        far = {
            "schemeName": "IBAN",
            "identification": entry.party_iban,
            "name": entry.party_name[:70],
        }
    incoming = line.change > 0
    if entry.party_bic:
        agent = {"schemeName": "BICFI", "identification": entry.party_bic}
        shape["debtorAgent" if incoming else "creditorAgent"] = agent
    if not far or account.subtype in {"CreditCard", "Finance"}:
        return
    shape["debtorAccount"] = far if incoming else own
    shape["creditorAccount"] = [own if incoming else far]


def _add_card(shape: Shape, account: Account, entry: Entry) -> None:
    merchant = MERCHANTS.get(entry.merchant)
    if merchant is not None:
        shape["merchantDetails"] = {
            "merchantId": merchant.id,
            "merchantName": merchant.name,
            "merchantCategoryCode": merchant.code,
        }
        shape["terminalId"] = merchant.terminal
    if entry.type in _CARDS:
        shape["cardInstrument"] = {
            "cardSchemeName": "VISA",
            "instrumentType": "Other" if entry.type == "ECommerce" else "Contactless",
            "name": holder_name(account)[:70],
            "identification": f"************{account.number[-4:]}",
        }


def _add_exchange(shape: Shape, account: Account, entry: Entry) -> None:
    if not entry.foreign_currency:
        return
    shape["currencyExchange"] = {
        "sourceCurrency": entry.foreign_currency,
        "targetCurrency": account.currency,
        "unitCurrency": entry.foreign_currency,
        "exchangeRate": entry.rate,
        "quotationDate": timestamp(entry.at),
        "instructedAmount": amount(entry.foreign, entry.foreign_currency),
    }


def _address(party: Party) -> Shape:
    return {
        "addressType": "Residential" if party.given else "Business",
        "addressLine": [party.line],
        "townName": party.town,
        "countrySubDivision": party.emirate,
        "country": "AE",
    }


def person_claims(party: Party) -> Shape:
    """Return what the bank knows of a person."""
    return {
        "fullName": party.name,
        "givenName": party.given,
        "familyName": party.family,
        "emiratesId": party.document,
        "emiratesIdExpiryDate": "2029-12-31",
        "birthDate": party.born,
        "sourceOfIncome": "Salary",
        "salary": str(party.salary),
        "nationality": "AE",
        "residentialAddress": _address(party),
        "mobileNumber": party.phone,
        "email": party.email,
        "language": "en",
        "employerName": party.work,
        "salaryTransfer": True,
    }


def _company_claims(party: Party) -> Shape:
    return {
        "identityType": "Business",
        "businessName": party.name,
        "tradeLicenceNumber": party.document,
        "dateOfIncorporation": party.born,
        "countryOfIncorporation": "AE",
        "corporateAddress": _address(party),
        "corporateContactEmail": party.email,
        "corporateContactPhoneNumber": party.phone,
        "industry": party.work,
    }


def _verified(party: Party) -> list[Shape]:
    claims = (
        {"identityType": "Person", **person_claims(party)}
        if party.given
        else _company_claims(party)
    )
    return [{"verification": {"trustFramework": "FI"}, "claims": claims}]


def customer_shape(party: Party) -> Shape:
    """Return the party that a customer is."""
    return {
        "id": party.id,
        "number": party.number,
        "customerCategory": party.category,
        "verifiedClaims": _verified(party),
    }


def holder_shape(holding: Holding) -> Shape:
    """Return a party that holds an account, with its role."""
    return {
        **customer_shape(PARTIES[holding.party]),
        "customerType": holding.type,
        "accountRole": holding.role,
    }


def payee_shape(party: Party) -> Shape:
    """Return whom an IBAN belongs to, for the confirmation of payee."""
    claim: Shape = {"verification": {"trustFramework": "UAE.FI"}}
    if party.given:
        names = {"fullName": party.name, "givenName": party.given, "familyName": party.family}
        claim["claims"] = names
    else:
        claim["organisationClaims"] = {"name": party.name}
    return {"id": party.id, "number": party.number, "verifiedClaims": [claim]}


def bank_shape() -> Shape:
    """Return this bank as an agent."""
    return {"schemeName": "BICFI", "identification": BIC, "name": BANK_NAME}
