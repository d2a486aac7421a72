# SPDX-License-Identifier: AGPL-3.0-or-later
"""Start Orthanc in the container, with settings from environment variables.

    ORTHANC__NAME=Radiology                   "Name": "Radiology"
    ORTHANC__UPS__HTTP_PORT=8043              "Ups": {"HttpPort": 8043}
    ORTHANC__DICOM_MODALITIES='{"ct": …}'     an object; likewise lists, true, false
    ORTHANC__POSTGRESQL__PASSWORD_FILE=/run/secrets/database    the content of a file, as text

Each ``__`` enters a section, and the words of a name are separated by underscores. Variables override the files of the
configuration folder; of its files, the later ones (by name) override the earlier ones.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

FOLDER: Final = "/etc/orthanc-ups"
CONFIGURATION: Final = Path(os.environ.get("ORTHANC_UPS_CONFIGURATION", "/tmp/orthanc-ups/orthanc.json"))  # noqa: S108
PREFIX: Final = "ORTHANC__"
FILE_SUFFIX: Final = "_FILE"
PASSWORD: Final = "ORTHANC_UPS_PASSWORD"  # noqa: S105
# Settings of Orthanc with unusual capitals.
IRREGULAR: Final = (
    "PostgreSQL",
    "MySQL",
    "ODBC",
    "HttpsCACertificates",
    "StoreMD5ForAttachments",
    "CaseSensitivePN",
)
_COMMENT_OR_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_EXPANDED: Final = re.compile(r"\$\{")

Json = dict[str, Any]


class ContainerError(Exception):
    """The container cannot start; the text says why."""


def main(words: list[str]) -> NoReturn:
    """Become Orthanc. A configuration other than the image's is used unchanged unless a variable overrides it."""
    try:
        if words == [FOLDER] or overrides_in(os.environ):
            CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
            CONFIGURATION.touch(mode=0o600)
            CONFIGURATION.write_text(json.dumps(configuration(Path(words[0]), dict(os.environ)), indent=1))
            words = [str(CONFIGURATION), *words[1:]]
    except (ContainerError, OSError, ValueError) as error:
        sys.stderr.write(f"orthanc-ups: {error}\n")
        sys.exit(64)
    os.execvp("Orthanc", ["Orthanc", *words])  # noqa: S606, S607


def configuration(path: Path, environment: dict[str, str]) -> Json:
    """Merge the files and the variables.

    Raises:
        ContainerError: a file or a variable is invalid, or the password is missing.
        OSError: a file cannot be read.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    result: Json = {}
    for file in files:
        _merge(result, read(file))
    for name, text in overrides_in(environment).items():
        _set(result, name.removeprefix(PREFIX).split("__"), _value(name, text))
    _require_password(result, environment)
    return result


def read(file: Path) -> Json:
    """Read a configuration file of Orthanc: JSON with comments. Raises ContainerError, OSError."""
    plain = _COMMENT_OR_STRING.sub(lambda match: match[0] if match[0][0] == '"' else " ", file.read_text())
    try:
        content = json.loads(plain)
    except ValueError as error:
        raise ContainerError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ContainerError(f"{file} is not a JSON object")
    return content


def overrides_in(environment: Any) -> dict[str, str]:
    """The environment variables that override settings."""
    return {name: text for name, text in sorted(environment.items()) if name.startswith(PREFIX)}


def _merge(base: Json, more: Json) -> None:
    for key, value in more.items():
        present = base.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        elif key == "Plugins" and isinstance(present, list):
            base[key] = [*present, *(plugin for plugin in value if plugin not in present)]
        else:
            base[key] = value


def _set(section: Json, names: list[str], value: Any) -> None:
    if names[-1].endswith(FILE_SUFFIX):
        names = [*names[:-1], names[-1].removesuffix(FILE_SUFFIX)]
    for name in names[:-1]:
        inner = section.setdefault(key_of(name, section), {})
        if not isinstance(inner, dict):
            raise ContainerError(f"{PREFIX}{'__'.join(names)}: {name} is not a section")
        section = inner
    section[key_of(names[-1], section)] = value


def key_of(name: str, section: Json) -> str:
    """``HTTP_PORT`` is ``HttpPort``, unless the section or Orthanc has these words with other capitals."""
    words = name.replace("_", "").lower()
    for key in (*section, *IRREGULAR):
        if key.lower() == words:
            return key
    return "".join(word.capitalize() for word in name.split("_"))


def _value(name: str, text: str) -> Any:
    """JSON is parsed, anything else is text. The content of a file is parsed only if it is an object or a list."""
    if name.endswith(FILE_SUFFIX):
        text = _content(name, text)
        if text[:1] not in ("{", "["):
            return text
    try:
        return json.loads(text)
    except ValueError as error:
        if text[:1] in ("{", "["):
            raise ContainerError(f"{name} is not valid JSON: {error}") from error
        return text


def _content(name: str, path: str) -> str:
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise ContainerError(f"{name}: {error}") from error


def _require_password(result: Json, environment: dict[str, str]) -> None:
    """Set the password of the user ``admin`` if the configuration names no users. Raises ContainerError."""
    if not result.get("AuthenticationEnabled") or result.get("RegisteredUsers"):
        return
    password = environment.get(PASSWORD, "")
    if PASSWORD + FILE_SUFFIX in environment:
        password = _content(PASSWORD + FILE_SUFFIX, environment[PASSWORD + FILE_SUFFIX])
    if not password:
        raise ContainerError(
            f"set {PASSWORD} (or {PASSWORD}{FILE_SUFFIX}), the password of the user 'admin', or "
            f"{PREFIX}REGISTERED_USERS, an object of users and passwords"
        )
    if _EXPANDED.search(password):
        raise ContainerError(f"{PASSWORD} must not contain ${{, which Orthanc would expand as a variable")
    result["RegisteredUsers"] = {"admin": password}


if __name__ == "__main__":
    main(sys.argv[1:])
