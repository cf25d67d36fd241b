"""The gateway: delivers topics to clients over WebSocket. Run with `python -m services.khala_gateway`."""

from oa_platform.process.first import before_imports

before_imports()

from oa_platform.process.lifecycle import run_service  # noqa: E402
from services.khala_gateway.config import GatewaySettings  # noqa: E402
from services.khala_gateway.wiring import start  # noqa: E402

if __name__ == "__main__":
    run_service(GatewaySettings, start)
