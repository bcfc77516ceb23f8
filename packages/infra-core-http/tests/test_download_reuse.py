"""When a file that is there already is returned, asked about, or replaced."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.http.assets import AssetDownloadClient, download_asset
from infra_core.http.download._identity import SourceLabel, read_label, url_identity, write_label
from infra_core.http.testing import FaultyOrigin, status

pytestmark = pytest.mark.as_windows

BODY = b"the file as it is on the server"
DIGEST = hashlib.sha256(BODY).hexdigest()


def has_attributes(folder: Path) -> bool:
    probe = folder / "probe"
    probe.touch()
    write_label(probe, SourceLabel("x", 0))
    found = read_label(probe) is not None
    probe.unlink()
    return found


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        server.add("/f.png", BODY, etag='"v1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
        yield server


@pytest.fixture
def labelled(tmp_path: Path) -> None:
    """Skip where the file system has no extended attributes."""
    if not has_attributes(tmp_path):
        pytest.skip("no extended attributes here: files have no label")


def test_a_file_that_is_there_is_returned_without_a_request(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """0.7's skip_if_exists: the file is kept, its checksum computed."""
    dest = tmp_path / "f.png"
    dest.write_bytes(b"mine")
    result = download_asset(origin.url("/f.png"), dest)
    assert result.reused
    assert result.checksum == f"sha256:{hashlib.sha256(b'mine').hexdigest()}"
    assert (result.mime, result.size, result.attempts) == ("image/png", 4, 0)
    assert result.http_status is None
    assert origin.requests == []
    assert download_asset(origin.url("/f.png"), dest, compute_checksum=False).checksum is None


def test_it_is_replaced_when_asked(origin: FaultyOrigin, tmp_path: Path) -> None:
    """skip_if_exists=False downloads."""
    dest = tmp_path / "f.png"
    dest.write_bytes(b"mine")
    assert not download_asset(origin.url("/f.png"), dest, skip_if_exists=False).reused
    assert dest.read_bytes() == BODY


def test_an_empty_file_is_never_reused(origin: FaultyOrigin, tmp_path: Path) -> None:
    """It is what a crash of another program leaves."""
    (tmp_path / "f.png").touch()
    assert not download_asset(origin.url("/f.png"), tmp_path / "f.png").reused
    assert (tmp_path / "f.png").read_bytes() == BODY


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha512"])
def test_expected_checksum_decides(origin: FaultyOrigin, tmp_path: Path, algorithm: str) -> None:
    """Right content is reused wherever it came from; wrong content is fetched again."""
    expected = f"{algorithm}:{hashlib.new(algorithm, BODY).hexdigest()}"
    dest = tmp_path / "f.png"
    dest.write_bytes(b"stale")
    first = download_asset(origin.url("/f.png"), dest, expected_checksum=expected)
    second = download_asset(origin.url("/other"), dest, expected_checksum=expected)
    assert (first.reused, second.reused) == (False, True)
    assert first.checksum == second.checksum == f"sha256:{DIGEST}"


@pytest.mark.usefixtures("labelled")
def test_a_file_of_another_url_is_not_reused(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No two URLs share a path silently: the second gets its own content, and a warning says so."""
    origin.add("/g.png", b"another file")
    dest = tmp_path / "f.png"
    download_asset(origin.url("/f.png"), dest)
    with caplog.at_level(logging.WARNING, "infra_core.asset_client"):
        assert not download_asset(origin.url("/g.png"), dest).reused
    assert dest.read_bytes() == b"another file"
    assert "unique_asset_path" in caplog.text


def test_a_download_is_reused_by_its_own_url(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The second call makes no request, nor does one with a new signature or a fragment."""
    dest = tmp_path / "f.png"
    url = origin.url("/f.png")
    download_asset(url + "?sv=1&sig=abc", dest)
    for same in ("?sv=1&sig=abc", "?sig=def&sv=2", "#top"):
        assert download_asset(url + same, dest).reused
    assert len(origin.requests) == 1


@pytest.mark.usefixtures("labelled")
def test_revalidation_asks_and_keeps_what_is_current(origin: FaultyOrigin, tmp_path: Path) -> None:
    """304 keeps the file; another version is fetched."""
    dest = tmp_path / "f.png"
    url = origin.url("/f.png")
    download_asset(url, dest)
    kept = download_asset(url, dest, revalidate=True)
    assert (kept.reused, kept.attempts, kept.etag) == (True, 1, '"v1"')
    assert kept.checksum == f"sha256:{DIGEST}"
    assert origin.requests[-1].headers["If-None-Match"] == '"v1"'
    origin.add("/f.png", b"version 2", etag='"v2"')
    assert not download_asset(url, dest, revalidate=True).reused
    assert dest.read_bytes() == b"version 2"
    assert download_asset(url, dest, revalidate=True, skip_if_exists=False).reused


@pytest.mark.usefixtures("labelled")
def test_revalidation_by_date(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A server without ETags is asked with If-Modified-Since."""
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    origin.add("/d", BODY, last_modified=date)
    download_asset(origin.url("/d"), tmp_path / "d")
    assert download_asset(origin.url("/d"), tmp_path / "d", revalidate=True).reused
    assert origin.requests[-1].headers["If-Modified-Since"] == date


@pytest.mark.parametrize("why", ["altered", "no label", "no validators", "another url"])
def test_revalidation_fetches_what_it_cannot_ask_about(
    origin: FaultyOrigin, tmp_path: Path, why: str
) -> None:
    """Without proof that the file is what the server knows, the request is unconditional."""
    dest = tmp_path / "f"
    origin.add("/plain", BODY)
    path = "/plain" if why == "no validators" else "/f.png"
    download_asset(origin.url("/f.png" if why == "another url" else path), dest)
    if why == "altered":
        with dest.open("r+b") as file:
            file.write(b"X")
    elif why == "no label":
        content = dest.read_bytes()
        dest.unlink()
        dest.write_bytes(content)
    elif why == "another url":
        path = "/plain"
    result = download_asset(origin.url(path), dest, revalidate=True)
    assert not result.reused
    assert dest.read_bytes() == BODY
    assert "If-None-Match" not in origin.requests[-1].headers


@pytest.mark.usefixtures("labelled")
def test_a_304_that_fails_first_is_retried(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Revalidation has the same retries."""
    dest = tmp_path / "f"
    download_asset(origin.url("/f.png"), dest)
    origin.script("/f.png", status(503))
    assert download_asset(origin.url("/f.png"), dest, revalidate=True, backoff=0.001).attempts == 2


@pytest.mark.usefixtures("labelled")
def test_the_label_holds_no_url(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A digest names the source, so no secret of a URL is stored."""
    download_asset(origin.url("/f.png?code=S3CRET"), tmp_path / "f")
    raw = os.getxattr(tmp_path / "f", "user.infra_core.source")
    assert b"S3CRET" not in raw
    assert b"127.0.0.1" not in raw


def test_without_attributes_a_file_is_like_any_other(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no label can be kept, 0.7's behaviour is left."""
    monkeypatch.delattr(os, "setxattr", raising=False)
    monkeypatch.delattr(os, "getxattr", raising=False)
    download_asset(origin.url("/f.png"), tmp_path / "f")
    assert download_asset(origin.url("/other"), tmp_path / "f").reused


async def test_a_copy_that_the_caller_holds_is_asked_about(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """By its tag, else by its date; what is current is not written, what is not is downloaded."""
    client, url, dest = AssetDownloadClient(), origin.url("/f.png"), tmp_path / "f"
    monday = "Mon, 01 Jan 2024 00:00:00 GMT"
    for tag, date in [('"v1"', None), (None, monday), ('"v1"', "junk")]:
        result = await client.download(url, dest, if_none_match=tag, if_modified_since=date)
        assert (result.reused, result.attempts, dest.exists()) == (True, 1, False)
    result = await client.download(url, dest, if_none_match='"v0"', if_modified_since=monday)
    assert not result.reused
    assert dest.read_bytes() == BODY


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("http://h/a#x", "http://h/a", True),
        ("http://h/a?id=1", "http://h/a?id=2", False),
        ("http://h/a?key=1", "http://h/a?key=2", False),
        ("https://h/a", "http://h/a", False),
        ("https://b/c?sv=1&se=2024&sr=b&sig=x", "https://b/c?sv=2&se=2025&sr=b&sig=y", True),
        ("https://b/c?se=1", "https://b/c?se=2", False),
        ("https://b/c?id=1&sig=x", "https://b/c?id=2&sig=x", False),
        ("https://s3/c?X-Amz-Date=1&X-Amz-Signature=2", "https://s3/c?X-Amz-Signature=3", True),
        ("https://g/c?X-Goog-Expires=1&X-Goog-Signature=2", "https://g/c?X-Goog-Signature=3", True),
        ("https://c/f?Expires=1&Signature=2&Key-Pair-Id=3", "https://c/f?Signature=4", True),
        ("http://[bad", "http://[bad", True),
    ],
)
def test_identity_of_urls(one: str, two: str, same: bool) -> None:
    """Signatures and fragments do not name a file; everything else does."""
    assert (url_identity(one) == url_identity(two)) is same


@pytest.mark.posix(reason="extended attributes")
def test_a_giant_etag_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label always fits, and is whole where it does."""
    kept: dict[Path, bytes] = {}
    monkeypatch.setattr(
        os, "setxattr", lambda path, _, value: kept.update({path: value}), raising=False
    )
    monkeypatch.setattr(os, "getxattr", lambda path, _: kept[path], raising=False)
    small, giant = (SourceLabel("x", 1, etag=f'"{"e" * size}"') for size in (1500, 5000))
    for path, label in ((tmp_path / "small", small), (tmp_path / "giant", giant)):
        write_label(path, label)
    assert read_label(tmp_path / "small") == small
    assert read_label(tmp_path / "giant") == SourceLabel("x", 1)
