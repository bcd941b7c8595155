"""The bank of the benchmarks: nginx (Debian: ``nginx-light``) with fixed answers in Ozone Connect's shape, over mutual TLS.

It costs almost nothing itself and treats everybody who proxies to it alike: the Hub, and its peers. HTTP/1.1 on one port,
HTTP/2 on the next; keep-alive without end, no access log.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

HEAD = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  server_tokens off;
  keepalive_requests 1000000000;
  keepalive_timeout 3600;
  default_type application/json;
  client_max_body_size 64m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
"""

BANK = """\
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  ssl_client_certificate {ca};
  ssl_verify_client on;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:bank:4m;
  root {answers};
{servers}
}}
"""

SERVER = """\
  server {{
    listen 127.0.0.1:{port} ssl {http2} backlog=4096;
    http2_max_concurrent_streams 1024;
    error_page 405 =200 $uri;
    location ~ ^/(?:.*/)?accounts/[^/]+/balances$ {{ return 200 '{balances}'; }}
    location ~ ^/(?:.*/)?accounts$ {{ return 200 '{accounts}'; }}
    location ~ ^/(?:.*/)?payments$ {{ return 201 '{payment}'; }}
    location ~ ^/(?:.*/)?accounts/(\\d+)octets/transactions$ {{ rewrite /accounts/(\\d+)octets/ /$1.json break; }}
    location / {{ return 200 '{{"data":{{}}}}'; }}
  }}
"""


def nginx() -> str:
    """Return nginx's path."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("nginx is missing; install it: apt-get install nginx-light")
    return found


def balances() -> dict[str, Any]:
    """Return balances in Ozone Connect's shape, 1,024 octets as JSON."""
    kinds = ("InterimAvailable", "InterimBooked", "ClosingBooked", "OpeningBooked", "Expected")
    items = [
        {
            "accountId": "acc-1001",
            "creditDebitIndicator": "Credit",
            "balanceType": kind,
            "timestamp": "2026-11-20T08:00:00Z",
            "amount": {"amount": f"{1200 + count}.50", "currency": "AED"},
        }
        for count, kind in enumerate(kinds)
    ]
    answer = {"data": items, "meta": {"totalPages": 1, "totalRecords": len(items)}}
    items[-1]["accountId"] += "x" * (1024 - len(_json(answer)))
    return answer


def accounts() -> dict[str, Any]:
    """Return one account in Ozone Connect's shape."""
    account = {
        "id": "acc-1001",
        "status": "Active",
        "accountType": "Retail",
        "accountSubType": "CurrentAccount",
        "currency": "AED",
        "nickname": "Household",
        "openingDate": "2024-01-15",
        "multiAuth": False,
        "accountNumbers": [
            {
                "schemeName": "IBAN",
                "identification": "AE070331234567890123456",
                "name": "Amal Example",
            }
        ],
    }
    return {"data": [account], "meta": {"totalPages": 1, "totalRecords": 1}}


def payment() -> dict[str, Any]:
    """Return a payment that the bank took, in Ozone Connect's shape; nginx gives each an id of its own."""
    return {
        "data": {
            "id": "$request_id",
            "consentId": "66666666-7777-4888-9999-000000000000",
            "paymentTransactionId": "TX-0000000001",
            "status": "Pending",
            "statusUpdateDateTime": "2026-11-20T08:00:00Z",
            "creationDateTime": "2026-11-20T08:00:00Z",
            "instruction": {"amount": {"amount": "1.00", "currency": "AED"}},
            "paymentPurposeCode": "ACM",
        }
    }


def transactions(octets: int) -> bytes:
    """Return a list of transactions of about so many octets as JSON."""
    one = {
        "accountId": "acc-1001",
        "transactionId": "tx-000001",
        "transactionDateTime": "2026-11-01T08:00:00Z",
        "transactionReference": "REF-000001",
        "transactionType": "POS",
        "subTransactionType": "Purchase",
        "paymentModes": "Online",
        "creditDebitIndicator": "Debit",
        "status": "Booked",
        "transactionMutability": "Immutable",
        "bookingDateTime": "2026-11-01T08:00:00Z",
        "amount": {"amount": "12.50", "currency": "AED"},
    }
    count = max(1, (octets - 60) // (len(_json(one)) + 1))
    meta = {"paginated": False, "totalPages": 1, "totalRecords": count}
    return _json({"data": [one] * count, "meta": meta}).encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class Nginx:
    """One nginx under a configuration of ours; ends with ``stop``."""

    def __init__(self, folder: Path, configuration: str, port: int, core: int | None) -> None:
        """Write the configuration and start; return once the port answers."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "nginx.conf"
        # Started by root, its workers would be somebody who may not read our folders.
        path.write_text(("user root;\n" if os.geteuid() == 0 else "") + configuration)
        taskset = [] if core is None else ["taskset", "-c", str(core)]
        self._process = subprocess.Popen(
            [
                *taskset,
                nginx(),
                "-p",
                str(folder),
                "-e",
                str(folder / "nginx.log"),
                "-c",
                str(path),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(port, self._process)

    @property
    def pid(self) -> int:
        """Return the master's process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)


def wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float = 15.0) -> None:
    """Return once somebody listens on a loopback port.

    Raises:
        SystemExit: The process ended, or nobody does in time.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args}: ended with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{process.args}: nobody listens on port {port}")


def start_bank(
    folder: Path, port: int, *, certificate: Path, key: Path, ca: Path, core: int | None
) -> Nginx:
    """Start the bank: HTTP/1.1 on ``port``, HTTP/2 on ``port + 1``."""
    folder = folder.absolute()
    answers = folder / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        (answers / f"{size}.json").write_bytes(transactions(size))
    fixed = {
        "balances": _json(balances()),
        "accounts": _json(accounts()),
        "payment": _json(payment()),
    }
    servers = SERVER.format(port=port, http2="", **fixed)
    servers += SERVER.format(port=port + 1, http2="http2", **fixed)
    text = HEAD.format(folder=folder) + BANK.format(
        certificate=certificate.absolute(),
        key=key.absolute(),
        ca=ca.absolute(),
        answers=answers,
        servers=servers,
    )
    return Nginx(folder, text, port, core)
