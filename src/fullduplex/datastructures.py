"""HTTP headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias

from .exceptions import InvalidHeaderValue

__all__ = ["Headers", "HeadersLike", "MultipleValuesError"]

# RFC 9110 §5.5: visible characters, space, tab, and the upper half of ISO-8859-1 (obs-text). No
# other control character: CR and LF would let a value smuggle in headers of its own. One
# character class, no alternatives: nothing to backtrack into.
_is_field_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch


class MultipleValuesError(LookupError):
    """A header that was asked for as one value appears several times."""

    def __str__(self) -> str:
        # Like KeyError: the name alone, in quotes.
        if len(self.args) == 1:
            return repr(self.args[0])
        return super().__str__()


class SupportsKeysAndGetItem(Protocol):
    """What :class:`dict` asks of a mapping: ``keys()`` and ``[]``."""

    def keys(self) -> Iterable[str]:
        """Return the names."""

    def __getitem__(self, key: str, /) -> str:
        """Return the value of a name."""


class Headers(MutableMapping[str, str]):
    """HTTP headers: names without regard to case, several values for a name, order kept.

    It reads like a :class:`dict` from names to values, with these differences:

    * Assignment **adds** a value, ``del`` removes all values of the name. To replace, delete first.
    * Reading a name that has several values raises :exc:`MultipleValuesError`;
      :meth:`get_all` returns them all.
    * Iteration yields each name once, in lower case; :meth:`raw_items` yields what was put in.
    * Two instances are equal if they have the same values for the same names.

    Values are checked when they are put in (RFC 9110 §5.5); names are checked when headers are
    sent. Not synchronised: threads that share an instance must not change it.

    Args:
        args: At most one: :class:`Headers`, a mapping, or an iterable of pairs.
        kwargs: More headers.

    Raises:
        InvalidHeaderValue: If a value holds a control character or is not in ISO-8859-1.
        TypeError: If there are several positional arguments, or a value is no string.
    """

    __slots__ = ("_index", "_items")

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._items: list[tuple[str, str]] = []  # as given
        # Their values by name, made when somebody asks: headers that are only sent need none.
        self._index: dict[str, list[str]] | None = None
        if args or kwargs:
            self.update(*args, **kwargs)

    def __str__(self) -> str:
        return "".join([f"{name}: {value}\r\n" for name, value in self._items]) + "\r\n"

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self._items!r})"

    def _values(self) -> dict[str, list[str]]:
        """Return the values by name, in lower case."""
        index = self._index
        if index is None:
            index = {}
            for name, value in self._items:
                lower = name.lower()
                if lower in index:
                    index[lower].append(value)
                else:
                    index[lower] = [value]
            self._index = index
        return index

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if self._index is None:  # once is cheaper without
            return key.lower() in [name.lower() for name, _ in self._items]
        return key.lower() in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def __bool__(self) -> bool:
        return bool(self._items)

    def __getitem__(self, key: str) -> str:
        values = self._values()[key.lower()]
        if len(values) == 1:
            return values[0]
        raise MultipleValuesError(key)

    def __setitem__(self, key: str, value: str) -> None:
        try:
            valid = _is_field_value(value) is not None
        except TypeError:
            raise TypeError(f"the value of header {key} must be a str, not {value!r}") from None
        if not valid:
            raise InvalidHeaderValue(key, value)
        if self._index is not None:
            self._index.setdefault(key.lower(), []).append(value)
        self._items.append((key, value))

    def __delitem__(self, key: str) -> None:
        lower = key.lower()
        del self._values()[lower]
        self._items = [item for item in self._items if item[0].lower() != lower]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._values() == other._values()

    def clear(self) -> None:
        """Remove all headers."""
        self._items = []
        self._index = None

    def copy(self) -> Headers:
        """Return an independent copy."""
        return self.__class__(self)

    def update(self, *args: HeadersLike, **kwargs: str) -> None:
        """Add headers; values that are there already stay.

        Args:
            args: At most one: :class:`Headers`, a mapping, or an iterable of pairs.
            kwargs: More headers.

        Raises:
            InvalidHeaderValue: If a value cannot be sent; headers before it have been added.
            TypeError: If there are several positional arguments, or a value is no string.
        """
        if len(args) > 1:
            raise TypeError(f"expected at most one positional argument, got {len(args)}")
        for arg in args:
            for name, value in _pairs(arg):
                self[name] = value
        for name, value in kwargs.items():
            self[name] = value

    def _extend(self, items: list[tuple[str, str]]) -> None:
        """Add headers whose values are known to be valid: a parser checked them, or we made them."""
        self._items += items
        self._index = None

    def get_all(self, key: str) -> list[str]:
        """Return all values of a header in their order; an empty list if there is none.

        Args:
            key: The header's name, in any case.
        """
        found = (self._index or self._values()).get(key.lower())
        return list(found) if found else []

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Return an iterator over (name, value) pairs as they were given, in their order."""
        return iter(self._items)


HeadersLike: TypeAlias = (
    Headers | Mapping[str, str] | Iterable[tuple[str, str]] | SupportsKeysAndGetItem
)
"""What :class:`Headers` can be made from."""


def _pairs(arg: Any) -> Iterable[tuple[str, str]]:
    """Return the pairs in any :data:`HeadersLike`, as a snapshot: `arg` may be what is changed."""
    # By the method, not by the class: a multi-valued mapping of another make must not stumble
    # over its repeated headers.
    if hasattr(arg, "raw_items"):
        return list(arg.raw_items())
    if hasattr(arg, "keys"):
        return [(name, arg[name]) for name in arg.keys()]  # noqa: SIM118
    return list(arg)
