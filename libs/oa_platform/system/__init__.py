"""The parts of a process that come from the operating system: its clock, and new ids."""
