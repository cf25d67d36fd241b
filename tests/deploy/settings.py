"""The settings class behind each service's container."""

from __future__ import annotations

from collections.abc import Mapping

from oa_platform.config.shared import ServiceSettings
from services.control.config import ControlSettings
from services.khala_gateway.config import GatewaySettings
from services.projector.config import ProjectorSettings
from services.runtime.config import RuntimeSettings

SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "control": ControlSettings,
    "khala-gateway": GatewaySettings,
    "projector": ProjectorSettings,
    "runtime": RuntimeSettings,
}
