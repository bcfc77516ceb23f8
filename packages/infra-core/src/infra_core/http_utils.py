"""The URL helper of 0.7; it lives in `infra_core.http`."""

from infra_core.http import absolute_url

__all__ = ["absolute_url"]
