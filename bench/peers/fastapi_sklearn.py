"""The application that a FastAPI user writes: the script's functions behind one route."""

import os
import sys

from fastapi import FastAPI, Request, Response

sys.path.insert(0, os.environ["SCRIPT_DIRECTORY"])

import inference  # noqa: E402

app = FastAPI()
model = inference.model_fn(os.environ["MODEL_DIRECTORY"])


@app.get("/ping")
def ping():
    return Response(status_code=200)


@app.post("/invocations")
async def invocations(request: Request):
    rows = inference.input_fn(await request.body(), request.headers["content-type"])
    # In the loop, as a thread pool costs more than this model takes.
    body, content_type = inference.output_fn(inference.predict_fn(rows, model), request.headers.get("accept"))
    return Response(body, media_type=content_type)
