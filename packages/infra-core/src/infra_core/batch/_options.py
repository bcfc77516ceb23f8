"""How a batch is run: every setting once, with its meaning, unit and bounds."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from math import inf
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from infra_core._start import MOST_PROCESSES

from ._errors import BatchError
from ._items import is_host, why_no_headers
from ._names import check_layout, names_by_content

__all__ = ["BatchOptions", "why_no_prefix"]

_MOMENT = 0.001  # seconds


def _number(default: Any, least: float, most: float = inf) -> Any:
    """A field with its bounds; whether it is a whole number says its annotation."""
    return field(default=default, metadata={"bounds": (least, most)})


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How a batch is run.

    Attributes:
        batch_id: Name of the batch and of its folder: letters, digits, '.', '_' and '-'.
        out: Output folder; the batch's own lies in it.
        resume: Continue a batch that exists: keep what passes its checksum.
        concurrency: Downloads at a time, in each process.
        processes: Processes that download; at most two a core, or 64. With `"auto"` the batch has
            more than one on Linux, for a new and long list whose length can be seen, where nothing
            is to be bounded or kept for the whole run: one for 16 downloads at a time, at most one
            a core and four, which share the concurrency. What they log does not come back.
        task_timeout: Seconds for one URL, retries included, once `max_per_host` and `rate_per_host`
            let it begin.
        deadline: Seconds for the whole run; then it ends as after a signal.
        grace: Seconds that downloads in flight get to end after a signal or an early end.
        timeout: Seconds to wait for a connection, and for each next piece of a body.
        retries: Attempts after the first one for each URL: after a connection that broke or a file
            that was cut short, and after 408, 425, 429, 500, 502 to 504, 520 to 524 and 529.
        backoff: Seconds that the wait before the first retry is at most; doubled for each more.
        min_speed: Bytes a second below which a server counts as stalled; 0 for no bound.
        max_bytes: Largest file accepted, None for any.
        max_failures: Failed URLs after which the run ends early, None for any number.
        max_per_host: Downloads at a time from one host by the whole run, None for any number.
        rate_per_host: Requests begun a second at one host by the whole run, None for any number.
        limit_rate: Bytes downloaded a second by the whole run, None for any number. Of these three
            each process (`processes`), or each worker of a cluster that is there when the run
            begins, gets an equal share; of `max_per_host` at least one download.
        headers: Request headers for every URL; never recorded.
        host_headers: Request headers by host name (`example.com`, or `example.com:8443`).
        bearer_file: File with a token for `Authorization: Bearer`, for every URL; files of
            credentials are read when the batch starts.
        host_bearer_files: Such files by host name.
        netrc: File with logins by host, as curl and ftp read it; its `default` is sent to no host.
        no_netrc: Send no login of the user's own `~/.netrc` (or `$NETRC`). Otherwise one is sent to
            each host that it names, where nothing else brings credentials; `default` never.
        user_agent: The User-Agent header.
        proxy: URL of the proxy for all requests, in place of what the environment says.
        public_only: Refuse private, loopback and link-local addresses.
        dask: Address of a Dask scheduler whose workers download, such as `tcp://scheduler:8786`.
        scratch: Folder of each worker's own for files that are mirrored and then removed; without
            it, `out` must be shared by all workers. Needs storage to be configured.
        layout: How files are named below `assets`: `hashed`, `url` or `flat`, or a template with
            `{host}`, `{path}`, `{name}`, `{stem}`, `{ext}`, `{digest}` (of the URL), `{sha256}`
            (of the content), `{index}`.
        revalidate: Continue a batch that exists, and ask the server for each file that is here
            whether it is current (ETag, Last-Modified); one that has changed is replaced.
        content_disposition: Name files as the server says (Content-Disposition, RFC 6266); where it
            says nothing, or the item has a name of its own, as without.
        adjust_extension: Give files without an extension the one of the media type that they were
            served with.
        only_failed: With `resume`, try only what failed before.
        verify_mirror: With `resume`, ask the container for each file that counts as mirrored.
        skip_malformed: Entries of the list that are not URLs do not make the batch incomplete.
        cookies: A cookie jar (`http.cookiejar.CookieJar`) that all requests share, or the path of a
            file with cookies in Netscape's format, as browsers and curl write it.
        mirror: Upload files where storage is configured.
        mode: Storage mode (`strict`, `best-effort`, `dev-skip`); None for what the environment
            says.
        prefix: Read `PREFIX_AZURE_*` in place of `AZURE_*`.

    Raises:
        BatchError: A setting is out of its bounds; the message names it.
    """

    batch_id: str
    out: Path
    resume: bool = False
    concurrency: int = _number(8, 1, 10_000)
    processes: int | Literal["auto"] = _number(1, 1, MOST_PROCESSES)
    task_timeout: float = _number(300.0, _MOMENT)
    deadline: float | None = _number(None, _MOMENT)
    grace: float = _number(10.0, _MOMENT)
    timeout: float = _number(60.0, _MOMENT)
    retries: int = _number(4, 0)
    backoff: float = _number(1.0, _MOMENT)
    min_speed: float = _number(1024.0, 0)
    max_bytes: int | None = _number(None, 0)
    max_failures: int | None = _number(None, 0)
    max_per_host: int | None = _number(None, 1)
    rate_per_host: float | None = _number(None, 0.000_001)
    limit_rate: float | None = _number(None, 1)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    host_headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    bearer_file: Path | None = None
    host_bearer_files: Mapping[str, Path] = field(default_factory=dict)
    netrc: Path | None = None
    no_netrc: bool = False
    user_agent: str | None = None
    proxy: str | None = field(default=None, repr=False)
    public_only: bool = False
    dask: str | None = None
    scratch: Path | None = None
    layout: str = "hashed"
    revalidate: bool = False
    content_disposition: bool = False
    adjust_extension: bool = False
    only_failed: bool = False
    verify_mirror: bool = False
    skip_malformed: bool = False
    cookies: Any = field(default=None, repr=False)
    mirror: bool = True
    mode: str | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None or each.default is not None:
                check = self._check_number if "bounds" in each.metadata else self._check_kind
                check(each, value)
        if self.dask is not None and self.processes not in (1, "auto"):
            raise BatchError("give either dask or processes: a cluster has processes of its own")
        self._check_headers()
        # any mapping will do, and not all of them can be sent to another process
        hosts = {host: dict(headers) for host, headers in self.host_headers.items()}
        object.__setattr__(self, "headers", dict(self.headers))
        object.__setattr__(self, "host_headers", hosts)
        tokens = {host: Path(path) for host, path in self.host_bearer_files.items()}
        object.__setattr__(self, "host_bearer_files", tokens)
        self._check_proxy()
        check_layout(self.layout)
        by_content = names_by_content(self.layout)
        if self.scratch is not None and (
            self.content_disposition or self.adjust_extension or by_content
        ):
            raise BatchError(
                "scratch (--scratch) mirrors a file as soon as it is here, under a name that is "
                "known before: leave out content_disposition, adjust_extension and {sha256}, or "
                "share the folder"
            )
        if self.revalidate:
            if by_content:
                raise BatchError(
                    "revalidate replaces files under the names that they have, and {sha256} names "
                    "another content then: leave {sha256} out of the layout"
                )
            if self.only_failed:
                raise BatchError(
                    "revalidate asks for what is here, only_failed for what is not: choose one of "
                    "--revalidate and --only failed"
                )
            object.__setattr__(self, "resume", True)
        if (self.only_failed or self.verify_mirror) and not self.resume:
            name = "only_failed (--only)" if self.only_failed else "verify_mirror (--verify-mirror)"
            raise BatchError(
                f"{name} looks at what an earlier run left: it needs resume (--resume) as well"
            )
        if self.prefix and (why := why_no_prefix(self.prefix)):
            raise BatchError(f"prefix {why}")

    def _check_kind(self, each: "Field[Any]", value: Any) -> None:
        """Refuse what is of another kind than its field; the name of a file becomes a path."""
        kind = str(each.type)
        if each.name == "cookies" and not isinstance(value, (str, PathLike)):
            fits, wanted = isinstance(value, Iterable), "a cookie jar or a path"
            fits = fits and not isinstance(value, bytes)
        elif "Mapping" in kind:
            fits, wanted = isinstance(value, Mapping), "a mapping"
        elif "Path" in kind or each.name == "cookies":
            fits, wanted = isinstance(value, (str, PathLike)) and value != "", "a path"
            if fits:
                object.__setattr__(self, each.name, Path(value))
        else:
            fits, wanted = "str" not in kind or isinstance(value, str), "a string"
        if not fits:
            got = "an empty one" if value == "" else type(value).__name__
            raise BatchError(f"{each.name} must be {wanted}, got {got}")

    def _check_number(self, each: "Field[Any]", value: Any) -> None:
        named = "auto" if "auto" in str(each.type) else each.default
        if value == named == "auto":
            return
        least, most = each.metadata["bounds"]
        whole = "int" in str(each.type)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not fits or value == inf or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            bounds = "above 0" if least == _MOMENT else f"of at least {least:g}"
            if isinstance(value, (int, float)) and value > most:
                bounds = f"of at most {most:g}"
            other = f", or {named!r}" if named in (None, "auto") else ""
            raise BatchError(f"{each.name} must be {kind} {bounds}{other}, got {value!r}")

    def _check_headers(self) -> None:
        """Refuse now what no request could carry: each would fail, after all is set up."""
        for host in (*self.host_headers, *self.host_bearer_files):
            if not is_host(host):
                raise BatchError(
                    f"{'host_headers' if host in self.host_headers else 'host_bearer_files'}: "
                    f"{host!r} names no host; pass one such as 'example.com', or "
                    "'example.com:8443'"
                )
        given = [("headers (--header)", self.headers)]
        given += [(f"host_headers of {host}", each) for host, each in self.host_headers.items()]
        if self.user_agent is not None:
            given.append(("user_agent (--user-agent)", {"User-Agent": self.user_agent}))
        for name, headers in given:
            if headers and (why := why_no_headers(headers)):
                raise BatchError(f"{name}: {why}")

    def _check_proxy(self) -> None:
        if self.proxy:
            from infra_core.http import InvalidRequestError
            from infra_core.http.engine import Proxy

            try:
                Proxy.parse(self.proxy, "proxy (--proxy)")
            except InvalidRequestError as error:
                raise BatchError(str(error)) from None

    def __getstate__(self) -> dict[str, Any]:
        """What other processes are sent: a jar of cookies has a lock, which stays here."""
        from http.cookiejar import CookieJar

        state = dict(vars(self))
        if isinstance(self.cookies, CookieJar):
            state["cookies"] = list(self.cookies), getattr(self.cookies, "_policy", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        from http.cookiejar import CookieJar

        if isinstance(sent := state["cookies"], tuple):
            cookies, policy = sent
            state["cookies"] = jar = CookieJar(policy)
            for cookie in cookies:
                jar.set_cookie(cookie)
        vars(self).update(state)


def why_no_prefix(text: str) -> str:
    """Why no variable's name can begin so; empty where one can."""
    if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", text):
        return ""
    return f"{text!r} begins no variable's name; use letters, digits and _, such as CRAWLER"
