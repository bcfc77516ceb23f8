"""Poll until done, never past the deadline: sync, async, and ten thousand jobs at once."""
