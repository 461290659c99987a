"""Says why docket can't be installed where it can't; everything else is in setup.cfg."""

import sys

from setuptools import setup

if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit(
        "docket needs Python 3.11, 3.12 or 3.13, but this is {}.{}: libtorrent, which moves the "
        "bytes, has no wheels for others on PyPI. Try: python3.13 -m pip install .".format(
            *sys.version_info
        )
    )
setup()
