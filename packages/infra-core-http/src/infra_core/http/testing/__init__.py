"""`FaultyOrigin`: a web server that misbehaves on request, for tests and demonstrations.

It listens on a free loopback port, in a thread and event loop of its own, speaks HTTP/1.1 with
keep-alive, ranges and conditional requests as a good server would, and breaks exactly the promise
that a script names: one fault is used up per request, then the file is served rightly.

Example:
    A server that fails once and then resets the connection half-way::

        from infra_core.http import fetch
        from infra_core.http.testing import FaultyOrigin, reset_after, status

        with FaultyOrigin() as origin:
            origin.add("/page", b"hello", faults=[status(503, retry_after="0"), reset_after(2)])
            assert fetch(origin.url("/page"), backoff=0.01) == "hello"
            assert origin.count("/page") == 3

Faults (each is a function that returns a `Fault`; join two with `&`):

| fault | what the client sees |
|---|---|
| `status(code, retry_after=...)` | an error status, `Retry-After` in any form |
| `redirect(location)`, `redirect_loop()` | another place, perhaps another origin; no end |
| `hang_up()` | the connection is reset before a status line |
| `reset_after(n)` | a reset after n bytes of the body |
| `truncate(n)` | an orderly close after n bytes, the length said otherwise |
| `stall(after=n)` | n bytes of the body, then nothing, the connection stays open |
| `slow(bytes_per_second)`, `delay(seconds)` | a dripping body; a late answer |
| `lie_length(delta)` | a Content-Length that is wrong by delta |
| `chunked()`, `chunked_early_end(n)` | no length; chunked transfer that ends without its end mark |
| `gzip_encoded()` | a gzip body that was not asked for, with the length of the gzip |
| `corrupt(at)` | right length, one byte changed |
| `change_etag(etag, body=...)` | from now on another version of the file |
| `wrong_range(shift)`, `ignore_range()`, `refuse_range()` | 206 from another offset; 200; 416 |
| `oversized_headers(size)` | headers larger than clients accept |
"""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
