"""Bounded asyncio task runtime, retry policy, sync-over-async and secret redaction."""
