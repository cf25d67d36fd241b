"""OpenAgents Runtime for Python programs: the one name that is imported by those who use it.

The generated contracts stand below it (`openagents.runtime.v1`, …). In a checkout they lie in another folder, `gen`; a
wheel has both in one.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

DISTRIBUTION = "openagents-runtime"
"""What this is installed as. Another distribution has a package of this name, so `oa` looks whose it is."""
