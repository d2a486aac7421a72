# SPDX-License-Identifier: AGPL-3.0-or-later
"""What "PythonScript" of orthanc.json points to: hands Orthanc's Python module to the plugin."""

import orthanc

import orthanc_ups

orthanc_ups.install(orthanc)
