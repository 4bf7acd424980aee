"""aeon needs an environment of its own; where it is not, its test is no test of ours."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("aeon") else ["test_minirocket_aeon.py"]
