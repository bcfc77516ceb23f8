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
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from infra_core.http.testing import Exchange, Fault, FaultyOrigin

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FunctionsHost"]

_ENDED = frozenset({"Completed", "Failed", "Terminated", "Canceled"})
_MAX_INSTANCES = 8
_MANAGEMENT = "/runtime/webhooks/durabletask/instances"


@dataclass
class _Instance:
    id: str
    name: str
    states: list[str]
    output: Any
    custom_status: Any
    given: Any
    asked: int = 0
    reason: str | None = None
    purged: bool = False
    suspended: bool = False
    events: list[tuple[str, Any]] = field(default_factory=list)

    def state(self) -> str:
        """Return the state to answer now; each question takes it one on, the last one stays."""
        if self.suspended:
            return "Suspended"
        self.asked += 1
        return self.states[min(self.asked, len(self.states)) - 1]


@dataclass
class _Starter:
    states: list[str]
    output: Any
    custom_status: Any
    retry_after: int | None
    only_location: bool
    instances: list[_Instance] = field(default_factory=list)


@dataclass
class _Entity:
    state: Any
    signals: list[tuple[str, Any]] = field(default_factory=list)


class FunctionsHost:
    """A function app on loopback, for the length of a `with` block.

    Args:
        api_key: Key that its functions want in `x-functions-key` (401 without); `None` for
            anonymous functions.

    Attributes:
        origin: The server below, for faults and recorded requests.
        system_key: Key of the management URLs, their parameter `code`.
    """

    def __init__(self, *, api_key: str | None = None) -> None:
        self.api_key = api_key
        self.system_key = "system-key-of-the-host"
        self.origin: FaultyOrigin = FaultyOrigin()
        self._lock = threading.Lock()
        self._starters: dict[str, _Starter] = {}
        self._entities: dict[tuple[str, str], _Entity] = {}

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

        def run(exchange: Exchange) -> None:
            if self._refused(exchange):
                return
            given = json.loads(exchange.request.body) if exchange.request.body else None
            value = answer(given) if callable(answer) else answer
            _reply(exchange, status, value)

        self._add(path, run, faults)

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
        starter = _Starter(list(states), output, custom_status, retry_after, only_location)
        self._starters[path] = starter

        def run(exchange: Exchange) -> None:
            if not self._refused(exchange):
                with self._lock:
                    self._start(path, starter, exchange)

        self._add(path, run, faults)
        # Handlers cannot add routes, so those of instances to come are there from the start.
        for number in range(_MAX_INSTANCES):
            below = f"{_MANAGEMENT}/{_instance_id(path, number)}"
            self._add(below, self._status_handler(starter, number), () if number else status_faults)
            verbs = ["terminate", "suspend", "resume", "rewind"]
            for verb in [*verbs, *(f"raiseEvent/{quote(name, safe='')}" for name in events)]:
                self._add(f"{below}/{verb}", self._manager(starter, number, verb), ())

    def instances(self, path: str) -> list[str]:
        """Return the ids of the instances that were started at a path."""
        return [instance.id for instance in self._starter(path).instances]

    def termination_reason(self, path: str) -> str | None:
        """Return why the newest instance of a path was terminated, `None` if it was not."""
        started = self._starter(path).instances
        return started[-1].reason if started else None

    def events(self, path: str) -> list[tuple[str, Any]]:
        """Return name and data of the events that the newest instance of a path was sent."""
        started = self._starter(path).instances
        return started[-1].events if started else []

    def entity(self, name: str, key: str, state: Any = None) -> None:
        """Add a durable entity; its URL wants the system key, as `code` or in the header."""
        entity = self._entities[name, key] = _Entity(state)

        def run(exchange: Exchange) -> None:
            query = _query(exchange)
            header = exchange.request.headers.get("x-functions-key")
            if self.system_key not in (header, *query.get("code", [])):
                _reply(exchange, 401, None)
            elif exchange.request.method == "GET":
                _reply(exchange, 200, entity.state)
            else:
                data = json.loads(exchange.request.body)
                entity.signals.append((query.get("op", [""])[0], data))
                _reply(exchange, 202, None)

        self._add(f"/runtime/webhooks/durabletask/entities/{name}/{key}", run, ())

    def signals(self, name: str, key: str) -> list[tuple[str, Any]]:
        """Return operation and data of the signals that an entity was sent."""
        return self._entities[name, key].signals

    def _starter(self, path: str) -> _Starter:
        if path not in self._starters:
            known = ", ".join(map(repr, self._starters)) or "none"
            raise LookupError(f"no orchestrator was added at {path!r}; added were: {known}")
        return self._starters[path]

    def status_url(self, instance_id: str) -> str:
        """Return the status URL of an instance, key included."""
        return self._management(f"/{instance_id}")

    def _management(self, suffix: str, first: str = "") -> str:
        query = f"{first}taskHub=Hub&connection=Storage&code={self.system_key}"
        return f"{self.base_url}{_MANAGEMENT}{suffix}?{query}"

    def _add(self, path: str, run: Callable[[Exchange], None], faults: Iterable[Fault]) -> None:
        self.origin.add(path, faults=list(faults), always=Fault(f"function {path}", run))

    def _refused(self, exchange: Exchange) -> bool:
        given = exchange.request.headers.get("x-functions-key")
        if self.api_key is None or given == self.api_key:
            return False
        _reply(exchange, 401, None)
        return True

    def _start(self, path: str, starter: _Starter, exchange: Exchange) -> None:
        if len(starter.instances) == _MAX_INSTANCES:
            _reply(exchange, 429, None)
            return
        body = exchange.request.body
        instance = _Instance(
            id=_instance_id(path, len(starter.instances)),
            name=path.rsplit("/", 1)[-1],
            states=list(starter.states),
            output=starter.output,
            custom_status=starter.custom_status,
            given=json.loads(body) if body else None,
        )
        starter.instances.append(instance)
        urls = {
            "id": instance.id,
            "statusQueryGetUri": self.status_url(instance.id),
            "sendEventPostUri": self._management(f"/{instance.id}/raiseEvent/{{eventName}}"),
            "purgeHistoryDeleteUri": self.status_url(instance.id),
            **{
                f"{verb}PostUri": self._management(f"/{instance.id}/{verb}", "reason={text}&")
                for verb in ("terminate", "suspend", "resume", "rewind")
            },
        }
        _reply(exchange, 202, None if starter.only_location else urls)
        exchange.reply.headers["Location"] = self.status_url(instance.id)
        _ask_to_wait(exchange, starter)

    def _status_handler(self, starter: _Starter, number: int) -> Callable[[Exchange], None]:
        def answer_status(exchange: Exchange) -> None:
            instance = self._authorised_for(starter, number, exchange)
            if instance is not None and exchange.request.method == "DELETE":
                instance.purged = True
                _reply(exchange, 200, {"instancesDeleted": 1})
            elif instance is not None:
                self._answer_status(instance, starter, exchange)

        return answer_status

    def _manager(self, starter: _Starter, number: int, verb: str) -> Callable[[Exchange], None]:
        def manage(exchange: Exchange) -> None:
            instance = self._authorised_for(starter, number, exchange)
            if instance is not None:
                with self._lock:
                    _reply(exchange, self._manage(instance, verb, exchange), None)

        return manage

    def _authorised_for(
        self, starter: _Starter, number: int, exchange: Exchange
    ) -> _Instance | None:
        if _query(exchange).get("code") != [self.system_key]:
            _reply(exchange, 401, None)
            return None
        if number >= len(starter.instances) or starter.instances[number].purged:
            _reply(exchange, 404, None)
            return None
        return starter.instances[number]

    def _answer_status(self, instance: _Instance, starter: _Starter, exchange: Exchange) -> None:
        with self._lock:
            state = instance.state()
        ended = state in _ENDED
        body = {
            "name": instance.name,
            "instanceId": instance.id,
            "runtimeStatus": state,
            "input": instance.given,
            "customStatus": instance.custom_status,
            "output": instance.output if ended else None,
            "createdTime": "2026-01-01T00:00:00Z",
            "lastUpdatedTime": "2026-01-01T00:00:01Z",
        }
        wants_500 = _query(exchange).get("returnInternalServerErrorOnFailure") == ["true"]
        failed = 500 if state == "Failed" and wants_500 else 200
        _reply(exchange, failed if ended else 202, body)
        if not ended:
            exchange.reply.headers["Location"] = self.status_url(instance.id)
            _ask_to_wait(exchange, starter)

    def _manage(self, instance: _Instance, verb: str, exchange: Exchange) -> int:
        """Do what is asked for, and return the status of the answer."""
        state = instance.states[min(max(instance.asked, 1), len(instance.states)) - 1]
        if (state != "Failed") if verb == "rewind" else (state in _ENDED):
            return 410
        if verb == "terminate":
            instance.states = ["Terminated"]
            instance.reason = _query(exchange).get("reason", [""])[0]
        elif verb == "rewind":
            instance.states = ["Running", "Completed"]
            instance.asked = 0
        elif verb in ("suspend", "resume"):
            instance.suspended = verb == "suspend"
        elif exchange.request.headers.get("content-type") != "application/json":
            return 400
        else:
            name = unquote(verb.partition("/")[2])
            instance.events.append((name, json.loads(exchange.request.body)))
        return 202


def _instance_id(path: str, number: int) -> str:
    return f"{path.strip('/').replace('/', '-')}-{number + 1}"


def _query(exchange: Exchange) -> dict[str, list[str]]:
    return parse_qs(urlsplit(exchange.request.path).query)


def _reply(exchange: Exchange, status: int, value: Any) -> None:
    reply = exchange.reply
    reply.status = status
    reply.headers["Content-Type"] = "application/json; charset=utf-8"
    reply.body = b"" if value is None else json.dumps(value).encode()


def _ask_to_wait(exchange: Exchange, starter: _Starter) -> None:
    if starter.retry_after is not None:
        exchange.reply.headers["Retry-After"] = str(starter.retry_after)
