"""What failures of the network mean to people, the same whichever library met them.

Each text names the server and says what to do, after ": "; none says "try again", because not
every request may be sent again.
"""

import errno
import os
import re
import socket
import ssl

from infra_core.runtime import sanitize_url

__all__ = [
    "BROKEN_OFF",
    "CUT_SHORT",
    "broken_text",
    "connect_text",
    "connect_timeout_text",
    "invalid_text",
    "peer",
    "proxy_connect_text",
    "proxy_refused_text",
    "reason_of",
    "redirects_text",
    "silence_text",
    "through_proxy",
    "undecodable_text",
]

BROKEN_OFF = "closed the connection without an answer: its log may say why"
CUT_SHORT = "closed the connection before the whole body had come: its log may say why"

# By OpenSSL's X509_V_ERR_* numbers; all others lack a CA.
_CERTIFICATE_REMEDIES = {
    9: "check the clock of this machine",  # not yet valid
    10: "its owner must renew it; check the clock of this machine",  # expired
    23: "its owner must replace it",  # revoked
    62: "check the host name in the URL",  # for another name
    64: "check the address in the URL",  # for another address
}
_CODES = re.compile(r"\[Errno (\d+)\]")
_OF_OPENSSL = re.compile(r"\[[^\]]*\] *|\(_ssl\.c:\d+\)")  # its library and our line in it

_TOO_MANY = (os.strerror(errno.EMFILE), os.strerror(errno.ENFILE))
_FEWER_FILES = "raise the limit of open files (ulimit -n), or send fewer requests at once"


def peer(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def through_proxy(where: str, proxy: str) -> str:
    """Return host and port, and those of the proxy on the way to them."""
    return f"{where} (through the proxy {proxy})"


def connect_text(where: str, error: BaseException) -> str:
    """Say why there is no connection."""
    if isinstance(error, socket.gaierror):
        host = where.rpartition(":")[0]
        reason = reason_of(error)
        remedy = _FEWER_FILES if reason in _TOO_MANY else "check its name, or the name server"
        return f"cannot resolve host {host!r} (DNS: {reason}): {remedy}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_text(where, error)
    if isinstance(error, ssl.SSLError):
        reason = reason_of(error)
        return f"TLS handshake with {where} failed ({reason}): check that this port speaks https"
    if isinstance(error, ConnectionRefusedError):
        return f"{where} refused the connection: check host and port, and that the server runs"
    reason = reason_of(error)
    remedy = _FEWER_FILES if reason in _TOO_MANY else "check host and port, and the network between"
    return f"{where} cannot be reached ({reason}): {remedy}"


def _certificate_text(where: str, error: ssl.SSLCertVerificationError) -> str:
    reason = getattr(error, "verify_message", "") or reason_of(error)
    remedy = _CERTIFICATE_REMEDIES.get(getattr(error, "verify_code", 0))
    if remedy is None:
        remedy = "set SSL_CERT_FILE to the CA that signed it, or pass verify= with it"
    return f"the certificate of {where} is not trusted ({reason}): {remedy}"


def proxy_connect_text(variable: str, reason: str) -> str:
    """Say why a proxy cannot be connected to."""
    return f"cannot connect to the proxy of {variable}: {reason}"


def proxy_refused_text(proxy: str, variable: str, answer: str, where: str) -> str:
    """Say that a proxy does not let a request through."""
    if answer.startswith(("401", "407")):  # 401 is what tinyproxy says to a wrong password
        return (
            f"the proxy {proxy} requires authentication ({answer[:3]}) for {where}: put the "
            f"credentials into {variable} as http://user:password@host:port, percent-encoded"
        )
    return (
        f"the proxy {proxy} of {variable} refused a connection to {where} ({answer}): see its log, "
        "or name the host in NO_PROXY"
    )


def connect_timeout_text(where: str, seconds: float | None) -> str:
    """Say that no connection came about in time."""
    span = "" if seconds is None else f" after {seconds:g} s"
    return f"connect to {where} timed out{span}: check host and port, or allow more time"


def broken_text(where: str, reason: str) -> str:
    """Say that a connection ended in the middle."""
    return f"the connection to {where} broke ({reason}): check the network"


def invalid_text(where: str, reason: object) -> str:
    """Say that an answer is not HTTP."""
    return f"the answer of {where} is not valid HTTP ({reason}): check that this is its port"


def redirects_text(limit: int, url: object) -> str:
    """Say that redirects do not end; `url` is that of the last."""
    return (
        f"more than {limit} redirects, the last from {sanitize_url(str(url))}: they lead in a "
        "circle, or max_redirects is too low"
    )


def undecodable_text(url: str, reason: object, way: str) -> str:
    """Say that a body cannot be decoded."""
    return (
        f"the body of {sanitize_url(url)} cannot be decoded ({reason}): report it to the server's "
        f"owner, or read it undecoded with {way}"
    )


def silence_text(where: str, seconds: float | None) -> str:
    """Say that the server sent nothing."""
    span = "the length of the timeout" if seconds is None else f"{seconds:g} s"
    return f"{where} timed out, it sent nothing for {span}: allow a longer timeout"


def reason_of(error: BaseException) -> str:
    """Return what the system says of an error, without numbers and addresses.

    When a host has several addresses, the error of each of them is in the text alone.
    """
    if isinstance(error, ssl.SSLError):
        text = _OF_OPENSSL.sub("", str(getattr(error, "reason", None) or error.strerror or error))
        return text.replace("_", " ").strip().lower()
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    number = getattr(error, "errno", None)
    codes = [number] if number else [int(code) for code in _CODES.findall(str(error))]
    reasons = dict.fromkeys(os.strerror(code) for code in codes)
    return ", ".join(reasons) or str(error) or type(error).__name__
