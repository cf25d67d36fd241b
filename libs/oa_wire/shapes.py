"""Types of inputs and results: their JSON Schemas, and their values to and from JSON texts, by pydantic."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticUserError,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo

from oa_base.refusal import Refusal
from oa_wire.core_schemas import renamed_in, secret_in
from oa_wire.json_schema import JsonSchema

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")
_HONEST = ConfigDict(ser_json_inf_nan="constants")
"""A number that JSON doesn't have must be noticed instead of becoming null."""
MAX_SHAPES = 256
"""Maximum number of shapes that are cached: making one takes longer than reading a thousand values."""
MAX_PATH_STEPS = 32
"""Maximum number of steps to the part of a value that has no form in JSON."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""A key that a path shows as it is."""
_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*')
"""The numbers of a JSON text, and its strings, which may hold what looks like one."""
STARS = str(SecretStr("x"))
"""What pydantic writes in place of each secret that is not empty."""
SECRET_ADVICE = "give the name under which it is kept, and let the agent look it up"
MERGED = "two keys that are the same text in JSON, and would lose a member"
_OF_ARBITRARY_TYPES = ("schema-for-unknown-type", "invalid-for-json-schema")
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any, config=_HONEST)


class Misfit(Exception):
    """A value is not of the stated type. The text says where and holds nothing of the value."""


class Shape(Generic[T]):
    """One type. `mode` says whether its values are read ("validation") or written ("serialization")."""

    def __init__(self, stated: TypeForm[T], mode: Literal["validation", "serialization"]) -> None:
        """Raises Refusal `invalid_value` for a type that has no form in JSON, and for one with a secret."""
        self._is_read = mode == "validation"
        try:
            self._adapter = _adapter_of(stated)
            self.schema_json = json.dumps(self._adapter.json_schema(mode=mode), ensure_ascii=False)
        except (PydanticUserError, AttributeError, TypeError) as error:  # the last two for what is no type
            raise _formless(stated, error) from error
        self._name = _name_of(stated)
        if (path := secret_in(self._adapter.core_schema)) is not None:
            text = f"{self._name} has a secret{_at(path)}, and a log is no place for it; {SECRET_ADVICE}"
            raise Refusal("invalid_value", text)
        self._schema = JsonSchema(self.schema_json)

    def check_reads_what_it_writes(self) -> None:
        """Raise Refusal `invalid_value` for a type with a field that is written under another name than it is read."""
        if path := renamed_in(self._adapter.core_schema):
            what = f"{self._name} has a field, {path[1:]}, that is written under another name than it is read"
            text = f"{what}; give it one `alias`, or let the model be read by name, too"
            raise Refusal("invalid_value", text)

    def read(self, text: str) -> T:
        """Return the value in a JSON text. Raises Misfit.

        It is read strictly, like the schema: "17" is no integer. 1.0 is one, as in JSON Schema: clients whose numbers
        are all of one type may write an integer so.
        """
        try:
            return self._adapter.validate_json(text, strict=True)
        except ValidationError as error:
            whole = text if _is_no_json(error) else _NUMBERS.sub(_as_integer, text)
            if whole == text:
                raise Misfit(_first(error)) from None
        try:
            return self._adapter.validate_json(whole, strict=True)
        except ValidationError as error:
            raise Misfit(_first(error)) from None

    def write(self, value: T) -> str:
        """Return a value as a JSON text. Raises Misfit.

        If the shape's values are read, the text is one that `read` takes, and so has no computed fields.
        """
        try:
            plain = self._adapter.dump_python(
                value, mode="json", by_alias=True, round_trip=self._is_read, warnings="error"
            )
            text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            text.encode()
        except (TypeError, ValueError, AttributeError):  # pydantic's own is a ValueError
            what = f"a value of type {type(value).__name__}"
            raise Misfit(f"{what} is not of the stated one, or has no form in JSON") from None
        if STARS in text and (path := secret_part(value)) is not None:
            raise Misfit(f"${path} is a secret, which would be stored as stars")
        if (path := merging_part(value)) is not None:
            raise Misfit(f"${path} has {MERGED}; give other keys")
        if self._is_read:
            self.read(text)
        elif fault := self._schema.fault(plain):
            raise Misfit(f"{fault.path} {fault.must}")
        return text


def _adapter_of(stated: TypeForm[T]) -> TypeAdapter[T]:
    with contextlib.suppress(PydanticUserError):  # a model has a configuration of its own
        return TypeAdapter(stated, config=_HONEST)
    return TypeAdapter(stated)


def _formless(stated: TypeForm[T], error: Exception) -> Refusal:
    if not isinstance(error, PydanticUserError):
        text = f"a value of {type(stated).__qualname__} is no type; state the class, and not a value of it"
        return Refusal("invalid_value", text)
    name = _name_of(stated)
    if error.code in _OF_ARBITRARY_TYPES:  # pydantic's advice doesn't apply here
        text = f"{name} has no form in JSON; state a dataclass, a pydantic model, a TypedDict or plain types"
    else:
        text = f"{name} has no form in JSON ({str(error).splitlines()[0]}); state another type"
    return Refusal("invalid_value", text)


def _name_of(stated: object) -> str:
    return stated.__qualname__ if isinstance(stated, type) else str(stated)  # a union's name is only Union


def _at(path: str) -> str:
    return f" in {path[1:]}" if path else ""


def shape_of(stated: TypeForm[T], mode: Literal["validation", "serialization"]) -> Shape[T]:
    """Return the shape of a type, made once. Raises what Shape raises."""
    try:
        return _remembered(cast("Hashable", stated), mode)
    except TypeError:  # a type with a part that can't be hashed
        return Shape(stated, mode)


@lru_cache(MAX_SHAPES)
def _remembered(stated: Any, mode: Literal["validation", "serialization"]) -> Shape[Any]:
    return Shape(stated, mode)


def _is_no_json(error: ValidationError) -> bool:
    return error.errors(include_url=False, include_input=False, include_context=False)[0]["type"] == "json_invalid"


def _as_integer(found: re.Match[str]) -> str:
    """A number of a JSON text, written as an integer if it is one; a string stays as it is."""
    text = found[0]
    if text.startswith('"') or text.lstrip("-").isdecimal() or math.isinf(float(text)):
        return text
    try:
        number = Decimal(text)  # exact, where a double beyond 2^53 is another number
    except InvalidOperation:  # an exponent far below any double's
        return text
    return str(int(number)) if number == number.to_integral_value() else text


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
    return f"${path}: {first['msg']}"


def plain_json(value: object, field: str) -> Any:
    """Any value in JSON types: dataclasses and models as objects. Raises Refusal `invalid_value`, naming `field`."""
    return _plain_and_text(value, field)[0]


def json_text(value: object, field: str) -> str:
    """Return the JSON text of `plain_json`, without spaces. Raises the same, and for a secret in the value: the text is
    for somebody who needs what is in it."""
    text = _plain_and_text(value, field)[1]
    if STARS in text and (path := secret_part(value)) is not None:
        message = f"{field}{path} is a secret, which would be sent as stars; {SECRET_ADVICE}"
        raise Refusal("invalid_value", message, field=field, metadata={"path": f"${path}"})
    return text


def _plain_and_text(value: object, field: str) -> tuple[Any, str]:
    try:
        written = _written(value)
    except (TypeError, ValueError):
        where, kind = _formless_part(value)
        text = f"{field}{where} must have a form in JSON, and this {kind} has none; give plain values"
        raise Refusal("invalid_value", text, field=field, metadata={"path": f"${where}"}) from None
    if (path := merging_part(value)) is not None:
        text = f"{field}{path} has {MERGED}; give other keys"
        raise Refusal("invalid_value", text, field=field, metadata={"path": f"${path}"})
    return written


def _written(value: object) -> tuple[Any, str]:
    plain = _in_order(value, _ANYTHING.dump_python(value, mode="json", by_alias=True))
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()
    return plain, text


def _in_order(value: object, plain: Any) -> Any:
    """Return the plain form of a value with its sets in an order that each process gives them: they are compared."""
    if isinstance(value, RootModel):
        value = value.root
    match value, plain:
        case (set() | frozenset(), list()) if len(value) == len(plain):
            return sorted(map(_in_order, value, plain), key=json.dumps)
        case (list() | tuple(), list()) if len(value) == len(plain):
            return list(map(_in_order, value, plain))
        case (Mapping(), dict()) if len(value) == len(plain):
            return dict(zip(plain, map(_in_order, value.values(), plain.values()), strict=True))
        case (_, dict()) if isinstance(value, BaseModel) or is_dataclass(value):
            stated: dict[str, FieldInfo] = getattr(type(value), "__pydantic_fields__", {})
            names = {field.serialization_alias or name: name for name, field in stated.items()}
            return {key: _in_order(getattr(value, names.get(key) or key, None), part) for key, part in plain.items()}
        case _:
            return plain


def secret_part(value: object) -> str | None:
    """Return the path of a secret in a value (`.login.password`); None if there is none."""
    return _part(value, lambda part: isinstance(part, Secret | SecretBytes | SecretStr))


def iterator_part(value: object) -> str | None:
    """Return the path of an iterator in a value, which can be read only once; None if there is none."""
    return _part(value, lambda part: isinstance(part, Iterator))


def merging_part(value: object) -> str | None:
    """Return the path of a mapping with fewer members in JSON, where 1 and "1" are the same key; None without one."""
    return _part(value, _merges)


def _merges(part: object) -> bool:
    if not isinstance(part, Mapping) or all(type(key) is str for key in part):
        return False
    try:
        return len({next(iter(_ANYTHING.dump_python({key: None}, mode="json"))) for key in part}) < len(part)
    except (TypeError, ValueError):  # keys of a class that a serializer of the user's own writes
        return False


def _part(value: object, is_wanted: Callable[[object], bool]) -> str | None:
    left, seen = deque([("", value)]), set[int]()
    while left:  # not recursive, and each part once: the value may be nested deeply, or in itself
        path, part = left.popleft()
        if is_wanted(part):
            return path
        if id(part) not in seen:
            seen.add(id(part))
            left.extend((path + step, each) for step, each in _parts(part) if not isinstance(each, _LEAVES))
    return None


_LEAVES = (str, bytes, int, float, type(None))
"""Classes whose values have no parts, and are not looked for."""


def _formless_part(value: object) -> tuple[str, str]:
    """The path and the class of the innermost part that has no form in JSON, as far as it can be told."""
    path = ""
    for _ in range(MAX_PATH_STEPS):
        inner = next(((step, part) for step, part in _parts(value) if not _has_form(part)), None)
        if inner is None:
            break
        path, value = path + inner[0], inner[1]
    return path, type(value).__name__


def _has_form(value: object) -> bool:
    try:
        _written(value)
    except (TypeError, ValueError):
        return False
    return True


def _parts(value: object) -> Iterable[tuple[str, object]]:
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{each.name}", getattr(value, each.name, None)) for each in fields(value)]
    match value:
        case BaseModel():
            return [(f".{name}", part) for name, part in value]
        case Mapping():
            return [(f".{key}" if _NAME.fullmatch(str(key)) else ".*", part) for key, part in value.items()]
        case list() | tuple() | set() | frozenset():
            return [(f"[{index}]", part) for index, part in enumerate(value)]
        case _:
            return ()
