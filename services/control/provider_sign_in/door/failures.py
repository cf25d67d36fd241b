"""How a provider's failure is told: without anything that the provider wrote."""

from __future__ import annotations

import structlog

from oa_base.refusal import Refusal

_log = structlog.get_logger(__name__)


def unavailable(provider: str, error: BaseException | str) -> Refusal:
    """The provider doesn't answer as one. The log has the kind of the error, which an operator can act on."""
    kind = error if isinstance(error, str) else type(error).__name__
    _log.warning("provider_failed", provider=provider, error=kind)
    return Refusal("provider_unavailable", "the identity provider does not answer as it should; start again")


def refused(provider: str, error: BaseException | str) -> Refusal:
    """The provider vouches for nobody."""
    kind = error if isinstance(error, str) else type(error).__name__
    _log.info("provider_refused", provider=provider, error=kind)
    return Refusal("provider_refused", "the identity provider did not confirm this sign-in; start again")
