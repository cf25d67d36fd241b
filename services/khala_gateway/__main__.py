"""The gateway: delivers topics to clients over WebSocket. Run with `python -m services.khala_gateway`."""

from oa_platform.process.lifecycle import run_service
from services.khala_gateway.config import GatewaySettings
from services.khala_gateway.wiring import start

if __name__ == "__main__":
    run_service(GatewaySettings, start)
