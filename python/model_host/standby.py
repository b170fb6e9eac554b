"""Standing by: importing what the last host of the model had imported, and waiting for somebody who wants the model before it is loaded.

Two files lie beside the socket, with a name of a module in each line: `imports` is there before the host starts and says what to import
ahead; `modules` is left by a host that has loaded its model, and again when requests import more, for whoever starts the next one.
"""
import os
import select
import sys

from model_host import ahead, script

IMPORTS = "imports"
MODULES = "modules"
# A script may make modules of its own in each request.
_MOST_NOTES = 8
# More names than that are no list of modules.
_MOST_BYTES = 512 * 1024


def import_ahead(options):
    """Imports what is named beside the socket."""
    try:
        with open(_beside(options.socket, IMPORTS), encoding="utf-8") as file:
            names = file.read().split("\n")
    except (OSError, ValueError):
        return  # the model's own imports do without
    ahead.import_ahead([name for name in names if name])


def wait_for_client(listener):
    """Returns when somebody connects, who is left to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.poll()


class Notes:
    """Keeps what `note_modules` leaves true while requests import more."""

    def __init__(self, options):
        self._options = options
        self._modules = len(sys.modules)
        self._left = _MOST_NOTES

    def look(self):
        """To be called after each request."""
        if len(sys.modules) != self._modules and self._left:
            self._left -= 1
            note_modules(self._options)
            self._modules = len(sys.modules)


def note_modules(options):
    """Leaves the names of what a model has imported that did not come with it. None are left where its code looks as if it set environment
    variables: its libraries are to be imported after that."""
    try:
        path = script.find_script(os.environ, options.model_dir, options.code_dir)[1]
        roots = _roots(options)
        modules = _beside(options.socket, MODULES)
        if not any(_sets_variables(source) for source in _sources(roots, path)):
            _write(modules, ahead.imported_names(roots, ("model_host",)))
        elif os.path.exists(modules):
            os.unlink(modules)
    except Exception:
        pass  # The next start is slower, no more.


def _beside(socket, name):
    return os.path.join(os.path.dirname(os.path.abspath(socket)), name)


def _roots(options):
    folders = [options.model_dir] + script.code_folders(os.environ, options.model_dir, options.code_dir)
    either = [resolve(folder) for folder in folders for resolve in (os.path.abspath, os.path.realpath)]
    return tuple(folder + os.sep for folder in either)


def _sources(roots, path):
    """The files of Python that came with the model and were run."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    came = {file for file in files if isinstance(file, str) and file.endswith(".py") and file.startswith(roots)}
    return came | {path} if path else came


def _sets_variables(source):
    with open(source, "rb") as file:
        return ahead.SETS_VARIABLES.search(file.read()) is not None


def _write(path, names):
    text = "\n".join(names).encode("utf-8")
    if len(text) > _MOST_BYTES:
        text = text[:_MOST_BYTES].rpartition(b"\n")[0]
    # Workers that load the model each for itself write the same at the same time.
    partial = "{}.{}".format(path, os.getpid())
    with open(partial, "wb") as file:
        file.write(text)
    os.replace(partial, path)
