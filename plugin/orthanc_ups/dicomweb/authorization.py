# SPDX-License-Identifier: AGPL-3.0-or-later
"""The HTTP port admits exactly those whom Orthanc admits: Orthanc is asked with the caller's own credentials.

The question is the caller's request itself, without query and body, sent to Orthanc's own port: its method and the
path of its resource, rendered from the same ``Resource`` that is acted on afterwards. So RegisteredUsers,
IncomingHttpRequestFilter and an authorization plugin all see method and path; the address that a filter sees is
127.0.0.1, that of the plugin. A secret header makes the plugin's route there answer at once with the path that it was
called with (``orthanc_port``), and only this path counts as a yes: if Orthanc takes the path for another one, nobody
is admitted.

Verdicts are remembered briefly, for the same credentials, method and path. Where nothing in Orthanc judges by method
or path (``orthanc/request_filters``), Orthanc is asked about the list of workitems only, and the verdict holds for
every path: otherwise each change of another workitem would cost a request to Orthanc, which takes longer than the
change.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias
from urllib.parse import quote, unquote

from ..orthanc.loopback import Loopback
from ..settings import OrthancSettings, Settings
from ..store.port import StoreUnavailable
from .parameters import Parameters
from .resources import Resource, ResourceKind
from .response import HttpProblem

PROBE_HEADER: Final = "X-Ups-Probe"
_AT_ONCE: Final = 8  # questions, so that they do not take all of Orthanc's HTTP threads
_MAXIMUM_VERDICTS: Final = 10_000
_METHODS_OF_ORTHANC: Final = ("GET", "POST", "PUT", "DELETE")  # others are asked as GET
_CHALLENGE: Final = ("WWW-Authenticate", 'Basic realm="Orthanc Secure Area"')


class OrthancPort(Protocol):
    """Orthanc's own HTTP server, asked by loopback."""

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a request without body and with exactly these headers; returns status and body.

        The plugin adds nothing: no token, no credentials.

        Raises:
            OSError: Orthanc did not answer.
        """
        ...


class OrthancQuestions:
    """Implements OrthancPort over a Loopback that has **no** authorization of its own."""

    def __init__(self, anonymous: Loopback) -> None:
        self._anonymous = anonymous

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a request without body. Raises OSError if Orthanc did not answer."""
        try:
            reply = await self._anonymous.request(method, path, None, headers)
        except StoreUnavailable as error:
            raise OSError(str(error)) from error
        return reply.status, reply.body


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a caller.

    Attributes:
        shown: header fields by lower-case name.
        digest: equal for the same fields.
        user: the name that they claim; None if Orthanc does not check it.
    """

    shown: Mapping[str, str]
    digest: bytes
    user: str | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A remembered answer; ``problem`` is None for callers who are admitted."""

    until: float
    problem: HttpProblem | None = None


_Key: TypeAlias = tuple[bytes, str, str]  # credentials, method, path with tokens


class Authorization:
    """Asks Orthanc, and remembers for ``Ups.AuthorizationCache`` seconds."""

    def __init__(
        self,
        orthanc: OrthancPort,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        clock: Callable[[], float],
        *,
        judges_by_path: bool = True,
    ) -> None:
        """Prepare. ``clock`` gives seconds that never go back; ``judges_by_path`` is False if Orthanc surely answers
        every method and path alike to the same credentials.
        """
        self.secret = secrets.token_urlsafe(24)
        self._orthanc = orthanc
        self._root = "/" + settings.root.strip("/") if settings.root.strip("/") else ""
        self._any_path = self.path(Resource(ResourceKind.WORKITEMS))
        self._lifetime = settings.authorization_cache
        self._checks_users = orthanc_settings.authentication_enabled
        # What the authorization plugin takes for credentials, beside Orthanc itself.
        self._headers = ("authorization", "cookie", *map(str.lower, orthanc_settings.token_http_headers))
        self.query_tokens = frozenset(orthanc_settings.token_get_arguments)
        self._clock = clock
        self._judges_by_path = judges_by_path
        self._verdicts: dict[_Key, asyncio.Future[_Verdict]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._salt = secrets.token_bytes(16)

    @property
    def remembered(self) -> int:
        """The number of remembered answers."""
        return len(self._verdicts)

    async def admit(
        self, method: str, resource: Resource, credentials: Credentials, query: str
    ) -> str | None:
        """Admit a caller to a resource of UPS-RS, and return their name if Orthanc has checked it.

        Raises:
            HttpProblem: as ``admit_to``.
        """
        return await self.admit_to(method, self.path(resource), credentials, query)

    async def admit_to(self, method: str, path: str, credentials: Credentials, query: str) -> str | None:
        """Admit a caller to a path of Orthanc's port, percent-encoded, at which a route of the plugin answers.

        Raises:
            HttpProblem: 401 or 403 as Orthanc says, 503 if it does not answer, 400 for what it cannot be shown or
                takes for something else.
        """
        if not all(map(_is_text, credentials.shown.values())):
            raise HttpProblem(400, "the credentials are not UTF-8 and cannot be passed on to Orthanc")
        if not self._judges_by_path:
            method, path = "GET", self._any_path
        elif method not in _METHODS_OF_ORTHANC:
            method = "GET"
        verdict = await self._verdict(method, path, credentials, self._token(query))
        if verdict.problem is not None:
            problem = verdict.problem
            raise HttpProblem(problem.status, problem.detail, problem.headers)
        return credentials.user

    async def may_read(self, path: str, credentials: Credentials, query: str) -> bool:
        """True unless Orthanc refuses a resource of its own to a caller.

        Raises:
            HttpProblem: 503 if it does not answer.
        """
        token = self._token(query)
        try:
            async with self._gate:
                target = f"{path}?{token}" if token else path
                status, _ = await self._orthanc.ask("GET", target, credentials.shown)
        except (TimeoutError, OSError):
            raise HttpProblem(
                503, "cannot ask Orthanc whether the request is allowed", (("Retry-After", "5"),)
            ) from None
        return status not in (401, 403)

    def is_question(self, headers: Mapping[str, str]) -> bool:
        """True for one of our questions to Orthanc: the route answers with its path, and does nothing else."""
        secret = headers.get(PROBE_HEADER.lower(), "").encode("utf-8", "replace")
        return hmac.compare_digest(secret, self.secret.encode())

    def credentials(self, headers: Mapping[str, str]) -> Credentials:
        """The credentials in header fields, by lower-case name."""
        fields = {name: headers[name] for name in self._headers if name in headers}
        parts = "\0".join(part for field in fields.items() for part in field)
        return Credentials(fields, self._digest(parts), self.user(headers))

    def user(self, headers: Mapping[str, str]) -> str | None:
        """The user of Basic authentication, if Orthanc checks it at all."""
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if not self._checks_users or scheme.lower() != "basic":
            return None
        try:
            name, colon, _ = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        except ValueError:  # neither Base64 nor UTF-8, or not even ASCII
            return None
        return name if colon and name else None

    def path(self, resource: Resource) -> str:
        """The percent-encoded path under which Orthanc is asked about a resource."""
        return self._root + resource.path

    def _token(self, query: str) -> str:
        if not self.query_tokens or not query:
            return ""
        tokens = ((name, value) for name, value in Parameters.of(query) if name in self.query_tokens)
        return "&".join(f"{quote(name, safe='')}={quote(value or '', safe='')}" for name, value in tokens)

    async def _verdict(self, method: str, path: str, credentials: Credentials, token: str) -> _Verdict:
        target = f"{path}?{token}" if token else path
        key = credentials.digest, method, target
        question = self._verdicts.get(key)
        if question is not None and question.done():
            verdict = question.result()
            if verdict.until > self._clock():
                return verdict
            question = None
        if question is None:
            self._limit_verdicts()
            question = asyncio.ensure_future(self._question(method, path, target, credentials.shown))
            self._verdicts[key] = question
        return await asyncio.shield(question)

    def _digest(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), key=self._salt).digest()

    def _limit_verdicts(self) -> None:
        if len(self._verdicts) < _MAXIMUM_VERDICTS:
            return
        now = self._clock()
        current = {
            key: verdict
            for key, verdict in self._verdicts.items()
            if not verdict.done() or verdict.result().until > now
        }
        full = len(current) >= _MAXIMUM_VERDICTS
        self._verdicts = (
            {key: verdict for key, verdict in current.items() if not verdict.done()} if full else current
        )

    async def _question(self, method: str, path: str, target: str, fields: Mapping[str, str]) -> _Verdict:
        try:
            async with self._gate:
                status, body = await self._orthanc.ask(method, target, {**fields, PROBE_HEADER: self.secret})
        except (TimeoutError, OSError):
            status, body = 503, b""
        problem = _problem(status, body, path)
        lifetime = self._lifetime if problem is None or problem.status < 500 else 0.0
        return _Verdict(self._clock() + lifetime, problem)


def _problem(status: int, body: bytes, path: str) -> HttpProblem | None:
    """What Orthanc's answer means for the caller; None if it passed the question on with the same path."""
    if status == 401:
        return HttpProblem(401, "Orthanc requires credentials", (_CHALLENGE,))
    if status >= 500:
        return HttpProblem(503, "cannot ask Orthanc whether the request is allowed", (("Retry-After", "5"),))
    if status >= 400:
        return HttpProblem(403, "Orthanc does not allow this")
    if body != unquote(path).encode():
        return HttpProblem(400, "Orthanc understands the path of this request differently")
    return None


def _is_text(text: str) -> bool:
    """False if it has bytes that are not UTF-8, which the server passes on as lone surrogates."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
