# SPDX-License-Identifier: AGPL-3.0-or-later
"""The read model in SQLite that queries are answered from; disposable."""
