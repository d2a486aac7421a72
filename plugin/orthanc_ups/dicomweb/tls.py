# SPDX-License-Identifier: AGPL-3.0-or-later
"""HTTPS and WSS with the settings of Orthanc's own HTTP server (``SslEnabled`` and what goes with it)."""

from __future__ import annotations

import ssl
from typing import Final

from ..settings import Surroundings

_TLS_1_3_ONLY: Final = 5  # of SslMinimumProtocolVersion; everything less means TLS 1.2 here


def server_context(surroundings: Surroundings) -> ssl.SSLContext | None:
    """The context of our listener, or None if Orthanc speaks plain HTTP.

    Raises:
        OSError: a file cannot be read, or holds no certificate and key (ssl.SSLError).
    """
    if not surroundings.http_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    newest_only = surroundings.raw.get("SslMinimumProtocolVersion") == _TLS_1_3_ONLY
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if newest_only else ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(surroundings.ssl_certificate)
    if surroundings.raw.get("SslVerifyPeers") is True:
        context.load_verify_locations(str(surroundings.raw.get("SslTrustedClientCertificates", "")))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
