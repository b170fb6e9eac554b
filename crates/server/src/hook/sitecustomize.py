"""Sends the SageMaker SDK's calls of hard-coded STS hosts to AWS_ENDPOINT_URL, then runs the sitecustomize it hides."""

import importlib.abc
import importlib.machinery
import os
import re
import sys

_STS_HOST = re.compile(r"^https://sts(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?/?$")


def _redirect_sts(client_module):
    create_client = client_module.ClientCreator.create_client

    def create_client_here(self, service_name, *arguments, **options):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_STS") or os.environ.get("AWS_ENDPOINT_URL")
        url = options.get("endpoint_url")
        if service_name == "sts" and endpoint and url and _STS_HOST.match(url):
            options["endpoint_url"] = endpoint
        return create_client(self, service_name, *arguments, **options)

    client_module.ClientCreator.create_client = create_client_here


class _AfterImport(importlib.abc.MetaPathFinder):
    """Patches botocore.client when, and only when, a program imports it."""

    def find_spec(self, name, path=None, target=None):
        if name != "botocore.client":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            execute(module)
            _redirect_sts(module)

        spec.loader.exec_module = execute_and_patch
        return spec


def _run_hidden_sitecustomize():
    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _AfterImport())
import importlib.util  # noqa: E402

_run_hidden_sitecustomize()
