# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listener lets in exactly whom Orthanc lets in: Orthanc is asked with the caller's own credentials.

The question is the caller's request itself, without query and body, sent to the same path on Orthanc's own port.
So RegisteredUsers, IncomingHttpRequestFilter and an authorization plugin all see method and path; the address that
a filter sees is ours, 127.0.0.1. A secret header tells our route there to answer at once instead of doing anything
(orthanc_routes). Answers are kept briefly, per credentials, method and kind of resource: which workitem it is does
not matter to them; which AE title does, and which of the global subscriptions.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from ..core import tags
from ..settings import Settings, Surroundings
from ..worklist.ports import OrthancPort
from .response import HttpProblem
from .ups_rs_parameters import Parameters
from .ups_rs_resources import Kind, Resource

PROBE_HEADER: Final = "X-Ups-Probe"
_AT_ONCE: Final = 8  # questions, so that they do not take all of Orthanc's HTTP threads
_KEPT: Final = 10_000  # answers
_KNOWN_METHODS: Final = ("GET", "POST", "PUT", "DELETE")  # of Orthanc's server; others are asked as GET
_NO_SUCH_ROUTE: Final = (404, 405)  # said to those that were let in


_Key: TypeAlias = tuple[bytes, str, Kind, str, str, bytes]


@dataclass(frozen=True, slots=True)
class _Verdict:
    until: float
    status: int = 200
    challenge: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller shows.

    Attributes:
        shown: header fields by lower-case name.
        digest: equal for the same fields.
        user: who he says he is, None if Orthanc does not check it.
    """

    shown: Mapping[str, str]
    digest: bytes
    user: str | None


class Authorization:
    """Asks Orthanc, and remembers for ``Ups.AuthorizationCache`` seconds."""

    def __init__(
        self,
        orthanc: OrthancPort,
        settings: Settings,
        surroundings: Surroundings,
        clock: Callable[[], float],
    ) -> None:
        """Prepare. ``clock`` gives seconds that never go back."""
        self.secret = secrets.token_urlsafe(24)
        self._orthanc = orthanc
        self._root = "/" + settings.root.strip("/") if settings.root.strip("/") else ""
        self._kept_for = settings.authorization_cache
        self._knows_users = surroundings.authentication_enabled
        self._headers, self.query_tokens = _credentials(surroundings.raw)
        self._clock = clock
        self._verdicts: dict[_Key, asyncio.Future[_Verdict]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._salt = secrets.token_bytes(16)

    async def admit(
        self, method: str, resource: Resource, credentials: Credentials, query: str
    ) -> str | None:
        """Let a caller in, and return his name if Orthanc has checked it.

        Raises:
            HttpProblem: 401 or 403 as Orthanc says, 503 if it does not answer, 400 for what it cannot be shown.
        """
        if not all(map(_is_text, credentials.shown.values())):
            raise HttpProblem(400, "the credentials are not UTF-8, so that Orthanc cannot be shown them")
        method = method if method in _KNOWN_METHODS else "GET"
        verdict = await self._verdict(method, resource, credentials, self._token(query))
        if verdict.status == 401:
            raise HttpProblem(401, "Orthanc asks for credentials", (("WWW-Authenticate", verdict.challenge),))
        if verdict.status >= 500:
            raise HttpProblem(503, "Orthanc cannot be asked who may come in", (("Retry-After", "5"),))
        if verdict.status >= 400 and verdict.status not in _NO_SUCH_ROUTE:
            raise HttpProblem(403, "Orthanc does not allow this")
        return credentials.user

    def credentials(self, headers: Mapping[str, str]) -> Credentials:
        """What a caller shows in header fields, given by lower-case name."""
        shown = {name: headers[name] for name in self._headers if name in headers}
        parts = "\0".join(part for field in shown.items() for part in field)
        return Credentials(shown, self._digest(parts), self.user(headers))

    def user(self, headers: Mapping[str, str]) -> str | None:
        """The user of Basic authentication, if Orthanc checks it at all."""
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if not self._knows_users or scheme.lower() != "basic":
            return None
        try:
            name, colon, _ = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:  # neither Base64 nor UTF-8, or not even ASCII
            return None
        return name if colon and name else None

    def _token(self, query: str) -> str:
        if not self.query_tokens or not query:
            return ""
        given = ((name, value) for name, value in Parameters.of(query) if name in self.query_tokens)
        return "&".join(f"{quote(name, safe='')}={quote(value or '', safe='')}" for name, value in given)

    async def _verdict(
        self, method: str, resource: Resource, credentials: Credentials, token: str
    ) -> _Verdict:
        whose = resource.uid if resource.uid in tags.WELL_KNOWN else ""
        digest = self._digest(token) if token else b""
        key = credentials.digest, method, resource.kind, whose, resource.ae, digest
        known = self._verdicts.get(key)
        if known is not None and known.done():
            verdict = known.result()
            if verdict.until > self._clock():
                return verdict
            known = None
        if known is None:
            self._make_room()
            known = asyncio.ensure_future(self._asked(method, resource, credentials.shown, token))
            self._verdicts[key] = known
        return await asyncio.shield(known)

    def _digest(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), key=self._salt).digest()

    def _make_room(self) -> None:
        if len(self._verdicts) >= _KEPT:
            self._verdicts = {key: found for key, found in self._verdicts.items() if not found.done()}

    async def _asked(self, method: str, resource: Resource, shown: Mapping[str, str], token: str) -> _Verdict:
        path = self._path(resource) + (f"?{token}" if token else "")
        try:
            async with self._gate:
                status, headers = await self._orthanc.ask(method, path, {**shown, PROBE_HEADER: self.secret})
        except (TimeoutError, OSError):
            return _Verdict(self._clock(), 503)
        lower = {name.lower(): value for name, value in headers.items()}
        challenge = lower.get("www-authenticate", 'Basic realm="Orthanc"')
        kept = self._clock() + self._kept_for if status < 500 else self._clock()
        return _Verdict(kept, status, challenge)

    def _path(self, resource: Resource) -> str:
        kind = Kind.WORKITEMS if resource.kind is Kind.SERVICE else resource.kind
        path: str = kind.value.replace("{workitem}", quote(resource.uid, safe=""))
        return self._root + path.replace("{aetitle}", quote(resource.ae, safe=""))


def _is_text(shown: str) -> bool:
    """False if bytes stand in it that are not UTF-8: the server hands them on as lone surrogates."""
    return shown.isascii() or not any("\ud800" <= one <= "\udfff" for one in shown)


def _credentials(configuration: Mapping[str, object]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Which headers and query arguments may hold credentials, by the settings of the authorization plugin."""
    section: Any = configuration.get("Authorization")
    section = section if isinstance(section, Mapping) else {}
    headers = [str(one).lower() for one in _listed(section.get("TokenHttpHeaders"))]
    arguments = [str(one) for one in _listed(section.get("TokenGetArguments"))]
    return ("authorization", "cookie", *headers), frozenset(arguments)


def _listed(found: object) -> list[object]:
    return list(found) if isinstance(found, list) else []
