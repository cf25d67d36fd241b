"""`oa`, the command line program: a thin shell over `oa_client`, `oa_worker` and `oa_localstack`.

__main__    the entry: runs a command, turns refusals into words and exit codes
program     the click program and what all commands share
settings    environment variables, and which site and files they come to
exits       exit codes
failures    what went wrong, as words and as an exit code
output      the one way out, for people's words and for JSON
sink        stdout and stderr, which may be closed, full, or read by nobody
terminal    what a run wrote, as a terminal may have it
times       times and durations as a person writes them
input/      what a person types, and what a program reads that takes it
following/  which run is meant, and what a person sees of one that is followed
commands/   one module per noun, in rooms
admin/      what `oa admin` does to an installation
demo/       `oa demo`: the whole path, shown and checked
pages       docs/cli.md, made from the program itself
"""
