"""How transfers behave: retries, time limits, block size, concurrency. Pure values, no I/O."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from infra_core.runtime import RetryPolicy

from ..exceptions import ConfigurationError

__all__ = ["MAX_BLOCKS", "Overwrite", "TransferOptions"]

Overwrite = Literal["always", "never", "if-unchanged"]
"""When a blob or file that exists may be replaced."""

MIB = 1024 * 1024
MAX_BLOCKS = 50_000  # https://learn.microsoft.com/rest/api/storageservices/put-block-list
_MAX_BLOCK_SIZE = 4000 * MIB  # the same page: what one block may hold
_SLOWEST = 32 * 1024  # bytes a second; a link slower than this counts as dead


class _Rule(NamedTuple):
    """What an option may be."""

    kind: type[float]
    allowed: str
    least: float = 0
    most: float = math.inf

    def allows(self, value: Any) -> bool:
        """Whether a value is of the kind and in range; NaN is not, nor what is infinite."""
        if self.kind is bool or isinstance(value, bool):
            return type(value) is self.kind
        kinds = int if self.kind is int else (int, float)
        return isinstance(value, kinds) and self.least <= value <= self.most and value < math.inf


_SOME_TIME = _Rule(float, "a number of seconds above 0", 5e-324)  # any but 0
_WAIT = _Rule(float, "a number of seconds, 0 or more")
_MANY = _Rule(int, "a whole number from 1 to 1024", 1, 1024)
_SWITCH = _Rule(bool, "True or False")
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_NONE = {int: "not a whole number", float: "not a number", bool: "no switch"}
_RULES = {
    "max_retries": _Rule(int, "a whole number, 0 or more"),
    "backoff": _WAIT,
    "max_backoff": _WAIT,
    "deadline": _SOME_TIME,
    "connect_timeout": _SOME_TIME,
    "timeout": _SOME_TIME,
    "block_size": _Rule(
        int, f"a whole number of bytes from 1024 to {_MAX_BLOCK_SIZE}", 1024, _MAX_BLOCK_SIZE
    ),
    "block_concurrency": _MANY,
    "block_md5": _SWITCH,
    "concurrency": _MANY,
    "accept_wrong_md5": _SWITCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How a storage client retries, waits and divides its work.

    Each field has a variable of the same name in capitals, `AZURE_STORAGE_MAX_RETRIES` and so on
    (with a service prefix in front when read by `from_env_with_prefix`).

    Attributes:
        max_retries: Retries after the first try of one request. This is the only layer of
            retries: the SDK's own are switched off.
        backoff: Ceiling of the first wait in seconds; doubles with each retry, full jitter.
        max_backoff: No wait is longer than this many seconds.
        deadline: Seconds for one request with all its retries; `None` for no bound.
        connect_timeout: Seconds until a connection must stand.
        timeout: Seconds that the server may stay silent. A request that sends or fetches many
            bytes gets more in total: the time they take at 32 KiB/s.
        block_size: Files up to this many bytes travel in one request, larger ones in blocks of
            this size.
        block_concurrency: Blocks of one file in flight; memory for one large file is at most
            `block_size * (block_concurrency + 1)`.
        block_md5: Whether a file that travels in blocks is hashed: each block, so that the service
            refuses one that was altered on the way, and the whole, stored with the blob and
            compared when it comes down. Without, such files are checked by length, range and ETag
            alone, as the SDK does by default, for half the processor time: where TLS guards the
            way. `compare="hash"` then has nothing to compare and transfers them again. Files that
            fit one request are hashed in any case.
        accept_wrong_md5: Whether a blob whose stored MD5 does not fit its content is downloaded
            all the same, with a warning, when the same bytes came twice: it was stored
            with a wrong one.
        concurrency: Requests in flight.
    """

    max_retries: int = 4
    backoff: float = 0.5
    max_backoff: float = 30.0
    deadline: float | None = None
    connect_timeout: float = 10.0
    timeout: float = 60.0
    block_size: int = 8 * MIB
    block_concurrency: int = 8
    block_md5: bool = True
    concurrency: int = 32
    accept_wrong_md5: bool = False

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            value = getattr(self, name)
            if not (rule.allows(value) or (value is None and name == "deadline")):
                raise _InvalidOptionError(name, value, rule.allowed)

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy of one request."""
        return RetryPolicy(
            max_retries=self.max_retries,
            backoff=self.backoff,
            max_backoff=self.max_backoff,
            deadline=self.deadline,
        )

    def time_limit(self, size: int) -> float:
        """Seconds that one request which moves `size` bytes may take from first to last."""
        return self.connect_timeout + self.timeout + size / _SLOWEST

    def block_size_for(self, size: int) -> int:
        """Block size for a file of `size` bytes: larger where 50,000 blocks would not do."""
        return max(self.block_size, -(-size // MAX_BLOCKS))

    @classmethod
    def from_env(cls, stem: str, env: Mapping[str, str]) -> "TransferOptions":
        """Read the variables `{stem}MAX_RETRIES`, `{stem}TIMEOUT` and so on.

        Raises:
            ConfigurationError: A value is no number or out of range; names the variable.
        """
        values: dict[str, float] = {}
        for field in fields(cls):
            variable = stem + field.name.upper()
            text = env.get(variable, "").strip()
            if not text:
                continue
            rule = _RULES[field.name]
            try:
                is_switch = rule.kind is bool
                values[field.name] = _SWITCHES[text.lower()] if is_switch else rule.kind(text)
            except (KeyError, ValueError):
                default = f"the default of {field.default}"
                usual = "no bound" if field.default is None else default
                raise ConfigurationError(
                    f"{variable}={_shown(text)} is {_NONE[rule.kind]}; set it to "
                    f"{rule.allowed.lower()}, or unset it for {usual.lower()}"
                ) from None
        try:
            return cls(**values)  # type: ignore[arg-type]
        except _InvalidOptionError as error:
            raise ConfigurationError(
                f"{stem}{error.option.upper()}={error.value!r:.80} is out of range; set it to "
                f"{error.allowed}, or unset it"
            ) from None


def _shown(text: str) -> str:
    """A value as errors show it: numbers as they are, all else in quotes."""
    return text[:80] if re.fullmatch(r"[-+.\d]+", text) else f"{text!r:.80}"


class _InvalidOptionError(ConfigurationError, ValueError):
    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option, self.value, self.allowed = option, value, allowed
        super().__init__(f"{option}={value!r:.80} is out of range; pass {allowed}")
