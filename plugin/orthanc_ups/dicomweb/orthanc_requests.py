# SPDX-License-Identifier: AGPL-3.0-or-later
"""From Orthanc's HTTP threads to our loop and back: sizes first, then a bounded wait.

A callback runs on one of Orthanc's HTTP threads with a small stack: it hands everything to our loop, waits with a
bound, and only a part of these threads may wait here at a time, as the worklist needs Orthanc's HTTP server itself.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from ..orthanc.refusal_log import Refusal, RefusalLog
from ..orthanc.sdk import RestOutput, RestRequest
from ..settings import OrthancSettings, Settings
from .response import HttpProblem, WebResponse

_log = logging.getLogger("orthanc_ups.dicomweb.orthanc_port")
_WITHIN: Final = 30.0  # seconds
_LATER: Final = (("Retry-After", "5"),)

ORTHANCS_PORT: Final = "Orthanc's port"
"""Stands for the address of a client in the log: Orthanc does not say it."""

_ESCAPE: Final = re.compile("%[0-9A-Fa-f]{2}")

_T = TypeVar("_T")


class Submit(Protocol):
    """Runs a coroutine on the worklist's loop; ``LoopThread.submit``."""

    def __call__(self, work: Coroutine[Any, Any, _T], /) -> Future[_T]:
        """What it will return."""


class OrthancRequests:
    """Shared by all our routes on Orthanc's port. Its callbacks come on Orthanc's threads."""

    def __init__(
        self, submit: Submit, settings: Settings, orthanc_settings: OrthancSettings, refusals: RefusalLog
    ) -> None:
        self._submit = submit
        self._refusals = refusals
        self._maximum_size = settings.maximum_body_size
        threads = max(1, orthanc_settings.http_threads_count // 4)
        self._places = threading.BoundedSemaphore(threads)
        self._streams = threading.BoundedSemaphore(threads)

    def answer(
        self,
        output: RestOutput,
        request: RestRequest,
        work: Callable[[], Coroutine[Any, Any, WebResponse]],
        refused: Callable[[WebResponse], Refusal],
        *,
        head: bool = False,
        times: int = 1,
    ) -> None:
        """Answer one request with what ``work`` returns on the loop. Never raises.

        ``refused`` gives what the log says of a refusal; ``times``: how often ``MaximumBodySize`` its body may be.
        """
        try:
            response = self._too_large(request, times) or self._answered(request, work)
            if response.pieces is not None:
                response = self._streamed(output, response, response.pieces)
            else:
                send(output, response, head=head)
            if response.status >= 400:
                self._refusals.add(refused(response))
        except Exception:
            _log.exception("a request on Orthanc's port failed")
            output.SendHttpStatusCode(500)

    def _too_large(self, request: RestRequest, times: int) -> WebResponse | None:
        maximum = times * self._maximum_size
        if len(request.get("body", b"")) <= maximum:
            return None
        bound = "Ups.MaximumBodySize" if times == 1 else f"{times} times Ups.MaximumBodySize"
        return HttpProblem(413, f"larger than {maximum} bytes ({bound})").response()

    def _answered(
        self, request: RestRequest, work: Callable[[], Coroutine[Any, Any, WebResponse]]
    ) -> WebResponse:
        if not self._places.acquire(blocking=False):
            return HttpProblem(503, "too many requests at once on Orthanc's port", _LATER).response()
        try:
            return self._submit(work()).result(_WITHIN)
        except FutureTimeoutError:
            detail = (
                "no answer in time; what was asked for may still be carried out: look before trying again"
            )
            return HttpProblem(503, detail, _LATER).response()
        except HttpProblem as problem:
            return problem.response()
        finally:
            self._places.release()

    def _streamed(
        self, output: RestOutput, response: WebResponse, pieces: AsyncGenerator[bytes]
    ) -> WebResponse:
        """Send a content piece by piece: slow readers keep threads of Orthanc, so that only some may read at a time."""
        if not self._streams.acquire(blocking=False):
            refusal = HttpProblem(503, "too many downloads at once on Orthanc's port", _LATER).response()
            send(output, refusal)
            return refusal
        try:
            _set_headers(output, response)
            output.StartStreamAnswer(response.content_type)
            while piece := self._submit(_next(pieces)).result(_WITHIN):
                output.SendStreamChunk(piece)
        except (
            Exception
        ) as error:  # Orthanc's own class if the client has hung up; there is no status any more
            _log.warning("A download on Orthanc's port was cut off: %s", str(error) or type(error).__name__)
        finally:
            self._streams.release()
            self._submit(pieces.aclose())
        return response


async def _next(pieces: AsyncGenerator[bytes]) -> bytes:
    """The next piece, empty behind the last one."""
    return await anext(pieces, b"")


def query_of(arguments: Mapping[str, str]) -> str:
    """The query that Orthanc has parsed, percent-encoded as in a URL.

    Orthanc 1.12.7 passes names and values on as they are in the URL, 1.13.0 decoded. So a text with a percent-encoded
    letter is taken to be encoded still. A bare key has an empty value, which means the same.
    """
    pairs = ((_encoded(name), _encoded(value)) for name, value in arguments.items())
    return "&".join(f"{name}={value}" if value else name for name, value in pairs)


def _encoded(text: str) -> str:
    return quote(text, safe="%+" if _ESCAPE.search(text) else "")


def send(output: RestOutput, response: WebResponse, *, head: bool = False) -> None:
    """Give a response to Orthanc, which has a call of its own for 405."""
    if response.status == 405:
        output.SendMethodNotAllowed((response.header("Allow") or "").replace(" ", ""))
        return
    _set_headers(output, response)
    if response.status == 200 and response.body:
        output.AnswerBuffer(b"" if head else response.body, response.content_type)
    elif response.body and not head:
        output.SendHttpStatus(response.status, response.body)
    else:
        output.SendHttpStatusCode(response.status)


def _set_headers(output: RestOutput, response: WebResponse) -> None:
    for name in dict.fromkeys(name for name, _ in response.headers):
        values = [value for header, value in response.headers if header == name]
        output.SetHttpHeader(name, ", ".join(values))
