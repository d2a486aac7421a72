# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DICOM Unified Procedure Step (UPS) worklist manager inside Orthanc."""

__version__ = "1.0.0"
