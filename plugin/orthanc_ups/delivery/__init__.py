# SPDX-License-Identifier: AGPL-3.0-or-later
"""The durable outbox: every event to every subscriber, in order, at least once.

The path of an event: ``outbox`` (called by the worklist) → ``subscriber`` (the channels that serve an AE now) →
``worker`` (one per AE and channel) → ``queue`` (waiting events) → a channel → the cursor, stored by ``cursors``.

Guarantees, per AE and channel:

- Each event arrives, or becomes a dead letter (``worker``, ``dead_letters``), or is dropped by an operator.
  A dead letter is stored before the cursor passes it.
- First arrivals are in the order of sequences. A crash repeats what was delivered since the cursor was last stored
  (half a second or so, longer with many subscribers or while the store is down); a clean stop repeats nothing.
  Events that an operator resends arrive out of order.
- A newer Progress Report may replace a waiting one of the same workitem (``ReplaceWaitingProgress``), and a newer
  SCP Status Change a waiting one; SCP Status Changes are never stored.
- When an AE loses its only address or gets its first, waiting events move to the channel that serves it from then
  on; what was delivered live on a WebSocket in between may be repeated late.
- Requesters do not wait for deliveries, and receivers do not wait for each other.
"""
