"""Headers: a mapping without regard to case, with several values for a name."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(["Accept", "accept", "ACCEPT", "Host", "host", "X-A", "x-b"])
VALUES = st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=10)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


class Keyed:
    """What dict() takes for a mapping, and no more."""

    def keys(self):
        return ["A", "B"]

    def __getitem__(self, key):
        return key.lower()


class Foreign(dict):
    """A multi-valued mapping of somebody else."""

    def raw_items(self):
        return iter([("A", "1"), ("a", "2")])


@pytest.fixture
def headers(fd):
    return fd.datastructures.Headers([("Connection", "Upgrade"), ("Server", "fullduplex")])


@pytest.fixture
def twice(fd):
    return fd.datastructures.Headers([("Server", "Python"), ("server", "fullduplex")])


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, []),
        (({"A": "b"},), {}, [("A", "b")]),
        (([("A", "b"), ("A", "c")],), {}, [("A", "b"), ("A", "c")]),
        (((("A", "b"),),), {}, [("A", "b")]),
        ((Keyed(),), {}, [("A", "a"), ("B", "b")]),
        ((Foreign(),), {}, [("A", "1"), ("a", "2")]),
        ((), {"A": "b", "c": "d"}, [("A", "b"), ("c", "d")]),
        (([("A", "b")],), {"A": "c"}, [("A", "b"), ("A", "c")]),
    ],
)
def test_constructor(fd, args, kwargs, expected):
    assert list(fd.datastructures.Headers(*args, **kwargs).raw_items()) == expected


def test_constructor_takes_an_iterator(fd):
    assert list(fd.datastructures.Headers(iter([("A", "b")])).raw_items()) == [("A", "b")]


def test_constructor_takes_headers(fd, twice):
    assert list(fd.datastructures.Headers(twice).raw_items()) == list(twice.raw_items())


def test_constructor_refuses_two_arguments(fd):
    with pytest.raises(TypeError, match="at most one positional argument, got 2"):
        fd.datastructures.Headers({}, {})


def test_str(headers):
    assert str(headers) == "Connection: Upgrade\r\nServer: fullduplex\r\n\r\n"


def test_str_empty(fd):
    assert str(fd.datastructures.Headers()) == "\r\n"


def test_repr(fd, headers):
    assert repr(headers) == "Headers([('Connection', 'Upgrade'), ('Server', 'fullduplex')])"
    assert repr(fd.datastructures.Headers(A="b")) == "Headers([('A', 'b')])"


@pytest.mark.parametrize("key", ["Connection", "connection", "CONNECTION"])
def test_names_have_no_case(headers, key):
    assert key in headers
    assert headers[key] == "Upgrade"
    assert headers.get(key) == "Upgrade"
    assert headers.get_all(key) == ["Upgrade"]


@pytest.mark.parametrize("key", ["Upgrade", "", 1, None, b"Connection"])
def test_contains_is_false(headers, key):
    assert key not in headers


def test_iteration_and_length_go_by_lower_case_names(twice):
    twice["Via"] = "x"
    assert list(twice) == ["server", "via"]
    assert list(twice.keys()) == ["server", "via"]
    assert len(twice) == 2


def test_missing(headers):
    with pytest.raises(KeyError):
        headers["Upgrade"]
    assert headers.get("Upgrade") is None
    assert headers.get("Upgrade", "x") == "x"
    assert headers.get_all("Upgrade") == []


def test_several_values(fd, twice):
    with pytest.raises(fd.datastructures.MultipleValuesError) as raised:
        twice["SERVER"]
    assert str(raised.value) == "'SERVER'"
    with pytest.raises(fd.datastructures.MultipleValuesError):
        twice.get("server")
    assert twice.get_all("SERVER") == ["Python", "fullduplex"]


def test_multiple_values_error(fd):
    error = fd.datastructures.MultipleValuesError
    assert issubclass(error, LookupError)
    assert not issubclass(error, KeyError)
    assert str(error("X")) == "'X'"
    assert str(error()) == ""


def test_assignment_appends(headers):
    headers["server"] = "more"
    assert headers.get_all("Server") == ["fullduplex", "more"]
    assert list(headers.raw_items())[-1] == ("server", "more")


def test_deletion_removes_all_values(twice):
    twice["Via"] = "x"
    del twice["SERVER"]
    assert list(twice.raw_items()) == [("Via", "x")]
    assert "server" not in twice


def test_delete_then_assign_replaces(twice):
    del twice["Server"]
    twice["Server"] = "only"
    assert twice["server"] == "only"


def test_deletion_of_a_missing_name(headers):
    with pytest.raises(KeyError):
        del headers["Upgrade"]
    assert len(headers) == 2


def test_equality(fd, headers):
    make = fd.datastructures.Headers
    assert headers == make([("server", "fullduplex"), ("CONNECTION", "Upgrade")])
    assert headers != make([("server", "fullduplex")])
    assert make([("a", "1"), ("a", "2")]) != make([("a", "2"), ("a", "1")])
    assert headers != dict(headers)
    assert headers.__eq__({}) is NotImplemented


def test_get_all_returns_a_list_of_its_own(twice):
    twice.get_all("Server").clear()
    assert twice.get_all("Server") == ["Python", "fullduplex"]


def test_copy_is_independent(fd, twice):
    for duplicate in (twice.copy(), copy.copy(twice), pickle.loads(pickle.dumps(twice))):
        assert type(duplicate) is fd.datastructures.Headers
        assert duplicate == twice
        assert list(duplicate.raw_items()) == list(twice.raw_items())
    duplicate = twice.copy()
    duplicate["A"] = "b"
    assert "A" not in twice


def test_copy_keeps_the_class(fd):
    class Mine(fd.datastructures.Headers):
        pass

    assert type(Mine(a="b").copy()) is Mine


def test_clear(headers):
    headers.clear()
    assert list(headers.raw_items()) == []
    assert len(headers) == 0
    assert not headers


def test_update_appends(headers):
    headers.update({"Server": "more"}, Via="x")
    assert headers.get_all("Server") == ["fullduplex", "more"]
    assert headers["via"] == "x"


def test_update_with_itself_doubles(headers):
    headers.update(headers)
    assert headers.get_all("server") == ["fullduplex", "fullduplex"]


def test_methods_of_a_mutable_mapping(headers):
    assert headers.pop("server") == "fullduplex"
    assert headers.pop("server", None) is None
    assert headers.setdefault("connection", "x") == "Upgrade"
    assert headers.setdefault("Via", "x") == "x"
    assert dict(headers.items()) == {"connection": "Upgrade", "via": "x"}
    assert list(headers.values()) == ["Upgrade", "x"]


@pytest.mark.parametrize("code", [*range(0x09), *range(0x0A, 0x20), 0x7F, 0x100, 0x20AC, 0xD800])
def test_r14_header_values_are_validated(fd, headers, code):
    before = list(headers.raw_items())
    value = f"a{chr(code)}b"
    for change in (
        lambda: headers.__setitem__("X", value),
        lambda: headers.update({"X": value}),
        lambda: headers.update(X=value),
        lambda: fd.datastructures.Headers([("X", value)]),
        lambda: fd.datastructures.Headers(X=value),
        lambda: headers.setdefault("X", value),
    ):
        with pytest.raises(fd.exceptions.InvalidHeaderValue) as raised:
            change()
        assert raised.value.name == "X"
        assert raised.value.value == value
    assert list(headers.raw_items()) == before
    assert "X" not in headers


@pytest.mark.parametrize("value", ["a\r\nX: y", "\n", "a\n", "\r", "\0"])
def test_r14_no_value_smuggles_a_header(fd, value):
    with pytest.raises(fd.exceptions.InvalidHeaderValue):
        fd.datastructures.Headers(A=value)


@pytest.mark.parametrize("code", [0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
def test_legal_characters_of_values(fd, code):
    value = chr(code)
    assert fd.datastructures.Headers(A=value)["a"] == value


@pytest.mark.parametrize("value", [1, None, b"bytes"])
def test_values_must_be_strings(headers, value):
    with pytest.raises(TypeError):
        headers["X"] = value
    assert "X" not in headers


def test_names_are_not_checked_here(fd):
    assert fd.datastructures.Headers([("no token", "x")])["NO TOKEN"] == "x"


@given(PAIRS, st.lists(NAMES, max_size=3))
def test_like_a_list_of_pairs(fd, pairs, deletions):
    headers = fd.datastructures.Headers(pairs)
    model = list(pairs)
    for name in deletions:
        if name in headers:
            del headers[name]
        model = [pair for pair in model if pair[0].lower() != name.lower()]
    assert list(headers.raw_items()) == model
    assert list(headers) == list(dict.fromkeys(name.lower() for name, _ in model))
    for name in headers:
        values = [value for key, value in model if key.lower() == name]
        assert headers.get_all(name.upper()) == values
        if len(values) == 1:
            assert headers[name] == values[0]
    assert str(headers) == "".join(f"{name}: {value}\r\n" for name, value in model) + "\r\n"
