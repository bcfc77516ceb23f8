"""Fetch and download by the thousand: retries that are honest, files that are verified."""
