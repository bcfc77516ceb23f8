"""Atomic, fsynced file writes, checksums, safe joins and media types for Python services."""
