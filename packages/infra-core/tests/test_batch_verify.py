"""A file is kept where it is what its job recorded, and inside of the run's folder."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from infra_core.batch._starting import Verifier, contradicts

pytestmark = pytest.mark.as_windows


def stored(path: str, body: bytes = b"body", **facts: Any) -> dict[str, Any]:
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return {"path": path, "checksum": checksum, "size": len(body), **facts}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("run/assets/a/f", "run/assets/a/b/c/f", "run/f", "outside/f"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"body")
    (tmp_path / "run" / "assets" / "link").symlink_to(tmp_path / "outside")
    return tmp_path / "run"


@pytest.mark.parametrize("path", ["assets/a/f", "assets/a/b/c/f"])
def test_what_is_as_recorded_is_intact(path: str, run: Path) -> None:
    """Also in the three levels of folders of 1.0, which recorded no size."""
    verifier = Verifier(run)
    assert verifier.is_intact(stored(path))
    assert verifier.is_intact(stored(path, size=None))
    (run / path).write_bytes(b"BODY")
    assert not verifier.is_intact(stored(path))


@pytest.mark.parametrize(
    "payload",
    [
        stored("assets/a/none"),
        stored("assets/none/f"),
        stored("assets/a"),
        stored("assets/a/.."),
        stored("assets/link/f"),
        stored("assets/../../outside/f"),
        stored("../outside/f"),
        stored("..", size=None),
        stored("/etc/hostname", size=None),
        stored("assets/a/f", size=3),
        stored("assets/a/f", checksum="odd"),
        stored("assets/a/f", body=b"body", checksum=None),
        {"checksum": "sha256:00"},
        {},
    ],
)
def test_what_is_not_or_lies_outside_is_not(payload: dict[str, Any], run: Path) -> None:
    """Of every writer of the record."""
    assert not Verifier(run).is_intact(payload)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, False),
        ("sha256:" + hashlib.sha256(b"body").hexdigest().upper(), False),
        ("md5:" + "0" * 32, False),
        ("sha256:" + "0" * 64, True),
    ],
)
def test_a_list_contradicts_a_checksum_of_the_same_algorithm_alone(
    listed: str | None, expected: bool
) -> None:
    """Of another, it takes the file to see."""
    assert contradicts(stored("assets/a/f"), listed) is expected
    assert not contradicts({}, listed)
