"""The redaction helpers of 0.7; they live in `infra_core.runtime`."""

from infra_core.runtime import redact_sas_tokens, sanitize_url

__all__ = ["redact_sas_tokens", "sanitize_url"]
