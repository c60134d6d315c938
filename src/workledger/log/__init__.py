"""The event log: order, reading, consumers."""
