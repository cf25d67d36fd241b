"""How a function that begins again gets what its run had before.

`past` hands the contents of the log over in their order, and `numbers` finds the things that the function asks for.
"""
