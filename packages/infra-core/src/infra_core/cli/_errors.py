"""Errors of all slices as one line for people: no secrets, and what to do about it."""

import traceback

from infra_core.batch._errors import one_line, plural, without_url

__all__ = ["one_line", "plural", "remedy_for", "traceback_of", "without_url"]


def remedy_for(error: Exception) -> str:
    """What to do about an error that does not say so itself, by its kind; empty if unknown."""
    if type(error).__module__.startswith("infra_core."):
        return ""  # by the rule of the house it says so itself
    if isinstance(error, ImportError):
        return "the installation is incomplete: pip install --upgrade infra-core"
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "ClientAuthenticationError" in kinds or status in {401, 403}:
        return "check the key, the SAS token or the role assignment of the identity"
    if "ResourceNotFoundError" in kinds:
        return "check the name and the account"
    if kinds & {"ServiceRequestError", "ServiceResponseError", "RequestException", "HTTPError"}:
        return "check the endpoint and the network"
    if isinstance(error, OSError) and error.errno is not None:
        return "check the path, its permissions and the space on the disk"
    return ""


def traceback_of(error: BaseException) -> str:
    """Where an error came from, without secrets."""
    from infra_core.runtime import redact_secrets

    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return redact_secrets("".join(lines).rstrip())
