"""The comments of the contracts as data, for programs that show them: `descriptions.json` in `gen/`.

A JSON object: full name of a service, method, message, field or enum value -> its comment as text, where paragraphs are
separated by an empty line. Generated code has no comments, because protoc's descriptors leave them out.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

from tools.buf import run_buf

PACKAGE = "openagents."
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_MESSAGE, _MESSAGE_ENUM = 2, 3, 4
_ENUM_VALUE, _SERVICE_METHOD = 2, 2
DESCRIPTIONS = Path("openagents", "common", "v1", "descriptions.json")
"""Where the file is in `gen/`."""
Place = tuple[int, ...]
"""A path in a descriptor: numbers of fields, and indices."""


def descriptions(root: Path) -> str:
    """Return the file's text, from the comments of `root`/proto; empty if there are none."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "with_comments.binpb"
        run_buf(root, "build", "proto", "--as-file-descriptor-set", "--output", str(target))
        files = FileDescriptorSet.FromString(target.read_bytes()).file
    found = {name: text for file in files if file.package.startswith(PACKAGE) for name, text in _of_file(file)}
    return json.dumps(dict(sorted(found.items())), ensure_ascii=False, indent=0) + "\n" if found else ""


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    comments = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
    for name, path in _named(file):
        if text := as_text(comments.get(path, "")):
            yield name, text


def as_text(comment: str) -> str:
    """A comment without its line breaks, apart from those between paragraphs and before the points of a list."""
    paragraphs = (one.strip() for one in re.split(r"\n\s*\n", comment))
    return "\n\n".join(re.sub(r"\s*\n\s*(- )?", _joint, one) for one in paragraphs if one)


def _joint(line_break: re.Match[str]) -> str:
    return "\n- " if line_break[1] else " "


def _named(file: FileDescriptorProto) -> Iterator[tuple[str, Place]]:
    """Yield the full names of everything that has a comment, each with its path in the descriptor."""
    for number, message in enumerate(file.message_type):
        yield from _in_message(message, file.package, (_FILE_MESSAGE, number))
    for number, enum in enumerate(file.enum_type):
        yield from _in_enum(enum, file.package, (_FILE_ENUM, number))
    for number, service in enumerate(file.service):
        name, path = f"{file.package}.{service.name}", (_FILE_SERVICE, number)
        yield name, path
        for index, method in enumerate(service.method):
            yield f"{name}.{method.name}", (*path, _SERVICE_METHOD, index)


def _in_message(message: DescriptorProto, within: str, path: Place) -> Iterator[tuple[str, Place]]:
    name = f"{within}.{message.name}"
    yield name, path
    for number, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _MESSAGE_FIELD, number)
    for number, inner in enumerate(message.nested_type):
        yield from _in_message(inner, name, (*path, _MESSAGE_MESSAGE, number))
    for number, enum in enumerate(message.enum_type):
        yield from _in_enum(enum, name, (*path, _MESSAGE_ENUM, number))


def _in_enum(enum: EnumDescriptorProto, within: str, path: Place) -> Iterator[tuple[str, Place]]:
    name = f"{within}.{enum.name}"
    yield name, path
    for number, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, _ENUM_VALUE, number)
