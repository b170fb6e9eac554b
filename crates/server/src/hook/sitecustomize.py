"""Makes the SageMaker SDK at home here: patches what is in `modelyard_patches` when a program imports it, and runs the
sitecustomize that this file hides.

Every Python process of a job compiles this module anew, because its folder is read-only there: it holds no more than it
must, and imports nothing that an interpreter has not imported by itself."""

import importlib.machinery
import os
import sys


class _AfterImport:
    """Patches a module when, and only when, a program imports it."""

    patches = {"botocore.client": "redirect_sts", "sagemaker.session": "ask_often"}

    def find_spec(self, name, path=None, target=None):
        patch = self.patches.pop(name, None)
        if patch is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            import modelyard_patches

            execute(module)
            getattr(modelyard_patches, patch)(module)

        spec.loader.exec_module = execute_and_patch
        return spec


def _note_imports_at_the_end():
    path = os.path.join(sys.prefix, "imported-modules")
    if sys.prefix == "/opt/ml/.environment" and os.path.exists(path):
        import atexit

        def note():
            from modelyard_patches import note_imports

            note_imports(path)

        atexit.register(note)


def _run_hidden_sitecustomize():
    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _wait_for_go():
    """A job that waits in line may have its interpreter already: nothing of the job runs before its turn, and the places
    where it could put something are on the path only then."""
    path = os.environ.pop("MODELYARD_AWAITS_GO", None)
    if path is None:
        return
    if not os.read(0, 1):
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.environ["PYTHONPATH"] = path
    hook, *rest = path.split(":")
    here = sys.path.index(hook) + 1
    sys.path[here:here] = [place for place in rest if place and place not in sys.path]


_wait_for_go()
sys.meta_path.insert(0, _AfterImport())
_note_imports_at_the_end()
_run_hidden_sitecustomize()
