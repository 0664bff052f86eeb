"""What all suites share: rows and their files, tasks, the clock, the device."""
