"""A bank that is nothing but curl and the two official documents: every request is made from what they declare."""

from copy import deepcopy
from functools import cache
from urllib.parse import quote, urlencode

import jsonschema_rs
import msgspec
import orjson
import trio

from hub.contract.official import find_documents, read_document
from tests.lfi.test_official import without_differences
from tests.wire.test_official import SPECS

CONSENT_MANAGER = "uae-api-hub-consent-manager-openapi.yaml"
HEIMDALL = "uae-api-hub-authorisation-server-openapi.yaml"


@cache
def official():
    """Read both documents, once."""
    found = find_documents(SPECS)
    return [read_document(found[name]) for name in (CONSENT_MANAGER, HEIMDALL)]


class Told(msgspec.Struct):
    """Hold one answer."""

    status: int
    location: str
    body: bytes

    def json(self):
        return orjson.loads(self.body)


class CurlBank:
    """Call the operations of both documents and hold every body against them; remember which were called."""

    def __init__(self, sandbox):
        self.documents = deepcopy(official())  # a test may take something out
        self._folder, self._manifest = sandbox.folder, sandbox.manifest
        self.called = set()

    def operation(self, method, template):
        for document in self.documents:
            if (method, template) in document.operations:
                return document.operations[method, template]
        raise AssertionError(f"no document has {method} {template}")

    async def call(self, method, template, *, body=None, wanted=200, prefix="", **parameters):
        """Do one operation: ``parameters`` fill the path first and are the query otherwise.

        ``wanted`` is the status that must come; 404 stands for the documents' 400 (a listed difference).
        """
        operation = self.operation(method, template)
        path = template
        for name in [n for n in parameters if "{" + n + "}" in template]:
            path = path.replace("{" + name + "}", quote(str(parameters.pop(name)), safe=""))
        query = f"?{urlencode(parameters)}" if parameters else ""
        media, octets = self._request(operation, body)
        base = self._manifest.hub.consent_manager_base
        told = await self._curl(method, f"{base}{prefix}{path}{query}", media, octets)
        assert told.status == wanted, (method, path, told)
        self._judge(operation, told)
        self.called.add((method, template))
        return told

    def _request(self, operation, body):
        if body is None:
            return "", b""
        [(media, schema)] = operation.bodies["request"].items()
        if media == "application/x-www-form-urlencoded":
            return media, urlencode(body).encode()
        jsonschema_rs.validator_for(schema).validate(body)
        return media, orjson.dumps(body)

    def _judge(self, operation, told):
        status = 400 if told.status == 404 else told.status
        assert str(status) in operation.statuses, told
        if not told.body:
            assert told.status in {204, 303}
            return
        value = told.json()
        data = value.get("data") if isinstance(value, dict) else None
        if isinstance(data, list):
            value["data"] = [_without_differences(entry) for entry in data]
        elif isinstance(data, dict):
            value["data"] = _without_differences(data)
        schema = operation.bodies[str(status)]["application/json"]
        jsonschema_rs.Draft7Validator(schema, validate_formats=True).validate(value)

    async def _curl(self, method, url, media, octets):
        bank, folder = self._manifest.bank, self._folder
        command = ["curl", "--silent", "--show-error", "--max-time", "20", "--request", method]
        command += ["--cacert", str(folder / self._manifest.ca_bundle)]
        command += ["--cert", str(folder / bank.transport_cert)]
        command += ["--key", str(folder / bank.transport_key)]
        if media:
            command += ["--header", f"content-type: {media}", "--data-binary", "@-"]
        command += ["--write-out", "\n%{http_code} %{redirect_url}", url]
        done = await trio.run_process(
            command, stdin=octets, capture_stdout=True, capture_stderr=True, check=False
        )
        assert done.returncode == 0, done.stderr
        body, _, told = done.stdout.rpartition(b"\n")
        status, _, location = told.decode().partition(" ")
        return Told(int(status), location, body)


def _without_differences(entry):
    """Take the listed differences off (config/contract/DIFFERENCES.md)."""
    if "consentBody" in entry:
        return without_differences(entry)
    entry.get("requestBody", {}).get("Data", {}).pop("OpenFinanceBilling", None)
    return entry


__all__ = ["CurlBank", "Told"]
