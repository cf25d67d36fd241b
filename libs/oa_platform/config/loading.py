"""Settings: frozen dataclasses whose fields say which environment variable they come from.

    @dataclass(frozen=True, kw_only=True)
    class SequencerSettings:
        batch_limit: int = setting("OA_BATCH_LIMIT", integer(1, 10_000), 512, doc="Maximum appends per transaction.")

    @dataclass(frozen=True, kw_only=True)
    class RuntimeSettings(ServiceSettings):
        service: ClassVar[str] = "runtime"
        sequencer: SequencerSettings = group(SequencerSettings)

    settings = load(RuntimeSettings, os.environ)

`load` reports all wrong variables at once as Refusal(invalid_setting). If there are none, it reports all contradictions
between variables: a time that is longer than the one it must lie `within`, and the `problems()` of a class. A secret
(`secret_text`) may also come from a file, named by the same variable with `_FILE` appended; it is never printed.
docs/config.md is made from `describe`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

from oa_base.environment import secret_text
from oa_base.refusal import Refusal
from oa_base.visible import is_text
from oa_platform.config import ports
from oa_platform.config.parsers import Address, Parser, Secret, Target
from oa_platform.config.variables import VARIABLES

T = TypeVar("T")
S = TypeVar("S")
Problem = tuple[str, str]
"""A variable, and what is wrong with it."""
_SETTING = "oa_setting"
_GROUP = "oa_group"


class _Required:
    """The default of a setting that has none."""


_REQUIRED = _Required()


@dataclass(frozen=True)
class DefaultFrom(Generic[T]):
    """A default that depends on which service reads it and on the environment: `make(service, env)`."""

    make: Callable[[str, Mapping[str, str]], T]
    text: str


@dataclass(frozen=True)
class Setting(Generic[T]):
    """One variable."""

    variable: str
    parser: Parser[T]
    default: T | DefaultFrom[T] | _Required
    doc: str
    within: str = ""
    """The variable of a time that this time may not exceed."""


@dataclass(frozen=True)
class SettingDoc:
    """A row of docs/config.md."""

    variable: str
    expects: str
    default: str
    doc: str
    group: str
    secret: bool


@overload
def setting(
    variable: str, parser: Parser[T], default: T | DefaultFrom[T] | _Required = _REQUIRED, *, doc: str, within: str = ""
) -> T: ...


@overload
def setting(variable: str, parser: Parser[T], default: None, *, doc: str, within: str = "") -> T | None: ...


def setting(variable: str, parser: Parser[Any], default: object = _REQUIRED, *, doc: str, within: str = "") -> Any:
    """A dataclass field that is read from `variable`; without a default the variable must be set."""
    metadata = {_SETTING: Setting(variable, parser, default, doc, within)}
    if isinstance(default, DefaultFrom | _Required):
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(settings_class: type[S]) -> S:
    """A dataclass field that is itself a settings class."""
    return cast("S", dataclasses.field(metadata={_GROUP: settings_class}))


def own_port(plane: str) -> DefaultFrom[Address]:
    """Default address to listen on: this service's port for `plane` ("grpc", "ops", "http", "ws") on loopback."""

    def make(service: str, env: Mapping[str, str]) -> Address:
        return Address("127.0.0.1", ports.default_port(_port_use(service, plane), env))

    return DefaultFrom(make, f"127.0.0.1, the service's own {plane} port")


def peer_port(use: str) -> DefaultFrom[Target]:
    """Default address of another service: `peer_port("runtime_grpc")`."""

    def make(_: str, env: Mapping[str, str]) -> Target:
        return Target((Address("127.0.0.1", ports.default_port(use, env)),))

    return DefaultFrom(make, f"127.0.0.1, OA_PORT_BASE + {ports.PORT_OFFSETS[use]}")


def _port_use(service: str, plane: str) -> str:
    if plane == "ws":
        return "khala_ws"
    return f"{service.removeprefix('khala_')}_{plane}"


def load(settings_class: type[S], env: Mapping[str, str]) -> S:
    """Read `settings_class` from `env`; raises Refusal(invalid_setting) naming every variable that is wrong."""
    problems: list[Problem] = []
    loaded = _load(settings_class, env, getattr(settings_class, "service", ""), problems)
    refuse(problems)
    own = (problem for one in groups_of(loaded) for problem in getattr(one, "problems", tuple)())
    refuse([*_too_long(loaded), *own])
    return loaded


def unknown_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that look like settings and are none of any program, each with the setting that is most like it.

    A program does not read the settings of others, so it can't tell a misspelled name unless it knows all.
    """
    ours = sorted(name for name in env if name.startswith("OA_"))
    unknown = [name for name in ours if not {name, name.removesuffix("_FILE")} & VARIABLES]
    return {name: next(iter(difflib.get_close_matches(name, VARIABLES, 1)), "") for name in unknown}


def refuse(problems: Iterable[Problem]) -> None:
    """Raise Refusal(invalid_setting) that names all problems; return when there are none."""
    found = list(problems)
    if found:
        message = "; ".join(dict.fromkeys(problem for _, problem in found))
        raise Refusal("invalid_setting", message, field=found[0][0])


def groups_of(settings: object) -> Iterator[object]:
    """The settings and all groups in them."""
    yield settings
    for field in dataclasses.fields(cast("Any", settings)):
        if _GROUP in field.metadata:
            yield from groups_of(getattr(settings, field.name))


def values_of(settings: object) -> Iterator[tuple[Setting[Any], Any]]:
    """Every variable of loaded settings with its value."""
    for one in groups_of(settings):
        for field in dataclasses.fields(cast("Any", one)):
            if _SETTING in field.metadata:
                yield field.metadata[_SETTING], getattr(one, field.name)


def _too_long(settings: object) -> Iterator[Problem]:
    values = {one.variable: value for one, value in values_of(settings)}
    for one, value in values_of(settings):
        limit = values.get(one.within)
        if limit is not None and _seconds(one.variable, value) > _seconds(one.within, limit):
            names = f"{one.variable} ({value:g}) is longer than {one.within} ({limit:g})"
            yield one.variable, f"{names}; shorten it, or raise {one.within}"


def _seconds(variable: str, value: float) -> float:
    return value / 1000 if variable.endswith("_MS") else value


def _load(settings_class: type[S], env: Mapping[str, str], service: str, problems: list[tuple[str, str]]) -> S:
    values: dict[str, object] = {}
    for field in dataclasses.fields(cast("Any", settings_class)):
        if _GROUP in field.metadata:
            values[field.name] = _load(field.metadata[_GROUP], env, service, problems)
        elif _SETTING in field.metadata:
            one = field.metadata[_SETTING]
            try:
                values[field.name] = _read(one, env, service)
            except ValueError as error:
                variable = error.variable if isinstance(error, ports.NoPortError) else one.variable
                problems.append((variable, str(error)))
                values[field.name] = None
    if problems:
        return cast("S", None)  # never leaves `load`: a class may check itself in __post_init__ and expects real values
    return settings_class(**values)


def _read(one: Setting[T], env: Mapping[str, str], service: str) -> T:
    text = _text_of(one, env)
    if text:
        try:
            return _with_source(_parsed(one.parser, text), one, env)
        except ValueError as error:
            hidden = one.parser.secret or "@" in text  # a URL may hold a password before its @
            shown = "" if hidden or one.parser.mistaken_for_secret else f" is {text[:80]!r}, but it"
            detail = f" ({error})" if str(error) and not hidden else ""
            raise ValueError(f"{one.variable}{shown} must be {one.parser.expects}{detail}") from None
    if isinstance(one.default, DefaultFrom):
        return one.default.make(service, env)
    if isinstance(one.default, _Required):
        raise ValueError(f"{one.variable} is not set; it must be {one.parser.expects}")
    return one.default


def _with_source(value: T, one: Setting[T], env: Mapping[str, str]) -> T:
    if isinstance(value, Secret) and not env.get(one.variable):
        return dataclasses.replace(value, source=Path(env[f"{one.variable}_FILE"]))
    return value


def _parsed(parser: Parser[T], text: str) -> T:
    """The value of `text`. A path may be any bytes; everything else must be valid text."""
    value = parser.parse(text)
    if not isinstance(value, Path) and not is_text(text):
        raise ValueError("it is no UTF-8")
    return value


def _text_of(one: Setting[T], env: Mapping[str, str]) -> str:
    return secret_text(env, one.variable) if one.parser.secret else env.get(one.variable, "")


def describe(settings_class: type[object]) -> Iterator[SettingDoc]:
    """Every variable of a settings class, in order, groups included."""
    for field in dataclasses.fields(cast("Any", settings_class)):
        if _GROUP in field.metadata:
            yield from describe(field.metadata[_GROUP])
        elif _SETTING in field.metadata:
            one = field.metadata[_SETTING]
            yield SettingDoc(
                variable=one.variable,
                expects=one.parser.expects,
                default=_default_text(one),
                doc=one.doc,
                group=settings_class.__name__,
                secret=one.parser.secret,
            )


def _default_text(one: Setting[Any]) -> str:
    if isinstance(one.default, _Required):
        return "required"
    if isinstance(one.default, DefaultFrom):
        return one.default.text
    if isinstance(one.default, Secret) or one.default in (None, "", ()):
        return "none"
    return str(one.default)
