"""Whatever a server does in whatever order: the file on the disk is the source, or it is absent."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from infra_core.http import DownloadError
from infra_core.http.assets import download_asset
from infra_core.http.download import _sidecar, _transfer
from infra_core.http.testing import (
    Fault,
    FaultyOrigin,
    chunked,
    chunked_early_end,
    corrupt,
    delay,
    gzip_encoded,
    hang_up,
    ignore_range,
    lie_length,
    refuse_range,
    reset_after,
    stall,
    status,
    truncate,
    wrong_range,
)
from infra_core.runtime.testing import fast_time

SIZE = 40_000
BODY = os.urandom(SIZE)
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
offsets = st.integers(0, SIZE)

single: st.SearchStrategy[Fault] = st.one_of(
    st.sampled_from([429, 500, 503, 404, 204, 206, 304, 416]).map(status),
    st.builds(hang_up),
    offsets.map(reset_after),
    offsets.map(truncate),
    offsets.map(chunked_early_end),
    offsets.map(corrupt),
    st.integers(-SIZE, SIZE).map(lie_length),
    st.integers(-SIZE, SIZE).map(wrong_range),
    st.builds(gzip_encoded),
    st.builds(chunked),
    st.builds(ignore_range),
    st.builds(refuse_range),
    st.builds(delay, st.just(0.0)),
    st.sampled_from([None, 0, 20_000]).map(stall),
)
scripts = st.lists(st.one_of(single, st.builds(lambda a, b: a & b, single, single)), max_size=6)


@pytest.fixture(scope="module")
def origin() -> Iterator[FaultyOrigin]:
    """One origin for all scripts."""
    logging.getLogger("infra_core.asset_client").disabled = True
    with FaultyOrigin() as server:
        yield server
    logging.getLogger("infra_core.asset_client").disabled = False


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    script=scripts,
    etag=st.sampled_from(['"v1"', 'W/"v1"', None]),
    connections=st.sampled_from([1, 3]),
    keep_partial=st.booleans(),
    calls=st.integers(1, 3),
)
def test_the_file_is_the_source_or_absent(
    origin: FaultyOrigin,
    monkeypatch: pytest.MonkeyPatch,
    script: list[Fault],
    etag: str | None,
    connections: int,
    keep_partial: bool,
    calls: int,
) -> None:
    """Random faults, retries, resumed parts and ranges: never a wrong byte under the name."""
    monkeypatch.setattr(_transfer, "PIECE", 9_000)
    monkeypatch.setattr(_sidecar, "CHECKPOINT", 5_000)
    origin.add("/f", BODY, etag=etag, faults=script)
    # What no client can see without knowing the content: altered bytes of the right length, a
    # body cut to the length that is announced for it, a gzip within a gzip.
    unseen = any(
        "corrupt" in fault.name or "lie" in fault.name or fault.name.count("gzip") > 1
        for fault in script
    )
    with tempfile.TemporaryDirectory() as folder, fast_time():
        dest = Path(folder) / "f"
        for _ in range(calls):
            try:
                download_asset(
                    origin.url("/f"),
                    dest,
                    expected_checksum=CHECKSUM if unseen else None,
                    timeout=0.1,
                    max_retries=2,
                    connections=connections,
                    keep_partial=keep_partial,
                    durable=False,
                    min_speed=0,
                )
            except (httpx.HTTPError, DownloadError):
                assert not dest.exists()
            else:
                assert dest.read_bytes() == BODY
                break
        others = [path.name for path in Path(folder).iterdir() if path != dest]
        assert not others or (keep_partial and not dest.exists())
