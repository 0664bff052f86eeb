"""How the C++ and CUDA versions of an op are found, compiled and started."""
