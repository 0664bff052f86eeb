"""Every import of the package points downwards, also imports inside functions and for type checkers."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mmphate_gpu

ROOT = Path(mmphate_gpu.__file__).parent
NAME = "mmphate_gpu"

# A module imports only from its room and from lines above. This is the only table of levels. `reference` has no level,
# because it imports nothing from the package.
LEVELS = [
    "errors",
    "runtime",
    "params",
    "ops",
    "linalg",
    "trace",
    "slices",
    "neighbors",
    "affinities",
    "operators",
    "landmarks",
    "diffusion",
    "mds",
    "interactive",
    "embedding",
    # No stage imports these.
    "record",
    "datasets",
    "config",
    "stages",
    "diagnosis",
    "pipeline",
    "planning",
    "estimator",
    "m_phate",
    "analysis",
    "plots",
    "live",
    "cli",
    "__main__",
    "__init__",
]

# Rooms that may import less than their level allows.
ONLY = {
    "record": {"__init__", "errors", "runtime", "params", "trace"},
    "reference": set(),
}

# Inside `ops`: these rooms may import only these modules of `ops`.
INSIDE_OPS = {
    "ops.launch": {"ops", "ops.launch"},  # the package `ops` itself only imports its modules by name
    "ops.triton": {"ops.triton", "ops.point_tiles"},
}

PICTURES = (
    "affinity_blocks axis baselines canvas colors curve entropy_curves film_frames film_scenes films "
    "grid heatmap keys layout nodes path_keys path_lines rankings scatter spectrum strips "
    "trajectories trust unit_paths"
)
# The modules that may import an optional or slow package, and these only inside functions.
OPTIONAL = {
    "cupy": {"runtime.arrays", "operators.convert", "ops.launch.kernel", "linalg.eigenvalues"},
    "cupyx": {"runtime.arrays", "operators.convert"},
    "triton": {f"ops.triton.{name}" for name in ("blocks", "nearest", "pairs", "products")},
    "pykeops": {"runtime.keops"},
    "pynndescent": {"neighbors.pynndescent_backend"},
    "numba": set(),
    "matplotlib": {"interactive.colors"} | {f"plots.{name}" for name in PICTURES.split()},
    "plotly": {"plots.html"},
    "sklearn": {"estimator", "m_phate", "cli.demo"}
    | {f"analysis.{name}" for name in ("communities", "other_methods", "partitions")},
    "xarray": {"trace.convert", "embedding", "estimator", "cli.export"},
    "pandas": {"embedding", "analysis.result"},
    "anndata": {"embedding", "cli.export"},
    "lightning": {"record.lightning"},
    "keras": {"record.keras"},
    "openTSNE": {"analysis.other_methods"},
    "umap": {"analysis.other_methods"},
    "h5py": {"trace.formats.h5", "trace.formats.h5_file"},
    "zarr": {"trace.formats.zarr", "trace.formats.zarr_chunks", "cli.export"},
}
# These import it at the top, because a class needs its base class and a kernel needs Triton's language. The modules
# themselves are loaded at their first use.
AT_TOP = {("estimator", "sklearn"), *((module, "triton") for module in OPTIONAL["triton"])}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name."""

    target: str
    line: int
    deferred: bool  # inside a function, or for type checkers only


def imports_of(source: str, module: str, is_package: bool, submodules: set[str]) -> Iterator[Import]:
    """The imports in the text of ``module``; ``from . import x`` imports x if x is one of ``submodules``."""
    for node, deferred in _nodes(ast.parse(source), False):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in submodules else base, node.lineno, deferred)
        elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
            yield Import(name, node.lineno, deferred)


def absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The full name of the module that ``node`` in ``module`` imports from."""
    if not node.level:
        return node.module or ""
    above = module.split(".")[: len(module.split(".")) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def _imported_by_call(node: ast.Call) -> str | None:
    """The name in ``require("name", ...)`` and similar calls, if it is a literal."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called == "require_cupy":
        return "cupy"
    if called in {"require", "import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
        return str(node.args[0].value)
    return None


def _nodes(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        later = deferred or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            later = True
        yield child, later
        yield from _nodes(child, later)


MODULES = {
    ".".join([NAME, *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def level_name(module: str) -> str:
    """The line of the table of a module: ``mmphate_gpu.ops.csr`` -> ``ops``."""
    return module.split(".")[1] if "." in module else "__init__"


def upward(module: str, imported: Import) -> str | None:
    """The fault of an import, or None."""
    if imported.target.split(".")[0] != NAME:
        return None
    level, other = level_name(module), level_name(imported.target)
    if level == other:
        return None
    if level in ONLY:
        return None if other in ONLY[level] else f"{level} may import only {sorted(ONLY[level])}, not {other}"
    if other == "reference":
        return None if level == "__init__" else f"{level} imports the reference"
    if other == "__init__" and LEVELS.index(level) > LEVELS.index("embedding"):
        return None  # `__version__`, which is set before any import
    return None if LEVELS.index(other) < LEVELS.index(level) else f"{level} imports {other}, which is not below it"


def misplaced(module: str, imported: Import) -> str | None:
    """The fault of an import of an optional package, or None."""
    package = imported.target.split(".")[0]
    if package not in OPTIONAL:
        return None
    short = module.removeprefix(f"{NAME}.")
    if not imported.deferred and (short, package) not in AT_TOP:
        return f"{short} imports {package} when it is loaded"
    return None if short in OPTIONAL[package] else f"{short} may not import {package}"


def outside(module: str, imported: Import) -> str | None:
    """The fault of an import inside `ops`, or None."""
    parts, target = module.split("."), imported.target.split(".")
    room = ".".join(parts[1:3])
    if room not in INSIDE_OPS or target[:2] != [NAME, "ops"] or ".".join(target[1:3]) in INSIDE_OPS[room]:
        return None
    return f"{room} may import only {sorted(INSIDE_OPS[room])} of ops, not {'.'.join(target[1:])}"


def all_imports() -> Iterator[tuple[str, Import]]:
    for module, path in MODULES.items():
        source = path.read_text(encoding="utf-8")
        for result in imports_of(source, module, path.name == "__init__.py", set(MODULES)):
            yield module, result


def test_every_module_has_a_level():
    names = {level_name(module) for module in MODULES}
    assert names == {*LEVELS, "reference"}, "a new module needs a line in LEVELS"


@pytest.mark.parametrize("fault", [upward, outside, misplaced])
def test_imports_have_no_faults(fault):
    wrong = [f"{module}:{result.line}: {text}" for module, result in all_imports() if (text := fault(module, result))]
    assert not wrong, "\n".join(wrong)


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A chain of modules that ends with its first module, or an empty list."""

    def walk(module: str, chain: list[str]) -> list[str]:
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module not in finished:
            for target in sorted(arrows.get(module, ())):
                if circular := walk(target, [*chain, module]):
                    return circular
            finished.add(module)
        return []

    finished: set[str] = set()
    return next(filter(None, (walk(module, []) for module in sorted(arrows))), [])


def test_no_modules_import_each_other_in_a_circle():
    """Also within a room. Imports of and in ``__init__`` are not counted, because it only passes names on."""
    arrows: dict[str, set[str]] = {}
    for module, imported in all_imports():
        if imported.target in MODULES and MODULES[imported.target].name != "__init__.py":
            arrows.setdefault(module, set()).add(imported.target)
    assert (
        circle({module: targets for module, targets in arrows.items() if MODULES[module].name != "__init__.py"}) == []
    )


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_the_reference_needs_numpy_and_scipy_only():
    packages = {result.target.split(".")[0] for module, result in all_imports() if level_name(module) == "reference"}
    assert packages - set(sys.stdlib_module_names) == {"numpy", "scipy", NAME}


def test_imports_inside_the_package_are_relative():
    """So a copy of the package under another name works."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == NAME for name in names), f"{module}:{node.lineno}"


def names_of(source: str) -> set[str]:
    """The names that a module defines, and those in its ``__all__``."""
    result = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            result.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            names = {part.id for part in ast.walk(target) if isinstance(part, ast.Name)} if target else set()
            result |= set(ast.literal_eval(node.value)) if names == {"__all__"} else names
    return result


def borrowed(source: str, module: str, is_package: bool, homes: dict[str, set[str]]) -> list[str]:
    """Names that ``module`` imports from a module of ``homes`` that does not define them."""
    result = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = absolute(node, module, is_package)
            result += [
                f"{base}.{alias.name}" for alias in node.names if alias.name not in homes.get(base, {alias.name})
            ]
    return result


def test_names_are_imported_from_the_modules_that_define_them():
    sources = {module: path.read_text(encoding="utf-8") for module, path in MODULES.items()}
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    homes = {module: names_of(source) for module, source in sources.items() if module not in packages}
    wrong = [
        f"{module}: {name}"
        for module, source in sources.items()
        for name in borrowed(source, module, module in packages, homes)
    ]
    assert not wrong, "\n".join(wrong)


# ---------------------------------------------------------------- the checks can fail


def test_a_name_of_another_module_is_reported():
    homes = {
        f"{NAME}.trace.convert": names_of(
            "from ..runtime.arrays import real_tensor\nAXES, N = (1, 2)\ndef as_label(): ..."
        )
    }
    source = "from ..trace.convert import AXES, N, as_label, real_tensor\nfrom . import activity"
    assert borrowed(source, f"{NAME}.analysis.preservation", False, homes) == [f"{NAME}.trace.convert.real_tensor"]
    assert names_of("from .a import b, c\n__all__ = ['b']") == {"b"}


def imports_in(source: str, module: str, is_package: bool = False) -> list[Import]:
    return list(imports_of(source, f"{NAME}.{module}", is_package, set(MODULES)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.csr", "from ..trace import Trace"),
        ("ops.csr", "from .. import slices"),
        ("ops.csr", "from ..trace.convert import as_trace"),
        ("diffusion.knee", "def late():\n    from ..mds.classic import classic"),
        ("affinities.interslice", "from ..operators.lazy import LazyAffinity"),
        ("trace.trace", "if TYPE_CHECKING:\n    from ..embedding import Embedding"),
        ("neighbors.torch_backend", f"import {NAME}.mds.smacof"),
        ("mds.metric", "from ..pipeline import mmphate"),
        ("record.store", "from ..embedding import Embedding"),
        ("reference.affinity", "from ..errors import InputError"),
        ("affinities.bandwidth", "from .. import reference"),
        ("landmarks.operator", "import importlib\nimportlib.import_module('mmphate_gpu.mds')"),
        ("trace.trace", "from .. import __version__"),
    ],
)
def test_upward_imports_are_reported(module, source):
    assert any(upward(f"{NAME}.{module}", result) for result in imports_in(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.csr", "from ..errors import InputError\nfrom .chunks import row_chunks\nimport torch"),
        ("mds.metric", "from ..linalg.random import seeded_generator\nfrom .classic import classic"),
        ("cli.main", "from .. import __version__\nfrom ..estimator import MMPHATE"),
        ("record.recorder", "from ..trace import Trace\nfrom .store import FolderStore"),
    ],
)
def test_downward_imports_pass(module, source):
    assert not any(upward(f"{NAME}.{module}", result) for result in imports_in(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.launch.cuda", "from ..point_tiles import kd_order"),
        ("ops.launch.compile_ahead", "def late():\n    from ..csr import Csr"),
        ("ops.triton.products", "from ..tile_block import COLUMNS"),
        ("ops.triton.products", "from ..launch.kernel import Launch"),
    ],
)
def test_imports_inside_ops_are_reported(module, source):
    assert any(outside(f"{NAME}.{module}", result) for result in imports_in(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("plots.canvas", "import matplotlib.pyplot as plt"),
        ("plots.canvas", "try:\n    import matplotlib\nexcept ImportError:\n    pass"),
        ("neighbors.keops_backend", "from pykeops.torch import LazyTensor"),
        (
            "neighbors.keops_backend",
            "from ..runtime.optional import require\nkeops = require('pykeops.torch', purpose='all')",
        ),
        ("embedding", "class Embedding:\n    import xarray"),
        ("linalg.kmeans", "def kmeans():\n    from sklearn.cluster import KMeans"),
        ("diffusion", "def svd():\n    cupy = require('cupy', purpose='speed')"),
    ],
)
def test_misplaced_packages_are_reported(module, source):
    assert any(misplaced(f"{NAME}.{module}", result) for result in imports_in(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("plots.canvas", "def figure():\n    from matplotlib.figure import Figure"),
        ("plots.canvas", "if TYPE_CHECKING:\n    from matplotlib.figure import Figure"),
        ("runtime.keops", "def product():\n    return require('pykeops.torch', purpose='it').LazyTensor"),
    ],
)
def test_deferred_packages_pass(module, source):
    assert not any(misplaced(f"{NAME}.{module}", result) for result in imports_in(source, module))


def test_relative_imports_are_resolved():
    inside = [result.target for result in imports_in("from . import csr, nothing", "ops", True)]
    assert inside == [f"{NAME}.ops.csr", f"{NAME}.ops"]
    assert imports_in("from ..ops import csr as c", "mds.metric")[0].target == f"{NAME}.ops.csr"
    assert imports_in("from .lazy import X", "operators.sparse")[0].target == f"{NAME}.operators.lazy"
