"""Refusals for a provider's failures, without any text from the provider."""

from __future__ import annotations

import structlog

from oa_base.refusal import Refusal

_log = structlog.get_logger(__name__)


def unavailable(provider: str, error: BaseException | str) -> Refusal:
    """The refusal when the provider doesn't answer as it should. Logs the kind of the error, for operators."""
    kind = error if isinstance(error, str) else type(error).__name__
    _log.warning("provider_failed", provider=provider, error=kind)
    return Refusal("provider_unavailable", "the identity provider does not answer as it should; start again")


def refused(provider: str, error: BaseException | str) -> Refusal:
    """The refusal when the provider vouches for nobody. Logs the kind of the error."""
    kind = error if isinstance(error, str) else type(error).__name__
    _log.info("provider_refused", provider=provider, error=kind)
    return Refusal("provider_refused", "the identity provider did not confirm this sign-in; start again")
