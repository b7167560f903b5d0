"""permessage-deflate: the factories and what they agree on (RFC 7692 §7.1)."""

from __future__ import annotations

import pytest

SERVER_NCT = ("server_no_context_takeover", None)
CLIENT_NCT = ("client_no_context_takeover", None)
BAD_BITS = ["7", "16", "0", "08", "+9", " 9", "9 ", "9.0", "1_0", "-9", "0x9", "9\n", "٩", "", "a"]


def server_bits(value):
    return ("server_max_window_bits", value)


def client_bits(value):
    return ("client_max_window_bits", value)


def agreed(extension):
    return (
        extension.remote_no_context_takeover,
        extension.local_no_context_takeover,
        extension.remote_max_window_bits,
        extension.local_max_window_bits,
    )


# Arguments of the factories


def test_names(fd):
    deflate = fd.extensions.permessage_deflate
    assert deflate.ClientPerMessageDeflateFactory.name == "permessage-deflate"
    assert deflate.ServerPerMessageDeflateFactory().name == "permessage-deflate"
    assert deflate.PerMessageDeflate(False, False, 15, 15).name == "permessage-deflate"


def test_factories_are_extension_factories(fd):
    base, deflate = fd.extensions.base, fd.extensions.permessage_deflate
    assert isinstance(deflate.ClientPerMessageDeflateFactory(), base.ClientExtensionFactory)
    assert isinstance(deflate.ServerPerMessageDeflateFactory(), base.ServerExtensionFactory)
    assert isinstance(deflate.PerMessageDeflate(False, False, 15, 15), base.Extension)


@pytest.mark.parametrize("side", ["Client", "Server"])
@pytest.mark.parametrize("which", ["server_max_window_bits", "client_max_window_bits"])
@pytest.mark.parametrize("bits", [8, 9, 12, 15])
def test_valid_window_bits(fd, side, which, bits):
    factory = getattr(fd.extensions.permessage_deflate, f"{side}PerMessageDeflateFactory")
    if bits == 8 and which.startswith(side.lower()):  # its own window
        with pytest.raises(ValueError, match=f"{which} must be between 9 and 15"):
            factory(**{which: bits})
    else:
        assert getattr(factory(**{which: bits}), which) == bits


@pytest.mark.parametrize("side", ["Client", "Server"])
@pytest.mark.parametrize("which", ["server_max_window_bits", "client_max_window_bits"])
@pytest.mark.parametrize("bits", [7, 16, 0, -15, False, True, "12", 12.0])
def test_invalid_window_bits(fd, side, which, bits):
    factory = getattr(fd.extensions.permessage_deflate, f"{side}PerMessageDeflateFactory")
    if bits is True and side == "Client" and which == "client_max_window_bits":
        assert factory(client_max_window_bits=True).client_max_window_bits is True
    else:
        with pytest.raises(ValueError, match=f"{which} must be between"):
            factory(**{which: bits})


@pytest.mark.parametrize("side", ["Client", "Server"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wbits": 10}, "must not include wbits"),
        ({"zdict": b"abc"}, "must not include zdict"),
        ({"lvl": 3}, "must not include lvl"),
        ({"level": 10}, "wrong level: 10"),
        ({"level": -2}, "wrong level: -2"),
        ({"memLevel": 0}, "wrong memLevel: 0"),
        ({"memLevel": "high"}, "wrong memLevel: 'high'"),
        ({"method": 9}, "wrong method: 9"),
        ({"strategy": 5}, "wrong strategy: 5"),
    ],
)
def test_invalid_settings(fd, side, settings, message):
    deflate = fd.extensions.permessage_deflate
    with pytest.raises(ValueError, match=message):
        getattr(deflate, f"{side}PerMessageDeflateFactory")(compress_settings=settings)
    with pytest.raises(ValueError, match=message):
        deflate.PerMessageDeflate(False, False, 15, 15, settings)


@pytest.mark.parametrize(
    ("remote", "local"), [(7, 15), (16, 15), (15, 8), (15, 16), (None, 15), (15, True)]
)
def test_invalid_extension(fd, remote, local):
    with pytest.raises(ValueError, match="_max_window_bits must be between"):
        fd.extensions.permessage_deflate.PerMessageDeflate(False, False, remote, local)


def test_invalid_threshold(fd):
    deflate = fd.extensions.permessage_deflate
    for make in (
        deflate.ClientPerMessageDeflateFactory,
        deflate.ServerPerMessageDeflateFactory,
        lambda threshold: deflate.PerMessageDeflate(False, False, 15, 15, threshold=threshold),
    ):
        with pytest.raises(ValueError, match="threshold must not be negative"):
            make(threshold=-1)


def test_require_client_max_window_bits_needs_a_value(fd):
    with pytest.raises(ValueError, match="require_client_max_window_bits"):
        fd.extensions.permessage_deflate.ServerPerMessageDeflateFactory(
            require_client_max_window_bits=True
        )


def test_repr(fd):
    extension = fd.extensions.permessage_deflate.PerMessageDeflate(True, False, 9, 15)
    assert repr(extension) == (
        "PerMessageDeflate(remote_no_context_takeover=True, local_no_context_takeover=False, "
        "remote_max_window_bits=9, local_max_window_bits=15)"
    )


# The offer


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        ((), [client_bits(None)]),
        ((False, False, None, None), []),
        ((True, False, None, None), [SERVER_NCT]),
        ((False, True, None, None), [CLIENT_NCT]),
        ((False, False, 8, None), [server_bits("8")]),
        ((False, False, None, 10), [client_bits("10")]),
        ((True, True, 15, 9), [SERVER_NCT, CLIENT_NCT, server_bits("15"), client_bits("9")]),
        ((True, True, 10, True), [SERVER_NCT, CLIENT_NCT, server_bits("10"), client_bits(None)]),
    ],
)
def test_offer(fd, arguments, params):
    factory = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory(*arguments)
    assert factory.get_request_params() == params


# The answer, as the client takes it: (arguments, params, (remote no context takeover, local no
# context takeover, remote bits, local bits))

ANSWERS = [
    ((False, False, None, None), [], (False, False, 15, 15)),
    ((False, False, None, True), [], (False, False, 15, 15)),
    # server_no_context_takeover: not asked for, it may come all the same; asked for, it must
    ((False, False, None, None), [SERVER_NCT], (True, False, 15, 15)),
    ((True, False, None, None), [SERVER_NCT], (True, False, 15, 15)),
    ((True, False, None, None), [], "expected server_no_context_takeover"),
    # client_no_context_takeover: the server may ask for it; the client does as it said in any case
    ((False, False, None, None), [CLIENT_NCT], (False, True, 15, 15)),
    ((False, True, None, None), [], (False, True, 15, 15)),
    ((False, True, None, None), [CLIENT_NCT], (False, True, 15, 15)),
    # server_max_window_bits
    ((False, False, None, None), [server_bits("8")], (False, False, 8, 15)),
    ((False, False, None, None), [server_bits("15")], (False, False, 15, 15)),
    ((False, False, 10, None), [], "expected server_max_window_bits"),
    ((False, False, 10, None), [server_bits("8")], (False, False, 8, 15)),
    ((False, False, 10, None), [server_bits("10")], (False, False, 10, 15)),
    ((False, False, 10, None), [server_bits("11")], "invalid value .*: 11"),
    ((False, False, 8, None), [server_bits("8")], (False, False, 8, 15)),
    ((False, False, None, None), [server_bits(None)], "missing value"),
    # client_max_window_bits
    ((False, False, None, None), [client_bits("10")], "unexpected client_max_window_bits"),
    ((False, False, None, True), [client_bits("9")], (False, False, 15, 9)),
    ((False, False, None, True), [client_bits("15")], (False, False, 15, 15)),
    ((False, False, None, 10), [], (False, False, 15, 10)),
    ((False, False, None, 10), [client_bits("9")], (False, False, 15, 9)),
    ((False, False, None, 10), [client_bits("10")], (False, False, 15, 10)),
    ((False, False, None, 10), [client_bits("11")], "invalid value .*: 11"),
    ((False, False, None, True), [client_bits(None)], "missing value"),
    # zlib has no window of 8 bits for raw DEFLATE
    ((False, False, None, True), [client_bits("8")], "invalid value .*: 8"),
    ((False, False, None, 9), [client_bits("8")], "invalid value .*: 8"),
    # all at once
    (
        (True, True, 12, 12),
        [client_bits("11"), server_bits("10"), CLIENT_NCT, SERVER_NCT],
        (True, True, 10, 11),
    ),
    # no parameters of this extension
    ((False, False, None, True), [("max_window_bits", "10")], "invalid parameter name"),
    ((False, False, None, True), [("SERVER_MAX_WINDOW_BITS", "10")], "invalid parameter name"),
    # values where none belong
    ((False, False, None, True), [("server_no_context_takeover", "1")], "invalid value"),
    ((False, False, None, True), [("client_no_context_takeover", "")], "empty value"),
    # twice
    ((False, False, None, True), [SERVER_NCT, SERVER_NCT], "duplicate parameter"),
    ((False, False, None, True), [client_bits("9"), client_bits("9")], "duplicate parameter"),
]


@pytest.mark.parametrize(("arguments", "params", "expected"), ANSWERS)
def test_client_takes_answer(fd, arguments, params, expected):
    factory = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory(*arguments)
    if isinstance(expected, str):
        with pytest.raises(fd.exceptions.NegotiationError, match=expected):
            factory.process_response_params(params, [])
    else:
        assert agreed(factory.process_response_params(params, [])) == expected


# The offer, as the server takes it: (arguments, params, answer, agreed as above)

OFFERS = [
    ((), [], [], (False, False, 15, 15)),
    # server_no_context_takeover
    ((), [SERVER_NCT], [SERVER_NCT], (False, True, 15, 15)),
    ((True,), [], [SERVER_NCT], (False, True, 15, 15)),
    ((True,), [SERVER_NCT], [SERVER_NCT], (False, True, 15, 15)),
    # client_no_context_takeover
    ((), [CLIENT_NCT], [CLIENT_NCT], (True, False, 15, 15)),
    ((False, True), [], [CLIENT_NCT], (True, False, 15, 15)),
    ((False, True), [CLIENT_NCT], [CLIENT_NCT], (True, False, 15, 15)),
    # server_max_window_bits
    ((), [server_bits("10")], [server_bits("10")], (False, False, 15, 10)),
    ((), [server_bits("15")], [server_bits("15")], (False, False, 15, 15)),
    ((False, False, 12), [], [server_bits("12")], (False, False, 15, 12)),
    ((False, False, 12), [server_bits("10")], [server_bits("10")], (False, False, 15, 10)),
    ((False, False, 12), [server_bits("12")], [server_bits("12")], (False, False, 15, 12)),
    ((False, False, 12), [server_bits("14")], [server_bits("12")], (False, False, 15, 12)),
    ((), [server_bits(None)], "missing value", None),
    # zlib has no window of 8 bits for raw DEFLATE
    ((), [server_bits("8")], "invalid value .*: 8", None),
    ((False, False, 12), [server_bits("8")], "invalid value .*: 8", None),
    # client_max_window_bits
    ((), [client_bits(None)], [], (False, False, 15, 15)),
    ((), [client_bits("10")], [client_bits("10")], (False, False, 10, 15)),
    ((), [client_bits("8")], [client_bits("8")], (False, False, 8, 15)),
    ((False, False, None, 12), [], [], (False, False, 15, 15)),
    ((False, False, None, 12), [client_bits(None)], [client_bits("12")], (False, False, 12, 15)),
    ((False, False, None, 12), [client_bits("10")], [client_bits("10")], (False, False, 10, 15)),
    ((False, False, None, 12), [client_bits("12")], [client_bits("12")], (False, False, 12, 15)),
    ((False, False, None, 12), [client_bits("14")], [client_bits("12")], (False, False, 12, 15)),
    ((False, False, None, 8), [client_bits("14")], [client_bits("8")], (False, False, 8, 15)),
    ((False, False, None, 12, None, True), [], "required client_max_window_bits", None),
    (
        (False, False, None, 12, None, True),
        [client_bits(None)],
        [client_bits("12")],
        (False, False, 12, 15),
    ),
    # all at once, in the order of the names
    (
        (False, False, 12, 12),
        [client_bits("11"), server_bits("13"), CLIENT_NCT, SERVER_NCT],
        [SERVER_NCT, CLIENT_NCT, server_bits("12"), client_bits("11")],
        (True, True, 11, 12),
    ),
    (
        (True, True, 10, 9),
        [client_bits(None)],
        [SERVER_NCT, CLIENT_NCT, server_bits("10"), client_bits("9")],
        (True, True, 9, 10),
    ),
    # no parameters of this extension
    ((), [("max_window_bits", "10")], "invalid parameter name", None),
    # values where none belong
    ((), [("server_no_context_takeover", "true")], "invalid value", None),
    ((), [("client_no_context_takeover", "")], "empty value", None),
    # twice
    ((), [CLIENT_NCT, CLIENT_NCT], "duplicate parameter", None),
    ((), [client_bits(None), client_bits("10")], "duplicate parameter", None),
]


@pytest.mark.parametrize(("arguments", "params", "answer", "expected"), OFFERS)
def test_server_takes_offer(fd, arguments, params, answer, expected):
    factory = fd.extensions.permessage_deflate.ServerPerMessageDeflateFactory(*arguments)
    if isinstance(answer, str):
        with pytest.raises(fd.exceptions.NegotiationError, match=answer):
            factory.process_request_params(params, [])
    else:
        response, extension = factory.process_request_params(params, [])
        assert response == answer
        assert agreed(extension) == expected


@pytest.mark.parametrize("value", BAD_BITS)
@pytest.mark.parametrize("param", [server_bits, client_bits])
def test_r8_window_bits_are_exact_strings(fd, param, value):
    """R8: window bits are the exact strings 8 to 15; nothing but NegotiationError comes out."""
    deflate = fd.extensions.permessage_deflate
    with pytest.raises(fd.exceptions.InvalidParameterValue) as raised:
        deflate.ServerPerMessageDeflateFactory().process_request_params([param(value)], [])
    assert (raised.value.name, raised.value.value) == param(value)
    with pytest.raises(fd.exceptions.InvalidParameterValue) as raised:
        deflate.ClientPerMessageDeflateFactory().process_response_params([param(value)], [])
    assert (raised.value.name, raised.value.value) == param(value)


CLIENT_CONFIGURATIONS = [
    (server_nct, client_nct, server, client)
    for server_nct in (False, True)
    for client_nct in (False, True)
    for server in (None, 8, 9, 12, 15)
    for client in (None, True, 9, 12, 15)
]
SERVER_CONFIGURATIONS = [
    (server_nct, client_nct, server, client, None, required)
    for server_nct in (False, True)
    for client_nct in (False, True)
    for server in (None, 9, 12, 15)
    for client in (None, 8, 9, 12, 15)
    for required in ((False, True) if client else (False,))
]


def test_r7_both_sides_agree_whatever_they_want(fd):
    """R7: what the client uses is what the server's answer says, and the other way round."""
    deflate = fd.extensions.permessage_deflate
    refusals = 0
    for wanted in CLIENT_CONFIGURATIONS:
        client = deflate.ClientPerMessageDeflateFactory(*wanted)
        offer = client.get_request_params()
        for offered in SERVER_CONFIGURATIONS:
            server = deflate.ServerPerMessageDeflateFactory(*offered)
            try:
                answer, theirs = server.process_request_params(offer, [])
                ours = client.process_response_params(answer, [])
            except fd.exceptions.NegotiationError:
                assert (
                    wanted[2] == 8  # no such window on the server
                    or (wanted[3] is None and offered[5])
                    or (wanted[3] is not None and offered[3] == 8)  # nor on the client
                )
                refusals += 1
                continue
            assert ours.remote_no_context_takeover is theirs.local_no_context_takeover
            # A client may do more than the server knows of, never less.
            if theirs.remote_no_context_takeover:
                assert ours.local_no_context_takeover
            assert ours.remote_max_window_bits == theirs.local_max_window_bits
            assert ours.local_max_window_bits <= theirs.remote_max_window_bits
    assert 0 < refusals < len(CLIENT_CONFIGURATIONS) * len(SERVER_CONFIGURATIONS) / 2


def test_second_permessage_deflate_is_refused(fd):
    deflate = fd.extensions.permessage_deflate
    accepted = [deflate.PerMessageDeflate(False, False, 15, 15)]
    with pytest.raises(fd.exceptions.NegotiationError, match="duplicate permessage-deflate"):
        deflate.ClientPerMessageDeflateFactory().process_response_params([], accepted)
    with pytest.raises(fd.exceptions.NegotiationError, match="duplicate permessage-deflate"):
        deflate.ServerPerMessageDeflateFactory().process_request_params([], accepted)


def test_other_extensions_do_not_matter(fd):
    class Other:
        name = "x-other"

    deflate = fd.extensions.permessage_deflate
    extension = deflate.ClientPerMessageDeflateFactory().process_response_params([], [Other()])
    assert agreed(extension) == (False, False, 15, 15)


# Settings and threshold reach the extension


@pytest.mark.parametrize(
    ("arguments", "no_context", "threshold"),
    [
        ({}, False, 64),
        ({}, True, 256),
        ({"threshold": 0}, False, 0),
        ({"threshold": 10}, True, 10),
        ({"threshold": 1000}, False, 1000),
    ],
)
def test_threshold_of_factories(fd, arguments, no_context, threshold):
    deflate = fd.extensions.permessage_deflate
    client = deflate.ClientPerMessageDeflateFactory(
        client_no_context_takeover=no_context, **arguments
    )
    assert client.process_response_params([], []).threshold == threshold
    server = deflate.ServerPerMessageDeflateFactory(no_context, **arguments)
    assert server.process_request_params([], [])[1].threshold == threshold


def test_threshold_depends_on_what_was_agreed(fd):
    deflate = fd.extensions.permessage_deflate
    client = deflate.ClientPerMessageDeflateFactory()
    assert client.process_response_params([SERVER_NCT], []).threshold == 64
    assert client.process_response_params([CLIENT_NCT], []).threshold == 256


def test_compress_settings_reach_the_extension(fd):
    deflate = fd.extensions.permessage_deflate
    settings = {"level": 3, "memLevel": 4, "method": 8, "strategy": 1}
    client = deflate.ClientPerMessageDeflateFactory(compress_settings=settings)
    assert client.process_response_params([], []).compress_settings == settings
    server = deflate.ServerPerMessageDeflateFactory(compress_settings=settings)
    assert server.process_request_params([], [])[1].compress_settings == settings


# The defaults of connect() and serve()


def test_enable_client(fd):
    deflate = fd.extensions.permessage_deflate
    for extensions in (None, [], ()):
        (factory,) = deflate.enable_client_permessage_deflate(extensions)
        assert isinstance(factory, deflate.ClientPerMessageDeflateFactory)
        assert factory.get_request_params() == [client_bits(None)]
        assert factory.compress_settings == {"memLevel": 5}


def test_enable_server(fd):
    deflate = fd.extensions.permessage_deflate
    for extensions in (None, [], ()):
        (factory,) = deflate.enable_server_permessage_deflate(extensions)
        assert isinstance(factory, deflate.ServerPerMessageDeflateFactory)
        assert (factory.server_max_window_bits, factory.client_max_window_bits) == (12, 12)
        assert not factory.require_client_max_window_bits
        assert factory.compress_settings == {"memLevel": 5}


def test_defaults_agree(fd):
    deflate = fd.extensions.permessage_deflate
    (client,) = deflate.enable_client_permessage_deflate(None)
    (server,) = deflate.enable_server_permessage_deflate(None)
    answer, extension = server.process_request_params(client.get_request_params(), [])
    assert answer == [server_bits("12"), client_bits("12")]
    assert agreed(extension) == agreed(client.process_response_params(answer, []))
    assert agreed(extension) == (False, False, 12, 12)


@pytest.mark.parametrize("side", ["client", "server"])
def test_enable_keeps_what_is_there(fd, side):
    class Other:
        name = "x-other"

    class Mine:
        name = "permessage-deflate"

    enable = getattr(fd.extensions.permessage_deflate, f"enable_{side}_permessage_deflate")
    other, mine = Other(), Mine()
    extensions = enable((other,))
    assert extensions[0] is other
    assert [extension.name for extension in extensions] == ["x-other", "permessage-deflate"]
    assert list(enable([mine, other])) == [mine, other]
