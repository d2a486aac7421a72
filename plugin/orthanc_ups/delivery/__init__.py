# SPDX-License-Identifier: AGPL-3.0-or-later
"""The durable outbox: every event to every subscriber, in order, at least once."""
