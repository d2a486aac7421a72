# SPDX-License-Identifier: AGPL-3.0-or-later
"""The listener lets in exactly whom Orthanc lets in: Orthanc is asked with the caller's own credentials.

The question is the caller's request itself, without query and body, sent to the same path on Orthanc's own port.
So RegisteredUsers, IncomingHttpRequestFilter and an authorization plugin all see method and path. A secret header
tells our route there to answer at once instead of doing anything (orthanc_routes). Answers are kept briefly, per
credentials, method and kind of resource: which workitem it is does not matter to them, which AE title does.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ..settings import Settings, Surroundings
from .ports import OrthancPort
from .ups_rs_parameters import Parameters
from .ups_rs_resources import Kind, Resource
from .web_response import HttpProblem

PROBE_HEADER: Final = "X-Ups-Probe"
_AT_ONCE: Final = 8  # questions, so that they do not take all of Orthanc's HTTP threads
_KEPT: Final = 10_000  # answers
_KNOWN_METHODS: Final = ("GET", "POST", "PUT", "DELETE")  # of Orthanc's server; others are asked as GET
_NO_SUCH_ROUTE: Final = (404, 405)  # said to those that were let in


@dataclass(frozen=True, slots=True)
class _Verdict:
    until: float
    status: int = 200
    challenge: str = ""


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
        self._verdicts: dict[bytes, asyncio.Future[_Verdict]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._salt = secrets.token_bytes(16)

    async def admit(
        self, method: str, resource: Resource, headers: Mapping[str, str], query: str
    ) -> str | None:
        """Let a caller in, and return his name if Orthanc has checked it.

        Raises:
            HttpProblem: 401 or 403 as Orthanc says, 503 if it does not answer.
        """
        shown = {name: headers[name] for name in self._headers if name in headers}
        token = self._token(query)
        method = method if method in _KNOWN_METHODS else "GET"
        verdict = await self._verdict(method, resource, shown, token)
        if verdict.status == 401:
            raise HttpProblem(401, "Orthanc asks for credentials", (("WWW-Authenticate", verdict.challenge),))
        if verdict.status >= 500:
            raise HttpProblem(503, "Orthanc cannot be asked who may come in", (("Retry-After", "5"),))
        if verdict.status >= 400 and verdict.status not in _NO_SUCH_ROUTE:
            raise HttpProblem(403, "Orthanc does not allow this")
        return self.user(headers)

    def user(self, headers: Mapping[str, str]) -> str | None:
        """The user of Basic authentication, if Orthanc checks it at all."""
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if not self._knows_users or scheme.lower() != "basic":
            return None
        try:
            name, colon, _ = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return name if colon and name else None

    def _token(self, query: str) -> str:
        if not self.query_tokens or not query:
            return ""
        given = ((name, value) for name, value in Parameters.of(query) if name in self.query_tokens)
        return "&".join(f"{quote(name, safe='')}={quote(value or '', safe='')}" for name, value in given)

    async def _verdict(self, method: str, resource: Resource, shown: dict[str, str], token: str) -> _Verdict:
        key = self._key(method, resource, shown, token)
        known = self._verdicts.get(key)
        if known is None or (known.done() and known.result().until <= self._clock()):
            self._make_room()
            known = asyncio.ensure_future(self._asked(method, resource, shown, token))
            self._verdicts[key] = known
        return await asyncio.shield(known)

    def _key(self, method: str, resource: Resource, shown: dict[str, str], token: str) -> bytes:
        parts = [method, resource.kind.name, resource.ae, token, *(x for item in shown.items() for x in item)]
        return hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), key=self._salt).digest()

    def _make_room(self) -> None:
        if len(self._verdicts) >= _KEPT:
            self._verdicts = {key: found for key, found in self._verdicts.items() if not found.done()}

    async def _asked(self, method: str, resource: Resource, shown: dict[str, str], token: str) -> _Verdict:
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


def _credentials(configuration: Mapping[str, object]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Which headers and query arguments may hold credentials, by the settings of the authorization plugin."""
    section: Any = configuration.get("Authorization")
    section = section if isinstance(section, Mapping) else {}
    headers = [str(one).lower() for one in _listed(section.get("TokenHttpHeaders"))]
    arguments = [str(one) for one in _listed(section.get("TokenGetArguments"))]
    return ("authorization", "cookie", *headers), frozenset(arguments)


def _listed(found: object) -> list[object]:
    return list(found) if isinstance(found, list) else []
