"""The third judge: python's ``jsonschema``, and the instances that hypothesis-jsonschema makes; in an environment of its own.

One line of JSON in, one out. ``{"schema", "values"}`` asks for a verdict on each value; ``{"schema", "count", "seed"}`` for so
many instances. A few things are said to the library that it takes too lightly by itself: a pattern is ECMA's (ASCII classes,
``$`` is the very end), a multiple is one of decimal numbers (0.07 is one of 0.01, whatever their binary neighbours are), nothing
of a format ends in a line end or has digits of another script, a duration has no sign, an address of mail ends in a host name, and the formats ``url`` and
``base64`` exist.
"""

import json
import re
import sys
import warnings
from base64 import b64decode
from email.errors import MessageError
from email.headerregistry import Address
from fractions import Fraction

import jsonschema

END = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\$")
"""An escape, a class, or the anchor that Python also lets stand before a last line end."""


def pattern(validator, wanted, instance, schema):
    """Search for a pattern as ECMA reads it."""
    ecma = END.sub(lambda found: r"\Z" if found[0] == "$" else found[0], wanted)
    if validator.is_type(instance, "string") and not re.search(ecma, instance, re.ASCII):
        yield jsonschema.ValidationError("pattern")


def multiple_of(validator, step, instance, schema):
    """Divide decimal numbers as they are written."""
    if (
        validator.is_type(instance, "number")
        and (Fraction(str(instance)) / Fraction(str(step))).denominator > 1
    ):
        yield jsonschema.ValidationError("multipleOf")


LIBRARY = jsonschema.FormatChecker(("date", "date-time", "uuid", "uri", "duration"))
FORMATS = jsonschema.FormatChecker(())
HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
KEYWORDS = {"pattern": pattern, "multipleOf": multiple_of}
JUDGE = jsonschema.validators.extend(jsonschema.Draft7Validator, KEYWORDS)


def strict(name):
    """Return the library's check of a format, for texts of ASCII without a line end."""
    return lambda text: (
        not isinstance(text, str)
        or (text.isascii() and text == text.strip() and LIBRARY.conforms(text, name))
    )


for name in LIBRARY.checkers:
    FORMATS.checks(name)(strict(name))
FORMATS.checks("url")(strict("uri"))
FORMATS.checks("duration")(lambda text: "-" not in str(text) and strict("duration")(text))


@FORMATS.checks("email", raises=(MessageError, IndexError, ValueError))
def is_email(text):
    """Tell whether a text is one address at a host name and nothing else."""
    if not isinstance(text, str):
        return True
    address = Address(addr_spec=text)
    known = address.addr_spec == text and text.isascii() and len(address.username) <= 64
    return known and all(HOST.fullmatch(label) for label in address.domain.split("."))


@FORMATS.checks("base64", raises=ValueError)
def is_base64(text):
    """Tell whether a text is base64."""
    return not isinstance(text, str) or b64decode(text, validate=True) is not None


def verdicts(schema, values):
    """Return a verdict on each value."""
    judge = JUDGE(schema, format_checker=FORMATS)
    return [judge.is_valid(value) for value in values]


def instances(schema, count, seed):
    """Return instances that hypothesis-jsonschema makes of a schema."""
    import hypothesis
    from hypothesis_jsonschema import from_schema

    draft = {**schema, "$schema": "http://json-schema.org/draft-07/schema#"}
    made = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(from_schema(draft))
    def keep(value):
        made.append(value)

    keep()
    return made


def main():
    """Answer each line of standard input."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps((instances if "count" in asked else verdicts)(**asked)), flush=True)


if __name__ == "__main__":
    main()
