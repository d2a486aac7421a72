# SPDX-License-Identifier: AGPL-3.0-or-later
"""What "PythonScript" of orthanc.json points to: hands Orthanc's Python module to the plugin."""

import orthanc

from orthanc_ups.orthanc import fresh_process

fresh_process.ensure(orthanc.LogWarning)

from orthanc_ups.app import Plugin  # noqa: E402  # not before it is known that this process is fresh

Plugin(orthanc).register()
