"""Stands in for the SageMaker serving toolkits where a script imports them and they are not installed.

Scripts use them for their media types, decoders, encoders, errors and answer object; nothing more is offered.
"""
import importlib.abc
import importlib.machinery
import sys
import types

from model_host import content, errors


class Response:
    """The answer object of the older toolkit."""

    def __init__(self, response=None, accept=None, status=200, headers=None, mimetype=None, direct_passthrough=False):
        self.response = response
        self.status_code = status
        self.headers = dict(headers or {})
        self.mimetype = mimetype or accept or content.JSON

    def get_data(self):
        return b"" if self.response is None else self.response


def _content_types():
    names = ("JSON", "CSV", "OCTET_STREAM", "ANY", "NPY", "NPZ", "UTF8_TYPES")
    return {name: getattr(content, name) for name in names}


def _errors():
    names = ("UnsupportedFormatError", "BaseInferenceToolkitError", "GenericInferenceToolkitError")
    return dict({name: getattr(errors, name) for name in names}, ClientError=type("ClientError", (Exception,), {}))


def _coders():
    return {"decode": content.decode, "encode": content.encode, "SUPPORTED_CONTENT_TYPES": content.SUPPORTED_CONTENT_TYPES}


def _default_handler():
    from model_host.frameworks.base import DefaultFunctions

    class DefaultInferenceHandler:
        """The defaults under the names of the toolkit."""

        def default_model_fn(self, model_dir, context=None):
            return DefaultFunctions().model_fn(model_dir)

        def default_input_fn(self, input_data, content_type, context=None):
            return content.decode(input_data, content_type)

        def default_predict_fn(self, data, model, context=None):
            return DefaultFunctions().predict_fn(data, model)

        def default_output_fn(self, prediction, accept, context=None):
            return DefaultFunctions().output_fn(prediction, accept)

    return {"DefaultInferenceHandler": DefaultInferenceHandler}


_MODULES = {
    "sagemaker_inference": dict,
    "sagemaker_inference.content_types": _content_types,
    "sagemaker_inference.decoder": _coders,
    "sagemaker_inference.encoder": _coders,
    "sagemaker_inference.errors": _errors,
    "sagemaker_inference.utils": lambda: {"parse_accept": content.parse_accept},
    "sagemaker_inference.default_inference_handler": _default_handler,
    "sagemaker_containers": dict,
    "sagemaker_containers.beta": dict,
    "sagemaker_containers.beta.framework": dict,
    "sagemaker_containers.beta.framework.content_types": _content_types,
    "sagemaker_containers.beta.framework.encoders": _coders,
    "sagemaker_containers.beta.framework.errors": _errors,
    "sagemaker_containers.beta.framework.worker": lambda: {"Response": Response},
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Comes last on the module path, so that an installed toolkit wins."""

    def find_spec(self, name, path=None, target=None):
        if name not in _MODULES:
            return None
        package = any(other.startswith(name + ".") for other in _MODULES)
        return importlib.machinery.ModuleSpec(name, self, is_package=package)

    def create_module(self, spec):
        return types.ModuleType(spec.name, "Stands in for the serving toolkit.")

    def exec_module(self, module):
        vars(module).update(_MODULES[module.__name__]())


def install():
    """Makes the stand-ins importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
