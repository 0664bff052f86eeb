"""Every CUDA source compiles without a GPU, from its own text alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmphate_gpu.ops._sources import kernel_names, kernel_source, source_folder

SOURCES = sorted(path.stem for path in (source_folder() / "cuda").glob("*.cu"))
TYPES = {
    "narrow": {"MMP_INDEX": "mmp_i32", "MMP_VALUE": "float", "MMP_BLOCK": "float", "MMP_DISTANCE": "float"},
    "wide": {"MMP_INDEX": "mmp_i64", "MMP_VALUE": "double", "MMP_BLOCK": "double", "MMP_DISTANCE": "double"},
}
SCREENED = {"radius_count", "radius_fill", "symmetrised_affinity", "kth_neighbor_distance", "bracket_count"}
SUMS = {"csr_matmul", "guttman_transform"}
SHAPES = {"MMP_LANES": "32", "MMP_PER_LANE": "4", "MMP_C": "3", "MMP_ROWS": "4", "MMP_DEPTH": "5"}


def nvcc() -> str:
    program = shutil.which("nvcc")
    if program is None:
        pytest.skip("there is no nvcc on PATH")
    return program


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_source_compiles_to_ptx(source: str, types: str, architecture: str, tmp_path: Path) -> None:
    """As NVRTC is given it: headers in place, no include path, no contraction; a warning is an error."""
    text, ptx = tmp_path / f"{source}.cu", tmp_path / f"{source}.ptx"
    text.write_text(kernel_source(source))
    defines = [f"-D{name}={value}" for name, value in (TYPES[types] | SHAPES).items()]
    options = ["-std=c++17", "-fmad=false", f"-arch={architecture}", "-Werror", "all-warnings"]
    done = subprocess.run(
        [nvcc(), "-ptx", *options, *defines, str(text), "-o", str(ptx)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    bodies = dict(re.findall(r"^\.visible \.entry (\w+)\((.*?)^}$", ptx.read_text(), re.MULTILINE | re.DOTALL))
    assert bodies and sorted(bodies) == sorted(kernel_names(source))
    # What is decided is rounded after every operation. Fused ones are for sums, in their type, and for the screen, in
    # float32.
    wide = types == "wide"
    for name, body in bodies.items():
        assert ("fma.rn.f64" in body) == (name in SUMS and wide)
        assert ("fma.rn.f32" in body) == (name in SCREENED or (name in SUMS and not wide))
    # The function that decides is called, not written out: it is looked at apart.
    deciding = re.findall(r"^\.func [^\n]*mmp_exact_square\w*\((.*?)^}$", ptx.read_text(), re.MULTILINE | re.DOTALL)
    assert len(deciding) == bool(SCREENED & bodies.keys())
    assert all("mul.rn.f64" in body and "fma" not in body for body in deciding)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_120"])
@pytest.mark.slow
def test_machine_code_fits_the_device(architecture: str, tmp_path: Path) -> None:
    """The kernels over pairs: shared memory for two blocks of the 100 KiB there are at least, and registers for two.

    Measured: 17 to 36 KiB and 64 to 128 registers; on sm_90 `kth_neighbor_distance` spills 100 bytes beside its calls.
    """
    for source in ("pair_screen", "radius_affinity", "kth_neighbor_distance"):
        text = tmp_path / f"{source}.cu"
        text.write_text(kernel_source(source))
        defines = [f"-D{name}={value}" for name, value in TYPES["wide"].items()]
        options = ["-std=c++17", "-fmad=false", f"-arch={architecture}", "-Xptxas", "-v"]
        command = [nvcc(), "-cubin", *options, *defines, str(text), "-o", str(tmp_path / "cubin")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used = re.findall(r"Used (\d+) registers.*?(\d+) bytes smem", done.stderr)
        assert len(used) == len(kernel_names(source))
        assert all(int(registers) <= 128 and int(shared) <= 50 * 1024 for registers, shared in used)
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill stores", done.stderr)))
        assert spilled <= (128 if source == "kth_neighbor_distance" else 0)


@pytest.mark.parametrize("source", SOURCES)
def test_source_includes_no_system_header(source: str) -> None:
    """NVRTC has none. Headers that both twins share ask for <math.h> where NVRTC is not the compiler."""
    assert "#include <" not in (source_folder() / "cuda" / f"{source}.cu").read_text()
    guarded = r"#if !defined\(__CUDACC_RTC__\)\n#include <math\.h>\n#endif\n"
    assert "#include" not in re.sub(guarded, "", kernel_source(source))
