"""Ways to cut what arrives from the network into pieces."""

from __future__ import annotations


def whole(data):
    return [data]


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


def halved(data):
    return [data[:50], data[50:]]
