"""What clients of the open protocols do, in an environment that has them. Told by words; prints what came of it as JSON."""

import json
import sys


def infer_all_ways(client, module, **options):
    """The same doubling through JSON and binary form, one tensor and all that is said of the model."""
    import numpy

    rows = numpy.array([[1, 2], [3, 4.5]], dtype=numpy.float32)
    seen = {}
    for binary in (False, True):
        tensor = module.InferInput("x", list(rows.shape), "FP32")
        if "http" in module.__name__:
            tensor.set_data_from_numpy(rows, binary_data=binary)
            wanted = [module.InferRequestedOutput("doubled", binary_data=binary)]
        else:
            tensor.set_data_from_numpy(rows)
            wanted = [module.InferRequestedOutput("doubled")]
        answer = client.infer("open-doubling", [tensor], outputs=wanted, request_id="r1", **options)
        seen["binary" if binary else "json"] = answer.as_numpy("doubled").tolist()
    return seen


def failures(client, module, error, **options):
    """What the client is told of a model that is not there, a version that is not, and an output that is not."""
    import numpy

    tensor = module.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(numpy.zeros(1, numpy.float32))
    texts = []
    for name, version, outputs in (
        ("open-none", "", None),
        ("open-doubling", "none", None),
        ("open-doubling", "", [module.InferRequestedOutput("nothing"), module.InferRequestedOutput("more")]),
    ):
        try:
            client.infer(name, [tensor], model_version=version, outputs=outputs, **options)
        except error as caught:
            texts.append([str(caught.status()), caught.message()])
    return texts


def texts(client, module, **options):
    """Elements of BYTES, there and back."""
    import numpy

    words = numpy.array(["ä", "b"], dtype=object)
    tensor = module.InferInput("words", [2], "BYTES")
    tensor.set_data_from_numpy(words)
    answer = client.infer("open-texts", [tensor], **options)
    return [word.decode() for word in answer.as_numpy("output-0")]


def triton_http(address, key):
    import tritonclient.http as module
    from tritonclient.utils import InferenceServerException

    headers = {"Authorization": "Bearer " + key}
    client = module.InferenceServerClient(address)
    seen = infer_all_ways(client, module, headers=headers)
    seen["live"] = client.is_server_live() and client.is_server_ready()
    seen["ready"] = client.is_model_ready("open-doubling", headers=headers)
    seen["server"] = client.get_server_metadata()["name"]
    seen["model"] = client.get_model_metadata("open-doubling", headers=headers)
    seen["failures"] = failures(client, module, InferenceServerException, headers=headers)
    seen["texts"] = texts(client, module, headers=headers)
    try:
        client.get_model_metadata("open-doubling")
    except InferenceServerException as caught:
        seen["without key"] = str(caught.status())
    return seen


def triton_grpc(address, key):
    import tritonclient.grpc as module
    from tritonclient.utils import InferenceServerException

    headers = {"authorization": "Bearer " + key}
    client = module.InferenceServerClient(address)
    seen = infer_all_ways(client, module, headers=headers)
    seen["live"] = client.is_server_live() and client.is_server_ready()
    seen["ready"] = client.is_model_ready("open-doubling", headers=headers)
    seen["server"] = client.get_server_metadata().name
    seen["model"] = client.get_model_metadata("open-doubling", headers=headers, as_json=True)
    seen["failures"] = failures(client, module, InferenceServerException, headers=headers)
    seen["texts"] = texts(client, module, headers=headers)
    for name, call in (
        ("without key", lambda: client.get_model_metadata("open-doubling")),
        ("unknown", lambda: client.get_model_repository_index(headers=headers)),
    ):
        try:
            call()
        except InferenceServerException as caught:
            seen[name] = str(caught.status())
    return seen


class Triton:
    """A client of Triton by `http` or `grpc`, which sends a tensor of these values."""

    def __init__(self, transport, address, key, *values):
        import importlib

        import numpy

        self.module = importlib.import_module("tritonclient." + transport)
        self.client, self.key = self.module.InferenceServerClient(address), key
        self.tensor = self.module.InferInput("x", [len(values)], "FP32")
        self.tensor.set_data_from_numpy(numpy.array(values, numpy.float32))

    def headers(self, component=None):
        named = {"x-amzn-sagemaker-inference-component": component} if component else {}
        return {"authorization": "Bearer " + self.key, **named}

    def infer(self, output, name, component=None, version=""):
        """An output, and what the answer calls the model and its version; or why there is none."""
        from tritonclient.utils import InferenceServerException

        try:
            answer = self.client.infer(name, [self.tensor], model_version=version, headers=self.headers(component))
        except InferenceServerException as refused:
            return [str(refused.status()), refused.message()]
        values = answer.as_numpy(output).flatten().tolist()
        response = answer.get_response()
        if isinstance(response, dict):
            return [values, response["model_name"], response["model_version"]]
        return [values, response.model_name, response.model_version]

    def said(self, *named):
        """As `infer`, of models that say which one they are."""
        values, *called = self.infer("model", *named)
        return [values[0].decode() if isinstance(values, list) else values, *called]

    def metadata(self, name, component=None):
        described = {} if self.module.__name__.endswith("http") else {"as_json": True}
        return self.client.get_model_metadata(name, headers=self.headers(component), **described)


def triton_many(transport, address, key):
    """Models of one endpoint, by their archives."""
    from tritonclient.utils import InferenceServerException

    triton = Triton(transport, address, key, 1, 2)
    answered = ("several/doubling", "several/doubling.tar.gz", "several/folder/tripling")
    refused = ("several/none", "several", "open-doubling/doubling", "several/../doubling")
    seen = {
        "answers": {name: triton.infer("doubled", name) for name in answered},
        "refused": [triton.infer("doubled", name) for name in refused],
        "ready": triton.client.is_model_ready("several/doubling", headers=triton.headers()),
        "model": triton.metadata("several/folder/tripling"),
    }
    try:
        triton.metadata("several/none")
    except InferenceServerException as caught:
        seen["no metadata"] = caught.message()
    return seen


def only_component(transport, address, key, endpoint):
    """What the only component of an endpoint answers under the endpoint's name."""
    return Triton(transport, address, key, 1).said(endpoint)


def components(transport, address, key, endpoint, one, other):
    """Which of an endpoint's two components answers under each name, and what is said of them."""
    triton = Triton(transport, address, key, 1)
    client, headers = triton.client, triton.headers
    return {
        "by name": triton.said(other),
        "below its endpoint": triton.said(f"{endpoint}/{other}"),
        "by header": triton.said(endpoint, other),
        "by both": triton.said(one, one, "AllTraffic"),
        "by two": triton.said(one, other),
        "none": triton.said(endpoint),
        "missing": triton.said(endpoint, "component-open-none"),
        "version": triton.said(one, None, "other"),
        "ready": [client.is_model_ready(one, headers=headers()), client.is_model_ready(endpoint, headers=headers(other))],
        "model": triton.metadata(endpoint, other),
    }


def open_ai(base, key, model="open-chat"):
    import openai

    client = openai.OpenAI(base_url=base + "/v1", api_key=key, max_retries=0)
    messages = [{"role": "user", "content": "hello open world"}]
    whole = client.chat.completions.create(model=model, messages=messages)
    stream = client.chat.completions.create(model=model, messages=messages, stream=True)
    seen = {
        "whole": whole.choices[0].message.content,
        "pieces": [event.choices[0].delta.content for event in stream],
        "completion": client.completions.create(model=model, prompt="say").choices[0].text,
        "listed": [found.id for found in client.models.list() if found.id.startswith("open-")],
    }
    for name, call in (
        ("missing", lambda: client.chat.completions.create(model="open-none", messages=messages)),
        ("bad key", lambda: client.with_options(api_key="sk-x").completions.create(model=model, prompt="say")),
    ):
        try:
            call()
        except openai.APIStatusError as caught:
            seen[name] = [caught.status_code, caught.code]
    return seen


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
