"""What each framework does where an inference script does not say."""
from model_host.frameworks import generic, pytorch_default, scikit_learn_default, xgboost_default
from model_host.frameworks.base import DefaultFunctions

_BY_NAME = {
    "scikit-learn": scikit_learn_default.ScikitLearnDefault,
    "xgboost": xgboost_default.XgboostDefault,
    "pytorch": pytorch_default.PytorchDefault,
    "huggingface": pytorch_default.PytorchDefault,
}


def with_script(framework):
    """The defaults for functions that an inference script leaves out."""
    return _BY_NAME.get(framework, DefaultFunctions)()


def without_script(framework, model_dir):
    """The functions for a model that comes without an inference script."""
    kind = _BY_NAME.get(framework, DefaultFunctions)
    chosen = kind.alone(model_dir)
    return generic.DescribeModel(framework) if chosen is None else chosen
