"""Tokens of credentials: fetched once for many, renewed in time, and never in anyone's way."""

import asyncio
import contextlib
import gc
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from azure.core.exceptions import ClientAuthenticationError

from infra_core.azure import _tokens
from infra_core.azure._access import access_remedy, challenge_of
from infra_core.azure._tokens import (
    AsyncSdkCredential,
    SdkCredential,
    TokenSource,
    TokenTimeoutError,
    _Wanted,
    credential_problem,
)
from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableError,
    AzureTableJobStore,
    TableConfig,
)
from infra_core.azure.job_store._table_errors import table_error
from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    StorageAccessError,
    StorageTimeoutError,
    TransferOptions,
)
from infra_core.azure.storage._auth import BearerToken
from infra_core.runtime import clock, redact_secrets
from infra_core.runtime.testing import fast_time

_SCOPE = "https://storage.azure.com/.default"


async def _until(done: Callable[[], bool]) -> None:
    """Let others go on until something is so; a test that hangs here has failed."""
    while not done():  # noqa: ASYNC110 - threads are waited for as well
        await asyncio.sleep(0)


class _Credential:
    """Gives T1, T2, ...; waits for `go` before each."""

    def __init__(self, lifetime: float = 3600) -> None:
        self.asked = 0
        self.options: list[Any] = []
        self.lifetime = lifetime
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def get_token(self, *scopes: str, **options: Any) -> Any:
        self.asked += 1
        self.options.append(options)
        self.go.wait(60)
        if self.fails:
            raise RuntimeError("no identity found")
        return SimpleNamespace(token=f"T{self.asked}", expires_on=clock.time() + self.lifetime)


class _AsyncCredential(_Credential):
    async def get_token(self, *scopes: str, **options: Any) -> Any:
        self.asked += 1
        await _until(self.go.is_set)
        if self.fails:
            raise RuntimeError("no identity found")
        return SimpleNamespace(token=f"T{self.asked}", expires_on=clock.time() + self.lifetime)


@pytest.mark.parametrize("kind", [_Credential, _AsyncCredential])
async def test_many_requests_at_a_time_ask_once(kind: type[_Credential]) -> None:
    """One of them cancelled, too, does not leave the others without."""
    credential = kind()
    credential.go.clear()
    source = TokenSource(credential)
    waiting = [asyncio.ensure_future(source.get(_SCOPE)) for _ in range(50)]
    await _until(lambda: credential.asked > 0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    credential.go.set()
    tokens = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(tokens[0], asyncio.CancelledError)
    assert {token.token for token in tokens[1:]} == {"T1"}  # type: ignore[union-attr]
    assert credential.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "T1",
        SimpleNamespace(token="T1"),
        SimpleNamespace(token=None, expires_on=2e9),
        SimpleNamespace(token=" \n", expires_on=2e9),
        SimpleNamespace(token="T1\nx", expires_on=2e9),
        SimpleNamespace(token=b"T1", expires_on=2e9),
        SimpleNamespace(token="T1", expires_on=None),
        SimpleNamespace(token="T1", expires_on="tomorrow"),
        SimpleNamespace(token="T1", expires_on=float("inf")),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_is_no_token_is_refused_as_such(answer: object, asynchronous: bool) -> None:
    """A credential of one's own may return anything; the token is in no message."""

    class Own:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            return answer

    class OwnAsync:
        async def get_token(self, *scopes: str, **options: Any) -> Any:
            return answer

    source = TokenSource(OwnAsync() if asynchronous else Own())
    with pytest.raises(ClientAuthenticationError, match=r"AccessToken\(token, exp") as caught:
        await source.get(_SCOPE)
    assert "T1" not in str(caught.value)


async def test_the_end_of_the_loop_that_asked_cancels_no_wait_in_another_one() -> None:
    """Each event loop asks an asynchronous credential for itself."""

    class First(_Credential):
        async def get_token(self, *scopes: str, **options: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                await asyncio.Event().wait()
            return SimpleNamespace(token=f"T{self.asked}", expires_on=clock.time() + 3600)

    credential, end = First(), threading.Event()
    source = TokenSource(credential)

    async def other_loop() -> None:
        asking = asyncio.ensure_future(source.get(_SCOPE))
        await _until(end.is_set)
        assert not asking.done()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(asyncio.run, other_loop())
        await _until(lambda: credential.asked > 0)
        waiting = asyncio.ensure_future(source.get(_SCOPE))
        await asyncio.sleep(0)
        end.set()
        assert (await waiting).token == "T2"
        await _until(ended.done)
    assert not source._asking


async def test_a_credential_that_fails_after_the_deadline_is_reported_nowhere() -> None:
    """Who waited has its answer; asyncio need not speak of an exception that nobody retrieved."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    credential = _Credential()
    credential.fails = True
    credential.go.clear()
    source = TokenSource(credential, wait=0.01)
    with pytest.raises(TokenTimeoutError):
        await source.get(_SCOPE)
    asked = next(iter(source._asking.values())).future
    credential.go.set()
    await _until(asked.done)
    source.close()
    del asked
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert reports == []


def test_many_threads_at_a_time_ask_once() -> None:
    """The SDK's synchronous clients come from many threads."""
    credential = _Credential()
    source = TokenSource(credential)
    with ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(lambda _: source.get_blocking(_SCOPE).token, range(64)))
    assert set(tokens) == {"T1"}
    assert credential.asked == 1


async def test_a_line_break_behind_a_token_ends_no_headers() -> None:
    """Credentials of one's own read tokens from files."""
    given = SimpleNamespace(token="T\r\n", expires_on=clock.time() + 3600)
    source = TokenSource(SimpleNamespace(get_token=lambda *_: given))
    assert (await source.get(_SCOPE)).token == "T"


@pytest.mark.parametrize("kind", [_Credential, _AsyncCredential])
async def test_a_token_is_renewed_in_the_background_before_it_expires(
    kind: type[_Credential], caplog: pytest.LogCaptureFixture
) -> None:
    """No request waits for that; a failure leaves the present one in use, and is logged."""
    with fast_time() as time:
        credential = kind(lifetime=3600)
        source = TokenSource(credential)
        assert (await source.get(_SCOPE)).token == "T1"
        time.advance(3400)
        credential.go.clear()
        assert (await source.get(_SCOPE)).token == "T1"  # while the new one is on its way
        credential.fails = True
        credential.go.set()
        await _until(lambda: source._paused_until > 0)
        assert (await source.get(_SCOPE)).token == "T1"
        assert credential.asked == 2
        assert "gave no new token (RuntimeError: no identity found)" in caplog.text
        time.advance(31)
        credential.fails = False
        await source.get(_SCOPE)
        await _until(lambda: source._held[_Wanted((_SCOPE,))].token == "T3")
        assert (await source.get(_SCOPE)).token == "T3"


async def test_a_credential_whose_tokens_are_near_their_end_is_asked_now_and_then() -> None:
    """The cache of `az` does: each question costs a process, and brings the same token."""
    with fast_time() as time:
        credential = _Credential(lifetime=200)
        source = TokenSource(credential)
        for _ in range(3):
            assert (await source.get(_SCOPE)).token == "T1"
        time.advance(31)
        await source.get(_SCOPE)
        await _until(lambda: source._held[_Wanted((_SCOPE,))].token == "T2")
        assert (await source.get(_SCOPE)).token == "T2"
    assert credential.asked == 2


async def test_a_refused_token_is_fetched_anew_once_for_all_who_sent_it() -> None:
    """Ten requests with T1 that are refused fetch T2 once."""
    credential = _Credential()
    source = TokenSource(credential)
    await source.get(_SCOPE)
    for _ in range(10):
        source.reject("T1")
        assert (await source.get(_SCOPE)).token == "T2"


async def test_a_silent_credential_ends_no_wait_late_and_is_asked_anew() -> None:
    """With what to look at; the thread that waits for it holds no caller."""
    credential = _Credential()
    credential.go.clear()
    source = TokenSource(credential, wait=0.05)
    with pytest.raises(TokenTimeoutError, match=r"no token within 0\.05 s; check the network"):
        await source.get(_SCOPE)
    with pytest.raises(TokenTimeoutError, match="no token within"):
        source.get_blocking(_SCOPE)
    credential.go.set()
    assert (await TokenSource(credential, wait=60).get(_SCOPE)).token
    assert credential.asked >= 2  # the first may not have begun when it was given up


def test_what_entra_said_comes_through_a_chain_of_credentials(tmp_path: Path) -> None:
    """Not only that all of them failed; and what to do is about that."""
    credential = _Credential()
    text = (
        "DefaultAzureCredential failed to retrieve a token from the included credentials.\n"
        "Attempted credentials:\n\tEnvironmentCredential: Authentication failed: AADSTS7000215: "
        "Invalid client secret. client_secret=s3cretvalue99\nTo mitigate this issue, ..."
    )

    def fail(*_: str) -> None:
        raise ClientAuthenticationError(text)

    credential.get_token = fail  # type: ignore[method-assign, assignment]
    settings = AzureStorageSettings("box", account_name="acc")
    with (
        AzureStorageClient.from_settings(settings, "strict", credential=credential) as client,
        pytest.raises(StorageAccessError) as raised,
    ):
        client.upload_text(tmp_path / "a", "x")
    config = TableConfig(table_name="jobs", account_name="acc")
    table = table_error(ClientAuthenticationError(text), "storing", config)
    for shown in (str(raised.value), str(table)):
        assert "AADSTS7000215: Invalid client secret" in shown
        assert "AZURE_CLIENT_ID and the secret" in shown
        assert "az login" not in shown
        assert "s3cretvalue99" not in shown


_CHAIN = """DefaultAzureCredential failed to retrieve a token from the included credentials.
Attempted credentials:
\tEnvironmentCredential: EnvironmentCredential authentication unavailable. Environment variables
Visit https://aka.ms/azsdk/python/identity/environmentcredential/troubleshoot to troubleshoot.
\tWorkloadIdentityCredential: [Errno 2] No such file: '/var/run/token'
\tManagedIdentityCredential: ManagedIdentityCredential authentication unavailable, no response.
\tVisualStudioCodeCredential: VisualStudioCodeCredential requires the 'azure-identity-broker'
\tAzureCliCredential: Azure CLI not found on path
\tAzurePowerShellCredential: PowerShell is not installed
\tAzureDeveloperCliCredential: Azure Developer CLI could not be found. Please visit
To mitigate this issue, please refer to the troubleshooting guidelines here"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_CHAIN, "WorkloadIdentityCredential says [Errno 2] No such file: '/var/run/token'"),
        (
            _CHAIN.replace(", no response", "; Token request error: (x) Identity not found"),
            "authentication unavailable; Token request error: (x) Identity not found",
        ),
        (
            _CHAIN.replace("Azure CLI not found on path", "Please run 'az login' to set up"),
            "; AzureCliCredential says Please run 'az login' to set up",
        ),
        (
            _CHAIN.replace("[Errno 2]", "unavailable"),
            "DefaultAzureCredential failed to retrieve a token from the included credentials",
        ),
    ],
)
def test_what_a_credential_that_is_set_up_met_is_shown(text: str, said: str) -> None:
    """Of a chain of ten, of which nine are not meant."""
    shown, remedy = credential_problem(ClientAuthenticationError(text), "a connection string")
    assert shown.endswith(said)
    assert redact_secrets(shown) == shown
    assert "az login" in remedy


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AZURE_TENANT_ID", "a b/c"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", "/missing.pem"),
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1"),
    ],
)
async def test_settings_of_a_credential_that_cannot_be_are_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A ValueError or FileNotFoundError of azure-identity names no variable."""
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID"):
        monkeypatch.setenv(name, "00000000-0000-0000-0000-000000000001")
    if variable != "AZURE_CLIENT_CERTIFICATE_PATH":
        monkeypatch.setenv("AZURE_CLIENT_SECRET", "x")
    monkeypatch.setenv(variable, value)
    config = TableConfig(table_name="jobs", account_name="acc123")
    with (
        AzureTableJobStore(config=config) as store,
        pytest.raises(AzureTableError, match=f"cannot be made .* check .*{variable}"),
    ):
        store.fetch("b", "j")
    async with AsyncAzureTableJobStore(config=config) as twin:
        with pytest.raises(AzureTableError, match=f"cannot be made .* check .*{variable}"):
            await twin.fetch("b", "j")


async def test_an_endless_credential_keeps_no_other_one_waiting() -> None:
    """Each question that goes unanswered holds a thread, and leaves its place in the pool."""
    endless = _Credential()
    endless.go.clear()
    source = TokenSource(endless, wait=0.01)
    for _ in range(12):
        with pytest.raises(TokenTimeoutError):
            await source.get(_SCOPE)
    assert (await TokenSource(_Credential(), wait=20).get(_SCOPE)).token == "T1"
    endless.go.set()
    await _until(lambda: source._usable(_Wanted((_SCOPE,))) is not None)


async def test_a_silent_credential_leaves_the_threads_for_files_alone(tmp_path: Path) -> None:
    """Local writes go on while many uploads wait for a token."""
    credential = _Credential()
    credential.go.clear()
    client = AzureStorageClient.from_settings(
        AzureStorageSettings("box", account_name="acc", options=TransferOptions(max_retries=0)),
        "strict",
        credential=credential,
        base_path=tmp_path,
    )
    names = [tmp_path / f"{i}.txt" for i in range(64)]
    uploads = [asyncio.ensure_future(client.write_text_async(name, "x")) for name in names]
    await _until(lambda: all(name.exists() for name in names))
    assert await asyncio.to_thread(lambda: 1) == 1
    await _until(lambda: credential.asked == 1)
    for upload in uploads:
        upload.cancel()
    await asyncio.gather(*uploads, return_exceptions=True)
    credential.go.set()
    await client.aclose()


def test_the_deadline_holds_and_the_error_speaks_of_the_credential(tmp_path: Path) -> None:
    """It may pass, so it is kept in best-effort; it is no missing role."""
    credential = _Credential()
    credential.go.clear()
    options = TransferOptions(timeout=0.1, connect_timeout=0.1)
    client = AzureStorageClient.from_settings(
        AzureStorageSettings("box", account_name="acc", options=options),
        "strict",
        credential=credential,
    )
    with pytest.raises(StorageTimeoutError, match=r"gave no token within 0\.1 s; check the netw"):
        client.upload_text(tmp_path / "a", "x")  # in one attempt: the next would wait as long
    credential.go.set()
    client.close()


_SCRIPT = """
import sys, threading, time
from infra_core.azure._tokens import TokenSource, TokenTimeoutError
class Silent:
    def get_token(self, *scopes):
        threading.Event().wait()
try:
    TokenSource(Silent(), wait=0.05).get_blocking("s")
except TokenTimeoutError:
    print("late")
"""


def test_the_process_ends_while_the_credential_is_silent() -> None:
    """No thread of it is waited for."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("late\n", "")


def test_a_challenge_of_the_sdk_fetches_a_new_token() -> None:
    """The token is shared until the transport says that it was refused."""
    credential = _Credential()
    sdk = SdkCredential(TokenSource(credential))
    assert [sdk.get_token(_SCOPE, enable_cae=True).token for _ in range(3)] == ["T1"] * 3
    sdk.refused({"Authorization": "Bearer T1"})
    assert sdk.get_token(_SCOPE, tenant_id="t").token == "T2"
    assert credential.options == [{}, {"tenant_id": "t"}]
    assert sdk.get_token(_SCOPE).token == "T3"


def test_a_synchronous_client_of_the_sdk_takes_an_asynchronous_credential(tmp_path: Path) -> None:
    """The run log's mirror is one, whatever the storage client was given."""
    credential = _AsyncCredential()
    settings = AzureStorageSettings("box", account_name="acc", journal=tmp_path / "j")
    with AzureStorageClient.from_settings(settings, "strict", credential=credential) as client:
        container = client.container(create=False)
        assert container is not None
        sdk = container.credential
        assert [sdk.get_token(_SCOPE).token for _ in range(2)] == ["T1"] * 2
    assert credential.asked == 1


class _Info:
    """Has azure-core's newer protocol alone, `SupportsTokenInfo`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def get_token_info(self, *scopes: str, options: Any = None) -> Any:
        self.asked.append((scopes, options))
        return SimpleNamespace(token=f"T{len(self.asked)}", expires_on=clock.time() + 3600)


class _AsyncInfo(_Info):
    async def get_token_info(self, *scopes: str, options: Any = None) -> Any:
        return super().get_token_info(*scopes, options=options)


@pytest.mark.parametrize("kind", [_Info, _AsyncInfo])
async def test_a_credential_of_the_newer_protocol_gives_tokens(
    kind: type[_Info], tmp_path: Path
) -> None:
    """To the storage client, and to the clients of the SDK, which ask for the other one."""
    credential = kind()
    source = TokenSource(credential)
    assert (await source.get(_SCOPE, tenant_id="t")).token == "T1"
    assert credential.asked == [((_SCOPE,), {"tenant_id": "t"})]
    settings = AzureStorageSettings("box", account_name="acc", journal=tmp_path / "j")
    async with AzureStorageClient.from_settings(settings, "strict", credential=credential) as own:
        container = await asyncio.to_thread(own.container, create=False)
        assert container is not None
        assert container.credential.get_token(_SCOPE).token == "T2"


@pytest.mark.parametrize("credential", ["S3CRET", b"S3CRET", {"account_key": "S3CRET"}, object()])
def test_what_is_no_credential_is_refused_at_once(credential: object) -> None:
    """The SDK takes keys and tokens there; the message says where they belong, and shows none."""
    settings = AzureStorageSettings("box", account_name="acc")
    with pytest.raises(TypeError, match="a key belongs in connection_string") as caught:
        AzureStorageClient.from_settings(settings, "strict", credential=credential)
    assert "S3CRET" not in str(caught.value)


async def test_the_asynchronous_client_of_the_sdk_does_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And closes what was made for it."""

    class Own(_Credential):
        closed = False

        def close(self) -> None:
            self.closed = True

    made: list[Own] = []

    def make() -> Own:
        made.append(Own())
        return made[-1]

    monkeypatch.setattr(_tokens, "default_credential", make)
    sdk = AsyncSdkCredential(TokenSource())
    assert (await sdk.get_token(_SCOPE)).token == "T1"
    sdk.refused({"Authorization": "Bearer T1"})  # by its transport
    await sdk.get_token(_SCOPE, tenant_id="t")
    assert len(made) == 2  # the first one has the refused token in its cache
    await sdk.close()
    assert all(own.closed for own in made)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InvalidAuthenticationInfo", "does not accept the token"),
        ("AuthorizationPermissionMismatch", "role"),
        ("KeyBasedAuthenticationNotPermitted", "no shared keys"),
    ],
)
def test_the_remedy_is_for_what_the_service_said(code: str, expected: str) -> None:
    """A stale token is no missing role."""
    assert expected in access_remedy(code, 403)


@pytest.mark.parametrize("refusal", [None, ClientAuthenticationError("tenant"), TypeError("kw")])
async def test_the_tenant_of_the_account_is_asked_where_the_credential_may(
    refusal: Exception | None,
) -> None:
    """The service names it in its 401; else the credential's own tenant has to do."""

    class OfTenants(_Credential):
        def get_token(self, *scopes: str, **options: Any) -> Any:
            if options and refusal is not None:
                raise refusal
            return super().get_token(*scopes, **options)

    credential = OfTenants()
    auth = BearerToken(credential)
    sent: dict[str, str] = {}
    await auth.authorize("GET", "/", {}, sent)
    assert auth.renews(sent, challenge_of(_CHALLENGE.partition(" error")[0]))
    many: list[dict[str, str]] = [{} for _ in range(3)]
    for requests in (many[:2], many[2:]):
        await asyncio.gather(*(auth.authorize("GET", "/", {}, headers) for headers in requests))
    assert {headers["Authorization"] for headers in many} == {"Bearer T2"}
    assert credential.options == [{}, {"tenant_id": "T"} if refusal is None else {}]


# The claims are {"a":1}.
_CHALLENGE = (
    'Bearer authorization_uri="https://login.microsoftonline.com/T/oauth2/authorize", '
    'error="insufficient_claims", claims="eyJhIjoxfQ"'
)


@pytest.mark.parametrize("tenant", ["common", "organizations", "", "?x"])
def test_no_tenant_is_asked_where_the_challenge_names_none(tenant: str) -> None:
    """Of an authority for all of them."""
    header = f"Bearer authorization_uri=https://login.microsoftonline.com/{tenant}/oauth2"
    assert challenge_of(header) == {}


class _Handler(BaseHTTPRequestHandler):
    """Takes one token."""

    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers["Authorization"]
        self.server.seen.append(token)  # type: ignore[attr-defined]
        good = token == self.server.good  # type: ignore[attr-defined]
        taken = 201 if self.command == "PUT" else 204
        self.send_response(taken if good else 401)
        self.send_header("Content-Length", "0")
        self.send_header("x-ms-request-id", "r")
        for name, value in () if good else self.server.refusal:  # type: ignore[attr-defined]
            self.send_header(name, value)
        self.end_headers()

    do_PUT = do_POST = do_DELETE = do_any  # noqa: N815 - as the class wants it

    def log_message(self, *arguments: object) -> None:
        pass


_UPLOAD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, StorageAccessError
class Credential:
    asked = 0
    def get_token(self, *scopes, claims="", tenant_id=""):
        self.asked += 1
        assert (claims, tenant_id) == (('{"a":1}', "T") if self.asked > 1 else ("", ""))
        return SimpleNamespace(token=f"T{self.asked}", expires_on=time.time() + 3600)
for endpoint in sys.argv[1:]:
    settings = AzureStorageSettings("box", account_name="acc", blob_endpoint=endpoint)
    with AzureStorageClient.from_settings(settings, "strict", credential=Credential()) as client:
        try:
            client.upload_text(Path("a"), "x")
            print("uploaded")
        except StorageAccessError as error:
            print(error)
"""


_TABLE = """
import sys, time
from types import SimpleNamespace
from infra_core.azure import _tokens
from infra_core.azure.job_store import AzureTableJobStore, TableAccessError, TableConfig
asked = 0
class Credential:
    def get_token(self, *scopes, **options):
        global asked
        asked += 1
        return SimpleNamespace(token=f"T{asked}", expires_on=time.time() + 3600)
    def close(self):
        pass
_tokens.default_credential = Credential
for endpoint in sys.argv[1:]:
    asked = 0
    with AzureTableJobStore(config=TableConfig(None, "jobs", table_endpoint=endpoint)) as store:
        try:
            assert store.delete("b", "1")
            print("asked")
        except TableAccessError as error:
            print(error)
"""
_CODE = ("x-ms-error-code", "InvalidAuthenticationInfo")


@pytest.mark.parametrize("child", [_UPLOAD, _TABLE], ids=["blobs", "tables"])
@pytest.mark.parametrize(
    "refusal",
    [
        [_CODE, ("WWW-Authenticate", _CHALLENGE)],
        [_CODE, ("WWW-Authenticate", "Bearer error=invalid_token")],
        [("WWW-Authenticate", "Bearer")],
        [],
    ],
    ids=["challenge", "reason", "scheme", "nothing"],
)
def test_a_token_that_the_service_refuses_is_renewed_once(
    tmp_path: Path, child: str, refusal: list[tuple[str, str]]
) -> None:
    """The local clock says that it is good; then the error is about the token, not about roles.

    The new one is to have the claims that the service asked for.
    """
    if not any("claims" in value for _, value in refusal):
        child = child.replace("""('{"a":1}', "T") if self.asked > 1 else""", "")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with contextlib.ExitStack() as stack:
        endpoints, seen = [], []
        for good in ("Bearer T2", "none"):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Handler))
            server.good = good  # type: ignore[attr-defined]
            server.seen = []  # type: ignore[attr-defined]
            server.refusal = refusal  # type: ignore[attr-defined]
            seen.append(server.seen)  # type: ignore[attr-defined]
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            endpoints.append(f"https://127.0.0.1:{server.server_address[1]}/acc")
        done = subprocess.run(
            [sys.executable, "-c", child, *endpoints],
            env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem")},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=tmp_path,
        )
    taken, refused = seen
    assert taken[0] == "Bearer T1"
    assert set(taken[1:]) == {"Bearer T2"}
    assert refused[:2] == ["Bearer T1", "Bearer T2"]
    first, second = done.stdout.splitlines()
    assert first in ("uploaded", "asked")
    assert (_CODE[1] in second) is (_CODE in refusal)
    assert "does not accept the token; check this machine's clock" in second
