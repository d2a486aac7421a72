# SPDX-License-Identifier: AGPL-3.0-or-later
"""HTTPS and WSS with the settings of Orthanc's own HTTP server (``SslEnabled`` and related settings)."""

from __future__ import annotations

import ssl
from typing import Final

from ..settings import OrthancSettings

_TLS_1_3_ONLY: Final = 5  # of SslMinimumProtocolVersion; lower values mean TLS 1.2 here


class WebTlsError(Exception):
    """The certificates cannot be used; the text names the setting and the file."""


def server_context(orthanc_settings: OrthancSettings) -> ssl.SSLContext | None:
    """The TLS context of the port, or None if Orthanc uses plain HTTP.

    Raises:
        WebTlsError: a file cannot be read, or holds no certificate and key.
    """
    if not orthanc_settings.http_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    newest_only = orthanc_settings.ssl_minimum_protocol_version == _TLS_1_3_ONLY
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if newest_only else ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(orthanc_settings.ssl_certificate)
    except OSError as error:
        raise _unusable("SslCertificate", orthanc_settings.ssl_certificate, error) from error
    if orthanc_settings.ssl_verify_peers:
        trusted = orthanc_settings.ssl_trusted_client_certificates
        try:
            context.load_verify_locations(trusted)
        except OSError as error:
            raise _unusable("SslTrustedClientCertificates", trusted, error) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _unusable(key: str, file: str, error: OSError) -> WebTlsError:
    return WebTlsError(
        f'"{key}" is "{file}", which cannot be used ({error.strerror or error}); give the absolute path'
    )
