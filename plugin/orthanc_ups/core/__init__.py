# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of the UPS service as pure functions: no sockets, threads, clocks, randomness."""
