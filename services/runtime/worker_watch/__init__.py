"""The state of workers and the runs that they hold, for services that derive data from it."""
