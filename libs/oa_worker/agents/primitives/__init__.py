"""An agent's actions in its run, each once, whatever dies: say, step, ask, listen, start children, report, save."""
