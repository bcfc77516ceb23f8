from ._answer import EngineResponse as EngineResponse
from ._errors import failure_of as failure_of
from ._session import Engine as Engine
from ._target import (
    Target as Target,
    Timeouts as Timeouts,
    target_of as target_of,
    timeouts_of as timeouts_of,
)
from .connections import (
    connector as connector,
    requests_session as requests_session,
    through as through,
    trust as trust,
)
from .network_settings import (
    Netrc as Netrc,
    NetworkSettings as NetworkSettings,
    Proxy as Proxy,
    read_netrc as read_netrc,
)
