# SPDX-License-Identifier: AGPL-3.0-or-later
"""The durable outbox: every event to every subscriber, in order, at least once.

An event's way: ``outbox`` (what the worklist calls) → ``subscriber`` (which channels tell an AE now) → ``worker``
(one per AE and channel) → ``queue`` (what waits) → a channel → the cursor, which ``cursors`` stores.

What is promised, per AE and channel:

- Each event arrives, or becomes a dead letter (``worker``, ``dead_letters``), or is dropped by an operator.
  A dead letter is stored before the cursor passes it.
- First arrivals are in the order of sequences. A crash repeats what was delivered since the cursor was stored
  (half a second, longer while the store is down); a clean stop repeats nothing. Events that an operator sends
  again come out of order.
- A Progress Report may make way for a newer one of the same workitem (``ReplaceWaitingProgress``), and an SCP
  Status Change for a newer one; the latter is never stored.
- When an AE's only address goes away or a first one comes, what waits moves to the channel that serves it then;
  what was delivered live on a WebSocket meanwhile may then be repeated, late.
- Nobody waits for anybody: not the requester, and no receiver for another.
"""
