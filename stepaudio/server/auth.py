"""Who may use the service: keys, the short-lived secrets made from them, and where pages may come from.

Keys are 256 random bits, so one SHA-256 of a key is as safe to keep as the best password hash; only that is
kept. A key is looked up by comparing its hash with every stored one in constant time. Pure but for the file
of hashes; the clock is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from stepaudio.core.errors import ConfigError, unknown
from stepaudio.files import write_text
from stepaudio.server.errors import ApiError

SCOPES = ("realtime", "speech", "transcriptions", "chat", "metrics")
"""What a key may be for. The list of models is open to every key."""

KEY_PREFIX, SECRET_PREFIX = "sk-step-", "ek_"
SUBPROTOCOL = "realtime"
_KEY_SUBPROTOCOL = "openai-insecure-api-key."

LEAST_KEY = 16
"""Characters of a key that the owner makes up: below, it can be guessed."""

LEAST_SECRET_S, MOST_SECRET_S, SECRET_S = 10, 7200, 600
"""How long a client secret lives, at least, at most, and if nothing is said (OpenAI's numbers)."""
MOST_SECRETS = 10_000
"""Client secrets alive at the same time."""
_REMEMBERED_S = 3600  # for which an expired secret is told that it has expired


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept.

    Attributes:
        name: what people call it.
        hash: SHA-256 of the key, hexadecimal.
        scopes: of ``SCOPES``.
        sessions: talks at once; None: as configured.
        requests_per_minute: None: as configured.
        created: Unix seconds.
    """

    name: str
    hash: str
    scopes: tuple[str, ...] = SCOPES
    sessions: int | None = None
    requests_per_minute: int | None = None
    created: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request.

    Attributes:
        name: of the key, "anonymous" where the service has no keys. Quotas are counted by it.
        scopes: what it may do.
        sessions, requests_per_minute: its own quotas; None: as configured.
        session: for a client secret: the session's settings that were given with it.
        ephemeral: it came with a client secret, which makes no further secrets.
    """

    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    sessions: int | None = None
    requests_per_minute: int | None = None
    session: Mapping[str, Any] | None = None
    ephemeral: bool = False

    def need(self, scope: str) -> None:
        """Raises ``ApiError`` 403 where the key is not for this."""
        if scope not in self.scopes:
            raise ApiError(
                403,
                f"this key is not for {scope}; make one that is: stepaudio keys add",
                code="missing_scope",
            )


ANONYMOUS = Caller("anonymous")


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


# The file of keys


def default_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the keys' hashes are kept when the configuration names no other place."""
    home = environment.get("XDG_CONFIG_HOME") or str(
        Path(environment.get("HOME", "~")).expanduser() / ".config"
    )
    return Path(home) / "stepaudio" / "keys.json"


def read_keys(path: Path) -> list[Key]:
    """The keys in a file; none where there is no file.

    Raises:
        ConfigError: it cannot be read, or is not a list of keys.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("not a list")
        keys = [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{path}: not a list of keys; move it away and add the keys anew") from None
    if not all(
        re.fullmatch(r"[0-9a-f]{64}", str(key.hash)) and set(key.scopes) <= set(SCOPES) for key in keys
    ):
        raise ConfigError(f"{path}: not a list of keys; move it away and add the keys anew")
    return keys


def add_key(
    path: Path,
    name: str,
    scopes: Sequence[str] = SCOPES,
    sessions: int | None = None,
    requests_per_minute: int | None = None,
) -> str:
    """Make a key and keep its hash; the key itself is only in the answer.

    Raises:
        ConfigError: the name is taken or odd, or there is no such scope.
    """
    keys = read_keys(path)
    if not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise ConfigError(f"{name!r} is no name for a key: use 1 to 64 letters, digits, . @ _ -")
    if any(key.name == name for key in keys):
        raise ConfigError(f"there is a key named {name!r} already: stepaudio keys remove {name}")
    for scope in scopes:
        if scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    made = Key(name, hash_of(key), tuple(scopes), sessions, requests_per_minute, int(time.time()))
    _write_keys(path, [*keys, made])
    return key


def remove_key(path: Path, name: str) -> None:
    """Forget a key; a server that runs keeps it until it starts again.

    Raises:
        ConfigError: there is none of that name.
    """
    keys = read_keys(path)
    if all(key.name != name for key in keys):
        raise unknown("key", name, [key.name for key in keys])
    _write_keys(path, [key for key in keys if key.name != name])


def _write_keys(path: Path, keys: Iterable[Key]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)  # `write_text` keeps the permissions of what is there
    write_text(path, json.dumps([asdict(key) for key in keys], indent=2) + "\n")


# Requests


@dataclass(slots=True)
class _Secret:
    caller: Caller
    expires: float


@dataclass(slots=True)
class Auth:
    """Keys and client secrets of a running service.

    Args:
        keys: none: everyone may do everything (the service then listens on loopback only).
        clock: Unix seconds.
    """

    keys: Sequence[Key] = ()
    clock: Callable[[], float] = time.time
    _secrets: dict[str, _Secret] = field(default_factory=dict)

    def caller(self, credential: str | None) -> Caller:
        """Who has this key or client secret.

        Raises:
            ApiError: 401, it is missing, wrong or expired.
        """
        if credential and credential.startswith(SECRET_PREFIX):
            secret = self._secrets.get(
                hash_of(credential)
            )  # 128 random bits, and only their hash is looked up
            if secret and secret.expires > self.clock():
                return secret.caller
            if secret or self.keys:
                raise _denied("this client secret is wrong or has expired; make a new one")
        if not self.keys:
            return ANONYMOUS
        if not credential:
            raise _denied("a key is needed: send it as Authorization: Bearer KEY")
        given, found = hash_of(credential), None
        for key in self.keys:  # all of them, so that the time says nothing about which
            if hmac.compare_digest(given, key.hash):
                found = key
        if found is None:
            raise _denied(
                "this key is wrong; `stepaudio keys list` on the server shows the names of those it has"
            )
        return Caller(found.name, frozenset(found.scopes), found.sessions, found.requests_per_minute)

    def make_secret(self, caller: Caller, seconds: int, session: Mapping[str, Any]) -> tuple[str, int]:
        """A client secret for talks, and when it expires in Unix seconds.

        Args:
            seconds: its life, ``LEAST_SECRET_S`` to ``MOST_SECRET_S``.
            session: settings that its talks begin with.

        Raises:
            ApiError: 403, made with a client secret; 429, too many are alive.
        """
        if caller.ephemeral:
            raise ApiError(403, "a client secret cannot make another; use the key", code="missing_scope")
        now = self.clock()
        for hash in [h for h, secret in self._secrets.items() if secret.expires + _REMEMBERED_S < now]:
            del self._secrets[hash]
        if len(self._secrets) >= MOST_SECRETS:
            raise ApiError(
                429,
                "too many client secrets are alive; try later",
                code="rate_limit_exceeded",
                retry_after_s=60,
            )
        value, expires = SECRET_PREFIX + secrets.token_urlsafe(24), int(now) + seconds
        bound = replace(caller, scopes=caller.scopes & {"realtime"}, session=dict(session), ephemeral=True)
        self._secrets[hash_of(value)] = _Secret(bound, expires)
        return value, expires


def _denied(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def credential_of(headers: Mapping[str, str]) -> str | None:
    """The key in a request's headers (names in lower case): a bearer token, ``api-key``, or the subprotocol
    in which browsers, who can set no header on a socket, send it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if key := headers.get("api-key", "").strip():
        return key
    for offered in subprotocols(headers):
        if offered.startswith(_KEY_SUBPROTOCOL):
            return offered.removeprefix(_KEY_SUBPROTOCOL)
    return None


def subprotocols(headers: Mapping[str, str]) -> list[str]:
    """The WebSocket subprotocols that a client offers."""
    return [name for part in headers.get("sec-websocket-protocol", "").split(",") if (name := part.strip())]


def answered_subprotocol(offered: Iterable[str]) -> str | None:
    """The one to accept a socket with: never the one that holds a key."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


# Addresses


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, keys: Sequence[Key]) -> None:
    """Raises ``ConfigError`` for an address that others reach while nobody needs a key."""
    if not keys and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and there is no key: make one with "
            f"`stepaudio keys add NAME`, or listen on 127.0.0.1"
        )


def check_host(host: str, names: Iterable[str] = ()) -> None:
    """Refuses names under which this machine is not known.

    A page of a stranger can let its own name point to this machine (DNS rebinding) and is then "same origin"
    with it; but the browser still sends that name in ``Host``. Addresses as numbers cannot be rebound.

    Args:
        host: the ``Host`` header, with or without a port.
        names: of this machine, besides localhost.

    Raises:
        ApiError: 403.
    """
    parts = re.fullmatch(r"\[([0-9a-f:.]+)\](?::\d{1,5})?|([\w.-]+)(?::\d{1,5})?", host.lower(), re.ASCII)
    name = (parts[1] or parts[2]).rstrip(".") if parts else ""
    if name == "localhost" or name in {known.lower() for known in names}:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise ApiError(
            403,
            "this server does not go by that name; its owner can add it to the setting server.hosts",
            code="unknown_host",
        ) from None


def check_origin(origin: str | None, host: str, allowed: Iterable[str] = ()) -> None:
    """Refuses pages of other sites; what is no browser sends no ``Origin``.

    Args:
        origin: the ``Origin`` header.
        host: the ``Host`` header: a page that came from here has the same.
        allowed: origins of other pages that may come.

    Raises:
        ApiError: 403.
    """
    if origin is None or origin.lower() in {known.lower().rstrip("/") for known in allowed}:
        return
    scheme, found, place = origin.lower().partition("://")
    if found and scheme in ("http", "https") and place == host.lower():
        return
    raise ApiError(
        403,
        "pages of other sites may not use this server; its owner can allow one with server.origins",
        code="unknown_origin",
    )
