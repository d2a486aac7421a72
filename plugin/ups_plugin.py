# SPDX-License-Identifier: AGPL-3.0-or-later
"""What "PythonScript" of orthanc.json points to: hands Orthanc's Python module to the plugin."""

import orthanc

from orthanc_ups.app import Plugin

Plugin(orthanc).register()
