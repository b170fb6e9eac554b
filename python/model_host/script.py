"""Finding and importing the inference script, and calling its functions as the SageMaker toolkits do."""
import importlib.util
import inspect
import os
import sys

from model_host.errors import HostError

DEFAULT_PROGRAM = "inference.py"
_FUNCTIONS = ("model_fn", "input_fn", "predict_fn", "output_fn", "transform_fn")


def find_script(environment, model_dir, code_dir=None):
    """Returns (folder of the code, path of the script); the path is None if the model has no script."""
    folders = [folder for folder in code_folders(environment, model_dir, code_dir) if os.path.isdir(folder)]
    program = environment.get("SAGEMAKER_PROGRAM")
    name = program or DEFAULT_PROGRAM
    if not name.endswith(".py"):
        name += ".py"
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return folder, path
    if program:
        raise HostError(
            "The inference script {} (SAGEMAKER_PROGRAM) was not found in {}; check the model's archive and its "
            "environment.".format(program, ", ".join(code_folders(environment, model_dir, code_dir)))
        )
    return (folders[0] if folders else None), None


def code_folders(environment, model_dir, code_dir):
    """Where the code of a model may lie, the first choice first."""
    folders = [code_dir] if code_dir else []
    submitted = environment.get("SAGEMAKER_SUBMIT_DIRECTORY", "")
    if submitted.startswith("file://"):
        submitted = submitted[len("file://"):]
    # An archive elsewhere has been unpacked by whoever started this host, who names the place with --code-dir.
    if submitted and "://" not in submitted:
        folders.append(submitted)
    folders.append(os.path.join(model_dir, "code"))
    folders.append(os.path.join(os.path.dirname(os.path.abspath(model_dir)), "code"))
    return list(dict.fromkeys(folders))


def import_script(folder, path):
    """Imports the script with its folder on the module path."""
    for entry in (os.path.dirname(path), folder):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # A script may be called like a module that is in use (json.py); that one must stay where it is.
    if name not in sys.modules:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Functions:
    """The functions of a script, completed with the framework's defaults."""

    def __init__(self, module, defaults, context):
        given = {name: getattr(module, name, None) for name in _FUNCTIONS} if module else dict.fromkeys(_FUNCTIONS)
        if given["transform_fn"] and (given["input_fn"] or given["predict_fn"] or given["output_fn"]):
            raise HostError(
                "The inference script has transform_fn and also input_fn, predict_fn or output_fn; keep either "
                "transform_fn or the three others."
            )
        self.pre_model = self._optional(module, "pre_model_fn", 1, context)
        self.warmup = self._optional(module, "model_warmup_fn", 2, context)
        self.model = with_context(given["model_fn"] or defaults.model_fn, 1, context)
        self.transform = given["transform_fn"] and with_context(given["transform_fn"], 4, context)
        self.are_default = not any(given[name] for name in _FUNCTIONS[1:])
        self.predict_sees_context = bool(given["predict_fn"]) and sees_context(given["predict_fn"], 2)
        # Of frameworks whose input is no plain table: reading one, and what it becomes.
        takes_rows = not given["input_fn"] and hasattr(defaults, "rows_fn")
        self.rows = defaults.rows_fn if takes_rows else None
        self.matrix = defaults.matrix_fn if takes_rows else None
        if not self.transform:
            self.input = with_context(given["input_fn"] or defaults.input_fn, 2, context)
            self.predict = with_context(given["predict_fn"] or defaults.predict_fn, 2, context)
            self.output = with_context(given["output_fn"] or defaults.output_fn, 2, context)

    @staticmethod
    def _optional(module, name, count, context):
        function = getattr(module, name, None) if module else None
        return function and with_context(function, count, context)


def sees_context(function, count):
    """Whether `with_context` fills a parameter of the function with the context."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = [parameter.kind for parameter in parameters]
    positional = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    return positional == count + 1 or any(
        p.name == "context" and p.kind == inspect.Parameter.KEYWORD_ONLY for p in parameters
    )


def with_context(function, count, context):
    """A form of the function that takes `count` arguments; one more parameter is filled with the context."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return function
    kinds = [parameter.kind for parameter in parameters]
    positional = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    if positional == count + 1:
        return lambda *arguments: function(*arguments, context)
    named = any(p.name == "context" and p.kind == inspect.Parameter.KEYWORD_ONLY for p in parameters)
    if positional == count or inspect.Parameter.VAR_POSITIONAL in kinds:
        return (lambda *arguments: function(*arguments, context=context)) if named else function
    raise HostError(
        "{} takes {} arguments, but it is called with {} (or with one more, the context).".format(
            getattr(function, "__name__", "The function"), positional, count
        )
    )
