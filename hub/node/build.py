"""Build the parts of one gateway process out of its settings; nothing here waits or serves."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import orjson

from hub import __version__
from hub.authz.app import Authz
from hub.config import Settings, config_folder
from hub.contract import Contract, load_contract
from hub.contract.contract import prepare_contract, used_specs
from hub.gateway.by_hand import ByHand
from hub.gateway.payee import Directory, Endpoints
from hub.gateway.pipeline import Gateway
from hub.gateway.reports import Reports
from hub.gateway.shadow import Shadow
from hub.lfi.guard import BankGuard
from hub.lfi.operations import Lfi
from hub.model.clock import Clock, Dice
from hub.model.consent import Consent, ConsentType
from hub.model.failpoint import Failpoint, no_failpoint
from hub.model.fault import Fault
from hub.model.http import App, Handler
from hub.model.records import AccessToken, Grant
from hub.model.terms import Face
from hub.node.errors import StartError
from hub.node.faces import lfi_app, tpp_app
from hub.node.keyring import SigningKeys, keyring
from hub.node.keys import load_signing_key
from hub.node.log_face import with_log
from hub.node.token_key import load_token_key
from hub.observe import Observer
from hub.state.cache import Cache
from hub.state.keeper import Keeper
from hub.trust.fetch import Document, Memory, fetching
from hub.trust.seal import Seal
from hub.trust.servers import SealingKeys, Servers
from hub.trust.trust import Trust
from hub.upstream.bank import Bank
from hub.upstream.bearer import JwtAuth, subject_of
from hub.upstream.connections import BankConnections
from hub.upstream.consent_calls import ConsentCalls


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a gateway process is made of.

    ``bank``, ``trust`` and ``shadow`` have a ``run`` of their own; ``apps`` are what the faces serve; ``cache`` must be closed.
    """

    apps: Mapping[Face, App]
    bank: BankConnections
    trust: Trust
    cache: Cache
    shadow: Shadow


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what every part is given by the composition root."""

    settings: Settings
    keeper: Keeper
    clock: Clock
    dice: Dice
    observer: Observer
    failpoint: Failpoint = no_failpoint
    conditions: Mapping[str, Callable[[], bool]] = {}
    """What else must hold for the node to be ready, by name."""


def signing_keys(settings: Settings, clock: Clock) -> SigningKeys:
    """Read Sig2, newest first, from tokens and files; the first that is published for long enough signs.

    Raises:
        StartError: A file or token is not what it should be.
    """
    keys = settings.keys
    held = [load_token_key(uri) for uri in keys.pkcs11]
    held += [load_signing_key(path, keys.password) for path in keys.signing]
    return keyring(held, settings, clock)


def description_of(settings: Settings) -> bytes:
    """Make the OpenAPI description of what this tenant serves."""
    from hub.contract.description import describe  # noqa: PLC0415 - needs what reads YAML; seldom asked for

    folder = used_specs(settings.state.folder) or config_folder() / "contract"
    base, beside = settings.tenant.resource_base, settings.tenant.beside
    return orjson.dumps(describe(folder, server=base, version=__version__, beside=beside))


def bank_side_of(settings: Settings) -> bytes:
    """Make the OpenAPI description of what this tenant's bank calls here."""
    from hub.contract.bank_side import describe_bank_side  # noqa: PLC0415 - as above

    folder, base = config_folder() / "contract", settings.lfi.base
    return orjson.dumps(describe_bank_side(folder, server=base, version=__version__))


def documents_of(settings: Settings) -> dict[str, Callable[[], bytes]]:
    """Return what makes our OpenAPI documents, by their paths on the ops listener."""
    return {
        "/openapi.json": partial(description_of, settings),
        "/openapi-bank.json": partial(bank_side_of, settings),
    }


def contract_of(settings: Settings) -> Contract:
    """Load the compiled contract, cached in the tenant's folder.

    Raises:
        StartError: The contract contradicts itself.
    """
    state = settings.state.folder
    folder: Path = used_specs(state) or config_folder() / "contract"
    try:
        return load_contract(folder, state / "contract", settings.tenant.beside)
    except (OSError, ValueError) as error:
        raise StartError(f"the contract cannot be loaded: {error}") from None


def prepared(settings: Settings) -> None:
    """Compile the contract once for all workers; one that cannot be compiled is told of by whoever loads it."""
    state = settings.state.folder
    prepare_contract(used_specs(state) or config_folder() / "contract", state / "contract")


def build(given: Given, *, leader: bool = True) -> Parts:
    """Build everything a gateway process serves.

    Args:
        given: What every part is given.
        leader: False in a worker: the trust snapshot is the keeper's process's work.

    Raises:
        StartError: A key, certificate or the contract cannot be used; one line says which.
    """
    settings = given.settings
    keys = signing_keys(settings, given.clock)
    contract = contract_of(settings)
    trust = trust_of(given, leader=leader)
    bank = bank_of(given)
    limits = settings.limits
    cache = Cache(
        given.keeper,
        {
            AccessToken: limits.token_cache,
            Grant: limits.token_cache,
            Consent: limits.consent_cache,
        },
    )
    authz = Authz(
        settings=settings,
        keeper=given.keeper,
        trust=trust,
        signing_keys=keys,
        retired_keys=keys.retired,
        details_check=contract.check_authorization_details,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
        validate=asked_of(given, bank),
    )
    gateway = Gateway(
        settings=settings,
        keeper=given.keeper,
        cache=cache,
        trust=trust,
        bank=bank,
        contract=contract,
        signing_keys=keys,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
        failpoint=given.failpoint,
        directory=directory_of(given),
        reports=Reports(
            keeper=given.keeper,
            folder=settings.state.folder,
            tenant=settings.tenant,
            routes=contract.routes,
        ),
        sealing=SealingKeys(
            settings=settings.trust,
            limits=settings.limits,
            clock=given.clock,
            organisation_id=settings.tenant.organisation_id,
        ).current,
    )
    lfi = Lfi(
        settings=settings,
        keeper=given.keeper,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
    )
    guard = BankGuard(
        settings=settings,
        keeper=given.keeper,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
        trust=trust,
        answers=answer_bearer(given) if settings.bank.jwt_auth_inbound else None,
    )
    return Parts(
        apps={
            Face.TPP: with_log(
                settings,
                tpp_app(
                    [authz.tpp_routes(), trust.tpp_routes(), by_hand_of(given, contract)],
                    gateway,
                    authz.tpp_admissions(),
                ),
            ),
            Face.LFI: lfi_app([authz.lfi_routes(), lfi.lfi_routes()], guard),
        },
        bank=bank,
        trust=trust,
        cache=cache,
        shadow=gateway.shadow,
    )


def by_hand_of(given: Given, contract: Contract) -> Mapping[tuple[str, str], Handler]:
    """Make the helpers of people who test by hand, in a sandbox; nothing anywhere else."""
    settings = given.settings
    if settings.tenant.environment != "sandbox":
        return {}
    memory = Memory()

    async def fetch(path: str) -> bytes | None:
        async with fetching(settings.trust, settings.limits, given.clock, memory) as fetcher:
            fetched = await fetcher.key_store(path)
        return fetched.body if isinstance(fetched, Document) else None

    helpers = ByHand(
        settings=settings,
        keeper=given.keeper,
        routes=contract.routes,
        clock=given.clock,
        dice=given.dice,
        fetch=fetch,
    )
    return helpers.routes()


def directory_of(given: Given) -> Directory:
    """Make what tells a bank's endpoints by its code in an IBAN: the configured codes, looked up in the framework."""
    tenant = given.settings.tenant
    servers = Servers(
        settings=given.settings.trust, limits=given.settings.limits, clock=given.clock
    )

    async def find(code: str) -> Endpoints | None:
        organisation = tenant.bank_codes.get(code)
        if organisation is None:
            return None
        if organisation == tenant.organisation_id:
            discovery = f"{tenant.issuer}/.well-known/openid-configuration"
            return Endpoints(discovery, tenant.resource_base)
        server = await servers.of(organisation)
        return None if server is None else Endpoints(server.discovery, server.resources)

    return find


def trust_of(given: Given, *, leader: bool = True) -> Trust:
    """Make the mirror of the Trust Framework.

    Raises:
        StartError: Its certificate, key or CA bundle cannot be read.
    """
    settings = given.settings
    try:
        return Trust(
            settings=settings.trust,
            tenant=settings.tenant,
            keeper=given.keeper,
            clock=given.clock,
            dice=given.dice,
            observer=given.observer,
            limits=settings.limits,
            also=[(settings.lfi.organisation_id, client) for client in settings.lfi.client_ids],
            leader=leader,
            watched=watched_files(settings),
            seal=Seal.of_folder(settings.state.folder, given.dice),
        )
    except (OSError, ValueError) as error:
        raise StartError(f"[trust] {settings.trust.certificate}: {error}") from None


def watched_files(settings: Settings) -> dict[str, Path]:
    """Return the certificate files that the tenant depends on, by what they are, for the expiry radar.

    The framework's own (client certificate and CA bundle) are on it anyway.
    """
    files = {
        "tpp edge": settings.tpp.certificate,
        "tpp client CA": settings.tpp.client_ca,
        "bank edge": settings.lfi.certificate,
        "bank client CA": settings.lfi.client_ca,
        "client at the bank": settings.bank.certificate,
        "bank server CA": settings.bank.ca,
    }
    keys = {"bearer signing": settings.keys.bearer}
    if settings.keys.signing:
        keys["message signing"] = settings.keys.signing[0]
    beside = {name: path.with_suffix(".pem") for name, path in keys.items()}
    files |= {name: path for name, path in beside.items() if path.is_file()}
    return {name: path for name, path in files.items() if path is not None}


def consent_calls_of(given: Given, bank: Bank) -> ConsentCalls:
    """Make what asks and tells the bank about consents."""
    return ConsentCalls(
        bank=bank,
        settings=given.settings,
        clock=given.clock,
        dice=given.dice,
        observer=given.observer,
    )


def asked_of(given: Given, bank: Bank) -> Callable[[Consent], Awaitable[Consent | Fault]]:
    """Make what the bank is asked before a consent is stored: whether it likes it, what it adds, to await a file."""
    calls = consent_calls_of(given, bank)
    switches = given.settings.bank

    async def ask(consent: Consent) -> Consent | Fault:
        fault = await calls.validate(consent) if switches.validate else None
        if fault is not None:
            return fault
        if switches.augment and consent.consent_type is ConsentType.SERVICE_INITIATION:
            augmented = await calls.augment(consent)
            if isinstance(augmented, Fault):
                return augmented
            consent = augmented
        return await calls.announce(consent) or consent

    return ask


def answer_bearer(given: Given) -> JwtAuth:
    """Make what signs our answers to the bank, in the name of the LFI face's certificate.

    Raises:
        StartError: The key or the certificate cannot be used.
    """
    settings = given.settings
    try:
        subject = subject_of(settings.lfi.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise StartError(f"[lfi] {settings.lfi.certificate}: {error}") from None
    return JwtAuth(
        subject=subject,
        audience=settings.bank.audience,
        key=load_signing_key(settings.keys.bearer, settings.keys.password),
        clock=given.clock,
        dice=given.dice,
        life=settings.limits.bearer_s,
    )


def bank_of(given: Given) -> BankConnections:
    """Make the connections to the bank.

    Raises:
        StartError: A certificate or key cannot be read.
    """
    settings = given.settings
    try:
        return BankConnections(
            settings=settings.bank,
            tenant=settings.tenant,
            limits=settings.limits,
            bearer_key=load_signing_key(settings.keys.bearer, settings.keys.password),
            clock=given.clock,
            dice=given.dice,
            observer=given.observer,
        )
    except OSError as error:
        raise StartError(f"[bank] {settings.bank.certificate}: {error}") from None
