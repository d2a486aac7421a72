# SPDX-License-Identifier: AGPL-3.0-or-later
"""Export the worklist of a running Orthanc to a file, or import such a file.

    python -m tools.transfer export http://user:password@host:8042 worklist.ndjson
    python -m tools.transfer import http://user:password@host:8042 worklist.ndjson

A file whose name ends with ``.gz`` is compressed. An export appears under its name only once it is complete. An
import may be repeated: what is already in the worklist is not changed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit

import requests

_LINES: Final = 500
_BYTES: Final = 4 * 1024 * 1024
_PATIENCE: Final = 60.0
_TRIES: Final = 10
_NDJSON: Final = {"Content-Type": "application/x-ndjson"}


class TransferError(Exception):
    """An export or import failed; the text says why."""


class Server:
    """The management API of an Orthanc, whose URL may contain user and password."""

    def __init__(self, url: str, pause: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host = parts.netloc.rpartition("@")[2]
        self._api = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/ups/api"
        self._session = requests.Session()
        if parts.username is not None:
            self._session.auth = (unquote(parts.username), unquote(parts.password or ""))
        self._pause = pause
        self._has_answered = False

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, and repeat it while the server is busy or does not answer. Raises TransferError.

        If the server has never answered, the first failure is final: the address is probably wrong.
        """
        for number in range(_TRIES):
            if number:
                self._pause(min(2.0**number, 30.0))
            answer = self._send(method, path, options)
            if answer is not None and answer.status_code != 503:
                return answer
        raise TransferError(f"{self._api} does not answer or is too busy")

    def _send(self, method: str, path: str, options: dict[str, Any]) -> requests.Response | None:
        try:
            answer = self._session.request(method, self._api + path, timeout=_PATIENCE, **options)
        except (requests.ConnectionError, requests.Timeout) as error:
            if not self._has_answered:
                raise TransferError(f"no answer from {self._api} ({type(error).__name__})") from None
            print(f"no answer ({type(error).__name__}); trying again", file=sys.stderr)
            return None
        except requests.exceptions.InvalidURL as error:
            raise TransferError(f"{self._api} is not a valid address: {error}") from None
        self._has_answered = True
        return answer


def export_file(server: Server, file: Path, report: Callable[[str], None]) -> int:
    """Write an export to a file, and return the number of its lines. Raises TransferError."""
    unfinished = file.with_name(f"{file.name}.part")
    count = 0
    with _open(unfinished, "wb", is_compressed=file.suffix == ".gz") as out:
        for line in _exported_lines(server):
            out.write(line + b"\n")
            count += 1
            if count % 1_000 == 0:
                report(f"{count} lines")
    unfinished.replace(file)
    return count


def _exported_lines(server: Server) -> Iterator[bytes]:
    after: str | None = None
    while True:
        query = {"limit": str(_LINES)} | ({"after": after} if after else {})
        answer = server.request("GET", "/export", params=query)
        if answer.status_code != 200:
            raise TransferError(_reason(answer))
        *lines, last = answer.content.splitlines()
        yield from lines
        content = json.loads(last)
        if content["kind"] == "end":
            yield last
            return
        after = content["after"]


def import_file(server: Server, file: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Import a file, and return the report of the server. Raises TransferError, which names the line at fault."""
    for _ in range(_TRIES):
        outcome = _import_once(server, file, report)
        if outcome is not None:
            return outcome
        report("the server was restarted; sending the file again (what was imported is kept)")
    raise TransferError(f"the server was restarted {_TRIES} times; gave up")


def _import_once(server: Server, file: Path, report: Callable[[str], None]) -> dict[str, Any] | None:
    """Send the whole file once. Returns None if the server no longer knows of the import."""
    progress: dict[str, Any] = {}
    for first, chunk in _chunks(file):
        answer = server.request("POST", "/import", data=chunk, headers=_NDJSON)
        if answer.status_code == 409 and first > 1:
            return None
        if answer.status_code != 200:
            raise TransferError(_fault(answer, first))
        progress = answer.json()["import"]
        report(_progress_line(progress))
    if progress.get("state") != "complete":
        raise TransferError("the file is not complete: its last line is missing")
    return progress


def _chunks(file: Path) -> Iterator[tuple[int, bytes]]:
    """The body of each request, with the number of its first line in the file, from 1."""
    chunk: list[bytes] = []
    size, first = 0, 1
    with _open(file, "rb", is_compressed=file.suffix == ".gz") as lines:
        for number, line in enumerate(lines, 1):
            if chunk and (len(chunk) >= _LINES or size + len(line) > _BYTES):
                yield first, b"".join(chunk)
                chunk, size, first = [], 0, number
            chunk.append(line)
            size += len(line)
    if chunk:
        yield first, b"".join(chunk)


def _open(file: Path, mode: str, *, is_compressed: bool) -> IO[bytes]:
    open_file: Any = gzip.open if is_compressed else Path.open
    stream: IO[bytes] = open_file(file, mode)
    return stream


def _fault(answer: requests.Response, first: int) -> str:
    try:
        content = answer.json()
        line, error = first + int(content["line"]) - 1, str(content["error"]).partition(": ")[2]
    except (ValueError, KeyError):
        return _reason(answer)
    return f"line {line} of the file: {error}"


def _reason(answer: requests.Response) -> str:
    if answer.status_code in (401, 403):
        return f"the server rejected the credentials ({answer.status_code})"
    if answer.status_code == 404:
        return "no management API of the UPS plugin at this address"
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError):
        return f"the server answered {answer.status_code}"


def _progress_line(progress: dict[str, Any]) -> str:
    counts = progress["counts"]["workitems"]
    done = sum(counts[outcome] for outcome in ("imported", "unchanged", "conflicts"))
    return f"{progress['mode']}: {done} of {counts['expected']} workitems, {progress['conflicts_in_all']} conflicts"


def main() -> int:
    """Return 0 if everything was transferred, 1 after an error, 3 if there were conflicts."""
    parser = argparse.ArgumentParser(
        prog="transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("export", "import"))
    parser.add_argument("url", help="URL of Orthanc, such as http://user:password@host:8042, or host:8042")
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    try:
        return _run(options.action, Server(options.url), options.file)
    except (TransferError, OSError, EOFError) as error:
        print(f"transfer: {error}", file=sys.stderr)
        return 1


def _run(action: str, server: Server, file: Path) -> int:
    if action == "export":
        print(f"wrote {export_file(server, file, print)} lines to {file}")
        return 0
    outcome = import_file(server, file, print)
    for conflict in outcome["conflicts"]:
        print(f"{conflict['kind']} {conflict['name']}: {conflict['why']}")
    return 3 if outcome["conflicts_in_all"] else 0


if __name__ == "__main__":
    sys.exit(main())
