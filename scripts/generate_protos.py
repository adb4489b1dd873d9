"""Generate shared/detex_protos from proto/: messages, stubs for type checkers, gRPC services.

Run: python scripts/generate_protos.py [OUTPUT]   (OUTPUT: the package's folder, shared/detex_protos by default)

protoc writes imports of `detex.v1`, the package of the contract; in Python the package is called `detex_protos`, so
that the name `detex` stays free for the distribution. The imports are rewritten accordingly. Comments become
docstrings as they are; their backslashes are doubled, for Python warns of escapes that it does not know.
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTO_ROOT = REPOSITORY / "proto"
PROGRAMS = Path(sys.executable).parent
UNKNOWN_ESCAPE = re.compile(r"(?<!\\)\\(?=\[)")
GENERATED_IMPORT = re.compile(r"\bdetex\.v1\b(?=\s+import|\.\w+_pb2)")


def generate(output: Path) -> None:
    """Write the package into `output`; raises RuntimeError where protoc refuses a file."""
    sources = sorted(str(path.relative_to(PROTO_ROOT)) for path in PROTO_ROOT.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "protoc",
            f"-I{PROTO_ROOT}",
            f"-I{files('grpc_tools').joinpath('_proto')}",
            *(f"--plugin=protoc-gen-{name}={PROGRAMS / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")),
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            f"--mypy_out={folder}",
            f"--mypy_grpc_out={folder}",
            *sources,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc failed on {sources}")
        package = output / "v1"
        package.mkdir(parents=True, exist_ok=True)
        for path in sorted((Path(folder) / "detex" / "v1").iterdir()):
            text = GENERATED_IMPORT.sub("detex_protos.v1", path.read_text())
            if path.name.endswith("_pb2_grpc.py"):
                text = UNKNOWN_ESCAPE.sub(r"\\\\", text)
            (package / path.name).write_text(text)
    (output / "__init__.py").write_text('"""The wire contract of proto/, generated; never edited."""\n')
    (package / "__init__.py").write_text('"""Version 1 of the wire contract."""\n')
    (output / "py.typed").write_text("")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "shared" / "detex_protos")
