"""The asyncio helper of 0.7; it lives in `infra_core.runtime`."""

from infra_core.runtime import LoopBoundAsyncLock

__all__ = ["LoopBoundAsyncLock"]
