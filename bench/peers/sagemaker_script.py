"""The WSGI application that SageMaker's containers serve: a script's functions under sagemaker_containers' worker."""

import collections
import collections.abc
import importlib

# sagemaker_containers 2.8.6 is older than Python 3.10, which dropped this name.
collections.Mapping = collections.abc.Mapping

from sagemaker_containers.beta.framework import env, transformer, worker  # noqa: E402

serving = env.ServingEnv()
script = importlib.import_module(serving.module_name)
functions = transformer.Transformer(
    model_fn=script.model_fn,
    input_fn=script.input_fn,
    predict_fn=script.predict_fn,
    output_fn=script.output_fn,
)
functions.initialize()
app = worker.Worker(transform_fn=functions.transform, module_name=serving.module_name)
