"""What an answer means: pure functions that the sync half, the async half and downloads share."""

__all__: list[str] = []
