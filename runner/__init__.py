"""Makes an algorithm happen and remembers what happened."""
