"""What the site's clock says: that of the person's machine may be wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from oa_client.client import Client


async def now_at_site(client: Client) -> datetime:
    """Ask the site what time it is. Raises Refusal."""
    await client.commands.caller()  # its answer says so
    return datetime.fromtimestamp(client.edge.now_at_edge(), UTC)
