"""What schemathesis must be told of signed messages: it judges the ``message`` of an answer and has bodies signed.

Runs in the environment of its own that has schemathesis (``SCHEMATHESIS_HOOKS``). ``SIGNER`` is a program that reads a JSON
value per line and writes it as a signed message; without it signed bodies are sent as generated.
"""

import json
import os
import shlex
import subprocess
from base64 import urlsafe_b64decode

import schemathesis
from schemathesis.core import media_types

JWT = "application/jwt"
# It takes a JWT for JSON, and its own reader of that before ours.
media_types.JSON_MEDIA_TYPES = media_types.JSON_MEDIA_TYPES - {("application", "jwt")}
if "SIGNER" in os.environ:
    SIGNER = subprocess.Popen(
        shlex.split(os.environ["SIGNER"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Have the message described instead of the text that carries it."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            for said in [operation.get("requestBody", {}), *operation["responses"].values()]:
                content = said.get("content", {})
                if JWT in content:
                    content[JWT]["schema"] = content[JWT]["schema"]["x-message"]
                if "x-links" in said:
                    said["links"] = said.pop("x-links")


@schemathesis.deserializer(JWT)
def message_of(context, response):
    """Return the message that an answer carries; its signature is other tests' business."""
    _, claims, _ = response.content.decode("ascii").split(".")
    return json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["message"]


@schemathesis.serializer(JWT)
def signed(context, value):
    """Return a body as the TPP signs it."""
    text = json.dumps(value)
    if "SIGNER" not in os.environ:
        return text.encode()
    SIGNER.stdin.write(text.encode() + b"\n")
    SIGNER.stdin.flush()
    return SIGNER.stdout.readline().strip()
