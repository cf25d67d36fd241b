"""The TypeScript client alone: its own tests, and that it answers as the Python client does, whatever it is told."""

import json
import random
import re
import tomllib

import pytest
from google.protobuf.message import Message

from oa_khala.client.tests import walks
from oa_khala.readable import EVENTS
from openagents.common.v1 import surfaces_pb2
from openagents.runtime.v1 import run_pb2
from openagents.sync.v1 import frame_pb2
from tests.typescript.package import COMPILE_TIMEOUT_S, PACKAGE, compiled, run

pytestmark = pytest.mark.timeout(COMPILE_TIMEOUT_S + 60)

WALKS = 150
WALK_STEPS = 300


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    """The package, compiled."""
    compiled()


def test_it_knows_the_surfaces_of_the_contract() -> None:
    (union,) = re.findall(r"export type Surface = ([^;]*);", (PACKAGE / "src" / "control.ts").read_text("utf-8"))
    values = surfaces_pb2.Surface.DESCRIPTOR.values
    of_contract = {value.GetOptions().Extensions[surfaces_pb2.surface_text] for value in values if value.number}
    assert set(re.findall(r'"(\w+)"', union)) == of_contract


def test_its_own_tests_pass() -> None:
    programs = [str(path) for path in sorted((PACKAGE / "build" / "test").glob("*.test.js"))]
    assert programs
    done = run(["node", "--test", *programs])
    assert done.returncode == 0, done.stdout[-8_000:]


def test_its_sources_are_formatted() -> None:
    done = run(["npm", "run", "--silent", "lint"])
    assert done.returncode == 0, done.stderr[-4_000:]


def test_it_answers_as_the_python_client_whatever_it_is_told() -> None:
    first = random.SystemRandom().randrange(1 << 32)
    transcripts = [json.dumps(walks.walk(seed, WALK_STEPS)) for seed in range(first, first + WALKS)]
    done = run(["node", "build/test/peer.js"], "\n".join(transcripts))
    assert done.stdout.strip() == str(WALKS), f"of the walks from seed {first}:\n{done.stderr[-4_000:]}"


def test_the_example_of_its_readme_is_strict_typescript_with_or_without_the_types_of_browsers() -> None:
    compiled("tsconfig.build.json")
    (example,) = re.findall(r"```ts\n(.*?)```", (PACKAGE / "README.md").read_text("utf-8"), re.DOTALL)
    program = PACKAGE / "build" / "readme.ts"
    program.write_text(
        f"declare const session: {{ accessToken: string; deviceId: string; refresh(): Promise<string> }};\n{example}",
        "utf-8",
    )
    strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck", "false"]
    alone = ["--ignoreConfig", "--noEmit", "--module", "nodenext", "--target", "es2022", "--types", "node"]
    for library in ("es2022", "es2022,dom"):
        options = [*strict, *alone, "--lib", library]
        done = run(["node", "node_modules/typescript/bin/tsc", *options, str(program)])
        assert done.returncode == 0, f"with {library}:\n{done.stdout}"


def test_it_has_the_messages_of_all_topics_and_their_snapshots() -> None:
    program = "import('./build/src/messages.js').then((all) => console.log(JSON.stringify(Object.keys(all))))"
    exported = json.loads(run(["node", "-e", program]).stdout)
    of_topics: list[type[Message]] = [*EVENTS.values(), run_pb2.RunSnapshot, frame_pb2.DocumentSet]
    assert {f"{message.DESCRIPTOR.name}Schema" for message in of_topics} <= set(exported)


def test_the_package_has_types_takes_one_other_package_and_is_of_this_release() -> None:
    package = compiled("tsconfig.build.json")
    manifest = json.loads((package / "package.json").read_text("utf-8"))
    assert list(manifest["dependencies"]) == ["@bufbuild/protobuf"]
    version = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert manifest["version"] == version
    assert f'BUILD_ID = "khala-ts/{version}"' in (package / "dist" / "control.js").read_text("utf-8")
    packed = json.loads(run(["npm", "pack", "--dry-run", "--ignore-scripts", "--json"]).stdout)
    entries = packed.values() if isinstance(packed, dict) else packed
    files = {file["path"] for entry in entries for file in entry["files"]}
    for entry in manifest["exports"].values():
        assert {path.removeprefix("./") for path in entry.values()} <= files
    assert not [path for path in files if not path.endswith((".js", ".d.ts", ".js.map", "README.md", "package.json"))]
