"""The images that can be built. A target's name is also that of its extra in pyproject.toml and of its lock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One image, and one target of deploy/images/Containerfile."""

    name: str
    module: str
    """The module that it runs: `python3 -m MODULE`."""
    also: tuple[str, ...] = ()
    """Further programs that an operator runs from the same image."""
    migrations: tuple[str, ...] = ()
    """Services whose migrations it contains: to apply them, or to check at its start that they have been applied."""

    @property
    def programs(self) -> tuple[str, ...]:
        """The modules from which everything else is imported."""
        return (self.module, *self.also)


MIGRATED = ("control", "runtime", "projector")
"""The services that have a schema."""

TARGETS = {
    target.name: target
    for target in (
        # First because it is the smallest: an engine may build all stages before the one that it was asked for.
        Target("migrate", "oa_platform.postgres.migrate", migrations=MIGRATED),
        Target("worker", "apps.worker"),
        Target("control", "services.control", migrations=("control",)),
        Target("runtime", "services.runtime", also=("services.runtime.new_epoch",), migrations=("runtime",)),
        Target("projector", "services.projector", migrations=("projector",)),
        Target("khala-gateway", "services.khala_gateway"),
    )
}
