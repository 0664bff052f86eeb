"""Every CUDA source compiles without a GPU, from its own text alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmphate_gpu.ops._sources import kernel_names, kernel_source, source_folder, source_of_kernel

SOURCES = sorted(path.stem for path in (source_folder() / "cuda").glob("*.cu"))
TYPES = {
    "narrow": {"MMP_INDEX": "mmp_i32", "MMP_VALUE": "float", "MMP_BLOCK": "float", "MMP_DISTANCE": "float"},
    "wide": {"MMP_INDEX": "mmp_i64", "MMP_VALUE": "double", "MMP_BLOCK": "double", "MMP_DISTANCE": "double"},
}
SCREENED = {"radius_count", "radius_fill", "symmetrised_affinity", "kth_neighbor_distance", "bracket_count"}
SHAPES = {"MMP_LANES": "32", "MMP_PER_LANE": "4", "MMP_C": "3", "MMP_ROWS": "4", "MMP_DEPTH": "5"}


def nvcc() -> str:
    program = shutil.which("nvcc")
    if program is None:
        pytest.skip("there is no nvcc on PATH")
    return program


def bodies_of(text: str, options: list[str], folder: Path) -> tuple[dict[str, str], list[str]]:
    """PTX of the kernels by name, and of the functions that decide, which are called and not written out."""
    source, ptx = folder / "kernels.cu", folder / "kernels.ptx"
    source.write_text(text)
    command = [nvcc(), "-ptx", "-std=c++17", "-fmad=false", "-Werror", "all-warnings", *options]
    done = subprocess.run([*command, str(source), "-o", str(ptx)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = re.findall(r"^\.visible \.entry (\w+)\((.*?)^}$", ptx.read_text(), re.MULTILINE | re.DOTALL)
    return dict(kernels), re.findall(
        r"^\.func [^\n]*mmp_exact_square\w*\((.*?)^}$", ptx.read_text(), re.MULTILINE | re.DOTALL
    )


def assert_rounded(source: str, types: str, bodies: dict[str, str], deciding: list[str], flushed: str = "") -> None:
    """What is decided is rounded after every operation. Fused ones are for the sparse product, in the type of its
    block, and for the screen, in float32."""
    wide = source == "csr_matmul" and types == "wide"
    for name, body in bodies.items():
        assert ("fma.rn.f64" in body) == wide
        assert (f"fma.rn{flushed}.f32" in body) == (name in SCREENED or (source == "csr_matmul" and not wide))
    assert len(deciding) == bool(SCREENED & bodies.keys())
    assert all("mul.rn.f64" in body and "fma" not in body for body in deciding)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("types", TYPES)
def test_source_compiles_to_ptx(source: str, types: str, tmp_path: Path) -> None:
    """Headers in place, no include path, no contraction; a warning is an error."""
    defines = [f"-D{name}={value}" for name, value in (TYPES[types] | SHAPES).items()]
    bodies, deciding = bodies_of(kernel_source(source), ["-arch=sm_80", *defines], tmp_path)
    assert bodies and sorted(bodies) == sorted(kernel_names(source))
    assert_rounded(source, types, bodies, deciding)


@pytest.mark.parametrize(
    ("source", "kernel"), [(source, kernel) for source in SOURCES for kernel in kernel_names(source)]
)
@pytest.mark.parametrize("types", TYPES)
def test_kernel_compiles_alone(source: str, kernel: str, types: str, tmp_path: Path) -> None:
    """As NVRTC is given it: one kernel, its types and shapes in the text, and the option that CuPy appends.

    What other kernels of the file call is left over: the warning that it is not used is no error.
    """
    text = source_of_kernel(source, kernel, TYPES[types] | SHAPES)
    options = ["-arch=sm_90", "-ftz=true", "-diag-suppress=177"]
    bodies, deciding = bodies_of(text, options, tmp_path)
    assert list(bodies) == [kernel]
    assert_rounded(source, types, bodies, deciding, flushed=".ftz")


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
