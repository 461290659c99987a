"""The images that measurements are made of, and what changes from release to release.

Everything from PyPI and npm is pinned; Debian packages are those of the day (suite bookworm).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

# Versions that npm may pick for what the pinned packages depend on: none younger than this.
NPM_BEFORE = "2025-02-01"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into one image: Debian packages, pinned packages of a language, an app."""

    image: str  # name:tag
    language: Literal["python", "javascript"]
    variant: Literal["minbase", "extract"]  # mmdebstrap's; extract runs no maintainer scripts
    base: tuple[str, ...]
    system: tuple[str, ...]
    packages: tuple[str, ...]
    app: str
    entrypoint: tuple[str, ...]


def family(*, small: bool) -> tuple[Recipe, ...]:
    """Every release of both images, small ones (some 100 MB in all) or ones of real size."""
    python, node = (_SMALL_PYTHON, _SMALL_NODE) if small else (_PYTHON, _NODE)
    return (*_python_releases(python, small=small), *_node_releases(node, small=small))


def _python_releases(first: Recipe, *, small: bool) -> tuple[Recipe, ...]:
    """1.1 has a new app, 1.2 a new dependency too, and 2.0 more system packages."""
    if small:
        apps = ("faker==30.8.1", "faker==30.8.2")
        old, new = "sqlalchemy==2.0.35", "sqlalchemy==2.0.36"
        more = ("gettext-base", "jq")
    else:
        apps = ("wagtail==6.3.2", "wagtail==6.3.3")
        old, new = "pandas==2.2.2", "pandas==2.2.3"
        more = ("gettext", "git")
    packages = tuple(new if pin == old else pin for pin in first.packages)
    second = replace(first, image="app-python:1.1", app=apps[0])
    third = replace(first, image="app-python:1.2", app=apps[1], packages=packages)
    return (
        first,
        second,
        third,
        replace(third, image="app-python:2.0", system=(*first.system, *more)),
    )


def _node_releases(first: Recipe, *, small: bool) -> tuple[Recipe, ...]:
    """1.1 has a new app, 1.2 a new major version of one dependency."""
    if small:
        app = "marked@14.1.3"
        packages = ("express@5.0.1", *first.packages[1:])
    else:
        app = "verdaccio@6.0.2"
        packages = ("next@15.1.6", *first.packages[1:])
    return (
        first,
        replace(first, image="app-node:1.1", app=app),
        replace(first, image="app-node:1.2", app=app, packages=packages),
    )


def _pins(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PINS = """
amqp==5.3.1 anyascii==0.3.2 asgiref==3.8.1 beautifulsoup4==4.12.3 billiard==4.2.1
boto3==1.35.30 botocore==1.35.71 celery==5.4.0 certifi==2024.8.30 cffi==1.17.1
charset-normalizer==3.4.0 click==8.1.7 click-didyoumean==0.3.1 click-plugins==1.1.1
click-repl==0.3.0 contourpy==1.3.1 cryptography==43.0.1 cycler==0.12.1 defusedxml==0.7.1
django==5.0.9 django-filter==24.3 django-modelcluster==6.3
django-permissionedforms==0.1 django-taggit==6.1.0 django-treebeard==4.7.1
djangorestframework==3.15.2 draftjs-exporter==5.0.0 et-xmlfile==2.0.0 filetype==1.2.0
fonttools==4.55.0 greenlet==3.1.1 idna==3.10 jmespath==1.0.1 joblib==1.4.2
kiwisolver==1.4.7 kombu==5.4.2 laces==0.1.1 lxml==5.3.0 matplotlib==3.9.2
numpy==1.26.4 openpyxl==3.1.5 packaging==24.2 pandas==2.2.2 pillow==10.4.0
pillow-heif==0.21.0 prompt-toolkit==3.0.48 psycopg2-binary==2.9.9 pycparser==2.22
pyparsing==3.2.0 python-dateutil==2.9.0.post0 pytz==2024.2 requests==2.32.3
s3transfer==0.10.4 scikit-learn==1.5.2 scipy==1.14.1 six==1.16.0 soupsieve==2.6
sqlalchemy==2.0.35 sqlparse==0.5.2 telepath==0.3.1 threadpoolctl==3.5.0
typing-extensions==4.12.2 tzdata==2024.2 urllib3==2.2.3 vine==5.1.0 wcwidth==0.2.13
willow==1.9.0
"""

_PYTHON = Recipe(
    image="app-python:1.0",
    language="python",
    variant="minbase",
    base=("base-files",),  # what minbase has anyway
    system=("ca-certificates", "libpq5", "media-types", "python3", "tzdata"),
    packages=_pins(_PINS),
    app="wagtail==6.3.1",
    entrypoint=("/usr/bin/python3", "/srv/app/main.py"),
)

_NODE = Recipe(
    image="app-node:1.0",
    language="javascript",
    variant="minbase",
    base=_PYTHON.base,
    system=("ca-certificates", "nodejs"),
    packages=(
        "next@14.2.15",
        "react@18.3.1",
        "react-dom@18.3.1",
        "@mui/material@6.1.1",
        "@mui/icons-material@6.1.1",
        "@emotion/react@11.13.3",
        "@emotion/styled@11.13.0",
        "date-fns@4.1.0",
        "lodash@4.17.21",
        "typescript@5.6.2",
    ),
    app="verdaccio@6.0.1",
    entrypoint=("/usr/bin/node", "/srv/app/main.js"),
)

_SMALL_PINS = """
blinker==1.9.0 certifi==2024.8.30 charset-normalizer==3.4.0 click==8.1.7 flask==3.0.3
greenlet==3.1.1 idna==3.10 itsdangerous==2.2.0 jinja2==3.1.4 markupsafe==3.0.2
pygments==2.18.0 python-dateutil==2.9.0.post0 requests==2.32.3 six==1.16.0
sqlalchemy==2.0.35 typing-extensions==4.12.2 urllib3==2.2.3 werkzeug==3.1.3
"""

_SMALL_PYTHON = Recipe(
    image="app-python:1.0",
    language="python",
    variant="extract",
    base=("base-files", "base-passwd", "dash", "ca-certificates"),
    system=("libpython3-stdlib", "python3-minimal"),
    packages=_pins(_SMALL_PINS),
    app="faker==30.8.0",
    entrypoint=_PYTHON.entrypoint,
)

_SMALL_NODE = Recipe(
    image="app-node:1.0",
    language="javascript",
    variant="extract",
    base=_SMALL_PYTHON.base,
    system=("mujs",),  # Node.js itself is 100 MB
    packages=("express@4.21.1", "lodash@4.17.21", "react@18.3.1", "react-dom@18.3.1"),
    app="marked@14.1.2",
    entrypoint=("/usr/bin/mujs", "/srv/app/main.js"),
)
