"""What an agent may do in its run, each once, whatever dies: say, step, ask, listen, start children, report, save."""
