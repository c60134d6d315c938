"""The arrows between the stores, one file each."""
