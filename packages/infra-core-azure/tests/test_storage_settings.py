"""Settings: where they come from, what contradicts what, and that secrets stay secret."""

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from infra_core.azure.exceptions import AzureTableError, ConfigurationError
from infra_core.azure.job_store import TableConfig
from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    TransferOptions,
    get_shared_client,
    is_configured,
    reset_all_clients,
    reset_shared_client,
    reset_shared_client_async,
)
from infra_core.azure.storage._config import resolve_config
from infra_core.azure.storage._connection_string import parse_connection_string

KEY = "c2VjcmV0LWtleQ=="
CONNECTION = f"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", "strict"),
        ("STRICT", "strict"),
        ("best", "best-effort"),
        ("warn", "best-effort"),
        ("best_effort", "best-effort"),
        ("dev", "dev-skip"),
        ("dev-no-upload", "dev-skip"),
        ("local_dev_no_upload", "dev-skip"),
    ],
)
def test_mode_aliases(text: str, mode: str) -> None:
    """The aliases of 0.7, underscores as hyphens, any case; strict by default."""
    assert AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": text})[1] == mode


def test_unknown_mode_is_a_value_error() -> None:
    """It names the variable and the modes there are."""
    with pytest.raises(ValueError, match=r"AZURE_STORAGE_MODE.*strict, best-effort or dev-skip"):
        AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "maybe"})


def test_prefix_reads_its_own_variables_only() -> None:
    """`{PREFIX}_AZURE_STORAGE_*`; another service's settings are never taken."""
    env = {
        "AZURE_STORAGE_CONTAINER": "other",
        "CRAWLER_AZURE_STORAGE_CONNECTION_STRING": CONNECTION,
        "CRAWLER_AZURE_STORAGE_BLOB_PREFIX": "shots/",
        "CRAWLER_AZURE_STORAGE_MODE": "best",
        "CRAWLER_AZURE_STORAGE_MAX_RETRIES": "7",
        "CRAWLER_AZURE_STORAGE_BLOCK_SIZE": "65536",
        "CRAWLER_AZURE_STORAGE_TIMEOUT": "2.5",
        "CRAWLER_AZURE_STORAGE_JOURNAL": "/state/j.sqlite",
    }
    settings, mode = AzureStorageSettings.from_env_with_prefix("CRAWLER", env=env)
    assert settings.container is None
    assert settings.connection_string == CONNECTION
    assert settings.prefix == "shots/"
    assert mode == "best-effort"
    assert settings.options == TransferOptions(max_retries=7, block_size=65536, timeout=2.5)
    assert settings.journal == Path("/state/j.sqlite")


def test_home_folder_that_no_shell_has_expanded_is_found() -> None:
    """As in an env file of Docker or systemd; a folder called `~` is never made."""
    read = AzureStorageSettings.from_env
    assert read(env={"AZURE_STORAGE_JOURNAL": "~/j"})[0].journal == Path.home() / "j"
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_JOURNAL='~nobody-of/j' begins"):
        read(env={"AZURE_STORAGE_JOURNAL": "~nobody-of/j"})


NUMBERS = [field for field in TransferOptions.__dataclass_fields__ if field != "block_md5"]


@pytest.mark.parametrize("name", [field.upper() for field in NUMBERS])
def test_every_option_has_a_variable_and_names_it_when_malformed(name: str) -> None:
    """A value that is no number is refused with the variable's name."""
    with pytest.raises(ConfigurationError, match=f"AZURE_STORAGE_{name}='x'"):
        AzureStorageSettings.from_env(env={f"AZURE_STORAGE_{name}": "x"})
    with pytest.raises(ConfigurationError, match=f"AZURE_STORAGE_{name}=-1"):
        AzureStorageSettings.from_env(env={f"AZURE_STORAGE_{name}": "-1"})


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("TIMEOUT", "nan", "=nan is out of range; set it to a number of seconds above 0, or unset"),
        ("TIMEOUT", "inf", "=inf is out of range"),
        ("BACKOFF", "inf", "=inf is out of range; set it to a number of seconds, 0 or more"),
        ("DEADLINE", "soon", "='soon' is not a number; .* above 0, or unset it for no bound"),
        ("BLOCK_SIZE", "8MiB", "='8MiB' is not a whole number; set it to a whole number of bytes"),
        ("CONCURRENCY", "0", "=0 is out of range; set it to a whole number from 1 to 1024"),
        ("MAX_RETRIES", "1.5", "=1.5 is not a whole number.* default of 4"),
    ],
)
def test_numbers_of_the_environment(variable: str, text: str, expected: str) -> None:
    """The variable, what it holds, what it may hold, and what happens without it."""
    with pytest.raises(ConfigurationError, match=f"^APP_AZURE_STORAGE_{variable}{expected}"):
        AzureStorageSettings.from_env_with_prefix(
            "APP", env={f"APP_AZURE_STORAGE_{variable}": text}
        )


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("False", False), (" 0 ", False), ("", True)]
)
def test_switch_of_the_environment(text: str, value: bool) -> None:
    """Hashing of blocks is on unless it is switched off."""
    assert TransferOptions.from_env("S_", {"S_BLOCK_MD5": text}).block_md5 is value


def test_switch_that_is_none() -> None:
    """The variable, what it holds, what it may hold."""
    expected = "^AZURE_STORAGE_BLOCK_MD5='maybe' is not a switch; set it to true or false, or unset"
    with pytest.raises(ConfigurationError, match=expected):
        AzureStorageSettings.from_env(env={"AZURE_STORAGE_BLOCK_MD5": "maybe"})
    with pytest.raises(ConfigurationError, match="block_md5='no' is out of range; pass True or"):
        TransferOptions(block_md5="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"max_retries": "5"}, {"max_retries": 1.5}, {"timeout": None}, {"concurrency": True},
     {"deadline": "x"}, {"backoff": float("nan")}, {"timeout": 10**400}],
)  # fmt: skip
def test_options_of_another_kind(options: dict[str, Any]) -> None:
    """Refused by name and value, as a configuration error and as a value error."""
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"^{name}=.* is out of range; pass a") as raised:
        TransferOptions(**options)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("given", ["a+b/c=", "a%2Bb%2Fc%3D", "a%2bb/c%3d", "a%252Bb%252Fc%253D"])
@pytest.mark.parametrize("where", ["sig={}&se=2030-01-01T00:00:00Z", "?sv=1&sig={}"])
def test_a_signature_is_sent_as_queries_hold_it(given: str, where: str) -> None:
    """A plus sign is a blank there, and what was encoded twice is no signature."""
    token, expected = where.format(given), where.format("a%2Bb%2Fc%3D").lstrip("?")
    endpoint = "https://acc.blob.core.windows.net"
    for settings in (
        AzureStorageSettings("box", account_name="acc", sas_token=token),
        AzureStorageSettings("box", f"BlobEndpoint={endpoint};SharedAccessSignature={token}"),
    ):
        config = resolve_config(settings, "strict")
        assert config is not None
        assert config.sas_token == expected


@pytest.mark.parametrize(
    "given",
    [
        '"?sv=1&sp=r&sig=a%3D"',
        "'sv=1&sp=r&sig=a%3D'",
        "sv=1&amp;sp=r&amp;sig=a%3D",
        r"?sv=1\u0026sp=r\u0026sig=a%3D",
        "sv=1&sp=r&sig=a%3D&restype=container&comp=list",
        "\ufeff?sv=1&sp=r&sig=a%3D\n",
    ],
)
def test_token_as_files_and_programs_hold_it(given: str) -> None:
    """Quotes of an env file, ampersands of XML and JSON, and what one request had behind it."""
    settings = AzureStorageSettings("box", account_name="acc", sas_token=given)
    config = resolve_config(settings, "strict")
    assert config is not None
    assert config.sas_token == "sv=1&sp=r&sig=a%3D"


def test_pair_in_the_place_of_settings() -> None:
    """`from_env()` returns two values, which is easily forgotten."""
    pair: Any = AzureStorageSettings.from_env(env={})
    with pytest.raises(TypeError, match=r"settings is a tuple; .*settings, mode ="):
        AzureStorageClient.from_settings(pair, "strict")


def test_missing_settings_by_mode(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """strict raises with the variables to set; best-effort says so once; dev-skip is quiet."""
    settings, _ = AzureStorageSettings.from_env_with_prefix("APP", env={})
    with pytest.raises(ConfigurationError, match="APP_AZURE_STORAGE_CONTAINER"):
        AzureStorageClient.from_settings(settings, "strict")
    client = AzureStorageClient.from_settings(settings, "best-effort")
    client.write_text(tmp_path / "a.txt", "a")
    client.write_text(tmp_path / "a.txt", "b")
    assert (tmp_path / "a.txt").read_text() == "b"
    assert caplog.text.count("Azure storage not configured") == 1
    assert "APP_AZURE_STORAGE_CONTAINER" in caplog.text
    assert repr(client) == "<AzureStorageClient not configured mode=best-effort>"
    caplog.clear()
    caplog.set_level(logging.INFO)
    skipping = AzureStorageClient.from_settings(settings, "dev-skip")
    assert skipping.write_json(tmp_path / "b.json", {"ü": 1}).read_text("utf-8") == (
        '{\n  "ü": 1\n}\n'
    )
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "not configured, files stay local (mode dev-skip)" in caplog.text
    assert not client.is_configured()
    assert client.download_to_path(tmp_path / "a.txt") is False
    assert client.download_tree(tmp_path) is False
    assert client.list_tree(tmp_path) == []
    assert client.container() is None
    assert client.blob_url_for_name("a") is None


BAD: list[tuple[dict[str, Any], str]] = [
    ({"container": "Ab"}, "container='Ab'.*lower-case"),
    ({"container": "a--b"}, "single hyphens"),
    ({"container": "x" * 64}, "3 to 63"),
    ({"connection_string": "nonsense"}, "connection_string is not a NAME=VALUE"),
    ({"connection_string": f"{CONNECTION};accountname=b"}, r"AccountName \(part \d\) twice"),
    ({"connection_string": f"{CONNECTION};c2VjcmV0=a;c2VjcmV0=b"}, r"holds part \d twice"),
    ({"connection_string": "AccountName=acc;AccountKey=§"}, "AccountKey.*not base64"),
    ({"connection_string": "AccountName=acc"}, "neither AccountKey nor"),
    *(
        ({"connection_string": f"AccountName=acc{between}AccountKey={KEY}"}, "by semicolons")
        for between in (",", "&", " ", "\n")
    ),
    (
        {"connection_string": "https://acc.blob.core.windows.net/box?sv=1&sig=SECRET"},
        "connection_string is a URL; set it to",
    ),
    ({"connection_string": f"AccountKey={KEY}"}, "no AccountName"),
    ({"connection_string": f"{CONNECTION};SharedAccessSignature=sig=x"}, "both"),
    ({"connection_string": "UseDevelopmentStorage=false"}, "can only be true"),
    ({"connection_string": f"UseDevelopmentStorage=true;AccountKey={KEY}"}, "contradicts"),
    ({"connection_string": f"{CONNECTION};BlobEndpoint=ftp://x"}, "BlobEndpoint in connection"),
    ({"connection_string": CONNECTION, "blob_endpoint": "ftp://x.y"}, "blob_endpoint .*an http"),
    *(
        ({"connection_string": f"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.x{end}"}, why)
        for end, why in (("#", "behind it"), ("?", "behind"), (":0", "port 0"), (":65536", "URL"))
    ),
    *(
        ({"connection_string": f"AccountName=acc;AccountKey={KEY};EndpointSuffix={bad}"}, "the end")
        for bad in ("core.x/a", "core.x/#", "core.x\\a", "core.x%2fa", "[::1]", "core!x")
    ),
    ({"connection_string": f"{CONNECTION};BlobEndpoint=https://h.example:0"}, "port 0"),
    ({"connection_string": f"{CONNECTION};BlobEndpoint=https://h.example:/a"}, "port is missing"),
    ({"connection_string": f"{CONNECTION};BlobEndpoint=https://h.example\\a"}, "backslash"),
    ({"connection_string": CONNECTION, "blob_endpoint": "https://h.example%2fa"}, "backslash"),
    ({"connection_string": f"{CONNECTION};BlobEndpoint=https://h.example/a#"}, "behind it"),
    (
        {"connection_string": f"AccountName=acc;AccountKey={KEY};EndpointSuffix=a..b"},
        "EndpointSuffix in connection_string",
    ),
    (
        {"connection_string": f"AccountName=acc;AccountKey={KEY};EndpointSuffix=https://core.x"},
        "EndpointSuffix=.* not the end of a host name",
    ),
    (
        {"connection_string": "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://h:0"},
        "DevelopmentStorageProxyUri in connection_string .*port 0",
    ),
    (
        {
            "connection_string": "UseDevelopmentStorage=true;"
            "DevelopmentStorageProxyUri=http://127.0.0.1:10100"
        },
        "DevelopmentStorageProxyUri in connection_string .* names a port",
    ),
    (
        {"connection_string": f"AccountName=acc;AccountKey={KEY};TableEndpoint=https://h.example"},
        "no BlobEndpoint, and TableEndpoint is that of another service",
    ),
    ({"account_name": "evil.example/#"}, "not an account name"),
    ({"account_name": "acc", "sas_token": "sv=1"}, "no signature"),
    ({"account_name": "acc", "blob_endpoint": "http://1.2.3.4/acc"}, "not https"),
    ({"account_name": "acc", "blob_endpoint": "https://b.blob.core.windows.net"}, "account 'b'"),
    (
        {"blob_endpoint": "https://acc.blob.core.windows.net/?sig=SECRET"},
        "setting .sas_token",
    ),
    ({"blob_endpoint": "https://user:SECRET@acc.blob.core.windows.net"}, "user name or password"),
    ({"account_name": "acc", "prefix": "a/../b"}, "prefix='a/../b'"),
    ({"account_name": "acc", "prefix": "run./a"}, "prefix='run./a' .*ends in a dot"),
    ({"account_name": "acc", "prefix": "p" * 2000}, "prefix='p{79} cannot start blob names"),
    ({"connection_string": "AccountName=acc;AccountKey="}, "AccountKey in .* is empty"),
    ({"connection_string": f"AccountName=A!;AccountKey={KEY}"}, "AccountName='A!' in connection"),
    (
        {"connection_string": f"{CONNECTION};BlobEndpoint=http://h:99999"},
        "99999.*Port out of",
    ),
    ({"connection_string": "AccountName=acc;SharedAccessSignature=sv=1"}, "holds no signature"),
    ({"connection_string": b"AccountKey=SECRET"}, "connection_string is a bytes; pass a str"),
    ({"account_name": "acc", "sas_token": "https://acc.x/?sig=SECRET"}, "a whole URL; set it to"),
    *(
        ({"account_name": "acc", "sas_token": f"{start}sv=1&sig=SECRET"}, why)
        for start, why in (
            ("acc.blob.core.windows.net/box?", "a whole URL; set it to"),
            ("/box?", "a whole URL; set it to"),
            ("SharedAccessSignature=", "more than a token"),
            ("BlobEndpoint=h;SharedAccessSignature=", "more than a token"),
            ("AZURE_STORAGE_SAS_TOKEN=", "more than a token"),
        )
    ),
    ({"account_name": "acc", "sas_token": "sv=1&sig="}, "holds no signature"),
    ({"account_name": "acc", "sas_token": "sv=1&\nsig=SECRET"}, "line breaks.*copy it again"),
    ({"account_name": "acc", "container": 5}, "container is an int; pass a str"),
    ({"account_name": "acc", "options": {"timeout": 1}}, "options is a dict; pass a TransferOp"),
    ({"blob_endpoint": "acc"}, r"blob_endpoint \('acc'\) is not an http"),
    ({"blob_endpoint": "https://acc.blob.core.windows.net/box"}, "has a path; the container has"),
    ({"blob_endpoint": "https://h.example/acc/box/"}, "in blob_endpoint ends in the container's"),
    (
        {"connection_string": f"{CONNECTION};BlobEndpoint=http://127.0.0.1:1/acc/box"},
        "in connection_string ends in the container's name.* of its own, container; .* 'acc'",
    ),
    *(
        (values, f"service; use https://acc{zone}.blob.{cloud}")
        for cloud in ("core.windows.net", "core.chinacloudapi.cn", "storage.azure.net")
        for service in ("dfs", "table", "queue", "file")
        for zone in ("", ".z20")
        for host in (f"https://acc{zone}.{service}.{cloud}",)
        for values in (
            {"blob_endpoint": host},
            {"connection_string": f"AccountName=acc;AccountKey={KEY};BlobEndpoint={host}"},
        )
    ),
    *(
        (
            {"connection_string": f"AccountName=acc;AccountKey={KEY};EndpointSuffix={service}.x.y"},
            "EndpointSuffix=.* without scheme, service or path",
        )
        for service in ("blob", "table", "web", ".dfs")
    ),
]


@pytest.mark.parametrize(("values", "message"), BAD)
@pytest.mark.parametrize("mode", ["strict", "best-effort"])
def test_malformed_and_contradictory_settings(
    values: dict[str, Any], message: str, mode: Any
) -> None:
    """Refused in every mode that uploads, with name and remedy, without secrets."""
    settings = AzureStorageSettings(**{"container": "box", "account_name": None, **values})
    if not (settings.connection_string or settings.account_name or settings.blob_endpoint):
        settings = AzureStorageSettings(**{"account_name": "acc", **values})
    with pytest.raises(ConfigurationError, match=message) as raised:
        AzureStorageClient.from_settings(settings, mode)
    assert "SECRET" not in str(raised.value)
    assert KEY not in str(raised.value)


ENDPOINTS = [
    (CONNECTION, "https://acc.blob.core.windows.net"),
    (f"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn",
     "https://acc.blob.core.chinacloudapi.cn"),
    (f"AccountName=a;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/a/", "http://127.0.0.1:1/a"),
    ("BlobEndpoint=https://h.example;SharedAccessSignature=?sig=1", "https://h.example"),
    ("UseDevelopmentStorage=true", "http://127.0.0.1:10000/devstoreaccount1"),
    (f'"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.usgovcloudapi.net"',
     "https://acc.blob.core.usgovcloudapi.net"),
    (f" AccountName = 'acc' ;; AccountKey={KEY} ; ", "https://acc.blob.core.windows.net"),
    (f"AccountName=acc;AccountKey={KEY};EndpointSuffix=.core.chinacloudapi.cn",
     "https://acc.blob.core.chinacloudapi.cn"),
    (f"AccountName=acc;AccountKey={KEY};TableEndpoint=https://acc.table.core.chinacloudapi.cn",
     "https://acc.blob.core.chinacloudapi.cn"),
    (f"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net/;DefaultEndpointsProtocol=",
     "https://acc.blob.core.windows.net"),
    (f"AccountName=acc;AccountKey={KEY};EndpointSuffix=core.windows.net;TableEndpoint=https://h.x",
     "https://acc.blob.core.windows.net"),
    (f"\ufeffAccountName=acc;AccountKey={KEY};SharedAccessSignature=",
     "https://acc.blob.core.windows.net"),
    ("AccountName=acc;AccountKey=;SharedAccessSignature=?sig=1",
     "https://acc.blob.core.windows.net"),
    ("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite",
     "http://azurite:10000/devstoreaccount1"),
    (f"AccountName=box;AccountKey={KEY};BlobEndpoint=http://h:1/box", "http://h:1/box"),
]  # fmt: skip


@pytest.mark.parametrize(("connection", "endpoint"), ENDPOINTS)
def test_blob_urls_respect_the_connection_string(connection: str, endpoint: str) -> None:
    """BlobEndpoint, EndpointSuffix and UseDevelopmentStorage decide, path-style included."""
    client = AzureStorageClient.from_settings(AzureStorageSettings("box", connection), "strict")
    assert client.blob_url_for_name("a b") == f"{endpoint}/box/a%20b"


def test_the_connection_string_wins_and_ignored_settings_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in 0.7: other variables may be there for other tools; an endpoint is that of URLs."""
    settings = AzureStorageSettings(
        "box", CONNECTION, "other", "https://cdn.example/", sas_token="sig=SECRET"
    )
    with AzureStorageClient.from_settings(settings, "strict") as client:
        assert client.blob_url_for_name("a") == "https://cdn.example/box/a"
        assert client.config is not None
        assert client.config.endpoint == "https://acc.blob.core.windows.net"
    assert "account_name is ignored beside connection_string" in caplog.text
    assert "sas_token is ignored beside connection_string" in caplog.text
    assert "SECRET" not in caplog.text


def test_nothing_about_the_transfer_can_be_wrong_in_dev_skip() -> None:
    """Nothing travels."""
    env = {"AZURE_STORAGE_MODE": "dev-skip", "AZURE_STORAGE_TIMEOUT": "abc"}
    assert AzureStorageSettings.from_env(env=env)[1] == "dev-skip"


def test_account_uses_the_default_credential_over_https() -> None:
    """Account alone means DefaultAzureCredential; a SAS token replaces it."""
    config = resolve_config(AzureStorageSettings("box", account_name="acc"), "strict")
    assert config is not None
    assert config.uses_credential
    assert config.container_url == "https://acc.blob.core.windows.net/box"
    sas = AzureStorageSettings("box", account_name="acc", sas_token="?sv=1&sig=2")
    found = resolve_config(sas, "strict")
    assert found is not None
    assert not found.uses_credential


def test_secrets_are_in_no_repr() -> None:
    """Neither settings nor configuration nor client show key, token or connection string."""
    settings = AzureStorageSettings(
        "box", CONNECTION, blob_endpoint="https://acc.blob.core.windows.net?sig=SECRET"
    )
    good = AzureStorageSettings("box", CONNECTION)
    sas = AzureStorageSettings("box", account_name="acc", sas_token="sig=SECRET")
    shown = [repr(settings), str(settings), repr(sas), repr(resolve_config(sas, "strict"))]
    shown += [repr(resolve_config(good, "strict"))]
    shown += [repr(AzureStorageClient.from_settings(good, "strict"))]
    assert shown[-1].startswith("<AzureStorageClient https://acc.blob.core")
    for text in shown:
        assert "SECRET" not in text
        assert KEY not in text
    assert "connection_string=***" in shown[0]


def test_settings_are_values() -> None:
    """Equal when their parts are, hashable, picklable; 0.7's positional form works."""
    settings = AzureStorageSettings("box", CONNECTION, None, None, "pre")
    assert settings == AzureStorageSettings(
        container="box", connection_string=CONNECTION, prefix="pre"
    )
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert len({settings, AzureStorageSettings("box", CONNECTION, prefix="pre")}) == 1


def test_is_configured_does_not_raise_for_missing_settings() -> None:
    """A question, not a demand; what is malformed raises all the same."""
    assert not is_configured(AzureStorageSettings(None), "strict")
    assert not is_configured(AzureStorageSettings("box", CONNECTION), "dev-skip")
    assert is_configured(AzureStorageSettings("box", CONNECTION), "best-effort")
    with pytest.raises(ConfigurationError):
        is_configured(AzureStorageSettings("BOX", CONNECTION), "strict")


@pytest.mark.parametrize("how", ["one", "one, awaited", "all"])
async def test_shared_client_that_is_reset_is_closed(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And made anew when it is asked for again; where there is none, nothing happens."""
    settings, closed = AzureStorageSettings("box", CONNECTION), list[AzureStorageClient]()

    async def aclose(client: AzureStorageClient) -> None:
        closed.append(client)

    async def reset() -> None:
        if how == "all":
            reset_all_clients()
        elif how == "one":
            reset_shared_client(settings, "strict")
        else:
            await reset_shared_client_async(settings, "strict")

    monkeypatch.setattr(AzureStorageClient, "close", lambda client: closed.append(client))
    monkeypatch.setattr(AzureStorageClient, "aclose", aclose)
    await reset()
    shared = get_shared_client(settings, "strict")
    await reset()
    assert closed == [shared]
    anew = get_shared_client(settings, "strict")
    assert anew is not shared
    await reset()
    assert closed == [shared, anew]


@given(st.text())
def test_no_connection_string_ever_leaks(text: str) -> None:
    """Whatever is wrong with a connection string, its values stay out of the error."""
    settings = AzureStorageSettings("box", f"AccountName=acc;AccountKey={KEY};{text}")
    try:
        resolve_config(settings, "strict")
    except ConfigurationError as error:
        assert KEY not in str(error)


_A_KEY = "Zm9vYmFyYmF6cXV4" * 5 + "Zm9vYg=="
_WHOLE = f"AccountName=acc123;AccountKey={_A_KEY}"


@pytest.mark.parametrize("misplaced", [_A_KEY, _WHOLE, f"?sv=1&sig={_A_KEY}", f"sv=1&sig={_A_KEY}"])
@pytest.mark.parametrize("setting", ["container", "account_name", "blob_endpoint", "prefix"])
def test_a_key_in_the_wrong_setting_is_not_shown(setting: str, misplaced: str) -> None:
    """The error names the setting; the beginning of a key is part of the key."""
    values: dict[str, Any] = {"container": "box", "account_name": "acc123", setting: misplaced}
    values["prefix"] = f"../{misplaced}" if setting == "prefix" else None
    with pytest.raises(ConfigurationError, match=setting) as raised:
        AzureStorageClient.from_settings(AzureStorageSettings(**values), "strict")
    assert _A_KEY[:16] not in str(raised.value)


@pytest.mark.parametrize("misplaced", [_A_KEY, _WHOLE, f"?sv=1&sig={_A_KEY}", f"sv=1&sig={_A_KEY}"])
@pytest.mark.parametrize("setting", ["account_name", "table_endpoint", "table_name"])
def test_a_key_in_the_wrong_setting_of_the_table_is_not_shown(setting: str, misplaced: str) -> None:
    """As for blobs."""
    values: dict[str, Any] = {"table_name": "jobs", setting: misplaced}
    with pytest.raises(AzureTableError, match=setting) as raised:
        TableConfig(**values)
    assert _A_KEY[:16] not in str(raised.value)


@pytest.mark.parametrize(
    "part",
    [
        "AccountName",
        "BlobEndpoint",
        "TableEndpoint",
        "EndpointSuffix",
        "DefaultEndpointsProtocol",
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri",
    ],
)
def test_a_key_in_the_wrong_part_is_not_shown(part: str) -> None:
    """Nor in any letter case: a connection string that was put together by hand."""
    parts = {"AccountName": "acc123", "AccountKey": _A_KEY}
    if part.startswith("Use"):
        parts = {}
    text = ";".join(f"{name}={value}" for name, value in {**parts, part: _A_KEY}.items())
    for service in ("blob", "table"):
        with pytest.raises(ConfigurationError, match="VAR") as raised:
            parse_connection_string(text, "VAR", service=service)
        assert _A_KEY[:16].lower() not in str(raised.value).lower()
        assert part.rpartition(";")[2] in str(raised.value)
