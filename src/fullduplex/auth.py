"""Answers to the challenges of HTTP authentication: the client's side (RFC 9110 §11).

Digest (RFC 7616) with MD5, SHA-256 and SHA-512-256, each also as a session variant, with the
quality of protection ``auth`` or none; and Basic (RFC 7617), where the caller allows it. For
servers that ask with ``WWW-Authenticate`` and proxies that ask with ``Proxy-Authenticate`` alike.

With Digest the password does not leave this machine, but whoever sees the exchange can try
passwords against it: it replaces TLS no more than Basic does.

Challenges come from strangers. Whatever is in them, time is proportional to their length, and the
worst outcome is that they are not answered. The module keeps no state between calls; a
:class:`DigestAuth` does, and belongs to one thread at a time.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from .exceptions import InvalidHeaderFormat
from .headers import Scanner, build_authorization_basic, build_quoted_string

__all__ = [
    "Challenge",
    "DigestAuth",
    "answer_challenge",
    "build_authorization_digest",
    "parse_challenges",
]

# RFC 9110 §11.2: what cannot be a parameter, since nothing follows its equals signs. All
# quantifiers are possessive: nothing is tried twice.
_match_token68 = re.compile(r"[A-Za-z0-9\-._~+/]++=*+(?=[ \t]*+(?:,|\Z))").match

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# RFC 7616 §3.3 and §6.1: names for `hashlib`, the strongest first
_HASHES = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}
_STRENGTHS = {name: -rank for rank, name in enumerate(_HASHES)}


@dataclass
class Challenge:
    """A challenge: one way in which a server or a proxy can be satisfied (RFC 9110 §11.3).

    Attributes:
        scheme: The scheme, in lower case.
        params: The parameters by their names in lower case; quoted ones without their quotes.
        token68: What some schemes have in place of parameters, or None.
    """

    scheme: str
    params: dict[str, str] = field(default_factory=dict)
    token68: str | None = None


def parse_challenges(name: str, header: str) -> list[Challenge]:
    """Parse a ``WWW-Authenticate`` or ``Proxy-Authenticate`` header (RFC 9110 §11.6.1).

    Args:
        name: The header's name, for errors.
        header: Its value: one or more challenges.

    Raises:
        InvalidHeaderFormat: If the header is malformed, or repeats a parameter.
    """
    scanner = Scanner(name, header)
    challenges: list[Challenge] = []
    while True:
        scanner.skip_spaces()
        if scanner.accept(","):
            continue
        if not scanner.peek():
            return challenges
        # The commas between challenges look like those between parameters. What follows one is a
        # parameter if there is an equals sign behind it, else the next scheme.
        token = scanner.token()
        end_of_token = scanner.pos
        scanner.skip_spaces()
        following = scanner.peek()
        if following == "=":
            if not challenges:
                raise scanner.error("expected scheme")
            _parse_param(scanner, token, challenges[-1])
        else:
            challenges.append(Challenge(token.lower()))
            if following not in ("", ","):
                if scanner.pos == end_of_token:
                    raise scanner.error("expected space")
                _parse_first_item(scanner, challenges[-1])
        scanner.skip_spaces()
        if scanner.peek() and not scanner.accept(","):
            raise scanner.error("expected comma")


def _parse_first_item(scanner: Scanner, challenge: Challenge) -> None:
    """Take what follows the name of a scheme: all it has, or the first of its parameters."""
    if token68 := _match_token68(scanner.text, scanner.pos):
        challenge.token68 = token68[0]
        scanner.pos = token68.end()
    else:
        name = scanner.token()
        scanner.skip_spaces()
        _parse_param(scanner, name, challenge)


def _parse_param(scanner: Scanner, name: str, challenge: Challenge) -> None:
    """Take an equals sign and a value."""
    name = name.lower()
    if challenge.token68 is not None or name in challenge.params:
        raise scanner.error("unexpected parameter")
    if not scanner.accept("="):
        raise scanner.error("expected equals sign")
    scanner.skip_spaces()
    quoted = scanner.peek() == '"'
    challenge.params[name] = scanner.quoted_string() if quoted else scanner.token()


def _parse_all(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges in several headers; those in malformed ones are not for us."""
    challenges: list[Challenge] = []
    for header in headers:
        try:
            challenges += parse_challenges("WWW-Authenticate", header)
        except InvalidHeaderFormat:
            continue
    return challenges


def _algorithm(challenge: Challenge) -> tuple[str, bool]:
    """Return the hash of a Digest challenge and whether it is a session variant (RFC 7616 §3.3)."""
    name = challenge.params.get("algorithm", "MD5").upper()
    return name.removesuffix("-SESS"), name.endswith("-SESS")


def _is_answerable(challenge: Challenge) -> bool:
    """Tell whether a challenge is one for Digest that we understand."""
    params = challenge.params
    if challenge.scheme != "digest" or "realm" not in params or "nonce" not in params:
        return False
    hash_name, _ = _algorithm(challenge)
    if _HASHES.get(hash_name) not in hashlib.algorithms_available:
        return False
    return "qop" not in params or "auth" in _options(params["qop"])


def _options(text: str) -> list[str]:
    """Return the items of a comma-separated list in lower case."""
    return [item.strip(" \t").lower() for item in text.split(",")]


def _strongest(challenges: Iterable[Challenge]) -> Challenge | None:
    """Return the answerable challenge with the strongest hash; of equals, the first."""
    answerable = [challenge for challenge in challenges if _is_answerable(challenge)]
    return max(answerable, key=lambda each: _STRENGTHS[_algorithm(each)[0]], default=None)


def _encode(text: str, params: dict[str, str]) -> bytes:
    """Return a username or a password as it is hashed (RFC 7616 §4)."""
    if params.get("charset", "").upper() == "UTF-8":
        return unicodedata.normalize("NFC", text).encode()
    # Nobody ever said what it is without that. ISO-8859-1 is what browsers made of it.
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def build_authorization_digest(
    challenge: Challenge,
    method: str,
    target: str,
    username: str,
    password: str,
    *,
    cnonce: str,
    count: int,
) -> str:
    """Build an ``Authorization`` or ``Proxy-Authorization`` header for Digest (RFC 7616 §3.4).

    Args:
        challenge: A challenge that :class:`DigestAuth` would answer.
        method: The method of the request.
        target: Its target, exactly as it is sent.
        username: The username.
        password: The password.
        cnonce: A random text of our own.
        count: How many requests, with this one, have used the nonce of the challenge.

    Raises:
        ValueError: If the username or the target cannot stand in a header.
    """
    params = challenge.params
    hash_name, session = _algorithm(challenge)
    realm, nonce = params["realm"], params["nonce"]

    def digest(*parts: bytes) -> str:
        data = b":".join(parts)
        return hashlib.new(_HASHES[hash_name], data, usedforsecurity=False).hexdigest()

    user, raw_realm, raw_nonce = _encode(username, params), _latin1(realm), _latin1(nonce)
    secret = digest(user, raw_realm, _encode(password, params))
    if session:
        secret = digest(secret.encode(), raw_nonce, cnonce.encode())
    request = digest(method.encode(), target.encode())
    if "qop" in params:
        use = (f"{count:08x}".encode(), cnonce.encode(), b"auth")
        response = digest(secret.encode(), raw_nonce, *use, request.encode())
    else:
        response = digest(secret.encode(), raw_nonce, request.encode())

    hash_user = params.get("userhash", "").lower() == "true"
    items = [
        f'username="{digest(user, raw_realm)}"' if hash_user else _build_username(username, user),
        f"realm={build_quoted_string(realm)}",
        f"nonce={build_quoted_string(nonce)}",
        f"uri={build_quoted_string(target)}",
        f'response="{response}"',
    ]
    if "algorithm" in params:
        items.append(f"algorithm={hash_name}{'-sess' if session else ''}")
    if "qop" in params:
        items += ["qop=auth", f"nc={count:08x}"]
    if "qop" in params or session:
        items.append(f"cnonce={build_quoted_string(cnonce)}")
    if "opaque" in params:
        items.append(f"opaque={build_quoted_string(params['opaque'])}")
    if hash_user:
        items.append("userhash=true")
    return "Digest " + ", ".join(items)


def _build_username(username: str, encoded: bytes) -> str:
    """Return the parameter that names the user (RFC 7616 §3.4)."""
    text = encoded.decode("latin-1")
    if text == username:
        return f"username={build_quoted_string(text)}"
    return f"username*=UTF-8''{quote(encoded, safe='')}"


def _latin1(text: str) -> bytes:
    """Return a part of a header as the bytes that were sent."""
    return text.encode("latin-1")


class DigestAuth:
    """Digest credentials for requests to one server or proxy (RFC 7616).

    Not thread-safe.

    Args:
        username: The username.
        password: The password.

    Raises:
        ValueError: If one of them contains a control character.
    """

    def __init__(self, username: str, password: str) -> None:
        if _CONTROL.search(username) or _CONTROL.search(password):
            raise ValueError("username or password contains a control character")
        self._username = username
        self._password = password
        self._challenge: Challenge | None = None
        self._count = 0

    def answer(self, challenges: Iterable[str], method: str, target: str) -> str | None:
        """Return the credentials with which to repeat a request that was refused.

        Args:
            challenges: The values of the ``WWW-Authenticate`` or ``Proxy-Authenticate`` headers.
            method: The method of the request.
            target: Its target, exactly as it is sent.

        Returns:
            The value for the ``Authorization`` or ``Proxy-Authorization`` header. None if there is
            no challenge that we can answer, or if the credentials in an earlier answer were
            refused. A stale nonce is no refusal of them (RFC 7616 §3.3): then there is a new
            answer, and it is up to the caller to limit how often.
        """
        challenge = _strongest(_parse_all(challenges))
        if challenge is None:
            return None
        stale = challenge.params.get("stale", "").lower() == "true"
        if self._challenge is not None and not stale:
            return None
        self._challenge = challenge
        self._count = 0
        return self.repeat(method, target)

    def repeat(self, method: str, target: str) -> str | None:
        """Return credentials for another request, without waiting to be challenged (RFC 7616 §3.6).

        Args:
            method: The method of the request.
            target: Its target, exactly as it is sent.

        Returns:
            The value for the header, or None if there has been no challenge.
        """
        if self._challenge is None:
            return None
        self._count += 1
        return build_authorization_digest(
            self._challenge,
            method,
            target,
            self._username,
            self._password,
            cnonce=secrets.token_hex(16),
            count=self._count,
        )


def answer_challenge(
    challenges: Iterable[str],
    method: str,
    target: str,
    username: str,
    password: str,
    *,
    allow_basic: bool = False,
) -> str | None:
    """Return credentials for the strongest scheme that a server or a proxy offers and we support.

    From strong to weak: Digest with SHA-512-256, SHA-256, MD5; then Basic.

    Args:
        challenges: The values of the ``WWW-Authenticate`` or ``Proxy-Authenticate`` headers.
        method: The method of the request that was refused.
        target: Its target, exactly as it is sent.
        username: The username.
        password: The password.
        allow_basic: Whether to answer a Basic challenge, if there is no better one. That sends the
            password itself, to whoever asked for it.

    Returns:
        The value for the ``Authorization`` or ``Proxy-Authorization`` header, or None if there is
        no challenge that we can answer.

    Raises:
        ValueError: If the username or the password contains a control character.
    """
    challenges = list(challenges)
    answer = DigestAuth(username, password).answer(challenges, method, target)
    if answer is not None or not allow_basic or ":" in username:
        return answer
    if any(challenge.scheme == "basic" for challenge in _parse_all(challenges)):
        return build_authorization_basic(username, password)
    return None
