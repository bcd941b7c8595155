"""A sandbox in processes of its own, and the actors that tests let loose on it: TPPs and customers' browsers."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from hub.node.wall import SystemDice
from hub.sandbox.browser import Browser, Page
from hub.sandbox.clock import SharedClock
from hub.sandbox.control import ask
from hub.sandbox.manifest import CustomerSection, Manifest, read_manifest
from hub.sandbox.tls import client_context
from hub.sandbox.tpp import (
    Answer,
    Ask,
    Callback,
    Discovery,
    Identity,
    Pushed,
    Refused,
    Tokens,
    Tpp,
    Wire,
    data_sharing_consent,
    read_callback,
    serve_callbacks,
)
from hub.sandbox.tpp.consent import DATA_SHARING_SCOPE, PERMISSIONS
from hub.sandbox.tpp.identity import Files
from hub.sandbox.tpp.oauth import authorization_url
from hub.sandbox.tpp.payment import read_signed

ROOT = Path(__file__).parent.parent.parent
UP_S = 40.0
DOWN_S = 30.0
FIRST_PORT = 27_000
PORTS = 50
UP_LINE = "The sandbox stays up"


def free_base() -> int:
    """Return a base of 50 ports of which none is in use now."""
    bases = [FIRST_PORT + PORTS * number for number in range(40)]
    first = os.getpid() % len(bases)  # two runs at once do not look at the same ones first
    for base in bases[first:] + bases[:first]:
        if all(_free(base + offset) for offset in range(PORTS)):
            return base
    raise AssertionError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def command(folder: Path, base: int, *options: str) -> list[str]:
    """Return the command line of a sandbox."""
    up = [sys.executable, "-m", "hub", "sandbox", "up"]
    return [*up, "--dir", str(folder), "--port-base", str(base), *options]


class Sandbox:
    """One sandbox: a folder, a base port, and the process while it runs."""

    def __init__(self, folder: Path, base: int, *options: str) -> None:
        self.folder = folder
        self.base = base
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.folder)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def start(self) -> None:
        """Start it and return when it says that it is up."""
        self._lines.clear()
        self._process = process = subprocess.Popen(
            command(self.folder, self.base, "--no-journey", *self._options),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(process, told), daemon=True)
        self._reader.start()
        if not told.wait(UP_S) or UP_LINE not in self.output:
            self.stop(signal.SIGTERM)
            raise AssertionError(f"it is not up: {self.output}")

    def _read(self, process: subprocess.Popen[str], told: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.append(line)
                if UP_LINE in line:
                    told.set()
        told.set()

    def stop(self, by: signal.Signals = signal.SIGINT) -> int:
        """End it as a person would; return its exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(by)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; return its exit status."""
        process, self._process = self._process, None
        assert process is not None
        try:
            return process.wait(DOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert self._reader is not None
            self._reader.join(5)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


@asynccontextmanager
async def moved(sandbox: Sandbox, seconds: int) -> AsyncIterator[None]:
    """Move the world's clock for the time of the context."""
    assert (await ask(sandbox.folder, {"do": "time", "add": seconds}))["ok"]
    try:
        yield
    finally:
        with trio.fail_after(10, shield=True):
            await ask(sandbox.folder, {"do": "time", "add": -seconds})


class Actor:
    """One TPP of the sandbox with the customers it sends to the bank."""

    def __init__(self, sandbox: Sandbox, tpp: Tpp, discovery: Discovery, index: int) -> None:
        self.sandbox = sandbox
        self.tpp = tpp
        self.discovery = discovery
        self.identity = tpp.identity
        self.section = sandbox.manifest.tpps[index]

    async def push(
        self, *, permissions: tuple[str, ...] = PERMISSIONS, lifetime: int = 86_400
    ) -> Pushed:
        """Push a data-sharing request that the Hub must take."""
        detail = data_sharing_consent(
            consent_id=self.identity.dice.uuid(),
            expires=self.identity.clock.now() + lifetime,
            permissions=permissions,
        )
        pushed = await self.tpp.push(self.discovery, detail, DATA_SHARING_SCOPE)
        assert isinstance(pushed, Pushed), pushed
        return pushed

    def authorization_url(self, request_uri: str) -> str:
        return authorization_url(self.identity, self.discovery, request_uri, DATA_SHARING_SCOPE)

    @asynccontextmanager
    async def page(self) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        """Serve the TPP's page behind its redirect URI."""
        folder = self.sandbox.folder
        files = Files(
            ca=folder / self.sandbox.manifest.ca_bundle,
            certificate=folder / self.section.server_cert,
            key=folder / self.section.server_key,
        )
        async with serve_callbacks(self.identity.redirect_uri, files) as callbacks:
            yield callbacks

    async def callback(
        self,
        pushed: Pushed,
        *,
        customer: CustomerSection | None = None,
        accounts: tuple[str, ...] | None = None,
        decision: str = "approve",
    ) -> Callback | Refused:
        """Send the customer to the bank and return what came back."""
        person = customer or self.sandbox.manifest.customers[0]
        async with self.page() as callbacks, browser(self.sandbox) as at:
            page = await log_in(at, self.authorization_url(pushed.request_uri), person)
            await decide(at, page, decision, accounts)
            with trio.fail_after(10):
                query = await callbacks.receive()
        return read_callback(query, pushed, self.discovery)

    async def consented(self, **how: object) -> Tokens:
        """Take a customer's consent all the way to tokens."""
        pushed = await self.push()
        came = await self.callback(pushed, **how)
        assert isinstance(came, Callback), came
        tokens = await self.tpp.redeem(self.discovery, came.code, pushed)
        assert isinstance(tokens, Tokens), tokens
        return tokens

    async def get(self, path: str, access_token: str) -> Answer:
        """Read a resource of the account-information family."""
        base = self.sandbox.manifest.hub.resource_base
        url = f"{base}/open-finance/account-information/v2.1{path}"
        return await self.tpp.get(url, access_token)

    async def message(self, url: str, access_token: str) -> dict | list | Refused:
        """Read a signed resource: the Hub's signature checked, the message inside."""
        headers = {"authorization": f"Bearer {access_token}", "accept": "application/jwt"}
        answer = await self.tpp.wire.carry(Ask(method="GET", url=url, headers=headers))
        keys = (await self.tpp.wire.carry(Ask(method="GET", url=self.discovery.jwks_uri))).json()
        return read_signed(answer, keys, self.discovery.issuer)


@asynccontextmanager
async def actor(sandbox: Sandbox, index: int = 0) -> AsyncIterator[Actor]:
    """Let one TPP of the sandbox act."""
    manifest = sandbox.manifest
    clock = SharedClock.open(sandbox.folder / "run/clock")
    identity = Identity.read(
        manifest.tpps[index], sandbox.folder, manifest.ca_bundle, clock, SystemDice()
    )
    try:
        async with Wire.of(identity) as wire:
            tpp = Tpp(identity, wire)
            discovery = await tpp.discover(manifest.hub.issuer)
            assert isinstance(discovery, Discovery), discovery
            yield Actor(sandbox, tpp, discovery, index)
    finally:
        clock.close()


@asynccontextmanager
async def browser(sandbox: Sandbox) -> AsyncIterator[Browser]:
    """Give a customer a browser that trusts the sandbox's CA."""
    context = client_context(sandbox.folder / sandbox.manifest.ca_bundle)
    async with Browser(context) as at:
        yield at


async def log_in(at: Browser, url: str, person: CustomerSection, password: str = "") -> Page:
    """Open the bank's page and log in; return the page that follows."""
    page = await at.visit(url)
    form = page.form_with("username", "password")
    assert form is not None, page.text
    fields = {"username": person.username, "password": password or person.password}
    return await at.submit(form, fields)


async def decide(at: Browser, page: Page, decision: str, accounts: tuple[str, ...] | None) -> Page:
    """Approve or decline on the consent page."""
    form = page.form_with("account", "decision")
    assert form is not None, page.text
    fields: dict[str, str | list[str]] = {"decision": decision}
    if decision == "approve":
        fields["account"] = list(form.offers["account"] if accounts is None else accounts)
    return await at.submit(form, fields)


def code_of(answer: Answer) -> str:
    """Return the standard's code of a refusal on a resource."""
    body = msgspec.json.decode(answer.body) if answer.body else {}
    errors = body.get("Errors") or [{}]
    return str(errors[0].get("Code", ""))
