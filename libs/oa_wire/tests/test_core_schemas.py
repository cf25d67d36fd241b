"""Which types of pydantic don't come back as they were written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    field_serializer,
)
from typing_extensions import TypedDict

from oa_base.refusal import Refusal
from oa_wire.core_schemas import renamed_in, secret_in
from oa_wire.shapes import Shape


class Login(BaseModel):
    """With secrets at several depths."""

    user: str
    secret: SecretStr | None = None
    pins: dict[str, list[Secret[int]]] = {}


class Shown(BaseModel):
    """Says by itself how its secret is written."""

    secret: SecretBytes

    @field_serializer("secret", when_used="json")
    def _in_clear(self, value: SecretBytes) -> str:
        return value.get_secret_value().decode()


@dataclass
class Holder:
    """Holds one."""

    logins: list[Login] = field(default_factory=list)


class Tree(BaseModel):
    """Nested in itself."""

    name: str = Field(alias="Name")
    below: list[Tree] = []


class Fields(BaseModel):
    """Its tag is a word of schemas."""

    kind: Literal["fields"] = "fields"
    secret: SecretStr | None = None


class Config(BaseModel):
    """Its tag, too."""

    kind: Literal["config"] = "config"


class Pair(NamedTuple):
    """A tuple with names."""

    first: int
    second: Secret[str]


ENDLESS: dict[str, Any] = {"type": "model-fields", "serialization": {"function": str}}
ENDLESS["schema"] = ENDLESS


class Defaults(BaseModel):
    """Its default looks like a schema that has no end."""

    values: dict[str, Any] = ENDLESS
    secret: SecretStr | None = None


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        (SecretStr, ""),
        (Annotated[Config | Fields, Field(discriminator="kind")], ".secret"),
        (Annotated[Config | Fields, Field(discriminator="kind")] | int, ".secret"),
        (Pair, ".second"),
        (Defaults, ".secret"),
        (tuple[int, SecretStr], ""),
        (list[Any], None),
        (list[Secret[int]], ""),
        (Login, ".secret"),
        (Holder, ".logins.secret"),
        (Login | None, ".secret"),
        (Shown, None),
        (Tree, None),
        (str, None),
    ],
)
def test_secrets_are_found(stated: Any, path: str | None) -> None:
    assert secret_in(TypeAdapter(stated).core_schema) == path


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_a_type_with_a_secret_has_no_shape(mode: Any) -> None:
    with pytest.raises(Refusal, match=r"Holder has a secret in logins\.secret, and a log is no place for it"):
        Shape(Holder, mode)
    Shape(Shown, mode)


class Split(BaseModel):
    """One name for each direction."""

    count: int = Field(validation_alias="n", serialization_alias="number")


class Choices(BaseModel):
    """Reads what it writes, and more."""

    count: int = Field(validation_alias=AliasChoices("n", AliasPath("all", 0), "count"))


class Path(BaseModel):
    """Reads from a place where it does not write."""

    count: int = Field(validation_alias=AliasPath("all", 0))


class ByName(BaseModel):
    """Reads its fields by name, too."""

    model_config = ConfigDict(populate_by_name=True)
    count: int = Field(validation_alias="n")


class Outer(BaseModel):
    """Its configuration is not that of the model in it."""

    model_config = ConfigDict(populate_by_name=True)
    inner: Split


class Left(BaseModel):
    """Does not write the field at all."""

    count: int = Field(0, validation_alias="n", exclude=True)


class Entry(TypedDict):
    """Written and read under an alias."""

    count: Annotated[int, Field(alias="n")]


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        (Split, ".count"),
        (dict[str, list[Split]], ".count"),
        (Outer, ".inner.count"),
        (Path, ".count"),
        (Choices, None),
        (ByName, None),
        (Left, None),
        (Entry, None),
        (Tree, None),
        (Holder, None),
        (int, None),
    ],
)
def test_fields_with_two_names_are_found(stated: Any, path: str | None) -> None:
    assert renamed_in(TypeAdapter(stated).core_schema) == path
