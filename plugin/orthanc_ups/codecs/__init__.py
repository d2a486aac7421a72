# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as DICOM JSON, DICOM XML and single values as text, and back."""
