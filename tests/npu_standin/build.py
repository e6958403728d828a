"""Build device.cpp against the installed torch: 30 s with g++, once per version of the source and of torch."""

import hashlib
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
NAME = "npu_device"
FLAGS = ["-O1", "-std=c++20", "-shared", "-fPIC", "-w", f"-DTORCH_EXTENSION_NAME={NAME}"]


def library() -> Path:
    """Return the path of the library, named after a hash of everything it is built from."""
    source = (HERE / "device.cpp").read_bytes()
    parts = [source, torch.__version__.encode(), sysconfig.get_python_version().encode(), *map(str.encode, FLAGS)]
    return HERE / "build" / f"{NAME}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:12]}.so"


def problem() -> str | None:
    """Return why the library cannot be built here, or None."""
    return None if library().exists() or shutil.which("g++") else "the NPU stand-in needs g++"


def build() -> Path:
    """Build the library if it is missing; several processes may do so at the same time."""
    path = library()
    if path.exists():
        return path
    path.parent.mkdir(exist_ok=True)
    package = Path(torch.__file__).parent
    includes = [sysconfig.get_path("include"), package / "include", package / "include/torch/csrc/api/include"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        command = ["g++", *FLAGS, *(f"-I{include}" for include in includes), str(HERE / "device.cpp"), "-o", str(unfinished)]
        command += [f"-L{package}/lib", f"-Wl,-rpath,{package}/lib", "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python"]
        subprocess.run(command, check=True)
        unfinished.replace(path)
    return path


if __name__ == "__main__":
    print(build())
