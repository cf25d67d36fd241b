"""What the operating system gives a process: its clock, and new ids."""
