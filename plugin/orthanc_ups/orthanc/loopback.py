# SPDX-License-Identifier: AGPL-3.0-or-later
"""A client of Orthanc's own HTTP port, from inside the same Orthanc."""

from __future__ import annotations

import io
import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp
import orjson
from yarl import URL

from ..core.unavailable import StoreUnavailable
from ..settings import OrthancSettings

_LOOPBACK_ADDRESSES: Final = ("127.0.0.1", "::1", "localhost")
_ANY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, never bound
_MAXIMUM_CONNECTIONS: Final = 12
_LONG_BODY: Final = 256 * 1024  # bytes
_KEEP_ALIVE: Final = 1.0  # seconds, of Orthanc's KeepAliveTimeout


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of Orthanc. ``etag`` is without quotes, "" if there is none."""

    status: int
    body: bytes
    etag: str = ""

    def json(self) -> Any:
        """The body as JSON. Raises StoreUnavailable if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise StoreUnavailable(f"Orthanc's answer is not JSON: {error}", certain=True) from error

    def __str__(self) -> str:
        """The status and Orthanc's explanation: ``507 Full storage: …``."""
        try:
            content = orjson.loads(self.body)
            words = [str(content[name]) for name in ("Message", "Details") if content.get(name)]
        except (orjson.JSONDecodeError, AttributeError):
            words = []
        return f"{self.status} {': '.join(words)}".rstrip()


def own_url(orthanc_settings: OrthancSettings) -> str:
    """The URL of Orthanc's HTTP server on a loopback address.

    Raises:
        ValueError: there is none; the text names the key of orthanc.json that has to be changed.
    """
    if not orthanc_settings.http_server_enabled:
        raise ValueError('"HttpServerEnabled" is false: the worklist is kept through Orthanc\'s HTTP server')
    bound = orthanc_settings.http_bind_addresses
    host = _loopback_of(bound) if bound else "127.0.0.1"
    scheme = "https" if orthanc_settings.http_tls else "http"
    return str(URL.build(scheme=scheme, host=host, port=orthanc_settings.http_port))


def _loopback_of(bound: Sequence[str]) -> str:
    if any(address in _ANY_ADDRESS for address in bound):
        return "127.0.0.1"
    for address in _LOOPBACK_ADDRESSES:
        if address in bound:
            return address
    raise ValueError(
        f'"HttpBindAddresses" is {list(bound)}: add "127.0.0.1", on which the worklist reaches Orthanc'
    )


class Loopback:
    """Requests to Orthanc over a few persistent connections, from one asyncio loop.

    Every failure of the transport is a StoreUnavailable that says whether the request may have had an effect.
    A connection that Orthanc has just closed is replaced without notice (a PUT or DELETE may then arrive
    twice, which compare-and-set makes harmless).
    """

    def __init__(
        self,
        url: str,
        authorization: str = "",
        *,
        connections: int = _MAXIMUM_CONNECTIONS,
        keep: float = _KEEP_ALIVE / 2,
        timeout: float = 30.0,
        client_certificate: str = "",
    ) -> None:
        """Prepare, without connecting. Raises ValueError if ``url`` is not on a loopback address.

        Args:
            url: base URL, on a loopback address: certificates are not checked.
            authorization: value of the Authorization header, from ``GenerateRestApiAuthorizationToken()``.
            connections: maximum number of simultaneous requests; further ones wait.
            keep: seconds for which an idle connection is reused; below Orthanc's ``KeepAliveTimeout``.
            timeout: seconds without a byte from Orthanc, after which a request counts as lost.
            client_certificate: file with certificate and key to present, if Orthanc asks for one.
        """
        self._base = url.rstrip("/")
        if not _is_loopback(URL(url).host or ""):
            raise ValueError(f"{url}: not a loopback address")
        self._headers = {"Authorization": authorization} if authorization else {}
        self._connections, self._keep = connections, keep
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeout, sock_read=timeout)
        self._client_certificate = client_certificate
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, orthanc_settings: OrthancSettings, authorization: str) -> Self:
        """The loopback for an Orthanc with this configuration. Raises ValueError like ``own_url``."""
        return cls(
            own_url(orthanc_settings),
            authorization,
            connections=max(1, min(_MAXIMUM_CONNECTIONS, orthanc_settings.http_threads_count // 4)),
            keep=orthanc_settings.keep_alive_timeout / 2 if orthanc_settings.keep_alive else 0.0,
            client_certificate=orthanc_settings.ssl_certificate if orthanc_settings.ssl_verify_peers else "",
        )

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request and return the response, whatever its status. ``path`` is percent-encoded.

        Raises:
            StoreUnavailable: there was no answer; ``certain`` if the request cannot have had an effect.
        """
        try:
            async with self._opened().request(
                method, URL(f"{self._base}{path}", encoded=True), data=_sendable(body), headers=headers
            ) as answer:
                return Reply(answer.status, await answer.read(), answer.headers.get("ETag", "").strip('"'))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise StoreUnavailable(f"cannot reach Orthanc's HTTP server: {error}", certain=True) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            words = str(error) or type(error).__name__
            raise StoreUnavailable(f"no answer from Orthanc's HTTP server: {words}", certain=False) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                headers={"Accept-Encoding": "identity", **self._headers},
                skip_auto_headers=("User-Agent", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                read_bufsize=2**20,
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self._connections,
            keepalive_timeout=self._keep or None,
            force_close=not self._keep,
            use_dns_cache=False,
            ssl=self._tls() if self._base.startswith("https:") else False,
        )

    def _tls(self) -> ssl.SSLContext:
        # Orthanc's certificate is for its public names, not for loopback.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self._client_certificate:
            context.load_cert_chain(self._client_certificate)
        return context

    async def close(self) -> None:
        """Close every connection. A later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    # aiohttp sends a file object in pieces, between which the loop runs other tasks.
    return io.BytesIO(body) if body is not None and len(body) > _LONG_BODY else body


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refused(reply: Reply, action: str) -> StoreUnavailable:
    """The error for an unexpected response; a status below 500 means that nothing has changed."""
    return StoreUnavailable(f"{action}: Orthanc answered {reply}", certain=reply.status < 500)
