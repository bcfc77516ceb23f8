"""`FunctionsHost`: a local server that plays a function app and its durable functions.

For tests and demonstrations. It speaks the durable protocol as Microsoft documents it ("HTTP API
reference"): starters answer 202 with `Location`, `Retry-After` and the management URLs; the status
URL answers 202 while the instance runs and 200 (or 500, when asked so) when it has ended; the
management URLs want their own key. It stands on `infra_core.http.testing.FaultyOrigin`, so every
path can be made to misbehave.

Example:
    ::

        with FunctionsHost(api_key="key") as host:
            host.orchestrator("/api/run", ["Pending", "Running", "Completed"], output={"n": 3})
            with AzureFunctionSyncClient(host.base_url, api_key="key") as client:
                assert client.start_and_wait("/api/run", poll_interval=0.01).output == {"n": 3}
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from infra_core.http.testing import Exchange, Fault, FaultyOrigin

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FunctionsHost"]

_ENDED = frozenset({"Completed", "Failed", "Terminated", "Canceled"})
_VERBS = ("terminate", "suspend", "resume", "rewind")
_BELOW = "/runtime/webhooks/durabletask"

Query: TypeAlias = dict[str, str]
Answer: TypeAlias = tuple[int, Any]  # the status, and what becomes JSON


@dataclass
class _Instance:
    id: str
    states: list[str]
    body: dict[str, Any]
    output: Any
    headers: dict[str, str]  # of the answers while it runs
    asked: int = 0
    reason: str | None = None
    purged: bool = False
    suspended: bool = False
    events: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The state that was answered last; each question takes it one on, the last one stays."""
        return self.states[min(max(self.asked, 1), len(self.states)) - 1]

    def answer(self, verb: str, exchange: Exchange, query: Query) -> Answer:
        """Answer a question for the state, delete the history, or carry out a verb."""
        if self.purged:
            return 404, None
        if verb:
            return self._carry_out(verb, exchange, query)
        if exchange.request.method == "DELETE":
            self.purged = True
            return 200, {"instancesDeleted": 1}
        self.asked += not self.suspended
        state = "Suspended" if self.suspended else self.state
        body = {**self.body, "runtimeStatus": state, "output": None}
        if state not in _ENDED:
            exchange.reply.headers.update(self.headers)
            return 202, body
        wants_500 = query.get("returnInternalServerErrorOnFailure") == "true"
        return 500 if state == "Failed" and wants_500 else 200, {**body, "output": self.output}

    def _carry_out(self, verb: str, exchange: Exchange, query: Query) -> Answer:
        if self.state in _ENDED and (verb, self.state) != ("rewind", "Failed"):
            return 410, None
        if verb == "rewind" and self.state != "Failed":
            rule = "The rewind operation is only supported on failed orchestration instances."
            return 500, {"Message": "Something went wrong", "ExceptionMessage": rule}
        if verb == "terminate":
            self.states, self.reason = ["Terminated"], query.get("reason", "")
        elif verb == "rewind":
            self.states, self.asked = ["Running", "Completed"], 0
        elif verb in ("suspend", "resume"):
            self.suspended = verb == "suspend"
        elif exchange.request.headers.get("content-type") != "application/json":
            return 400, None
        else:
            name = unquote(verb.removeprefix("raiseEvent/"))
            self.events.append((name, json.loads(exchange.request.body)))
        return 202, None


class FunctionsHost:
    """A function app on loopback, for the length of a `with` block.

    Args:
        api_key: Key that its functions want in `x-functions-key` or as `code` (401 without);
            `None` for anonymous functions.

    Attributes:
        origin: The server below, for faults and recorded requests.
        system_key: Key of the management URLs, their parameter `code`.
    """

    def __init__(self, *, api_key: str | None = None) -> None:
        self.api_key = api_key
        self.system_key = "system-key-of-the-host"
        self.origin: FaultyOrigin = FaultyOrigin()
        self._started: dict[str, list[_Instance]] = {}
        self._signals: dict[tuple[str, str], list[tuple[str, Any]]] = {}

    @property
    def base_url(self) -> str:
        """Base URL of the app."""
        return self.origin.base_url

    def __enter__(self) -> "Self":
        self.origin.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.origin.__exit__(None, None, None)

    def function(
        self,
        path: str,
        answer: Callable[[Any], Any] | Any = None,
        *,
        status: int = 200,
        faults: Iterable[Fault] = (),
    ) -> None:
        """Add a plain function.

        Args:
            path: Such as `/api/run`.
            answer: Its JSON answer, or a callable that makes it from the request's JSON; `None`
                for an empty body.
            status: Status of the answer.
            faults: What goes wrong first, one per request.
        """

        def run(exchange: Exchange, _: Query) -> Answer:
            return status, answer(_json_of(exchange)) if callable(answer) else answer

        self._add(path, run, self.api_key, faults)

    def orchestrator(
        self,
        path: str,
        states: Sequence[str] = ("Running", "Completed"),
        *,
        output: Any = None,
        custom_status: Any = None,
        retry_after: int | None = None,
        only_location: bool = False,
        events: Iterable[str] = (),
        faults: Iterable[Fault] = (),
        status_faults: Iterable[Fault] = (),
    ) -> None:
        """Add the starter of a durable function.

        Args:
            path: Such as `/api/run`.
            states: What its status URL answers, one after the other; the last one stays.
            output: Its output, once it has ended.
            custom_status: Its custom status.
            retry_after: `Retry-After` of the 202 answers, in seconds.
            only_location: Answer with `Location` and no JSON, as a proxy may.
            events: Names of the events that its instances take.
            faults: What goes wrong first at the starter, one per request.
            status_faults: What goes wrong first at the status URL of its first instance.
        """
        started: list[_Instance] = []
        self._started[path] = started
        verbs = [*_VERBS, *(f"raiseEvent/{quote(name, safe='')}" for name in events)]

        def start(exchange: Exchange, _: Query) -> Answer:
            name = f"{path.strip('/').replace('/', '-')}-{len(started) + 1}"
            headers = {"Location": self.status_url(name)}
            if retry_after is not None:
                headers["Retry-After"] = str(retry_after)
            body = {
                "name": path.rsplit("/", 1)[-1],
                "instanceId": name,
                "input": _json_of(exchange),
                "customStatus": custom_status,
                "createdTime": "2026-01-01T00:00:00Z",
                "lastUpdatedTime": "2026-01-01T00:00:01Z",
            }
            instance = _Instance(name, list(states), body, output, headers)
            self._manage(instance, "", () if started else status_faults)
            for verb in verbs:
                self._manage(instance, verb)
            started.append(instance)
            exchange.reply.headers.update(headers)
            return 202, None if only_location else self._urls(name)

        self._add(path, start, self.api_key, faults)

    def instances(self, path: str) -> list[str]:
        """Return the ids of the instances that were started at a path."""
        return [instance.id for instance in self._of(path)]

    def termination_reason(self, path: str) -> str | None:
        """Return why the newest instance of a path was terminated, `None` if it was not."""
        started = self._of(path)
        return started[-1].reason if started else None

    def events(self, path: str) -> list[tuple[str, Any]]:
        """Return name and data of the events that the newest instance of a path was sent."""
        started = self._of(path)
        return started[-1].events if started else []

    def entity(self, name: str, key: str, state: Any = None) -> None:
        """Add a durable entity; its URL wants the system key, as `code` or in the header."""
        signals = self._signals[name, key] = []

        def run(exchange: Exchange, query: Query) -> Answer:
            if exchange.request.method == "GET":
                return 200, state
            signals.append((query.get("op", ""), _json_of(exchange)))
            return 202, None

        self._add(f"{_BELOW}/entities/{name}/{key}", run, self.system_key)

    def signals(self, name: str, key: str) -> list[tuple[str, Any]]:
        """Return operation and data of the signals that an entity was sent."""
        return self._signals[name, key]

    def _of(self, path: str) -> list[_Instance]:
        if path not in self._started:
            known = ", ".join(map(repr, self._started)) or "none"
            raise LookupError(f"no orchestrator was added at {path!r}; added were: {known}")
        return self._started[path]

    def status_url(self, instance_id: str) -> str:
        """Return the status URL of an instance, key included."""
        return self._management(f"/{instance_id}")

    def _management(self, suffix: str, first: str = "") -> str:
        query = f"{first}taskHub=Hub&connection=Storage&code={self.system_key}"
        return f"{self.base_url}{_BELOW}/instances{suffix}?{query}"

    def _urls(self, instance_id: str) -> dict[str, str]:
        """Return what a starter answers."""
        return {
            "id": instance_id,
            "statusQueryGetUri": self.status_url(instance_id),
            "sendEventPostUri": self._management(f"/{instance_id}/raiseEvent/{{eventName}}"),
            "purgeHistoryDeleteUri": self.status_url(instance_id),
            **{
                f"{verb}PostUri": self._management(f"/{instance_id}/{verb}", "reason={text}&")
                for verb in _VERBS
            },
        }

    def _manage(self, instance: _Instance, verb: str, faults: Iterable[Fault] = ()) -> None:
        """Add a URL of an instance."""
        path = f"{_BELOW}/instances/{instance.id}/{verb}".rstrip("/")
        self._add(path, partial(instance.answer, verb), self.system_key, faults)

    def _add(
        self,
        path: str,
        run: Callable[[Exchange, Query], Answer],
        key: str | None,
        faults: Iterable[Fault] = (),
    ) -> None:
        """Add a path that wants a key, as the parameter `code` or in the header; 401 without."""

        def answer(exchange: Exchange) -> None:
            query = dict(parse_qsl(urlsplit(exchange.request.path).query))
            given = (None, exchange.request.headers.get("x-functions-key"), query.get("code"))
            status, value = run(exchange, query) if key in given else (401, None)
            reply = exchange.reply
            reply.status = status
            reply.headers["Content-Type"] = "application/json; charset=utf-8"
            reply.body = b"" if value is None else json.dumps(value).encode()

        self.origin.add(path, faults=list(faults), always=Fault(f"function {path}", answer))


def _json_of(exchange: Exchange) -> Any:
    return json.loads(exchange.request.body) if exchange.request.body else None
