# SPDX-License-Identifier: AGPL-3.0-or-later
"""Export and import of the whole worklist."""
