"""What to ask a server for, and what to make of its answer: the whole protocol, with no I/O.

A `DownloadPlan` lives as long as one call and sees every attempt. Before each it says which
headers to send; it judges the status and headers that come back, counts the bytes, and at the end
decides whether the file may take its name. It raises when it may not; whether that is worth
another attempt is the retry policy's business.

Sources of the rules: RFC 9110 sections 8.6 (Content-Length), 13.1 (conditions), 14 (ranges),
15.3.7 and 15.5.17 (206 and 416).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra_core.fs import parse_checksum

from .._errors import (
    ChecksumMismatchError,
    DownloadError,
    DownloadTooLargeError,
    IncompleteDownloadError,
)
from .._response.decode import DamagedBody, UnsupportedCoding, codings_of
from ._fields import (
    Digest,
    Part,
    announced_digests,
    content_length,
    content_range,
    disposition_name,
    strong_etag,
)
from ._retrying import status_error

if TYPE_CHECKING:
    from ._result import DownloadSpec

__all__ = ["Body", "DownloadPlan", "Restart", "Resume"]

_OVERHEAD: Final = 1 << 16  # bytes by which an encoded body may be larger than the file
_OURS: Final = frozenset({"accept-encoding", "if-range"})  # headers that are part of the protocol


class Restart(Exception):  # noqa: N818 - an instruction, not an error; never leaves the package
    """The server does not continue the file that we hold a part of: ask for all of it."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A verified beginning of the file, from the version with this strong tag and size."""

    offset: int
    etag: str
    total: int


@dataclass(frozen=True, slots=True)
class Body:
    """A message body that is about to be read, with what the server said of the file."""

    start: int  # offset of its first byte in the file
    length: int | None  # bytes on the wire
    total: int | None  # size of the whole file
    etag_as_sent: str | None  # weak or strong
    last_modified: str | None
    content_type: str | None
    name: str | None
    codings: tuple[str, ...]  # that the server applied though asked not to
    digests: frozenset[Digest]  # of the whole file

    @property
    def resumable(self) -> bool:
        """Whether a part of it can be continued without mixing two versions of the file."""
        return self.resume_at(1) is not None

    def resume_at(self, size: int) -> Resume | None:
        """Return how to ask for the rest after so many bytes; None where all must come again."""
        etag, total = strong_etag(self.etag_as_sent), self.total
        if etag is None or total is None or self.codings or not 0 < size < total:
            return None
        return Resume(size, etag, total)


def _body_of(
    headers: Mapping[str, str],
    part: tuple[int, int | None, int | None],
    *,
    etag: str | None = None,
    codings: tuple[str, ...] = (),
    whole: bool = True,
) -> Body:
    """Return the body with these headers, from `part[0]` up to `part[1]` of `part[2]` bytes."""
    start, stop, total = part
    return Body(
        start=start,
        length=None if stop is None else stop - start,
        total=total,
        etag_as_sent=headers.get("etag", etag),
        last_modified=headers.get("last-modified"),
        content_type=headers.get("content-type"),
        name=disposition_name(headers),
        codings=codings,
        digests=announced_digests(headers, whole=whole),
    )


def _is_of_a_part(part: Part | None, length: int | None) -> bool:
    """Whether a body is a part of the file by all that is said of it, whatever the status.

    Some servers serve the range they were asked for with status 200.
    """
    if part is None or length not in {None, part[1] - part[0]}:
        return False
    start, stop, total = part
    return start > 0 or (total is not None and stop < total)


@dataclass(eq=False, repr=False)
class DownloadPlan:
    """The protocol of one download, over all its attempts.

    With `piece` it asks for a first range of so many bytes, to see whether ranges can be had in
    parallel.
    """

    spec: DownloadSpec
    held: Mapping[str, str] | None = None  # conditions that the whole copy here does not meet
    resume: Resume | None = None  # a verified beginning
    piece: int | None = None
    body: Body | None = None
    wire: int = 0  # bytes of this message body so far
    _asked: tuple[int, int | None] | None = None
    _status: int = 200

    def __post_init__(self) -> None:
        checksum = self.spec.expected_checksum
        self.expected = None if checksum is None else parse_checksum(checksum)

    # -- asking ----------------------------------------------------------------------------------

    @property
    def digest_algorithms(self) -> set[str]:
        """The algorithms that the end of this body will be judged by."""
        if self.expected is not None:
            return {self.expected[0]}
        return set() if self.body is None else {algorithm for algorithm, _ in self.body.digests}

    def expects(self, digests: Mapping[str, str]) -> bool:
        """Whether bytes with these digests are what the caller expects."""
        return self.expected is not None and digests.get(self.expected[0]) == self.expected[1]

    def request_headers(self) -> dict[str, str]:
        """The headers of the next request.

        Always `Accept-Encoding: identity`: an encoded body has another length than the file, and
        ranges of it are of no use.
        """
        given = self.spec.headers
        headers = {name: value for name, value in given.items() if name.lower() not in _OURS}
        headers["Accept-Encoding"] = "identity"
        self._asked, first = None, 0
        if self.resume is not None:
            first = self.resume.offset
            headers["If-Range"] = self.resume.etag
            self._asked = (first, None)
        elif self.held is not None:
            headers.update(self.held)
            return headers
        if self.piece is not None:
            self._asked = (first, first + self.piece - 1)
        if self._asked is not None:
            first, last = self._asked
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
        return headers

    # -- judging ---------------------------------------------------------------------------------

    def judge(self, status: int, headers: Mapping[str, str]) -> Body | None:
        """Return the body of an answer that is to be read; None to keep the copy that we hold.

        Raises:
            Restart: Forget the part that we hold, ask again for everything.
            httpx.HTTPStatusError: The status is not a success.
            DownloadError: The answer is a success, but not one that carries the file, or of a file
                above `max_bytes`.
        """
        self.body, self.wire = None, 0
        if status == 304 and self.held is not None:
            return None
        if status in {412, 416} and self._asked is not None:
            raise Restart(f"{status}: the range does not exist (any more)")
        if not 200 <= status <= 299:
            spec = self.spec
            raise status_error(spec.url, status, headers, spec.policy.max_backoff)
        self._status = status
        part, length = content_range(headers), content_length(headers)
        if status == 206 or _is_of_a_part(part, length):
            body = self._judge_part(headers, part, length)
        else:
            body = self._judge_whole(headers, length)
        if body.total is not None:
            self.check_size(body.total)
        self.body = body
        return body

    def _judge_whole(self, headers: Mapping[str, str], length: int | None) -> Body:
        codings = codings_of([headers.get("content-encoding", "")])
        return _body_of(headers, (0, length, None if codings else length), codings=codings)

    def _judge_part(
        self, headers: Mapping[str, str], part: Part | None, length: int | None
    ) -> Body:
        """Accept a part that begins exactly where it was asked to, in exactly the same file."""
        if self._asked is None:
            if part is not None and part[0] == 0 and part[1] == part[2]:
                return self._judge_whole(headers, part[1])
            raise self.spec.error(
                DownloadError,
                f"answered {self._status} with a part of the file to a request for all of it: the "
                "server is broken, ask its owner",
                expected=200,
                actual=self._status,
            )
        if part is None or codings_of([headers.get("content-encoding", "")]):
            raise Restart("206 without a plain Content-Range")
        start, stop, total = part
        first, last = self._asked
        wanted_stop = total if last is None or total is None else min(last + 1, total)
        if start != first or stop != (wanted_stop or stop) or length not in {None, stop - start}:
            raise Restart(f"206 with another range than {first}-{'' if last is None else last}")
        held = self.resume
        # RFC 9110 13.1.5: a 206 to If-Range is of the same version; it may leave the tag out. One
        # with a weak tag may have other bytes.
        if held is not None and (
            total != held.total or headers.get("etag", held.etag) != held.etag
        ):
            raise Restart("206 of another version of the file")
        etag = None if held is None else held.etag
        body = _body_of(headers, part, etag=etag, whole=start == 0 and stop == total)
        if held is None and stop != total and not body.resumable:
            raise Restart("206 of a file whose version cannot be pinned")
        return body

    # -- counting --------------------------------------------------------------------------------

    def received(self, count: int) -> None:
        """Count bytes as they come; raises where they are too many."""
        self.wire += count
        body = self.body
        if body is not None and body.length is not None and self.wire > body.length:
            raise self.incomplete()
        # An encoded body may be a little larger than the file; its end is judged when decoded.
        self.check_size(self.size - (_OVERHEAD if body is not None and body.codings else 0))

    @property
    def size(self) -> int:
        """Bytes of the file so far, those before the resumed offset included."""
        return self.wire + (0 if self.body is None else self.body.start)

    def check_size(self, size: int) -> None:
        """Raise `DownloadTooLargeError` for a file of that many bytes, if that is too many."""
        limit = self.spec.max_bytes
        if limit is not None and size > limit:
            raise self.spec.error(
                DownloadTooLargeError,
                f"has {size} bytes or more, above max_bytes={limit}: raise max_bytes if the file "
                "is wanted",
                expected=limit,
                actual=size,
            )

    def check_end(self) -> None:
        """Judge a body that has come to its end."""
        if self.body is not None and self.wire < (self.body.length or 0):
            raise self.incomplete()
        if self.wire == 0 and self._status not in {200, 203, 206}:
            problem = f"answered {self._status}, which carries no file: check the URL"
            raise self.spec.error(DownloadError, problem, expected=200, actual=self._status)

    def incomplete(self) -> IncompleteDownloadError:
        """The error for a body that ended before its end, or went on after it."""
        length = None if self.body is None else self.body.length
        of = "bytes and no end of its body" if length is None else f"of {length} bytes"
        return self.spec.error(
            IncompleteDownloadError,
            f"sent {self.wire} {of}: the connection was cut or the server announced a wrong "
            "length; try again later",
            expected="the end of the body" if length is None else length,
            actual=self.wire,
        )

    def check_content(self, digests: Mapping[str, str], as_sent: Mapping[str, str]) -> None:
        """Judge the whole file by its digests.

        The caller's checksum outranks the server's: a caller that knows the right content need not
        trust a header that an uploader may have got wrong.

        Args:
            digests: Algorithm to hex digest, at least for `expected_checksum`. What the server
                announces only with the rest of a resumed file can no longer be computed.
            as_sent: The same of an encoded body. Servers announce the one or the other: RFC 9530
                means the encoded form, what compresses on the way leaves the header as it was.
        """
        if self.expected is not None:
            wanted, source = [self.expected], "expected_checksum"
        else:
            announced = frozenset() if self.body is None else self.body.digests
            wanted, source = sorted(announced), "the server's own digest"
        for algorithm, digest in wanted:
            actual = digests.get(algorithm)
            if actual in {None, digest} or digest == as_sent.get(algorithm):
                continue
            raise self.spec.error(
                ChecksumMismatchError,
                f"has the checksum {algorithm}:{actual}, but {source} is {algorithm}:{digest}: "
                "altered on its way, or changed on purpose; in that case update the checksum",
                expected=f"{algorithm}:{digest}",
                actual=f"{algorithm}:{actual}",
            )

    def damaged(self, error: DamagedBody) -> DownloadError:
        """The error for an encoded body that cannot be decoded."""
        name = ", ".join(self.body.codings if self.body else ())
        if isinstance(error, UnsupportedCoding):
            problem = (
                f"came with Content-Encoding {name!r} though identity was asked for, and cannot be "
                f"decoded: {error}"
            )
            return self.spec.error(DownloadError, problem, expected="identity", actual=name)
        return self.spec.error(
            IncompleteDownloadError,
            f"sent a body that is not whole or not {name} ({error}): try again later",
            expected=f"a whole {name} body",
            actual=f"{self.wire} bytes",
        )

    # -- what the next attempt starts from -------------------------------------------------------

    def start_over(self) -> None:
        """Let the next request ask for everything: what is held is not to be trusted."""
        self.resume = self.piece = self.body = None

    def continue_from(self, size: int) -> None:
        """Let the next request ask for what is missing where the version can be pinned."""
        if self.body is not None:  # else there was no other answer since the last call
            self.resume = self.body.resume_at(size)
