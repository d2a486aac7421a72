# SPDX-License-Identifier: AGPL-3.0-or-later
"""The management API ``/ups/api`` and the page ``/ups/app``, for operators."""
