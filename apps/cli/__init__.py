"""`oa`, the command line program: a thin shell over `oa_client`, `oa_worker` and `oa_localstack`.

__main__    the entry: runs a command, turns refusals into words and exit codes
program     the click program and what all commands share
settings    environment variables, and which site and files they come to
exits       exit codes
failures    what went wrong, as words and as an exit code
output      the one way out, for people's words and for JSON
sink        stdout and stderr, which may be closed, full, or read by nobody
terminal    what a run wrote, as a terminal may have it
tty         the terminal that a run gets
keys        which keys a command trusts
run_ids     which run is meant
rendering   what a person sees of a run's events
detached    a stack that goes on without the command that started it
tail        showing a run that is followed
commands/   one module per noun
demo/       `oa demo`: the whole path, shown and checked
pages       docs/cli.md, made from the program itself
"""
