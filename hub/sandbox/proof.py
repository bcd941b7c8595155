"""The journey's last step: the Hub's receipt for one of its calls, checked offline by the stand-alone verifier."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import trio

from hub.audit.open import AUDIT, KEY, VERIFIER, ReadLog
from hub.audit.receipt import receipts
from hub.audit.tiles import LogError
from hub.sandbox.travel import Stopped
from hub.sandbox.witness import witness_key_of
from hub.state.open import open_reader
from hub.state.schema import StoreError

RECEIPTS: Final = "receipts"
_PUBLISHED_S: Final = 15.0
_LOOK_S: Final = 0.1


class Proof(msgspec.Struct, frozen=True):
    """Hold what was proved: the receipt's file, and what the verifier said of it."""

    receipt: Path
    said: str


async def prove(folder: Path, state: Path, interaction_id: str) -> Proof:
    """Fetch the receipt of an interaction and have it checked by the verifier in a process of its own.

    The verifier gets the receipt and two public keys, the log's and the witness's, and nothing of the Hub: not its code,
    not its database, not its network.

    Args:
        folder: The sandbox's folder; the receipt is left in ``receipts`` in it.
        state: The Hub's state folder.
        interaction_id: Of a call that was answered.

    Raises:
        Stopped: The call is not in the log within fifteen seconds, or the receipt does not hold.
    """
    text = ""
    with trio.move_on_after(_PUBLISHED_S):
        while not text:
            text = await _receipt(state, interaction_id)
            await trio.sleep(0 if text else _LOOK_S)
    if not text:
        raise Stopped(f"the log has no receipt for interaction {interaction_id}")
    file = folder / RECEIPTS / f"{interaction_id}.tlog-proof"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.write_text(text)
    beside = state / AUDIT
    command = [sys.executable, "-I", str(beside / VERIFIER), "receipt", str(file)]
    command += ["--key", str(beside / KEY), "--witness", str(witness_key_of(folder))]
    done = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    said = (done.stdout or b"").decode(errors="replace")
    if done.returncode:
        raise Stopped(f"the verifier says: {said.strip()}")
    return Proof(file, said.splitlines()[0])


async def _receipt(state: Path, interaction_id: str) -> str:
    """Return the receipt once a checkpoint that covers the call is signed by log and witness."""
    try:
        log = ReadLog.read(state)
        with open_reader(state) as reader:
            found = await receipts(log, reader, interaction_id)
    except (LogError, StoreError):
        return ""
    signed_by_both = log.note.count("\n— ") > 1
    return found[-1] if found and signed_by_both else ""
