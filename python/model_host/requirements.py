"""Whether the environment has what the requirements.txt of one of many models asks for: nothing is installed for one alone."""
import importlib
import importlib.metadata
import os
import re

from model_host.errors import HostError

_COMMENT = re.compile(r"(^|\s)#.*")
# They ask for files or packages that lie elsewhere; other options only say where to look.
_ELSEWHERE = ("-r", "--requirement", "-e", "--editable")


def check(code_dir):
    """Raises HostError that names the first requirement which is not met. A folder without the file asks for nothing."""
    try:
        with open(os.path.join(code_dir, "requirements.txt"), encoding="utf-8-sig", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return
    for line in text.replace("\\\n", " ").splitlines():
        line = _COMMENT.sub("", line).strip()
        if line and not _is_met(line):
            raise HostError(
                "The model's code/requirements.txt asks for {}, which the environment does not have. Models of a multi-model "
                "endpoint share the environment of the image, and nothing is installed for one of them: put the "
                "requirement into the requirements.txt of the source archive that SAGEMAKER_SUBMIT_DIRECTORY of the endpoint's model "
                "names, or use an image that has it.".format(line)
            )


def _is_met(line):
    if line.startswith("-"):
        return not line.startswith(_ELSEWHERE)
    try:
        requirement = _reader()(line.split(" --")[0])
    except ValueError:
        return False  # a path, or no requirement at all
    if requirement.marker and not requirement.marker.evaluate():
        return True
    if requirement.url:
        return False
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _reader():
    """What reads a requirement. Every environment has pip, which brings its own."""
    for package in ("packaging", "pip._vendor.packaging"):
        try:
            return importlib.import_module(package + ".requirements").Requirement
        except ImportError:
            pass
    raise HostError("The model has a code/requirements.txt, and the environment has neither packaging nor pip to read it with.")
