"""Where algorithms run: each runtime answers what an algorithm awaits."""
