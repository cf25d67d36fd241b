"""JSON values in events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Json = None | bool | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""A value that a `google.protobuf.Value` can hold; every number is a float."""
JsonObject = Mapping[str, Json]
"""An object that a `google.protobuf.Struct` can hold."""
