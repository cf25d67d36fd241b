"""`oa`, the command line program: a thin shell over `oa_client`, `oa_worker` and `oa_localstack`.

__main__    the entry point: runs a command, turns refusals into messages and exit codes
program     the click program and what all commands share
settings    environment variables, and the site and files that they select
exits       exit codes
failures    errors as messages and exit codes
output      all output, for people and as JSON
sink        stdout and stderr, which may be closed, full, or read by nobody
terminal    a run's output made safe for a terminal
wrapping    lines that are longer than the terminal is wide
times       times and durations as a person writes them
input/      what a person types, and the standard input of a run's command
following/  which run is meant, and how a followed run is shown
commands/   one module per noun, grouped in folders
admin/      what `oa admin` does to an installation
demo/       `oa demo`: the whole path, shown and checked
pages       docs/cli.md, generated from the program itself
"""
