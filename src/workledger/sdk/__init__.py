"""What a recording program touches."""
