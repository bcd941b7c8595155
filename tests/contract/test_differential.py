"""D2: our compiled validators, jsonschema-rs and python's jsonschema give one verdict on every instance of the standard's schemas."""

import json
import math
import os
import random
import subprocess
from base64 import b64decode
from collections import Counter

import jsonschema_rs
import msgspec
import orjson
import pytest

from bench.evidence import append
from hub.contract.notation import expand
from hub.contract.validators import generate, judge, load_checks
from tests.contract.instances import Maker, mutated
from tests.separate import ROOT, interpreter

pytestmark = pytest.mark.specs
SEEDS = [1, 2, 7]
"""Of our generator, of the mutations, of hypothesis-jsonschema."""
KEYWORDS = {
    "additionalProperties", "enum", "format", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum",
    "pattern", "required", "type",
}  # fmt: skip
"""Each of them makes some instance unlawful."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Say how much is judged of each schema; ``third`` of it by the third judge too.

    ``made`` are hypothesis-jsonschema's, of schemas up to ``longest`` characters (it is slow); each is mutated ``turns`` times.
    """

    count: int
    third: int
    made: int
    longest: int
    turns: int


CI = Sizes(count=int(os.environ.get("HUB_INSTANCES", "50")), third=8, made=4, longest=700, turns=4)
NIGHTLY = Sizes(count=1000, third=4000, made=10, longest=100_000, turns=80)


def judged_by(schema):
    """Return the judgement of a later draft, in which the independent validator knows a format."""
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid


def is_base64(text):
    try:
        return b64decode(text, validate=True) is not None
    except ValueError:
        return False


FORMATS = {
    "uuid": judged_by({"format": "uuid"}),
    "url": judged_by({"format": "uri"}),
    "duration": judged_by({"format": "duration"}),
    "base64": is_base64,
}
"""Formats that jsonschema-rs does not know in draft 7; ours checks them (DIFFERENCES.md)."""


@pytest.fixture(scope="module")
def third():
    """Start the third judge; it ends when it is told nothing more."""
    command = [interpreter("judge"), str(ROOT / "tests/outside/third_judge.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as judge:

        def ask(**question):
            judge.stdin.write(json.dumps(question).encode() + b"\n")
            judge.stdin.flush()
            return json.loads(judge.stdout.readline())

        yield ask
        judge.stdin.close()


def test_every_official_site_gets_the_same_verdict_from_ours_and_from_independent_validators(
    official, contract, third
):
    found = compare(official, contract, third, CI)
    assert found["valid"] >= CI.count * found["schemas"]
    assert found["invalid"] >= CI.count * found["schemas"] / 2
    assert set(found["keywords"]) >= KEYWORDS
    assert found["by_three"] >= CI.third * found["schemas"]
    assert found["made"] > 0


@pytest.mark.nightly
def test_many_instances_of_every_official_site_get_the_same_verdict(official, contract, third):
    found = compare(official, contract, third, NIGHTLY)
    assert found["valid"] >= NIGHTLY.count * found["schemas"]
    assert set(found["keywords"]) >= KEYWORDS
    assert min(found["by_three"], found["made_and_mutated"]) >= 50_000
    assert 0.3 <= found["by_three_share_valid"] <= 0.7
    told = ("schemas", "instances", "valid", "by_three", "made_and_mutated")
    counts = {name: found[name] for name in told}
    append("differential", {"valid_and_mutated_each": NIGHTLY.count, **counts}, SEEDS, found)


@pytest.mark.parametrize(("kind", "text", "lawful"), [
    ("num", b"NaN", False), ("num", b"-Infinity", False), ("num", b"1e400", False), ("num", b"1e300", True),
    ({"a": "num"}, b'{"a":"b","a":1}', True), ({"a": "num"}, b'{"a":1,"a":"b"}', False),
    ({"a!": "num"}, b'{"a":1,"A":2}', False),
    ("int", b"9007199254740993", True), ("int", b"18446744073709551616", True), ("int", b"1e20", True),
    ("int", b"-100000000000000000000", True), ("int", b"1.0", True), ("int", b"1.5", False), ("int", b"true", False),
    ("int ..9007199254740992", b"9007199254740992", True), ("int ..9007199254740992", b"9007199254740993", False),
    ("int 9007199254740993..", b"9007199254740992", False), ("int 0..", b"-18446744073709551616", False),
    ("num *0.01", b"0.07", True), ("num *0.01", b"0.29", True), ("num *0.01", b"19.99", True), ("num *0.01", b"4.35", True),
    ("num *0.01", b"-123456789.01", True), ("num *0.01", b"1.005", False), ("num *0.01", b"0.001", False),
    ("num *0.01", b"1e22", True), ("num *0.01", b"5e-324", False), ("num *0.01", b"0", True),
    ("num *0.1", b"0.3", True), ("num *0.1", b"0.35", False), ("num *0.00001", b"3.6725", True),
    ("num *0.00001", b"1.234567", False), ("int *3", b"100000000000000000002", True),
])  # fmt: skip
def test_what_json_leaves_open_is_judged_alike(third, kind, text, lawful):
    """Numbers that are none, members that stand twice, big integers, multiples of fractions: from the bytes on."""
    source, names = generate({}, {"site": kind})
    ours = load_checks(compile(source, "site", "exec"), names)["site"]
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        accepted = False
    else:
        accepted = judge(ours, value) is None
    assert (accepted, *elsewhere(third, expand(kind), text)) == (lawful, lawful, lawful)


def elsewhere(third, schema, text):
    """Return both other verdicts on a text, by python's own reader, which must be told that NaN is no JSON and 1e400 no number."""
    try:
        value = json.loads(text, parse_constant=finite, parse_float=finite)
    except ValueError:
        return False, False
    theirs = jsonschema_rs.Draft7Validator(schema).is_valid(value)
    return theirs, *third(schema=schema, values=[value])


def finite(text):
    """Return a number, if it is one."""
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


YEAR_ZERO = "0000-01-01"
"""Only jsonschema-rs takes it for a date (DIFFERENCES.md)."""
TEXTS = {
    "date": ["2024-02-29", "2023-02-29", "2024-2-9", "20240229", "2024-02-29\n", "٢٠٢٤-٠٢-٢٩", YEAR_ZERO, "2024-13-01", "", "2024-W09-4", "20240229  "],
    "date-time": [
        "2024-02-29T23:59:59Z", "2024-02-29t23:59:59z", "2024-02-29T23:59:59", "2024-02-29 23:59:59Z", "2024-02-30T00:00:00Z",
        "2024-02-29T24:00:00Z", "2024-02-29T23:60:00Z", "2024-02-29T23:59:59.123456+04:00", "2024-02-29T23:59:59+24:00",
        "2024-02-29T23:59:59+04:60", "2024-02-29T23:59:59+0400", "2024-02-29T23:59:59.Z", "2024-02-29T23:59:59Z\n",
    ],
    "uuid": [
        "6f9619ff-8b86-4011-b42d-00c04fc964ff", "6F9619FF-8B86-4011-B42D-00C04FC964FF", "6f9619ff8b864011b42d00c04fc964ff",
        "{6f9619ff-8b86-4011-b42d-00c04fc964ff}", "6f9619ff-8b86-4011-b42d-00c04fc964f", "6f9619ff-8b86-4011-b42d-00c04fc964f٣", "",
    ],
    "uri": [
        "https://example.com/a?b=c#d", "com.example.app:/cb", "urn:a:b", "mailto:a@b.c", "https://example.com/ä", "https://ex٣mple.com",
        "/relative", "", "https://example.com/%zz", "https://example.com/%20", "https://example.com/a b", "https://example.com/{a}",
        "https://example.com/\n", "1a:b", "https://[::1]/a", "https://a@b:80/c",
    ],
    "email": [
        "a@example.com", "a.b+c@example.com", "a@localhost", "a@", "@a", "a", "", "a b@example.com", "a@exa mple.com", "a@example.com\n",
        "ä@example.com", "a@ex٣mple.com", "a@-example.com", "a@example-.com", "a@example..com", f"{'a' * 64}@b.c", f"{'a' * 65}@b.c",
        f"a@{'b' * 63}.c", f"a@{'b' * 64}.c", "a@b@c", ".a@b.c", "a.@b.c", "a..b@c.d",
    ],
    "duration": ["P1Y2M", "P1W", "P1D", "PT1H30M", "P1Y2M3DT4H5M6S", "P", "PT", "1Y", "P1", "P1W2D", "p1y", "P1Y\n", "P٣Y", "P-1Y"],
    "base64": ["QUJD", "QUI=", "QQ==", "QQ=", "QUJ", "Q U JD", "QUJD\n", "", "QR==", "QUJä"],
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_format_is_judged_alike(third, name):
    source, names = generate({}, {"site": name})
    ours = load_checks(compile(source, "site", "exec"), names)["site"]
    schema = {"type": "string", "format": name}
    rust = jsonschema_rs.Draft7Validator(schema, validate_formats=True, formats=FORMATS).is_valid
    texts = TEXTS[name]
    others = third(schema=schema, values=texts)
    verdicts = {
        text: (judge(ours, text) is None, rust(text), other)
        for text, other in zip(texts, others, strict=True)
    }
    differing = {text for text, verdict in verdicts.items() if len(set(verdict)) > 1}
    assert differing == ({YEAR_ZERO} if name == "date" else set()), verdicts
    assert {verdict for verdict, _, _ in verdicts.values()} == {True, False}


def test_a_multiple_beyond_what_a_float_holds_is_refused_by_ours_alone(third):
    """The one explained difference; the standard knows no ``multipleOf``, and to refuse is the safe side."""
    source, names = generate({}, {"site": "num *0.01"})
    ours = load_checks(compile(source, "site", "exec"), names)["site"]
    assert judge(ours, 1e308) is not None
    assert elsewhere(third, expand("num *0.01"), b"1e308") == (True, True)


def test_the_third_judge_is_asked_and_disagrees_with_a_wrong_schema(third):
    assert third(
        schema={"type": "string", "format": "date"}, values=["2024-02-29", "2023-02-29", 1]
    ) == [True, False, False]


def compare(official, contract, third, sizes):
    """Judge instances of each distinct schema by all; return what there was."""
    counts, keywords, unexplained = Counter(explained=0), Counter(), []
    schemas = distinct(official)
    for name, site, said in schemas:
        schema = outright(said)
        theirs = jsonschema_rs.Draft7Validator(schema, validate_formats=True, formats=FORMATS)
        ours = contract._checks[name][site]
        foreign = list(foreign_instances(schema, third, sizes))
        own = list(instances(schema, theirs, sizes.count))
        shown = [*foreign, *own[: sizes.third]]
        others = third(schema=schema, values=[value for _, value in shown])
        assert len(others) == len(shown)
        rows = [*foreign, *own]
        for (keyword, value), other in zip(rows, others + [None] * len(rows), strict=False):
            verdict, broken = theirs.is_valid(value), judge(ours, value)
            counts["valid" if verdict else "invalid"] += 1
            keywords[keyword] += not verdict
            if other is not None:
                counts["by_three"] += 1
                counts["by_three_valid"] += other
            if len({verdict, broken is None, verdict if other is None else other}) > 1:
                if is_label(value) and not verdict and broken is None:
                    counts["explained"] += 1
                    continue
                unexplained.append((name, site, keyword, verdict, other, broken))
        counts["made_and_mutated"] += len(foreign)
        counts["made"] += sum(keyword == "made" for keyword, _ in foreign)
    judged = counts["valid"] + counts["invalid"]
    print(f"{judged} instances, {counts['valid']} of them valid ({counts['valid'] / judged:.0%})")
    assert unexplained == []
    return {
        "schemas": len(schemas), "instances": judged, **counts,
        "share_valid": round(counts["valid"] / judged, 3),
        "by_three_share_valid": round(counts["by_three_valid"] / counts["by_three"], 3),
        "keywords": dict(sorted(keywords.items())), "unexplained": 0,
    }  # fmt: skip


def is_label(value):
    """Tell whether a host name of another script is in it: only jsonschema-rs decodes such a label (DIFFERENCES.md)."""
    return "xn--" in json.dumps(value).lower()


def outright(schema):
    """Return a schema that says what it means: what has members is an object, what has items an array (DIFFERENCES.md)."""
    if isinstance(schema, list):
        return [outright(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    told = {
        key: {name: outright(inner) for name, inner in value.items()} if key == "properties" else outright(value)
        for key, value in schema.items()
    }  # fmt: skip
    if "properties" in schema or isinstance(schema.get("required"), list):
        told.setdefault("type", "object")
    return told


def distinct(official):
    """Return each distinct schema of the documents once, with the first site that has it."""
    found = {}
    for name, sites in official.items():
        for site, schema in sites.items():
            if not site.endswith(" query"):
                found.setdefault(msgspec.json.encode(schema, order="sorted"), (name, site, schema))
    return list(found.values())


def instances(schema, theirs, count):
    """Yield ``count`` lawful instances (and the others that come with them), and as many mutated ones."""
    maker, dice = Maker(SEEDS[0]), random.Random(SEEDS[1])
    made = 0
    for number in range(4 * count):
        value = maker.make(schema, full=(0, 0.5, 1)[number % 3])
        yield "none", value
        if theirs.is_valid(value):
            yield mutated(schema, value, dice, made)
            made += 1
        if made == count:
            return
    raise AssertionError("too few lawful instances")


def foreign_instances(schema, third, sizes):
    """Yield the instances that hypothesis-jsonschema makes, and mutations of each, keyword after keyword."""
    if len(json.dumps(schema)) > sizes.longest:
        return
    dice = random.Random(SEEDS[1])
    for value in third(schema=schema, count=sizes.made, seed=SEEDS[2]):
        yield "made", value
        for turn in range(sizes.turns):
            yield mutated(schema, value, dice, turn)
