"""The vocabulary: entities, statuses, changes, ids and canonical JSON. No I/O."""
