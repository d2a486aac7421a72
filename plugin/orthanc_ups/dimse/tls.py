# SPDX-License-Identifier: AGPL-3.0-or-later
"""TLS contexts from Orthanc's ``DicomTls…`` settings, for both roles (PS3.15 Annex B)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..settings import OrthancSettings

_VERSIONS: Final[Mapping[int, ssl.TLSVersion]] = MappingProxyType(
    {
        2: ssl.TLSVersion.TLSv1,
        3: ssl.TLSVersion.TLSv1_1,
        5: ssl.TLSVersion.TLSv1_3,
    }
)
"""``DicomTlsMinimumProtocolVersion``; 1 would be SSL 3, which current OpenSSL lacks; 0 and 4 mean TLS 1.2."""


class TlsError(Exception):
    """The TLS settings cannot be used; the text names the setting and the file."""


def server_context(orthanc_settings: OrthancSettings) -> ssl.SSLContext | None:
    """The context for the plugin's port; None without ``DicomTlsEnabled``.

    Raises:
        TlsError: a certificate, key or cipher list cannot be used.
    """
    if not orthanc_settings.dicom_tls_enabled:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if not orthanc_settings.dicom_tls_certificate or not orthanc_settings.dicom_tls_private_key:
        raise TlsError('"DicomTlsEnabled" needs "DicomTlsCertificate" and "DicomTlsPrivateKey"')
    return _prepared(context, orthanc_settings)


def client_context(orthanc_settings: OrthancSettings) -> ssl.SSLContext:
    """The context for associations to modalities with ``UseDicomTls``.

    Host names are not checked, as in Orthanc: DICOM certificates name systems, not hosts.

    Raises:
        TlsError: a certificate, key or cipher list cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _prepared(context, orthanc_settings)


def _prepared(context: ssl.SSLContext, orthanc_settings: OrthancSettings) -> ssl.SSLContext:
    version = orthanc_settings.dicom_tls_minimum_protocol_version
    context.minimum_version = _VERSIONS.get(version, ssl.TLSVersion.TLSv1_2)
    _set_ciphers(context, orthanc_settings)
    if orthanc_settings.dicom_tls_certificate:
        _load_own(context, orthanc_settings)
    if orthanc_settings.dicom_tls_remote_certificate_required:
        _load_trusted(context, orthanc_settings)
        context.verify_mode = ssl.CERT_REQUIRED
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


def _set_ciphers(context: ssl.SSLContext, orthanc_settings: OrthancSettings) -> None:
    ciphers = orthanc_settings.dicom_tls_ciphers_accepted
    if not ciphers:
        return
    try:
        context.set_ciphers(":".join(ciphers))
    except ssl.SSLError as error:
        raise TlsError(f'"DicomTlsCiphersAccepted" names no usable cipher: {error}') from error


def _load_own(context: ssl.SSLContext, orthanc_settings: OrthancSettings) -> None:
    certificate, key = orthanc_settings.dicom_tls_certificate, orthanc_settings.dicom_tls_private_key
    try:
        context.load_cert_chain(certificate, key or None)
    except OSError as error:
        text = f'"DicomTlsCertificate" {certificate} and "DicomTlsPrivateKey" {key} cannot be used: {error}'
        raise TlsError(text) from error


def _load_trusted(context: ssl.SSLContext, orthanc_settings: OrthancSettings) -> None:
    trusted = orthanc_settings.dicom_tls_trusted_certificates
    if not trusted:
        raise TlsError('"DicomTlsRemoteCertificateRequired" needs "DicomTlsTrustedCertificates"')
    try:
        context.load_verify_locations(trusted)
    except OSError as error:
        raise TlsError(f'"DicomTlsTrustedCertificates" {trusted} cannot be used: {error}') from error
