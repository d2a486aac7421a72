# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Orthanc for tests: started through docker/native.sh, in a folder and on ports of its own."""

import atexit
import contextlib
import functools
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.ports import free_port, is_listening
from tests.support.waiting import PATIENCE, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
NATIVE = CHECKOUT / "docker" / "native.sh"
PLUGIN = CHECKOUT / "plugin" / "ups_plugin.py"
SUITES = ("forky", "trixie")

# Orthanc expands the variable, docker/native.sh sets it.
PYTHON_PLUGIN = "${ORTHANC_PLUGINS}/libOrthancPython.so"
DICOMWEB_PLUGIN = "${ORTHANC_PLUGINS}/libOrthancDicomWeb.so"

Json = dict[str, Any]


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> Json:
    """Merge two configurations: objects key by key; any other value of `overrides` replaces that of `base`."""
    result = dict(base)
    for key, value in overrides.items():
        answer = result.get(key)
        both_objects = isinstance(answer, Mapping) and isinstance(value, Mapping)
        result[key] = merged(answer, value) if both_objects else value  # type: ignore[arg-type]
    return result


@functools.cache
def fetch(suite: str) -> None:
    """Download Orthanc for the suite, if that has not been done; shows progress on standard error."""
    subprocess.run([NATIVE, "fetch", "--suite", suite], check=True, stdin=subprocess.DEVNULL)


class RealOrthanc:
    """One Orthanc process with its data.

        with RealOrthanc("forky", {"Ups": {"Aet": "WORKLIST"}}) as orthanc:
            requests.get(f"{orthanc.base_url}/system")

    Entering starts it and waits until it serves; leaving kills it and deletes its data. In between,
    `stop`, `kill` and `start` act on the same data and the same ports.
    """

    def __init__(
        self,
        suite: str = "forky",
        overrides: Mapping[str, Any] | None = None,
        *,
        script: Path = PLUGIN,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
    ) -> None:
        """Prepare, without starting.

        Args:
            suite: Debian suite whose Orthanc is run: "forky" or "trixie".
            overrides: merged deeply into the base configuration (see `merged`).
            script: what Orthanc's "PythonScript" points to.
            folder: where data, configuration and log are kept; then it is not deleted.
                Default: a temporary folder that is deleted on leaving.
            environment: variables for Orthanc beside the ones of this process.
            options: of Orthanc's command line, such as "--verbose".
            prefix: a command that runs another one, such as "env" with its options, to start Orthanc by.
        """
        self.suite = suite
        self.http_port = free_port()
        self.dicom_port = free_port()
        self.ups_dicom_port = free_port()
        self.ups_http_port = free_port()
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"orthanc-{suite}-"))
        self.log = self.folder / "orthanc.log"
        self.configuration = merged(self._base_configuration(script), overrides or {})
        self._environment = {**os.environ, **(environment or {})}
        self._options = options
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        _made.add(self)

    def _base_configuration(self, script: Path) -> Json:
        data = str(self.folder / "data")
        return {
            "Name": f"orthanc-ups tests on {self.suite}",
            "StorageDirectory": data,
            "IndexDirectory": data,
            "HttpPort": self.http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "DicomModalities": {},
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "CheckRevisions": True,
            "OverwriteInstances": True,
            "Plugins": [PYTHON_PLUGIN],
            "PythonScript": str(script),
            "Python": {"AllowThreads": True},
            "Ups": {
                "Enable": True,
                "BindAddress": "127.0.0.1",
                "DicomPort": self.ups_dicom_port,
                "HttpPort": self.ups_http_port,
            },
        }

    # --- the process ------------------------------------------------------------------------------

    def start(self, timeout: float = 2 * PATIENCE) -> None:
        """Start Orthanc and wait until it answers, and until the plugin listens if it is enabled.

        Raises:
            AssertionError: it ended while starting, or was not up in time (seconds); with its log's end.
        """
        self.launch()
        try:
            wait_until(self._is_ready, lambda: f"Orthanc is up\n{self.log_tail()}", timeout, interval=0.05)
        except BaseException:
            self.end()
            raise

    def launch(self) -> None:
        """Start the process without waiting for anything."""
        assert not self.is_running(), "this Orthanc runs already"
        fetch(self.suite)
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(self.configuration, indent=2))
        run = [str(NATIVE), "run", "--suite", self.suite, *self._options, str(file)]
        command = [*_tied_to_this_process(), *self._prefix, *run]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def stop(self, timeout: float = PATIENCE) -> int:
        """End Orthanc by SIGTERM and return its exit code (0 after a clean stop).

        Orthanc answers requests a moment before it heeds signals; until then SIGTERM would end it like any other
        program. So that is waited for.

        Raises:
            AssertionError: it was still there `timeout` seconds after the signal; then it is killed.
        """
        assert self._process is not None, "this Orthanc was never started"
        wait_until(self._heeds_signals, lambda: f"Orthanc heeds SIGTERM\n{self.log_tail()}", interval=0.005)
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"Orthanc did not end within {timeout:g} s\n{self.log_tail()}") from None

    def _heeds_signals(self) -> bool:
        from orthanc_ups.orthanc.stop_notice import catches  # not needed by those who only fetch programs

        return not self.is_running() or catches(Path(f"/proc/{self.pid}/status").read_text())

    def kill(self) -> None:
        """End Orthanc at once by SIGKILL, as a crash would."""
        assert self._process is not None, "this Orthanc was never started"
        self._process.kill()
        self._process.wait()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until the process has ended by itself, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        assert self._process is not None, "this Orthanc was never started"
        return self._process.wait(timeout)

    def is_running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """Kill the process and its children, if it runs; the data stay."""
        if self._process is None:
            return
        # The group contains Orthanc, or docker/native.sh with its children if Orthanc had not been started yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _is_ready(self) -> bool:
        if not self.is_running():
            code = self._process.returncode if self._process else None
            raise AssertionError(f"Orthanc ended while starting (exit code {code})\n{self.log_tail()}")
        if not self._status(self.http_port, "/system"):
            return False
        ours = Path(self.configuration["PythonScript"]).name == PLUGIN.name  # also that of another checkout
        if not (ours and self.configuration["Ups"]["Enable"]):
            return True
        return self.health() == 200 and is_listening(self.ups_dicom_port)

    def health(self) -> int:
        """The status of the plugin's health route; 0 if it does not answer."""
        return self._status(self.ups_http_port, "/ups/health")

    def _status(self, port: int, path: str) -> int:
        connection = self._connection(port)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _connection(self, port: int) -> http.client.HTTPConnection:
        if self.configuration.get("SslEnabled"):
            unchecked = ssl.create_default_context()
            unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
            return http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=unchecked)
        return http.client.HTTPConnection("127.0.0.1", port, timeout=2)

    # --- its state --------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Orthanc's own REST API, without a slash at the end."""
        scheme = "https" if self.configuration.get("SslEnabled") else "http"
        return f"{scheme}://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        """The process id of Orthanc itself."""
        assert self._process is not None, "this Orthanc was never started"
        return self._process.pid

    def rss(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("Orthanc has ended")

    def log_text(self) -> str:
        """Everything that this Orthanc has logged, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def logs(self, words: str, count: int = 1, since: int = 0) -> str:
        """Wait until the log has these words so many times behind ``since`` characters, and return it from there.

        What Orthanc does and what it writes of it come from several threads: a test that has seen a state or an
        answer cannot rely on the line being there already.

        Raises:
            AssertionError: they did not come.
        """
        wait_until(
            lambda: self.log_text()[since:].count(words) >= count,
            lambda: f"{words!r} stands in the log {count} times\n{self.log_tail()}",
        )
        return self.log_text()[since:]

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    # --- scope ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            AssertionError: as `start`.
        """
        try:
            self.start()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it: a clean stop takes Orthanc 3.5 s. A test of a clean stop calls `stop`."""
        self.discard()

    def discard(self) -> None:
        """Kill it if it runs and delete its temporary folder."""
        self.end()
        _made.discard(self)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


_made: set[RealOrthanc] = set()


@atexit.register
def _discard_all() -> None:
    for orthanc in list(_made):
        orthanc.discard()


def _tied_to_this_process() -> list[str]:
    # The kernel ends Orthanc with the thread that started it, so this is done for the main thread only.
    if threading.current_thread() is not threading.main_thread():
        return []
    return ["setpriv", "--pdeathsig", "KILL", "--"]
