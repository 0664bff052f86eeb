"""What the package needs of the machine: devices, memory, files, signals and optional packages."""
