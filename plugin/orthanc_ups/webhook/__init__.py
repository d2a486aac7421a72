# SPDX-License-Identifier: AGPL-3.0-or-later
"""Event reports as HTTP requests to configured URLs."""
