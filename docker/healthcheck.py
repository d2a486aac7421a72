# SPDX-License-Identifier: AGPL-3.0-or-later
"""The container's health check: exit code 0 if every HTTP and DICOM server responds, even with a refusal, and the
worklist is healthy. ``/ups/health`` answers 503 while nothing can be stored.

By default the servers are those of the configuration that the entry point wrote. ORTHANC_UPS_HEALTH_URLS overrides
them, separated by spaces: ``http://``, ``https://``, ``dicom://HOST:PORT``.
"""

import json
import os
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

CONFIGURATION = Path(os.environ.get("ORTHANC_UPS_CONFIGURATION", "/tmp/orthanc-ups/orthanc.json"))  # noqa: S108
PATIENCE = 4.0
APPLICATION_CONTEXT, VERIFICATION, IMPLICIT = (
    b"1.2.840.10008.3.1.1.1",
    b"1.2.840.10008.1.1",
    b"1.2.840.10008.1.2",
)


def default_urls() -> list[str]:
    """The URLs of the ports that the configuration opens."""
    configuration = json.loads(CONFIGURATION.read_text()) if CONFIGURATION.exists() else {}
    ups = configuration.get("Ups", {})
    scheme = "https" if configuration.get("SslEnabled") else "http"
    urls = [f"{scheme}://127.0.0.1:{configuration.get('HttpPort', 8042)}/system"]
    if configuration.get("DicomServerEnabled", True):
        urls.append(f"dicom://127.0.0.1:{configuration.get('DicomPort', 4242)}")
    if ups.get("Enable"):
        urls.append(f"{scheme}://127.0.0.1:{ups.get('HttpPort', 8043)}/ups/health")
        urls.append(f"dicom://127.0.0.1:{ups.get('DicomPort', 4243)}")
    return urls


def opener() -> urllib.request.OpenerDirector:
    """Uses no proxy and accepts any certificate: the server's certificate is for its public name, not for loopback."""
    unchecked = ssl._create_unverified_context()  # noqa: S323
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked)
    )


def item(kind: int, value: bytes) -> bytes:
    """An item of a PDU (PS3.8 §9.3.1)."""
    return struct.pack(">BxH", kind, len(value)) + value


def association_request() -> bytes:
    """An A-ASSOCIATE-RQ for Verification (PS3.8 §9.3.2)."""
    titles = b"ORTHANC".ljust(16) + b"HEALTHCHECK".ljust(16)
    context = b"\x01\0\0\0" + item(0x30, VERIFICATION) + item(0x40, IMPLICIT)
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"2.25.4243")
    items = item(0x10, APPLICATION_CONTEXT) + item(0x20, context) + item(0x50, user)
    body = struct.pack(">Hxx", 1) + titles + bytes(32) + items
    return struct.pack(">BxI", 1, len(body)) + body


def ask_dicom(host: str, port: int) -> None:
    """Raises OSError unless the server answers, or closes the connection, as it does with plain requests under TLS."""
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.sendall(association_request())
            if connection.recv(1024)[:1] == b"\x02":  # A-ASSOCIATE-AC
                connection.sendall(struct.pack(">BxI4x", 5, 4))  # A-RELEASE-RQ
                connection.recv(1024)
        except ConnectionError:
            return


def ask(url: str) -> None:
    """Raises OSError if the server does not answer."""
    parts = urlsplit(url)
    if parts.scheme == "dicom":
        ask_dicom(parts.hostname or "127.0.0.1", parts.port or 104)
    else:
        opener().open(url, timeout=PATIENCE).close()


def problem(url: str) -> str:
    """What is wrong with the server; "" if nothing is."""
    try:
        ask(url)
    except urllib.error.HTTPError as error:
        text = error.read(400).decode(errors="replace") if error.code >= 500 else ""
        return f"{url}: {error} {text}" if error.code >= 500 else ""
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    return ""


if __name__ == "__main__":
    with ThreadPoolExecutor() as pool:
        urls = os.environ.get("ORTHANC_UPS_HEALTH_URLS", "").split() or default_urls()
        problems = list(filter(None, pool.map(problem, urls)))
    sys.exit("\n".join(problems) or 0)
