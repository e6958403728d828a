"""Check the project against the Python code of the real torch_npu, without an NPU or CANN.

    python tests/real_torch_npu/check.py

In a temporary virtual environment it checks the error messages without CANN and without a device and, with stand-in
libraries for CANN (cann.c), every name of torch_npu that the project uses and some training steps (inside.py). It takes 4
minutes and needs Linux, a C compiler, binutils and the package index; if one is missing, it prints so and exits with 0.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TORCH_NPU = "2.13.0"
PACKAGES = [f"torch=={TORCH_NPU}", "numpy", "pyyaml", "pillow", "tqdm", "tyro", "filelock", "safetensors", "msgspec"]
WITHOUT_DEPENDENCIES = [f"torch_npu=={TORCH_NPU}", "torchvision==0.28.0"]
"""Installed without dependencies: torch_npu requires a specific build of torch, and torchvision CUDA libraries."""
LIBRARIES = ["libascendcl", "libhccl", "libacl_op_compiler", "libge_runner", "libgraph", "libacl_tdt_channel"]
LOADED_LATER = [
    *("aclrtSetDeviceSatMode", "aclSetCompileopt", "aclrtSetOpExecuteTimeOut", "aclopCompileAndExecuteV2"),
    *("aclrtDestroyStreamForce", "aclrtSynchronizeDeviceWithTimeout"),
]
"""Symbols that torch_npu looks up at run time; without those for graphs, as in an old CANN."""
FLAGS = "--depth 8 --batch-size 8 --iterations 4 --data synthetic".split()
NO_CANN = (
    "error: device npu is not usable: torch_npu is installed but does not load (ImportError: libhccl.so: cannot open shared "
    "object file: No such file or directory); CANN is missing or not on LD_LIBRARY_PATH: source the set_env.sh of the Ascend "
    "toolkit\n"
)
NO_DEVICE = (
    "error: device npu is not usable: torch_npu loads but sees no device (check npu-smi info and ASCEND_RT_VISIBLE_DEVICES)\n"
)


def make_environment(folder: Path) -> str | None:
    """Install the packages; return why that is impossible, or None."""
    if sys.platform != "linux":
        return "torch_npu is for Linux"
    missing = [program for program in ("cc", "nm") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} missing"
    venv.create(folder / "environment", with_pip=True)
    pip = [str(folder / "environment/bin/pip"), "install", "-q", "--disable-pip-version-check"]
    for packages in (PACKAGES, ["--no-deps", *WITHOUT_DEPENDENCIES]):
        done = subprocess.run([*pip, *packages], capture_output=True, text=True)
        if done.returncode:
            return f"pip: {done.stderr.strip().splitlines()[-1]}"
    if list((folder / "environment").glob("lib/*/site-packages/nvidia*")):
        return "the index's torch is built for CUDA, which torch_npu refuses"
    return None


def build_libraries(folder: Path):
    """Build one library under all names: cann.c, and a function without effect for every other symbol torch_npu needs."""
    wheel = next((folder / "environment").glob("lib/*/site-packages/torch_npu"))
    wanted = set(LOADED_LATER)
    for library in [*wheel.glob("lib/*.so"), *wheel.glob("_C*.so")]:
        listing = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
        wanted.update(re.findall(r" U ((?:acl|rt|ge|Hccl|Msprof)\w+)$", listing, re.MULTILINE))
    written = (HERE / "cann.c").read_text()
    rest = wanted - set(re.findall(r"\b(\w+)\([^)]*\) \{", written))
    source = folder / "cann.c"
    source.write_text(written + "".join(f"int {name}(void) {{ return status(); }}\n" for name in sorted(rest)))
    (folder / "lib").mkdir()
    for name in LIBRARIES:
        soname = f"-Wl,-soname,{name}.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-w", source, "-o", folder / "lib" / f"{name}.so", soname], check=True)


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run inside.py in the environment, in `folder`."""
    variables = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
    variables |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    line = [str(folder / "environment/bin/python"), "-W", "ignore", str(HERE / "inside.py"), *arguments]
    return subprocess.run(line, env=variables, cwd=folder, capture_output=True, text=True)


def expect(what: str, done: subprocess.CompletedProcess, status: int, stderr: str | None = None):
    if done.returncode != status or (stderr is not None and done.stderr != stderr):
        sys.exit(f"FAILED: {what}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"{what}: {(stderr or done.stdout).strip()}")


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reason = make_environment(folder)
        if reason is not None:
            print(f"the real torch_npu was not checked: {reason}")
            return
        expect("without CANN, --device npu", run(folder, "run", *FLAGS, "--device", "npu"), 2, NO_CANN)
        expect("without CANN, --device auto", run(folder, "run", *FLAGS, "--device", "auto", "--out", "auto"), 0)
        build_libraries(folder)
        libraries = str(folder / "lib")
        nothing = {"LD_LIBRARY_PATH": libraries, "CANN_DEVICES": "0"}
        expect("without a device, --device npu", run(folder, "run", *FLAGS, "--device", "npu", **nothing), 2, NO_DEVICE)
        expect("without a device, --device auto", run(folder, "run", *FLAGS, "--out", "none", **nothing), 0)
        used = run(folder, "use", LD_LIBRARY_PATH=libraries)
        expect("on stand-in libraries", used, 0)
        assert "graph capture failed, training without it: RuntimeError: Failed to find function" in used.stderr
    print(f"the real torch_npu {TORCH_NPU} was checked in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
