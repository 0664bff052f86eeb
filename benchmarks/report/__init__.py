"""Tables and plots from the measured rows."""
