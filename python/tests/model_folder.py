"""Makes model folders for tests."""
import os
import tempfile
import textwrap


def make(test, files):
    """A folder of these files, removed after the test; returns the path of the model in it."""
    root = tempfile.TemporaryDirectory()
    test.addCleanup(root.cleanup)
    model_dir = os.path.join(root.name, "model")
    os.mkdir(model_dir)
    for name, text in files.items():
        path = os.path.join(model_dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
    return model_dir
