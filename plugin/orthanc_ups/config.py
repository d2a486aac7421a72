# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads orthanc.json: the ``Ups`` section into Settings, the rest of interest into Surroundings.

Every mistake in the ``Ups`` section is one line that names the key, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin, get_type_hints

from .settings import Duration, Range, Settings, Surroundings

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_INDEX_PLUGINS: Final = ("PostgreSQL", "MySQL", "Odbc")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


class ConfigurationError(Exception):
    """orthanc.json cannot be used; the text says which key, what was found and what is expected."""


def key_of(field: str) -> str:
    """The key in orthanc.json of a field: ``dicom_port`` is ``DicomPort``."""
    return "".join(part.capitalize() for part in field.split("_"))


def read_settings(section: object) -> Settings:
    """Turn the ``Ups`` section into Settings. Raises ConfigurationError."""
    settings = _read_object(Settings, section, "Ups")
    return _checked(settings)


def _read_object(kind: type[Any], found: object, path: str) -> Any:
    if not isinstance(found, dict):
        raise ConfigurationError(f'"{path}" is {_shown(found)}, expected an object')
    hints = get_type_hints(kind, include_extras=True)
    fields = {key_of(field.name): field for field in dataclasses.fields(kind)}
    for key in found:
        if key not in fields:
            raise ConfigurationError(f'"{path}.{key}" is no setting{_suggestion(key, fields)}')
    values = {
        field.name: _read(hints[field.name], found[key], f"{path}.{key}")
        for key, field in fields.items()
        if key in found
    }
    for key, field in fields.items():
        if key not in found and _is_required(field):
            raise ConfigurationError(f'"{path}.{key}" is missing')
    return kind(**values)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _suggestion(key: str, known: Mapping[str, object]) -> str:
    lowered = {one.lower(): one for one in known}
    close = difflib.get_close_matches(key.lower(), lowered, n=1, cutoff=0.6)
    return f'; did you mean "{lowered[close[0]]}"?' if close else ""


def _shown(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(hint: Any, found: object, path: str) -> Any:
    marks: tuple[Any, ...] = ()
    if get_origin(hint) is typing.Annotated:
        hint, *rest = get_args(hint)
        marks = tuple(rest)
    if any(isinstance(mark, Duration) for mark in marks):
        return _read_duration(found, path)
    value = _read_plain(hint, found, path)
    for mark in marks:
        if isinstance(mark, Range) and not mark.low <= value <= mark.high:
            raise ConfigurationError(f'"{path}" is {value}, expected {mark.low:g} to {mark.high:g}')
    return value


def _read_duration(found: object, path: str) -> float:
    if isinstance(found, (int, float)) and not isinstance(found, bool) and found >= 0:
        return float(found)
    parsed = _DURATION.fullmatch(found) if isinstance(found, str) else None
    if parsed is None:
        expected = 'seconds, or a text such as "90s", "15m", "12h", "7d"'
        raise ConfigurationError(f'"{path}" is {_shown(found)}, expected {expected}')
    return float(parsed[1]) * _UNITS[parsed[2]]


_PLAIN: Final[Mapping[type, tuple[tuple[type, ...], str]]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    object: ((object,), "a value"),
}


def _read_plain(hint: Any, found: object, path: str) -> Any:
    origin = get_origin(hint)
    if origin is tuple:
        return _read_list(get_args(hint)[0], found, path)
    if origin is not None and issubclass(origin, Mapping):
        return _read_mapping(get_args(hint)[1], found, path)
    if dataclasses.is_dataclass(hint):
        return _read_object(typing.cast("type[Any]", hint), found, path)
    accepted, expected = _PLAIN[hint]
    if not isinstance(found, accepted) or (isinstance(found, bool) and hint in (int, float)):
        raise ConfigurationError(f'"{path}" is {_shown(found)}, expected {expected}')
    return float(found) if hint is float and isinstance(found, int) else found


def _read_list(hint: Any, found: object, path: str) -> tuple[Any, ...]:
    if not isinstance(found, list):
        raise ConfigurationError(f'"{path}" is {_shown(found)}, expected a list')
    return tuple(_read(hint, one, f"{path}[{place}]") for place, one in enumerate(found))


def _read_mapping(hint: Any, found: object, path: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ConfigurationError(f'"{path}" is {_shown(found)}, expected an object')
    read = {key: _read(hint, one, f"{path}.{key}") for key, one in found.items()}
    return types.MappingProxyType(read)


def _checked(settings: Settings) -> Settings:
    _check_aet(settings.aet, "Ups.Aet", empty_is_fine=True)
    for place, ae in enumerate(settings.status_change_receivers):
        _check_aet(ae, f"Ups.StatusChangeReceivers[{place}]")
    for place, webhook in enumerate(settings.webhooks):
        _check_aet(webhook.aet, f"Ups.Webhooks[{place}].Aet")
        if not re.match(r"https?://[^/\s]+", webhook.url):
            raise ConfigurationError(f'"Ups.Webhooks[{place}].Url" is {webhook.url!r}, expected http(s)://…')
    if not re.fullmatch(r"(/[\w.~-]+)+", settings.root):
        raise ConfigurationError(f'"Ups.Root" is {settings.root!r}, expected a path such as "/dicom-web"')
    if settings.http_port == settings.dicom_port:
        raise ConfigurationError('"Ups.HttpPort" and "Ups.DicomPort" are the same')
    if not settings.worklist_label.strip() or len(settings.worklist_label) > 64:
        raise ConfigurationError('"Ups.WorklistLabel" is empty or longer than 64 characters')
    return settings


def _check_aet(found: str, path: str, *, empty_is_fine: bool = False) -> None:
    """PS3.5 §6.2: 1 to 16 characters, no backslash, no control characters."""
    if not found.strip() and empty_is_fine and not found:
        return
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", found) or not found.strip():
        raise ConfigurationError(f'"{path}" is {found!r}, expected an AE title of 1 to 16 characters')


def _is_shared(section: object) -> bool:
    """Whether the configuration of an index plugin lets several Orthancs work on one database."""
    if not isinstance(section, dict) or section.get("EnableIndex", False) is not True:
        return False
    return section.get("Lock", True) is False


def read_surroundings(configuration: Mapping[str, Any]) -> Surroundings:
    """Pick what the plugin respects from the rest of orthanc.json, with Orthanc's own defaults."""

    def get(key: str, default: Any) -> Any:
        found = configuration.get(key, default)
        return found if isinstance(found, type(default)) else default

    python = configuration.get("Python")
    index = get("IndexDirectory", "") or get("StorageDirectory", "OrthancStorage")
    tls_version = get("DicomTlsMinimumProtocolVersion", 0)
    return Surroundings(
        dicom_aet=get("DicomAet", "ORTHANC"),
        http_port=get("HttpPort", 8042),
        http_tls=get("SslEnabled", False),
        ssl_certificate=get("SslCertificate", "certificate.pem"),
        remote_access_allowed=get("RemoteAccessAllowed", False),
        authentication_enabled=get("AuthenticationEnabled", get("RemoteAccessAllowed", False)),
        check_revisions=get("CheckRevisions", False),
        allow_threads=isinstance(python, dict) and python.get("AllowThreads") is True,
        index_directory=index,
        check_called_aet=get("DicomCheckCalledAet", False),
        check_modality_host=get("DicomCheckModalityHost", False),
        always_allow_echo=get("DicomAlwaysAllowEcho", True),
        always_allow_find=get("DicomAlwaysAllowFind", False),
        always_allow_find_worklist=get("DicomAlwaysAllowFindWorklist", False),
        dicom_tls_enabled=get("DicomTlsEnabled", False),
        dicom_tls_certificate=get("DicomTlsCertificate", ""),
        dicom_tls_private_key=get("DicomTlsPrivateKey", ""),
        dicom_tls_trusted_certificates=get("DicomTlsTrustedCertificates", ""),
        dicom_tls_remote_certificate_required=get("DicomTlsRemoteCertificateRequired", True),
        dicom_tls_minimum_protocol_version=tls_version,
        dicom_scu_timeout=float(get("DicomScuTimeout", 10)),
        default_encoding=get("DefaultEncoding", "Latin1"),
        metrics_enabled=get("MetricsEnabled", True),
        shares_database=any(map(_is_shared, (configuration.get(name) for name in _INDEX_PLUGINS))),
        raw=configuration,
    )
