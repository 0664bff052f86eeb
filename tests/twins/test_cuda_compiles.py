"""Every CUDA source compiles without a GPU, from its text alone."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from mmphate_gpu.ops.launch.sources import kernel_names, kernel_source, source_folder, source_of_kernel
from mmphate_gpu.ops.pair_stack import BOX_FEATURES, MOST_FEATURES, RESIDENT, TILE, Stack, new_stack

SOURCES = sorted(path.stem for path in (source_folder() / "cuda").glob("*.cu"))
TYPES = {
    "narrow": {"MMP_INDEX": "mmp_i32", "MMP_VALUE": "float", "MMP_BLOCK": "float", "MMP_DISTANCE": "float"},
    "wide": {"MMP_INDEX": "mmp_i64", "MMP_VALUE": "double", "MMP_BLOCK": "double", "MMP_DISTANCE": "double"},
}
SCREENED = {"radius_count", "radius_fill", "symmetrized_affinity", "kth_neighbor_distance", "bracket_count"}
SUMS = {"csr_matmul", "guttman_transform"}
# Files with another form for points that lack features.
OVER_PAIRS = ("pair_screen", "radius_affinity", "kth_neighbor_distance")
MASKED = TYPES | {"masked": TYPES["narrow"] | {"MMP_MASKED": "1"}}
SHAPES = {"MMP_P": "10", "MMP_LANES": "32", "MMP_PER_LANE": "4", "MMP_C": "3", "MMP_ROWS": "4", "MMP_DEPTH": "5"}


def nvcc() -> str:
    program = shutil.which("nvcc")
    if program is None:
        pytest.skip("there is no nvcc on PATH")
    return program


def bodies_of(text: str, options: list[str], folder: Path) -> tuple[dict[str, str], list[str]]:
    """The PTX of each kernel, and that of the functions that decide, which are not inlined."""
    source, ptx = folder / "kernels.cu", folder / "kernels.ptx"
    source.write_text(text)
    command = [nvcc(), "-ptx", "-std=c++17", "-fmad=false", "-Werror", "all-warnings", *options]
    done = subprocess.run([*command, str(source), "-o", str(ptx)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = re.findall(r"^\.visible \.entry (\w+)\((.*?)^}$", ptx.read_text(), re.MULTILINE | re.DOTALL)
    return dict(kernels), re.findall(
        r"^\.func [^\n]*mmp_exact_square\w*\((.*?)^}$", ptx.read_text(), re.MULTILINE | re.DOTALL
    )


def assert_rounded(types: str, bodies: dict[str, str], deciding: list[str], flushed: str = "") -> None:
    """Decisions round after every operation. Only sums, in their type, and the screen, in float32, fuse operations."""
    wide = types == "wide"
    for name, body in bodies.items():
        assert ("fma.rn.f64" in body) == (name in SUMS and wide)
        assert (f"fma.rn{flushed}.f32" in body) == (name in SCREENED or (name in SUMS and not wide))
    assert len(deciding) == bool(SCREENED & bodies.keys())
    assert all("mul.rn.f64" in body and "fma" not in body for body in deciding)


@pytest.mark.parametrize(
    ("source", "types"), [*itertools.product(SOURCES, TYPES), *((source, "masked") for source in OVER_PAIRS)]
)
def test_source_compiles_to_ptx(source: str, types: str, tmp_path: Path) -> None:
    """A file compiles with its headers in place, without an include path or contraction, and without a warning."""
    defines = [f"-D{name}={value}" for name, value in (MASKED[types] | SHAPES).items()]
    bodies, deciding = bodies_of(kernel_source(source), ["-arch=sm_80", *defines], tmp_path)
    assert bodies and sorted(bodies) == sorted(kernel_names(source))
    assert_rounded(types, bodies, deciding)


@pytest.mark.parametrize(
    ("source", "kernel"), [(source, kernel) for source in SOURCES for kernel in kernel_names(source)]
)
@pytest.mark.parametrize("types", TYPES)
def test_kernel_compiles_alone(source: str, kernel: str, types: str, tmp_path: Path) -> None:
    """A kernel compiles alone, as NVRTC gets it, with types and shapes in the text and the option that CuPy adds.

    Functions of other kernels remain in the text, so a warning of unused functions is no error.
    """
    text = source_of_kernel(source, kernel, TYPES[types] | SHAPES)
    options = ["-arch=sm_90", "-ftz=true", "-diag-suppress=177"]
    bodies, deciding = bodies_of(text, options, tmp_path)
    assert list(bodies) == [kernel]
    assert_rounded(types, bodies, deciding, flushed=".ftz")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_120"])
@pytest.mark.slow
def test_machine_code_fits_the_device(architecture: str, tmp_path: Path) -> None:
    """Kernels over pairs leave registers for a second block, and fit the 48 KiB of shared memory that every launch has.

    Measured: 64 to 128 registers; up to 32 bytes spilled by the kernels of a radius, 132 by those of the k-th one. For
    points that lack features the latter spill up to 284 bytes (sm_90), so that a second block fits.
    """
    most = 4 * TILE * RESIDENT
    assert all(_stack(p).shared_bytes <= most for p in range(1, 1000))
    for source, part, types in itertools.product(OVER_PAIRS, ("10", "25"), ("wide", "masked")):
        text = tmp_path / f"{source}.cu"
        text.write_text(kernel_source(source))
        defines = [f"-D{name}={value}" for name, value in (MASKED[types] | {"MMP_P": part}).items()]
        options = ["-std=c++17", "-fmad=false", "-ftz=true", f"-arch={architecture}", "-Xptxas", "-v"]
        command = [nvcc(), "-cubin", *options, *defines, str(text), "-o", str(tmp_path / "cubin")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used = re.findall(r"Used (\d+) registers.*?(?:(\d+) bytes smem)?$", done.stderr, re.MULTILINE)
        assert len(used) == len(kernel_names(source))
        assert all(int(registers) <= 128 for registers, _ in used)
        assert all(int(shared or 0) + most <= 48 * 1024 for _, shared in used)
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill stores", done.stderr)))
        more = 160 if types == "masked" else 0
        assert spilled <= {"pair_screen": 0, "radius_affinity": 64, "kth_neighbor_distance": 160 + more}[source]


def _stack(p: int) -> Stack:
    return new_stack(torch.empty(1, 1, p, dtype=torch.float64), None)


def test_launcher_and_kernels_agree_on_their_sizes() -> None:
    """Python and C++ have the same constants."""
    text = (source_folder() / "cuda" / "pair_block.h").read_text()
    assert f"mmp_resident = {RESIDENT};" in text and f"mmp_box_features = {BOX_FEATURES};" in text
    assert "mmp_tile = mmp_warps * mmp_warp_rows" in text and TILE == 64
    for p in range(1, 1000):
        stack = _stack(p)
        assert p <= stack.passes * stack.part < p + stack.passes and stack.part <= MOST_FEATURES


@pytest.mark.parametrize("source", SOURCES)
def test_source_includes_no_system_header(source: str) -> None:
    """NVRTC has no system headers. The headers of csrc/common include <math.h> only for other compilers."""
    assert "#include <" not in (source_folder() / "cuda" / f"{source}.cu").read_text()
    guarded = r"#if !defined\(__CUDACC_RTC__\)\n#include <math\.h>\n#endif\n"
    assert "#include" not in re.sub(guarded, "", kernel_source(source))
