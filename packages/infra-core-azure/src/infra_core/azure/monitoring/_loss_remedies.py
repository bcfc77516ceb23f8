"""What to do when telemetry is lost, by the reason that it is counted under."""

__all__ = ["loss_remedy"]

# By the beginning of a reason.
_REMEDIES = (
    ("queue_full", "they come faster than they leave: raise SenderLimits.queue_items"),
    ("quota", "the quota or daily cap of Application Insights is used up: raise it in the portal"),
    ("retries_exhausted", "check the network and the IngestionEndpoint of the connection string"),
    ("http_413", "make the events smaller"),
    ("http_", "check the connection string: key and endpoint must be of one resource"),
    ("item_", "check the connection string: key and endpoint must be of one resource"),
    ("closed", "track no events after close()"),
    ("unencodable", "the log has the error of each"),
)  # fmt: skip


def loss_remedy(reason: str) -> str:
    """Return what to do about events that were lost for this reason."""
    found = (remedy for sign, remedy in _REMEDIES if reason.startswith(sign))
    return next(found, "the log has the cause")
