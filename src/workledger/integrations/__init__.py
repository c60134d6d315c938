"""Other frameworks, one file each."""
