# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads orthanc.json: the ``Ups`` section into Settings, and Orthanc's own settings into OrthancSettings.

A mistake is a ConfigurationError, which names the key, its value and what is expected.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from .codecs.structs import KeyFault, WrongKeys, decode, shown
from .core.ae_titles import InvalidAeTitle, valid_ae_title
from .settings import ModalityWorklist, OrthancSettings, Settings, Webhook

ENCODED_SECRET: Final = "whsec_"  # noqa: S105 - a prefix
"""A webhook's secret that begins with this is base64."""
_LONGEST_CODE: Final = 16  # characters of VR SH

T = TypeVar("T", bound=msgspec.Struct)


class ConfigurationError(Exception):
    """orthanc.json cannot be used; the text names the key, its value and what is expected."""


def read_section(struct: type[T], content: object, path: str = "") -> T:
    """Convert an object of orthanc.json, at ``path``, to a struct.

    Raises:
        ConfigurationError: names every key at fault.
    """
    try:
        return decode(struct, content, path=path)
    except WrongKeys as error:
        raise ConfigurationError("; ".join(map(_message, error.faults))) from None


def _message(fault: KeyFault) -> str:
    return f'unknown setting "{fault.path}"{fault.reason}' if fault.is_unknown else str(fault)


def read_settings(section: object) -> Settings:
    """Read and check the ``Ups`` section. Raises ConfigurationError."""
    return _checked(read_section(Settings, section, "Ups"))


# --- the Ups section as a whole ---

_ROOT: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)
_RESERVED: Final = (
    "app", "changes", "exports", "instances", "jobs", "modalities", "patients", "peers", "plugins", "queries",
    "series", "statistics", "studies", "system", "tools", "ups",
)  # fmt: skip
"""First segments of paths that belong to Orthanc or the worklist page."""


def _checked(settings: Settings) -> Settings:
    if settings.aet:
        _check_aet(settings.aet, "Ups.Aet")
    for index, ae in enumerate(settings.status_change_receivers):
        _check_aet(ae, f"Ups.StatusChangeReceivers[{index}]")
    for user, titles in settings.users.items():
        for index, ae in enumerate(titles):
            if ae != "*":
                _check_aet(ae, f"Ups.Users.{user}[{index}]")
    for index, webhook in enumerate(settings.webhooks):
        _check_webhook(webhook, f"Ups.Webhooks[{index}]")
    _check_modality_worklist(settings.modality_worklist)
    _check_addresses(settings)
    if settings.http_port == settings.dicom_port:
        raise ConfigurationError('"Ups.HttpPort" and "Ups.DicomPort" are the same')
    if settings.retry_maximum < settings.retry_first:
        raise ConfigurationError(
            f'"Ups.RetryMaximum" is {settings.retry_maximum:g} s, expected at least "Ups.RetryFirst", '
            f"which is {settings.retry_first:g} s"
        )
    label = settings.worklist_label
    if not label.strip() or len(label) > 64 or not _is_plain(label):
        raise ConfigurationError(
            f'"Ups.WorklistLabel" is {shown(label)}, expected 1 to 64 characters without backslash'
        )
    if settings.projection_file:
        _check_projection_file(Path(settings.projection_file))
    return settings


def _check_aet(title: str, path: str) -> None:
    try:
        valid_ae_title(title)
    except InvalidAeTitle:
        expected = "an AE title of 1 to 16 characters without slash or backslash"
        raise ConfigurationError(f'"{path}" is {title!r}, expected {expected}') from None


def _check_modality_worklist(worklist: ModalityWorklist) -> None:
    for ae, code in worklist.stations.items():
        path = f"Ups.ModalityWorklist.Stations.{ae}"
        _check_aet(ae, path)
        value, separator, scheme = code.partition("^")
        is_scheme = (not separator and not scheme) or 1 <= len(scheme.strip()) <= _LONGEST_CODE
        if (
            not 1 <= len(value.strip()) <= _LONGEST_CODE
            or not is_scheme
            or not _is_plain(code)
            or "^" in scheme
        ):
            expected = (
                'a station code such as "CTROOM1" or "CTROOM1^99HOSPITAL", each part of 1 to 16 characters'
            )
            raise ConfigurationError(f'"{path}" is {shown(code)}, expected {expected}')
    for ae, modality in worklist.modalities.items():
        path = f"Ups.ModalityWorklist.Modalities.{ae}"
        _check_aet(ae, path)
        if not re.fullmatch(r"[A-Z0-9_ ]{1,16}", modality):
            raise ConfigurationError(f'"{path}" is {shown(modality)}, expected a modality such as "CT"')


def _check_webhook(webhook: Webhook, path: str) -> None:
    _check_aet(webhook.aet, f"{path}.Aet")
    if not _is_url(webhook.url):
        raise ConfigurationError(
            f'"{path}.Url" is {shown(webhook.url)}, expected a URL such as "https://host/path"'
        )
    for kind in webhook.event_types:
        if kind not in range(1, 6):
            raise ConfigurationError(f'"{path}.EventTypes" has {kind}, expected numbers from 1 to 5')
    if webhook.secret.startswith(ENCODED_SECRET) and not _is_base64(webhook.secret[len(ENCODED_SECRET) :]):
        raise ConfigurationError(f'"{path}.Secret" begins with "{ENCODED_SECRET}", expected base64 after it')


def _check_addresses(settings: Settings) -> None:
    root = settings.root
    if not _ROOT.fullmatch(root):
        raise ConfigurationError(f'"Ups.Root" is {shown(root)}, expected a path such as "/dicom-web"')
    if root.split("/")[1] in _RESERVED:
        raise ConfigurationError(
            f'"Ups.Root" is {shown(root)}, which Orthanc or the worklist page uses; expected another path'
        )
    if settings.bind_address and not _is_address(settings.bind_address):
        raise ConfigurationError(
            f'"Ups.BindAddress" is {shown(settings.bind_address)}, expected an IP address of this machine'
        )
    public = settings.public_url
    if public and (not _is_url(public) or "?" in public or "#" in public):
        raise ConfigurationError(
            f'"Ups.PublicUrl" is {shown(public)}, expected a URL such as "https://host/dicom-web"'
        )
    for index, proxy in enumerate(settings.trusted_proxies):
        if not _is_network(proxy):
            raise ConfigurationError(
                f'"Ups.TrustedProxies[{index}]" is {shown(proxy)}, expected an address such as "10.0.0.1" '
                'or a network such as "10.0.0.0/24"'
            )
    for index, origin in enumerate(settings.allowed_origins):
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s@]+/?", origin, re.IGNORECASE):
            raise ConfigurationError(
                f'"Ups.AllowedOrigins[{index}]" is {shown(origin)}, '
                'expected an origin such as "https://viewer.example", without a path'
            )


def _check_projection_file(file: Path) -> None:
    folder = file.parent
    key = f'"Ups.ProjectionFile" is "{file}"'
    if not folder.is_dir():
        raise ConfigurationError(f'{key}, but there is no folder "{folder}"')
    if file.is_dir():
        raise ConfigurationError(f"{key}, which is a folder, expected a file")
    try:
        file.open("ab").close()  # SQLite takes an empty file for a new database
    except OSError as error:
        raise ConfigurationError(f"{key}, which Orthanc may not write to: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{key}, but Orthanc may not write to its folder")


def _is_plain(text: str) -> bool:
    return "\\" not in text and all(ord(character) >= 32 and ord(character) != 127 for character in text)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in text
        )
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    """An IP address, or a name that this machine can resolve."""
    try:
        socket.getaddrinfo(text, None)
    except (OSError, UnicodeError):
        return False
    return True


# --- Orthanc's own settings ---


def read_orthanc_settings(configuration: Mapping[str, Any]) -> OrthancSettings:
    """Read the settings of Orthanc that the plugin follows. Raises ConfigurationError."""
    keys = [field.encode_name for field in msgspec.structs.fields(OrthancSettings)]
    values = {key: value for key in keys if (value := _lookup(configuration, key)) is not None}
    orthanc_settings = read_section(OrthancSettings, values)
    if "AuthenticationEnabled" in values:
        return orthanc_settings
    return msgspec.structs.replace(
        orthanc_settings, authentication_enabled=orthanc_settings.remote_access_allowed
    )


def _lookup(configuration: Mapping[str, Any], key: str) -> Any:
    content: Any = configuration
    for name in key.split("."):
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


# --- both together ---


def read_configuration(configuration: Mapping[str, Any]) -> tuple[Settings, OrthancSettings]:
    """Read the whole of orthanc.json.

    If the plugin is enabled, its settings and Orthanc's are checked against each other. Raises ConfigurationError.
    """
    for key in configuration:
        if key.lower() == "ups" and key != "Ups":
            raise ConfigurationError(f'unknown section "{key}"; did you mean "Ups"?')
    settings = read_settings(configuration.get("Ups", {}))
    orthanc_settings = read_orthanc_settings(configuration)
    if settings.enable:
        _check_orthanc(orthanc_settings)
        _check_ports(settings, orthanc_settings)
    return settings, orthanc_settings


def _check_orthanc(orthanc_settings: OrthancSettings) -> None:
    if orthanc_settings.read_only:
        raise ConfigurationError('"ReadOnly" is true, expected false: Orthanc could not store any workitem')


def _check_ports(settings: Settings, orthanc_settings: OrthancSettings) -> None:
    orthanc_ports = {"HttpPort": orthanc_settings.http_port}
    if orthanc_settings.dicom_server_enabled:
        orthanc_ports["DicomPort"] = orthanc_settings.dicom_port
    for key, port in (("HttpPort", settings.http_port), ("DicomPort", settings.dicom_port)):
        for orthanc_key, orthanc_port in orthanc_ports.items():
            if port == orthanc_port:
                raise ConfigurationError(
                    f'"Ups.{key}" is {port}, which is Orthanc\'s own "{orthanc_key}"; expected another port'
                )
