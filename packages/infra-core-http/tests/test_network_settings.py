"""What the environment says about proxies, certificates and logins."""

import logging
import os
import urllib.request
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from infra_core.http import InvalidRequestError
from infra_core.http.engine import network_settings, read_netrc
from infra_core.http.engine.network_settings import NetworkSettings, NoProxy, Proxy, UnusableProxy


def read(**env: str) -> NetworkSettings:
    return NetworkSettings.read(env)


def where(settings: NetworkSettings, url: str) -> str | None:
    proxy = settings.proxy_for(url)
    return None if proxy is None else proxy.bare_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("HTTP://Proxy:3128/", "http://Proxy:3128"),
        ("proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy:80"),
        ("  proxy:3128\n", "http://proxy:3128"),
        ("https://proxy", "https://proxy:443"),
        ("127.0.0.1:9", "http://127.0.0.1:9"),
        ("[::1]:9", "http://[::1]:9"),
        ("http://[::1]", "http://[::1]:80"),
        ("user:secret@proxy:3128", "http://proxy:3128"),
        ("socks5://proxy", "socks5://proxy:1080"),
        ("socks5h://proxy:9050", "socks5h://proxy:9050"),
        ("socks4a://proxy:9050", "socks4a://proxy:9050"),
    ],
)
def test_a_proxy_is_read_with_and_without_scheme(text: str, expected: str) -> None:
    """Port and scheme are filled in."""
    assert Proxy.parse(text).bare_url == expected


@pytest.mark.parametrize(
    ("login", "username", "password"),
    [
        ("user:secret", "user", "secret"),
        ("user", "user", None),
        ("user:", "user", ""),
        ("DOM%5Cuser:p%40ss%3A%2Fword", "DOM\\user", "p@ss:/word"),
        ("user:p@ss/w#rd?", "user", "p@ss/w#rd?"),  # not encoded, as people write it
        ("user:gr%C3%BC%C3%9Fe", "user", "grüße"),
    ],
)
def test_credentials_of_a_proxy_are_percent_decoded(
    login: str, username: str, password: str | None
) -> None:
    """They are sent decoded, and written into a URL encoded again."""
    proxy = Proxy.parse(f"http://{login}@proxy:3128")
    assert (proxy.username, proxy.password) == (username, password)
    assert Proxy.parse(proxy.url) == proxy


def test_credentials_of_a_proxy_are_sent_in_utf_8() -> None:
    """As RFC 7617 recommends."""
    assert Proxy.parse("user:gr%C3%BC@proxy").authorization == "Basic dXNlcjpncsO8"
    assert Proxy.parse("proxy").authorization is None


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http://user:secret@",
        "http://user:secret@proxy:http",
        "http://user:secret@proxy:99999",
        "http://user:secret@proxy:0",
        "http://user:secret@[::1:3128",
        "http://user:secret@[proxy]:3128",
        "http://user:secret@[::1]3128",
        "http://user:secret@::1:3128",
        "http://proxy:secret",
        "http://user:secret@pro xy:3128",
        "ftp://user:secret@proxy:3128",
        "socks://user:secret@proxy:1080",
        "secret://proxy",
    ],
)
def test_a_malformed_proxy_is_named_by_its_variable_alone(text: str) -> None:
    """Its value may hold a password, wherever that was put by mistake."""
    settings = read(HTTPS_PROXY=text)
    with pytest.raises(InvalidRequestError, match="HTTPS_PROXY is not a proxy URL") as caught:
        settings.proxy_for("https://example.com/")
    assert "secret" not in str(caught.value)
    assert not any("secret" in part for line in settings.describe() for part in line)
    assert settings.proxy_for("http://example.com/") is None


@hypothesis_settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_proxy_or_an_error_of_ours(text: str) -> None:
    """No parser's own error comes through."""
    found = read(http_proxy=text).http_proxy
    if isinstance(found, Proxy):
        assert Proxy.parse(found.url) == found


@hypothesis_settings(deadline=None)
@given(st.text(min_size=8, max_size=40), st.text(max_size=10))
def test_no_part_of_a_login_reaches_repr_or_description(password: str, tail: str) -> None:
    """Whatever characters it has."""
    settings = read(http_proxy=f"http://user:@@{password}@@{tail}@proxy:3128")
    shown = repr(settings) + str(list(settings.describe()))
    assert f"@@{password}@@" not in shown


def test_the_repr_of_a_proxy_hides_its_password() -> None:
    """A traceback with variables must not show it."""
    assert "secret" not in repr(read(http_proxy="http://user:secret@proxy:3128"))


def test_all_proxy_is_for_what_the_others_do_not_name() -> None:
    """Each scheme has its own variable, and ALL_PROXY is for the rest."""
    settings = read(HTTP_PROXY="one:1", ALL_PROXY="two:2")
    assert where(settings, "http://example.com") == "http://one:1"
    assert where(settings, "https://example.com") == "http://two:2"


def test_the_lower_case_name_wins_and_an_empty_one_switches_off() -> None:
    """As with urllib, curl and requests."""
    assert where(read(http_proxy="one:1", HTTP_PROXY="two:2"), "http://a") == "http://one:1"
    assert where(read(http_proxy="", HTTP_PROXY="two:2"), "http://a") is None
    assert where(read(HTTP_PROXY="two:2"), "http://a") == "http://two:2"


def test_any_mapping_will_do() -> None:
    """Also one that keeps its values in an attribute of the name that `os.environ` has for it."""

    class Variables(UserDict[str, str]):
        _data: ClassVar[dict[str, str]] = {}

    env = Variables(HTTP_PROXY="one:1")
    assert where(NetworkSettings.read(env), "http://example.com") == "http://one:1"


@pytest.mark.posix
def test_a_cgi_program_takes_no_proxy_from_a_request_header() -> None:
    """`Proxy: ...` of a request arrives as HTTP_PROXY (CVE-2016-1000110, "httpoxy")."""
    assert where(read(HTTP_PROXY="evil:1", REQUEST_METHOD="GET"), "http://a") is None
    assert where(read(http_proxy="good:1", REQUEST_METHOD="GET"), "http://a") == "http://good:1"
    assert where(read(HTTPS_PROXY="good:1", REQUEST_METHOD="GET"), "https://a") == "http://good:1"


def test_the_proxies_of_the_system_count_where_no_variable_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those that people set in the settings of Windows and macOS, with their exceptions."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(network_settings, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(network_settings, "_read", network_settings._read.__wrapped__)  # no cache
    known = {"http": "proxy:1", "https": "proxy:2", "ftp": "proxy:3"}
    monkeypatch.setattr(urllib.request, "getproxies", lambda: known)
    monkeypatch.setattr(urllib.request, "proxy_bypass", lambda host: host == "inside")
    settings = NetworkSettings.read()
    assert where(settings, "http://a") == "http://proxy:1"
    assert where(settings, "https://a") == "http://proxy:2"
    assert where(settings, "http://inside") is None
    assert where(NetworkSettings.read({}), "http://a") is None
    monkeypatch.setenv("https_proxy", "other:4")
    settings = NetworkSettings.read()
    assert where(settings, "http://a") is None
    assert where(settings, "https://inside") == "http://other:4"


def test_where_names_have_no_case_such_a_program_takes_no_proxy_for_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows `http_proxy` is the same variable."""
    windows = SimpleNamespace(**{**vars(os), "name": "nt"})
    monkeypatch.setattr(network_settings, "os", windows)
    assert where(read(http_proxy="evil:2", REQUEST_METHOD="GET"), "http://a") is None


@pytest.mark.parametrize(
    ("exceptions", "url"),
    [
        ("*", "http://anything/"),
        ("other, *", "http://anything/"),
        ("example.com", "http://example.com/"),
        ("example.com", "http://EXAMPLE.com./"),
        ("EXAMPLE.com.", "http://example.com/"),
        ("example.com", "http://a.b.example.com/"),
        (".example.com", "http://a.example.com/"),
        (".example.com", "http://example.com/"),
        ("*.example.com", "http://a.example.com/"),
        ("example.com:8000", "http://example.com:8000/"),
        ("example.com:80", "http://example.com/"),
        ("example.com:443", "https://example.com/"),
        ("http://example.com", "http://example.com/"),
        ("all://example.com", "https://example.com/"),
        ("127.0.0.1", "http://127.0.0.1:9/"),
        ("127.0.0.1:9", "http://127.0.0.1:9/"),
        ("127.0.0.0/8", "http://127.1.2.3/"),
        ("10.0.0.0/8:8000", "http://10.1.2.3:8000/"),
        ("127.0.0.1/8", "http://127.1.2.3/"),
        ("::1", "http://[::1]/"),
        ("[::1]", "http://[::1]:9/"),
        ("[::1]:9", "http://[::1]:9/"),
        ("0:0:0:0:0:0:0:1", "http://[::1]/"),
        ("fe80::/10", "http://[fe80::1]/"),
        ("[fe80::]/10", "http://[fe80::1]/"),
        ("fe80::/10", "http://[fe80::1%25eth0]/"),
        ("127.0.0.0/8", "http://[::ffff:127.0.0.1]/"),
        ("a b c example.com", "http://example.com/"),
        (" a ,  example.com , ", "http://example.com/"),
        ("bücher.example", "http://xn--bcher-kva.example/"),
        ("xn--bcher-kva.example", "http://bücher.example/"),
        ("localhost", "http://localhost:8000/"),
    ],
)
def test_no_proxy_is_read_in_all_its_forms(exceptions: str, url: str) -> None:
    """With ports, networks, brackets, dots, stars and spaces."""
    for name in ("NO_PROXY", "no_proxy"):
        settings = read(ALL_PROXY="proxy:1", **{name: exceptions})
        assert where(settings, url) is None, name


@pytest.mark.parametrize(
    ("exceptions", "url"),
    [
        ("", "http://example.com/"),
        (" , ,", "http://example.com/"),
        ("example.com", "http://badexample.com/"),
        ("example.com", "http://example.com.evil/"),
        ("example.com:8000", "http://example.com/"),
        ("example.com:80", "https://example.com/"),
        ("http://example.com", "https://example.com/"),
        ("127.0.0.1", "http://1.127.0.0.1.example/"),
        ("127.0.0.0/8", "http://128.0.0.1/"),
        ("0.0.1", "http://127.0.0.1/"),
        ("[::1]:9", "http://[::1]:8/"),
        ("fe80::/10", "http://127.0.0.1/"),
        ("127.0.0.0/99", "http://127.0.0.1/"),
        ("[", "http://example.com/"),
        ("example.com:http", "http://example.com/"),
        (".", "http://example.com/"),
    ],
)
def test_no_proxy_covers_nothing_else(exceptions: str, url: str) -> None:
    """And what makes no sense covers nothing."""
    assert where(read(ALL_PROXY="proxy:1", NO_PROXY=exceptions), url) == "http://proxy:1"


@hypothesis_settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_an_entry_of_no_proxy(text: str) -> None:
    """No text ends a program."""
    NoProxy.parse(text).covers("http", "example.com", 80)


def test_ca_certificates_of_all_variables_are_trusted(tmp_path: Path) -> None:
    """Whatever library an operator had in mind; one path is chosen where only one is taken."""
    every = {
        "SSL_CERT_FILE": "/1",
        "SSL_CERT_DIR": "/2",
        "REQUESTS_CA_BUNDLE": str(tmp_path),
        "CURL_CA_BUNDLE": "/4",
    }
    settings = read(**every)
    assert settings.ca_settings == tuple(every.items())
    assert settings.ca_path == str(tmp_path)
    assert read().ca_settings == ()
    assert read().ca_path is None
    assert read(SSL_CERT_FILE="", CURL_CA_BUNDLE="/4").ca_settings == (("CURL_CA_BUNDLE", "/4"),)
    assert read(SSL_CERT_FILE="/1").ca_path == "/1"


def test_equal_environments_are_parsed_once() -> None:
    """Reading at each call costs a comparison."""
    env = {"ALL_PROXY": "proxy:1", "NO_PROXY": "a,b"}
    assert NetworkSettings.read(env) is NetworkSettings.read(dict(env))


def test_the_settings_of_this_process_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that sets a variable is honoured."""
    monkeypatch.setenv("https_proxy", "one:1")
    assert where(NetworkSettings.read(), "https://a") == "http://one:1"
    monkeypatch.setenv("https_proxy", "two:2")
    assert where(NetworkSettings.read(), "https://a") == "http://two:2"


def test_a_netrc_file_names_the_login_of_a_host(tmp_path: Path) -> None:
    """Hosts that it does not name get its default entry, when it has one."""
    path = tmp_path / "netrc"
    path.write_text("machine example.com login bob password hunter2\n")
    settings = read(NETRC=str(path))
    assert settings.netrc_authorization("example.com") == "Basic Ym9iOmh1bnRlcjI="
    assert settings.netrc_authorization("other.example") is None
    path.write_text("machine a login b password c\ndefault login anonymous password x\n")
    assert settings.netrc_authorization("other.example") == "Basic YW5vbnltb3VzOng="


@pytest.mark.parametrize(
    ("text", "logins", "odd_lines"),
    [
        ("\ufeffmachine A.example.\nuser b password c", {"a.example": ("b", "c")}, []),
        ("machine [::1] login b password c", {"::1": ("b", "c")}, []),
        ("machine a # why\n login b password #c", {"a": ("b", "#c")}, []),
        (r'machine a login "b \" c" password d\ e', {"a": ('b " c', "d e")}, []),
        ("machine a account b password c", {"a": ("b", "c")}, []),
        ("macdef m\nmachine x\n\nmachine a login b", {"a": ("b", "")}, []),
        ("machine a login b\nmachine a login c password d", {"a": ("c", "d")}, []),
        ("machine a login b port 21 password c\nmachine d login e", {"d": ("e", "")}, [1]),
        ("machine a login b\npasswort c\nmachine d login e", {"d": ("e", "")}, [2]),
        ("login b\nmachine https://a/ login b\ndefault login c", {"default": ("c", "")}, [1, 2]),
        ('machine a login b password "c\nmachine d login e', {"d": ("e", "")}, [1]),
        ("", {}, []),
    ],
)
def test_a_netrc_file_is_read_but_for_the_entries_that_are_not_understood(
    tmp_path: Path, text: str, logins: dict[str, tuple[str, str]], odd_lines: list[int]
) -> None:
    """As Python's own parser reads it, which gives up the file for one odd word."""
    path = tmp_path / "netrc"
    path.write_text(text, encoding="utf-8")
    assert read_netrc(path) == (logins, odd_lines)


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_a_netrc_file_at_home_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Whoever passes an environment of its own has no home."""
    monkeypatch.delenv("NETRC", raising=False)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / name).write_text("machine a login b\n")
    assert NetworkSettings.read().netrc_authorization("a") == "Basic Yjo="
    assert read().netrc_authorization("a") is None


@pytest.mark.parametrize("host", ["::1", "[::1]", "A.example", "a.example."])
def test_a_host_of_a_netrc_file_is_found_in_each_of_its_forms(tmp_path: Path, host: str) -> None:
    """Without regard to letter case, brackets and the dot at the end."""
    path = tmp_path / "netrc"
    path.write_text("machine [::1] login b\nmachine a.Example login b\n")
    assert read(NETRC=str(path)).netrc_authorization(host) == "Basic Yjo="


def test_a_netrc_file_that_cannot_be_read_is_logged_without_its_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The parser's error quotes what it met, which may be a password."""
    path = tmp_path / "netrc"
    path.write_text("machine example.com login bob passwort hunter2\n")
    with caplog.at_level(logging.WARNING, "infra_core.http"):
        assert read(NETRC=str(path)).netrc_authorization("example.com") is None
        assert "line 1 is not understood" in caplog.text
        path.write_bytes(b"machine \xff login hunter2")
        assert read(NETRC=str(path)).netrc_authorization("example.com") is None
    assert f"{path} cannot be read" in caplog.text
    assert "hunter2" not in caplog.text
    assert read(NETRC=str(tmp_path / "missing")).netrc_authorization("example.com") is None


def test_the_settings_in_force_are_described_without_credentials(tmp_path: Path) -> None:
    """For people who ask what a program would do here."""
    missing = str(tmp_path / "missing.pem")
    settings = read(
        HTTP_PROXY="http://user:secret@proxy:3128",
        HTTPS_PROXY="http://[::1",
        NO_PROXY="localhost, 10.0.0.0/8, [::1]:80, http://a",
        SSL_CERT_FILE=missing,
        NETRC="/n",
    )
    assert isinstance(settings.https_proxy, UnusableProxy)
    assert list(settings.describe()) == [
        ("HTTP_PROXY", "http://***@proxy:3128", ""),
        (
            "HTTPS_PROXY",
            "***",
            "is not a proxy URL (what stands in its brackets is not an IPv6 address)",
        ),
        ("NO_PROXY", "localhost,10.0.0.0/8,[::1]:80,http://a", ""),
        ("SSL_CERT_FILE", missing, "does not exist"),
        ("NETRC", "/n", ""),
    ]
