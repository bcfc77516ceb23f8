"""Credentials of a batch: headers, tokens, logins and cookies, of the library and its command."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from infra_core.batch import BatchError, BatchOptions, run_batch
from infra_core.batch._credentials import cookie_jar, with_credentials
from infra_core.batch._download import Downloads, WorkItem
from infra_core.cli import main
from infra_core.cli._arguments import CommandError
from infra_core.cli._credentials import bearer_files_of, headers_of
from infra_core.http._cookies import cookie_header
from infra_core.http.testing import FaultyOrigin, redirect

pytestmark = pytest.mark.usefixtures("no_azure")


@pytest.mark.parametrize("given", ["Cookie:a=b", "Cookie: a=b", "X-API-Key:a==", "a.example:=b"])
def test_headers_in_the_form_of_curl_are_refused(given: str) -> None:
    """`Cookie:a=b` is no header `a` for the host `Cookie`, which no URL names."""
    with pytest.raises(CommandError, match="is not of the form NAME=VALUE"):
        headers_of([given])


def options_of(folder: Path, **given: Any) -> BatchOptions:
    """The options of a batch with what its files hold."""
    given = {"batch_id": "b", "out": folder, **given}
    return with_credentials(BatchOptions(**given), lambda text: None)


def test_netrc_brings_a_login_for_each_host_and_none_for_all(tmp_path: Path) -> None:
    """A header that is given goes before; what is malformed is not shown."""
    file = tmp_path / "netrc"
    file.write_text("machine A.example login me password hunter2\ndefault login x password y\n")
    options = options_of(tmp_path, netrc=file)
    assert options.headers == {}
    assert options.host_headers == {"a.example": {"Authorization": "Basic bWU6aHVudGVyMg=="}}
    given = {"A.example": {"Authorization": "mine"}}
    options = options_of(tmp_path, netrc=str(file), host_headers=given)
    assert options.host_headers == {"a.example": {"Authorization": "mine"}}
    file.write_text("machine a.example login me passwrd hunter2\n")
    with pytest.raises(BatchError, match="line 1 is not understood") as caught:
        options_of(tmp_path, netrc=file)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(BatchError, match="cannot be read"):
        options_of(tmp_path, netrc=tmp_path / "none")


def test_a_token_goes_before_a_header_and_a_login(tmp_path: Path) -> None:
    """In whichever letters the header is written, for one host as for all."""
    file, netrc = tmp_path / "token", tmp_path / "netrc"
    file.write_text("T\n")
    netrc.write_text("machine h login me password x\n")
    given = {"authorization": "mine", "X": "y"}
    options = options_of(
        tmp_path, headers=given, host_headers={"h": given}, netrc=netrc,
        bearer_file=str(file), host_bearer_files={"H": file},
    )  # fmt: skip
    assert options.headers == {"X": "y", "Authorization": "Bearer T"}
    assert options.host_headers == {"h": {"X": "y", "Authorization": "Bearer T"}}
    for text in ("", "two tokens", "two\ntokens"):
        file.write_text(text)
        with pytest.raises(BatchError, match="must hold one token"):
            options_of(tmp_path, bearer_file=file)
    with pytest.raises(BatchError, match="'h:x' names no host"):
        options_of(tmp_path, host_bearer_files={"h:x": file})


def test_a_file_with_a_token_may_be_for_one_host(tmp_path: Path) -> None:
    """Where the path itself has a colon, it is a path."""
    odd = tmp_path / "C:token"
    odd.touch()
    given = ["all", "H.example:8443:one", "b.example:two", str(odd)]
    found = {"h.example:8443": Path("one"), "b.example": Path("two")}
    assert bearer_files_of(given) == (odd, found)
    assert bearer_files_of([":all"]) == (Path("all"), {})


def test_a_batch_of_the_library_reads_credentials_of_files(
    place: dict[str, Any], tmp_path: Path
) -> None:
    """Anew when it starts: a token may have been replaced since the options were made."""
    token, cookies = tmp_path / "token", tmp_path / "cookies.txt"
    cookies.write_text("127.0.0.1\tFALSE\t/\tFALSE\t0\tn\tv\n")
    with FaultyOrigin() as origin, FaultyOrigin() as other:
        origin.add("/1", always=redirect(other.url("/2")))
        other.add("/2", b"x")
        here = origin.base_url.partition("//")[2].rstrip("/")
        options = BatchOptions(
            batch_id="b", out=tmp_path, cookies=str(cookies), host_bearer_files={here: token},
            **place,
        )  # fmt: skip
        token.write_text("T")
        assert run_batch([origin.url("/1")], options).complete
        sent = origin.requests[-1].headers
        assert (sent["Authorization"], sent["Cookie"]) == ("Bearer T", "n=v")
        assert "Authorization" not in other.requests[-1].headers


@pytest.mark.parametrize(
    ("netrc", "more", "sent"),
    [
        ("machine 127.0.0.1 login me password x", {}, "Basic bWU6eA=="),
        ("machine 127.0.0.1 login me password x", {"no_netrc": True}, None),
        ("machine 127.0.0.1 login me password x", {"headers": {"authorization": "own"}}, "own"),
        ("machine h.example login a password b\ndefault login me password x", {}, None),
    ],
)
def test_a_login_of_the_users_own_netrc_file_goes_to_hosts_that_it_names(
    netrc: str, more: dict[str, Any], sent: str | None, place: dict[str, Any],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its `default` would go to every host of a list that others may have written."""
    file = tmp_path / "netrc"
    file.write_text(netrc)
    monkeypatch.setenv("NETRC", str(file))
    with FaultyOrigin() as origin:
        origin.add("/from", always=redirect(origin.url("/to")))
        origin.add("/to", b"x")
        run_batch([origin.url("/from")], batch_id="b", out=tmp_path, **more, **place)
        assert [each.headers.get("Authorization") for each in origin.requests] == [sent, sent]


def test_the_command_hands_credentials_to_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only their files' names; what is wrong with one is an error of the command line."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password x\n")
    urls, cookies = tmp_path / "urls", tmp_path / "cookies"
    cookies.write_text("127.0.0.1\tFALSE\t/\tFALSE\t0\t\tv\n")
    with FaultyOrigin() as origin:
        origin.add("/1", b"x")
        urls.write_text(origin.url("/1"))
        run = ["run", str(urls), "--out", str(tmp_path), "--quiet", "--batch-id"]
        assert main([*run, "1", "--netrc", str(netrc), "--cookies", str(cookies)]) == 0
        monkeypatch.setenv("NETRC", str(netrc))
        assert main([*run, "2", "--no-netrc"]) == 0
        sent = [each.headers.get("Authorization") for each in origin.requests]
        assert sent == ["Basic bWU6eA==", None]
        assert origin.requests[0].headers["Cookie"] == "v"
    for option in ("--netrc", "--cookies", "--bearer-file"):
        assert main([*run, "3", option, str(tmp_path / "none")]) == 2
        said = f"({option}) '{tmp_path / 'none'}' cannot be read: No such"
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("machine", "url"),
    [
        ("::1", "http://[::1]:81/"),
        ("[::1]", "http://[::1]/"),
        ("[::1]:81", "http://[::1]:81/"),
        ("A.example.", "https://a.example/"),
        ("a.example:81", "http://a.example:81/"),
        ("b\u00fccher.example", "https://xn--bcher-kva.example/"),
    ],
)
def test_each_form_of_a_host_counts_in_a_netrc_file_as_in_a_header(
    machine: str, url: str, tmp_path: Path
) -> None:
    """With a byte order mark in front too."""
    file = tmp_path / "netrc"
    file.write_text(f"\ufeffmachine {machine} login me password x\n", encoding="utf-8")
    downloads = Downloads(options_of(tmp_path, netrc=file), tmp_path, lambda retry: None)
    assert downloads._headers(WorkItem("1", url, "1")) == {"Authorization": "Basic bWU6eA=="}


def test_an_odd_line_of_the_users_own_netrc_file_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and costs its own entry: the line may be for another program."""
    file = tmp_path / ".netrc"
    file.write_text("machine imap.example login me port 993 password x\nmachine a login b\n")
    monkeypatch.setenv("NETRC", str(file))
    said: list[str] = []
    given: Any = {"batch_id": "b", "out": tmp_path, "netrc": file}
    assert list(with_credentials(BatchOptions(**given), said.append).host_headers) == ["a"]
    run_batch([], **given, on_event=lambda word, text: said.append(f"{word}: {text}"))
    assert "line 1 is not understood, so its login is not used" in said[0]
    assert said[1] == f"passed over: {said[0]}"


def test_a_byte_order_mark_is_no_part_of_a_credential(tmp_path: Path) -> None:
    """Editors of Windows write one."""
    file = tmp_path / "file"
    file.write_text("\ufefftoken", encoding="utf-8")
    assert options_of(tmp_path, bearer_file=file).headers == {"Authorization": "Bearer token"}
    cookie = "a.example\tFALSE\t/\tFALSE\t0\tname\tv\u00e4lue\n"
    file.write_text(f"\ufeff# Netscape HTTP Cookie File\n{cookie}", encoding="utf-8")
    assert [each.value for each in cookie_jar(file)] == ["v\u00e4lue"]
    with pytest.raises(BatchError, match="cannot be read"):
        cookie_jar(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "a.example\tFALSE\t/\tFALSE\t0\tn",
        ".a.example\tFALSE\t/\tFALSE\t\tn\t",
        "a.example\tTRUE\t/\tfalse\t4102444800.5\tn\t",
        "#HttpOnly_a.example\tFALSE\t/\tFALSE\t0\tn\t\r",
    ],
)
def test_cookies_are_read_as_curl_reads_them(line: str, tmp_path: Path) -> None:
    """No first line, no value, a dot that the flag does not know of, parts of a second."""
    file = tmp_path / "cookies.txt"
    file.write_bytes(f"# a note\n\n{line}\n".encode())
    assert cookie_header(cookie_jar(file), "http://a.example/") == "n="


@pytest.mark.parametrize(("line", "sent"), [("\tv", "v"), ("\tv=w", "v=w"), ("\t", None)])
def test_a_cookie_without_a_name_is_sent_as_its_value(
    line: str, sent: str | None, tmp_path: Path
) -> None:
    """As browsers do it (RFC 6265bis), and Python."""
    file = tmp_path / "cookies.txt"
    file.write_text(f"a.example\tFALSE\t/\tFALSE\t0\t{line}\n")
    assert cookie_header(cookie_jar(file), "http://a.example/") == sent


@pytest.mark.parametrize(
    ("domain", "flag", "below"),
    [("a.example", "TRUE", True), (".a.example", "TRUE", True), (".a.example", "FALSE", False),
     ("a.example", "FALSE", False), ("a.example", "false", False), ("a.example", "true", True)],
)  # fmt: skip
@pytest.mark.parametrize("copied", [False, True])
def test_a_cookie_of_one_host_goes_to_none_below_it(
    domain: str, flag: str, below: bool, copied: bool, tmp_path: Path
) -> None:
    """The flag says so, as in curl; in a worker process as well."""
    file = tmp_path / "cookies.txt"
    file.write_text(f"{domain}\t{flag}\t/\tFALSE\t0\tn\tv\n")
    jar = cookie_jar(file)
    if copied:
        options = BatchOptions(batch_id="b", out=tmp_path, cookies=jar)
        jar = pickle.loads(pickle.dumps(options)).cookies
    assert cookie_header(jar, "http://a.example/") == "n=v"
    assert cookie_header(jar, "http://ba.example/") is None
    file.write_text(f"wiki\t{flag}\t/\tFALSE\t0\tn\tv\n")
    assert cookie_header(cookie_jar(file), "http://wiki/") == "n=v"
    assert cookie_header(jar, "http://sub.a.example/") == ("n=v" if below else None)


@pytest.mark.parametrize("line", ["[{}]", "a\tFALSE\t/\tFALSE\tnever\tn\tv", "a\tb", "a\t" * 8])
def test_a_line_that_is_no_cookie_is_named(line: str, tmp_path: Path) -> None:
    """By its number: it may hold a secret."""
    file = tmp_path / "cookies.txt"
    file.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    with pytest.raises(BatchError, match="line 2 is not in Netscape's format") as caught:
        cookie_jar(file)
    assert line not in str(caught.value)


def test_cookies_of_a_session_are_those_of_the_file(tmp_path: Path) -> None:
    """curl and browsers write 0 for them, which is no date in the past."""
    path = tmp_path / "cookies.txt"
    lines = [f"h.example\tFALSE\t/\tFALSE\t{expires}\tc{expires}\tv" for expires in (0, 1, 9**10)]
    path.write_text("# Netscape HTTP Cookie File\n" + "\n".join(lines) + "\n")
    assert {cookie.name for cookie in cookie_jar(path)} == {"c0", f"c{9**10}"}


def test_options_with_cookies_go_to_other_processes(tmp_path: Path) -> None:
    """The lock of a jar of cookies cannot be pickled."""
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape HTTP Cookie File\nh.example\tFALSE\t/a\tTRUE\t0\tn\tv\n")
    options = BatchOptions(batch_id="b", out=tmp_path, cookies=cookie_jar(path), retries=7)
    sent = pickle.loads(pickle.dumps(options))
    assert [vars(cookie) for cookie in sent.cookies] == [vars(c) for c in options.cookies]
    assert (sent.retries, sent.out) == (7, tmp_path)


def test_cookies_without_tabs_are_refused_without_a_warning(tmp_path: Path) -> None:
    """Python's warning is a traceback of its own."""
    path = tmp_path / "cookies.txt"
    path.write_text("# Netscape HTTP Cookie File\nh.example FALSE / FALSE 0 name hidden\n")
    with pytest.raises(BatchError, match="tabs between fields") as caught:
        cookie_jar(path)
    assert "hidden" not in str(caught.value)
