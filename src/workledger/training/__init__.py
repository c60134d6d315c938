"""The training store: records, shards, manifest."""
