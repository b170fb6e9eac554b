"""Importing before anybody asks: which modules a program has imported, and how the next one like it imports them quietly. Jobs have
this file as `modelyard_ahead`."""
import importlib
import os
import re
import sys

# What libraries read when they are imported: a program that sets variables itself must import after that.
SETS_VARIABLES = re.compile(rb"environ\s*(\[[^\]\n]*\]\s*=[^=]|\.\s*(update|setdefault|pop|clear|__setitem__))|putenv|dotenv|setenv")
_WITH_EFFECTS = ("antigravity", "this")


def imported_names(roots, own):
    """Names of the modules that are of the environment or the standard library, in the order of their imports: their files are not below
    the folders `roots` (which end with a slash), and they are not of the packages `own`."""
    names = []
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        is_of_the_image = isinstance(origin, str) and origin.startswith("/") and not origin.startswith(roots)
        if is_of_the_image and not name.startswith("_") and name.partition(".")[0] not in own + _WITH_EFFECTS:
            names.append(name)
    return names


def import_ahead(names):
    """Imports quietly what is there; what fails is the program's to import, and to fail with."""
    null = os.open(os.devnull, os.O_RDWR)
    kept = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in kept:
        os.dup2(null, number)
    try:
        for name in names:
            try:
                importlib.import_module(name)
            except BaseException:
                continue
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(null)
