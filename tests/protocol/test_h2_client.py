"""The lean client, rule by rule: what it writes, what it credits, what it ignores and what it refuses."""

import gc

import pytest
from hpack import Decoder, Encoder

from hub.protocol import guard
from hub.protocol.h2_answer import STREAM_WINDOW
from hub.protocol.h2_client import H2Client
from hub.protocol.h2_output import Stream, frame
from hub.protocol.h2_request import field_block, request_block
from tests.protocol.h2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST,
    SETTINGS,
    WINDOW,
    block,
)

GET = request_block(b"GET", b"bank", b"/a?b=1", ((b"accept", b"application/json"),))
OK = (b":status", b"200")


def frames(octets):
    """Take what a client sent apart."""
    found, at = [], 0
    if octets.startswith(PREFACE):
        at = len(PREFACE)
    while at < len(octets):
        end = at + 9 + int.from_bytes(octets[at : at + 3])
        stream = int.from_bytes(octets[at + 5 : at + 9])
        found.append((octets[at + 3], octets[at + 4], stream, octets[at + 9 : end]))
        at = end
    return found


class Server:
    """The other end, frame by frame."""

    def __init__(self, *settings, streams=10):
        self.client = H2Client(streams=streams, header_octets=65_536)
        self.greeting = frames(self.client.take())
        self.now = 0.0
        payload = b"".join([name.to_bytes(2) + value.to_bytes(4) for name, value in settings])
        self.say(frame(SETTINGS, 0, 0, payload))

    def get(self, want=0):
        return self.client.begin(GET, want=want)

    def say(self, *octets):
        """Return what the client says to these octets."""
        self.client.receive(b"".join(octets), self.now)
        return frames(self.client.take())

    def head(self, answer, *fields, end=False, status=OK):
        return self.say(frame(HEADERS, 4 | end, answer.number, block(status, *fields)))

    def data(self, answer, octets, *, end=False):
        return self.say(frame(DATA, int(end), answer.number, octets))


def resets(said):
    return [(stream, int.from_bytes(payload)) for kind, _, stream, payload in said if kind == RST]


def updates(said):
    return [
        (stream, int.from_bytes(payload)) for kind, _, stream, payload in said if kind == WINDOW
    ]


def test_the_greeting_forbids_pushes_and_a_compression_table_and_opens_the_connection():
    (kind, _, _, payload), (update, _, stream, step) = Server().greeting
    settings = {
        int.from_bytes(payload[at : at + 2]): int.from_bytes(payload[at + 2 : at + 6])
        for at in range(0, len(payload), 6)
    }
    assert (kind, update, stream) == (SETTINGS, WINDOW, 0)
    assert settings == {1: 0, 2: 0, 3: 0, 4: STREAM_WINDOW, 6: 65_536}
    assert int.from_bytes(step) == 11 * STREAM_WINDOW - 65_535


def test_a_request_is_one_frame_that_any_decoder_reads():
    server = Server()
    server.get()
    ((kind, flags, stream, payload),) = frames(server.client.take())
    assert (kind, flags, stream) == (HEADERS, 5, 1)
    assert Decoder().decode(payload, raw=True) == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"bank"),
        (b":path", b"/a?b=1"),
        (b"accept", b"application/json"),
    ]


def test_a_header_block_beyond_the_frame_size_goes_on_in_continuations():
    server = Server()
    long = request_block(b"GET", b"bank", b"/", ((b"x", b"y" * 40_000),))
    server.client.begin(long)
    found = frames(server.client.take())
    assert [(kind, flags) for kind, flags, _, _ in found] == [
        (HEADERS, 1),
        (CONTINUATION, 0),
        (CONTINUATION, 4),
    ]
    assert b"".join([payload for *_, payload in found]) == long


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"x", b"a\r\nb"), (b"x", b"\0"), (b"X", b"a"), (b"x y", b"a"), (b"", b"a"), (b"x", b" a"), (b":path", b"/")],
)  # fmt: skip
def test_a_field_that_would_not_survive_is_never_written(name, value):
    with pytest.raises(ValueError, match="not fit for a request"):
        field_block(name, value)
    with pytest.raises(ValueError, match="not fit for a request"):
        request_block(b"GET", b"bank", b"/", ((name, value),))


@pytest.mark.parametrize("target", [b"", b"x", b"/a b", b"/a\r\n", b"/a#b", b"/\x7f", b"*"])
def test_a_target_that_is_none_is_never_written(target):
    with pytest.raises(ValueError, match="not fit for a request"):
        request_block(b"GET", b"bank", target, ())


@pytest.mark.parametrize("method", [b"", b"get", b"GE T", b"G\r\n"])
def test_a_method_that_is_none_is_never_written(method):
    with pytest.raises(ValueError, match="not fit for a request"):
        request_block(method, b"bank", b"/", ())


def test_fields_of_the_connection_are_left_out():
    theirs = tuple((name, b"x") for name in (b"connection", b"host", b"te", b"transfer-encoding"))
    assert (
        request_block(b"GET", b"bank", b"/a?b=1", (*theirs, (b"accept", b"application/json")))
        == GET
    )


def test_ids_of_one_request_are_written_right_though_they_are_not_remembered():
    ids = [b"%036d" % number for number in range(3)]
    blocks = [request_block(b"GET", b"b", b"/", ((b"o3-caller-interaction-id", i),)) for i in ids]
    found = [Decoder().decode(octets, raw=True)[-1] for octets in blocks]
    assert found == [(b"o3-caller-interaction-id", i) for i in ids]


def test_a_body_goes_as_the_windows_allow():
    server = Server((4, 1000))
    body = bytes(range(256)) * 12
    answer = server.client.begin(GET, body)
    sent = b"".join(
        [payload for kind, _, _, payload in frames(server.client.take()) if kind == DATA]
    )
    assert len(sent) == 1000
    said = server.say(frame(WINDOW, 0, answer.number, (2000).to_bytes(4)))
    sent += b"".join([payload for kind, _, _, payload in said if kind == DATA])
    assert (len(sent), server.client.backlog(answer)) == (3000, 72)
    assert server.client.touched == []
    said = server.say(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (2000).to_bytes(4)))
    (last,) = [(flags, payload) for kind, flags, _, payload in said if kind == DATA]
    assert (last[0], sent + last[1]) == (1, body)
    assert server.client.touched == [answer], "whoever waits for the windows may look"


def test_an_early_answer_ends_the_upload():
    server = Server((4, 10))
    answer = server.client.begin(GET, bytes(100))
    server.client.take()
    said = server.head(answer, end=True)
    assert answer.complete
    assert resets(said) == [(1, guard.NO_ERROR)]
    assert server.say(frame(WINDOW, 0, 0, (1000).to_bytes(4))) == [], "nothing more of it is sent"


def test_octets_that_were_wanted_are_credited_as_they_come_by_half_windows():
    server = Server()
    answer = server.get(want=10**6)
    server.head(answer)
    said = [said for _ in range(8) for said in updates(server.data(answer, bytes(16_384)))]
    assert said == [(0, STREAM_WINDOW // 2), (1, STREAM_WINDOW // 2)] * 2
    assert (answer.held, answer.size) == (STREAM_WINDOW, STREAM_WINDOW)
    assert not answer.ready()


def test_octets_beyond_what_was_wanted_are_credited_as_they_are_taken():
    server = Server()
    answer = server.get()
    server.head(answer)
    said = [server.data(answer, bytes(16_384)) for _ in range(8)]
    assert not any(map(updates, said))
    assert answer.ready()
    assert answer in server.client.touched
    for _ in range(8):
        server.client.took(answer)
    said = updates(frames(server.client.take()))
    assert said == [(0, STREAM_WINDOW // 2), (1, STREAM_WINDOW // 2)] * 2
    assert answer.held == 0


def test_more_than_the_window_of_a_stream_ends_that_answer_alone():
    server = Server()
    answer, other = server.get(), server.get()
    server.head(answer)
    for _ in range(8):
        server.data(answer, bytes(16_384))
    said = server.data(answer, b"x")
    assert (answer.malformed, other.over, server.client.problem) == (True, False, "")
    assert resets(said) == [(1, guard.PROTOCOL_ERROR)]


def test_the_window_of_a_request_without_a_body_is_counted_too():
    server = Server()
    first, second = server.get(), server.get()
    server.say(frame(WINDOW, 0, 1, (1).to_bytes(4)))
    server.say(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (0).to_bytes(4)))
    said = server.say(frame(WINDOW, 0, 1, (2**31 - 1).to_bytes(4)))
    assert resets(said) == [(1, guard.PROTOCOL_ERROR)]
    assert (first.malformed, second.over) == (True, False)
    server.say(frame(WINDOW, 0, 3, (1).to_bytes(4)))
    server.say(frame(SETTINGS, 0, 0, (4).to_bytes(2) + (2**31 - 1).to_bytes(4)))
    assert "initial_window" in server.client.problem


def test_streams_that_nobody_reads_never_stop_another():
    server = Server(streams=3)
    idle, idler, read = server.get(), server.get(), server.get(want=10**6)
    for answer in (idle, idler, read):
        server.head(answer)
    for answer in (idle, idler):
        for _ in range(8):
            server.data(answer, bytes(16_384))
    for _ in range(50):
        server.data(read, bytes(16_384))
    assert (read.size, server.client.problem) == (50 * 16_384, "")


def test_what_is_cancelled_is_reset_credited_and_ignored_when_it_comes():
    server = Server(streams=1)
    answer = server.get()
    server.head(answer)
    for _ in range(5):
        server.data(answer, bytes(16_384))
    server.client.cancel(answer)
    said = frames(server.client.take())
    assert resets(said) == [(1, guard.CANCEL)]
    assert updates(said) == [(0, 65_536)]
    late = server.say(frame(DATA, 0, 1, bytes(100)), frame(HEADERS, 5, 1, block((b"x", b"y"))))
    assert (late, server.client.problem, server.client.room) == ([], "", True)


def test_late_frames_of_many_cancelled_streams_are_ignored():
    server = Server(streams=100)
    for _ in range(6):
        answers = [server.get() for _ in range(100)]
        for answer in answers:
            server.client.cancel(answer)
    server.client.take()
    server.say(*[frame(HEADERS, 5, number, block(OK)) for number in range(1, 1200, 2)])
    assert server.client.problem == ""


def test_header_blocks_that_repeat_mean_the_same_whatever_the_table_does():
    server, encoder = Server(), Encoder()
    for value in ("a", "a", "b", "a", "c" * 2000, "a", "d" * 3000, "a", "b", "b"):
        answer = server.get()
        fields = [(":status", "200"), ("x-value", value)]
        server.say(frame(HEADERS, 5, answer.number, encoder.encode(fields)))
        assert answer.headers == ((b"x-value", value.encode()),)
        assert answer.complete


def test_a_short_name_of_a_changed_table_is_not_mistaken_for_the_old_one():
    server = Server()
    dynamic = b"\x88\xbe"
    seen = []
    for value in (b"one", b"two"):
        answer = server.get()
        server.say(frame(HEADERS, 5, answer.number, b"\x88\x40\x01x\x03" + value))
        again = server.get()
        server.say(frame(HEADERS, 5, again.number, dynamic))
        seen.append(again.headers)
    assert seen == [((b"x", b"one"),), ((b"x", b"two"),)]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (frame(PING, 0, 0, bytes(8)) * 1100, "flood_6"),
        (frame(SETTINGS, 0, 0, b"") * 1100, "flood_4"),
        (frame(WINDOW, 0, 0, (1).to_bytes(4)) * 1100, "flood_8"),
        (frame(0x77, 0, 0, b"") * 1100, "flood_119"),
        (frame(HEADERS, 4, 1, block(OK)) + frame(DATA, 0, 1, b"") * 1100, "flood_0"),
        (frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 1, b"") * 50, "continuations"),
        (frame(HEADERS, 5, 1, block(OK)) + frame(DATA, 0, 1, b"x" * 100) * 1100, "provoked_reset"),
        (frame(DATA, 0, 3, b"x"), "idle_stream"),
        (frame(HEADERS, 5, 2, block(OK)), "stream_number"),
        (frame(DATA, 0, 2, b"x"), "idle_stream"),
        (frame(RST, 0, 3, bytes(4)), "reset_of_idle"),
        (frame(WINDOW, 0, 3, (1).to_bytes(4)), "window_of_idle"),
        (frame(SETTINGS, 0, 0, b"\0\2\0\0\0\1"), "enable_push"),
        (frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"), "max_frame_size"),
        (frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"), "initial_window"),
        (frame(HEADERS, 5, 1, block(OK, *[(b"x", b"y" * 7000)] * 2)) * 10, "closed_stream"),
    ],
)
def test_what_breaks_the_connection_ends_all_answers_and_is_told(octets, reason):
    server = Server()
    answer = server.get()
    server.client.take()
    said = server.say(octets)
    assert server.client.problem.endswith(reason)
    assert answer.over
    assert [kind for kind, *_ in said].count(GOAWAY) == 1
    assert not server.client.room


def test_resets_of_the_server_are_budgeted():
    server = Server(streams=100)
    for _ in range(11):
        answers = [server.get() for _ in range(100)]
        server.say(*[frame(RST, 0, answer.number, bytes(4)) for answer in answers])
        if server.client.problem:
            break
    assert server.client.problem.endswith("rapid_reset")


def test_interim_answers_are_passed_over_but_not_for_ever():
    server = Server()
    answer, other = server.get(), server.get()
    for _ in range(8):
        server.head(answer, status=(b":status", b"103"))
        server.head(other, status=(b":status", b"103"))
    server.head(answer, end=True)
    assert (answer.status, answer.complete) == (200, True)
    server.head(other, status=(b":status", b"103"))
    assert (other.malformed, server.client.problem) == (True, "")


@pytest.mark.parametrize(
    ("status", "fields", "octets"),
    [
        (b"101", (), b""),
        (b"103", (), None),
        (b"600", (), b""),
        (b"20", (), b""),
        (b"200", ((b"content-length", b"3"),), b"ab"),
        (b"200", ((b"content-length", b"3"),), b"abcd"),
        (b"200", ((b"content-length", b"3"),), None),
        (b"200", ((b"content-length", b"3"), (b"content-length", b"4")), b"abc"),
        (b"200", ((b"content-length", b"-3"),), b"abc"),
        (b"200", ((b"connection", b"close"),), b""),
        (b"200", ((b"X", b"a"),), b""),
        (b"200", ((b"x", b"a\nb"),), b""),
    ],
)
def test_an_answer_that_breaks_a_rule_ends_alone(status, fields, octets):
    server = Server()
    answer, other = server.get(), server.get()
    server.head(answer, *fields, status=(b":status", status), end=octets is None)
    if octets is not None and not answer.over:
        server.data(answer, octets, end=True)
    assert (answer.malformed, answer.complete) == (True, False)
    server.head(other, end=True)
    assert (other.complete, server.client.problem) == (True, "")


def test_not_modified_may_announce_a_length_it_does_not_have():
    server = Server()
    answer = server.get()
    server.head(answer, (b"content-length", b"3"), status=(b":status", b"304"), end=True)
    assert answer.complete


def test_goaway_refuses_what_is_above_it_once_and_lets_the_rest_finish():
    server = Server()
    first, second = server.get(), server.get()
    server.say(frame(GOAWAY, 0, 0, (1).to_bytes(4) + bytes(4)))
    assert (second.refused, first.over, server.client.room) == (True, False, False)
    server.say(frame(HEADERS, 5, 3, block(OK)))
    assert (second.status, server.client.problem) == (0, ""), (
        "what comes of it all the same is ignored"
    )
    server.head(first, end=True)
    assert first.complete


def test_a_stream_is_refused_only_if_nothing_came_of_it():
    server = Server()
    answer, other = server.get(), server.get()
    server.head(answer)
    server.say(*[frame(RST, 0, number, (7).to_bytes(4)) for number in (1, 3)])
    assert (answer.refused, other.refused) == (False, True)
    assert answer.problem
    assert other.problem


def test_no_more_streams_than_both_sides_allow():
    server = Server((3, 2), streams=10)
    assert server.client.most == 2
    server.get()
    answer = server.get()
    assert not server.client.room
    server.head(answer, end=True)
    assert server.client.room
    server.say(frame(SETTINGS, 0, 0, b"\0\3" + (1000).to_bytes(4)))
    assert server.client.most == 10


@pytest.mark.parametrize("body", [b"", b"x"])
def test_a_server_with_a_smaller_compression_table_is_told_so_by_the_next_request(body):
    server = Server((1, 0))
    strict = Decoder()
    strict.max_allowed_table_size = 0
    for _ in range(2):
        server.client.begin(GET, body)
        (block,) = [p for kind, _, _, p in frames(server.client.take()) if kind == HEADERS]
        assert (b":path", b"/a?b=1") in strict.decode(block, raw=True)


def test_uploads_that_wait_and_are_cancelled_leave_nothing():
    server = Server((4, 0))
    for _ in range(5):
        server.client.cancel(server.client.begin(GET, b"x" * 10))
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Stream)]


def test_control_frames_beside_answers_are_no_flood():
    server = Server()
    for _ in range(1500):
        answer = server.get()
        server.say(frame(PING, 0, 0, bytes(8)), frame(HEADERS, 5, answer.number, block(OK)))
        server.say(frame(RST, 0, answer.number, bytes(4)))
        assert answer.complete
    assert server.client.problem == ""


def test_what_is_left_of_a_large_body_is_not_copied_for_each_frame():
    client = H2Client(streams=1, header_octets=65_536)
    body = bytes(range(256)) * 1024
    answer = client.begin(request_block(b"POST", b"bank", b"/", ()), body)
    sent = [f for f in frames(client.take()) if f[0] == DATA]
    assert answer.upload.pending.obj is body
    client.receive(frame(SETTINGS, 0, 0, b"\0\4" + (2**20).to_bytes(4)), 0.0)
    client.receive(frame(WINDOW, 0, 0, (2**20).to_bytes(4)), 0.0)
    sent += [f for f in frames(client.take()) if f[0] == DATA]
    assert b"".join(payload for *_, payload in sent) == body
    assert [flags for _, flags, *_ in sent] == [0] * (len(sent) - 1) + [1]
