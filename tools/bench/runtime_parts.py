"""What the small parts of `infra_core.runtime` cost, each against the plain way of doing it.

Promises: `trace_fields` under 1 µs where OpenTelemetry is not used; redaction linear in the length
of the text.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from infra_core.runtime import LoopLocal, redact_secrets, run_sync, sanitize_url, trace_fields

ROUNDS = 7
PLAIN = "2026-01-01 12:00:00 INFO nothing to see in this line, which is as long as they are"
SECRET = "2026-01-01 12:00:00 WARNING GET https://a.example/f?code=abc&id=7 failed, attempt 3"
URL = "https://a.example/container/file.png?sv=2024-08-04&se=2026-01-01&sig=abc%2Fdef%3D"


async def nothing() -> None:
    """What the round trips carry."""


async def close(value: object) -> None:
    """How a value is closed that needs none."""


async def loop_local() -> float:
    """Return microseconds that one look-up takes."""
    values = LoopLocal(object, close)
    return micros(values.get, 20_000)


def micros(call: Callable[[], object], calls: int) -> float:
    """Return microseconds a call, the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, time.perf_counter() - started)
    return best / calls * 1e6


def main() -> int:
    """Print every figure; return 1 when one is over its budget."""
    sys.modules.pop("opentelemetry.trace", None)
    figures = {
        "trace_fields, no OpenTelemetry": micros(trace_fields, 20_000),
        "redact_secrets, no secret": micros(lambda: redact_secrets(PLAIN), 2_000),
        "redact_secrets, one secret": micros(lambda: redact_secrets(SECRET), 2_000),
        "redact_secrets, 100 kB": micros(lambda: redact_secrets(SECRET * 1_200), 1),
        "redact_secrets, 200 kB": micros(lambda: redact_secrets(SECRET * 2_400), 1),
        "sanitize_url": micros(lambda: sanitize_url(URL), 2_000),
        "LoopLocal.get": asyncio.run(loop_local()),
        "run_sync": micros(lambda: run_sync(nothing()), 200),
        "asyncio.run": micros(lambda: asyncio.run(nothing()), 20),
    }
    for name, figure in figures.items():
        print(f"{name:32}{figure:12.2f} µs")
    checks = {
        "trace_fields costs 1 µs or more": figures["trace_fields, no OpenTelemetry"] < 1.0,
        "redaction is not linear": figures["redact_secrets, 200 kB"]
        < 3.0 * figures["redact_secrets, 100 kB"],
    }
    for failure in (text for text, kept in checks.items() if not kept):
        print(failure, file=sys.stderr)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
