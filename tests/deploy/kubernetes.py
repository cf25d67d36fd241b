"""Kubernetes' own schemas."""

from __future__ import annotations

from functools import cache

import kubernetes_validate.utils

from tests.deploy.manifests import Document

# It would read a megabyte for each object.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)


def taken_by_kubernetes(document: Document, version: str) -> None:
    """Raises ValidationError if this version of Kubernetes refuses the object, or drops a part of it in silence."""
    kubernetes_validate.validate(dict(document), version, strict=True)
