"""Our retry policy in the SDK's pipeline, where it is the only one.

The SDK's own waits up to 18 s before the first retry, counts refused connections, lost answers and
5xx apart (three of each, whatever `retry_total` says), and knows no bound of the whole.
"""

from typing import Any

from azure.storage.blob import ExponentialRetry
from azure.storage.blob.aio import ExponentialRetry as AsyncExponentialRetry
from infra_core.runtime import clock, is_permanent_transport_error

from ._settings import TransferOptions

__all__ = ["AsyncSdkRetry", "SdkRetry"]


class _Policy:
    """What the synchronous and the asynchronous policy share: all but sleeping.

    The SDK's two classes, of which one comes next in the order of bases, have these methods in
    common, and no base that says so.
    """

    def __init__(self, options: TransferOptions) -> None:
        self.options = options
        names = ("retry_total", "retry_connect", "retry_read", "retry_status")
        super().__init__(**dict.fromkeys(names, options.max_retries))

    def configure_retries(self, request: Any) -> dict[str, Any]:
        """Begin to count."""
        sdk: Any = super()
        settings: dict[str, Any] = sdk.configure_retries(request)
        settings["started"] = clock.monotonic()
        settings["transport"] = request.context.options
        self._limit(settings)
        return settings

    def _limit(self, settings: dict[str, Any], wait: float = 0.0) -> None:
        """Let no attempt outlive the deadline: it gets what is left of it."""
        options = self.options
        if options.deadline is None:
            return
        left = options.deadline - (clock.monotonic() - settings["started"]) - wait
        transport = settings["transport"]
        for name, usual in (
            ("connection_timeout", options.connect_timeout),
            ("read_timeout", options.timeout),
        ):
            transport[name] = max(0.001, min(left, transport.get(name) or usual))

    def increment(self, settings: dict[str, Any], request: Any, response: Any = None,
                  error: Any = None) -> bool:  # fmt: skip
        """Whether there is another try."""
        sdk: Any = super()
        if not sdk.increment(settings, request, response, error):
            return False
        if error is not None and is_permanent_transport_error(error):
            return False
        wait = self.options.retry_policy.next_wait(
            retry=settings["count"] - 1, elapsed=clock.monotonic() - settings["started"]
        )
        if wait is None:
            return False
        settings["wait"] = wait
        self._limit(settings, wait)
        return True


class SdkRetry(_Policy, ExponentialRetry):
    """The policy of synchronous clients."""

    def sleep(self, settings: dict[str, Any], transport: Any) -> None:
        """Wait for it."""
        clock.sleep(settings["wait"])


class AsyncSdkRetry(_Policy, AsyncExponentialRetry):
    """The policy of asynchronous clients."""

    async def sleep(self, settings: dict[str, Any], transport: Any) -> None:
        """Wait for it."""
        await clock.sleep_async(settings["wait"])
