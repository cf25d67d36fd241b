"""A protoc plugin around grpc_tools' own gRPC generator.

buf accepts for `protoc_builtin` only the names on its own list, and grpc_python is not one of them. So this program
turns a plugin request into a call of `grpc_tools.protoc --grpc_python_out`, and its files into the response.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Stubs for every requested file that declares a service, in the order of the request."""
    with_service = {file.name for file in request.proto_file if file.service}
    wanted = [name for name in request.file_to_generate if name in with_service]
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    if wanted:
        with tempfile.TemporaryDirectory() as folder:
            _run_protoc(request, wanted, Path(folder))
            _collect(Path(folder), response)
    return response


def _run_protoc(request: plugin_pb2.CodeGeneratorRequest, wanted: list[str], folder: Path) -> None:
    image = folder / "image.binpb"
    image.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
    options = [f"--descriptor_set_in={image}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *options, *wanted]) != 0:
        raise SystemExit("grpc_tools.protoc failed; its message is above")


def _collect(folder: Path, response: plugin_pb2.CodeGeneratorResponse) -> None:
    for path in sorted(folder.rglob("*.py")):
        response.file.add(name=path.relative_to(folder).as_posix(), content=path.read_text("utf-8"))


def main() -> None:
    """Serve one plugin request from stdin to stdout."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


if __name__ == "__main__":
    main()
