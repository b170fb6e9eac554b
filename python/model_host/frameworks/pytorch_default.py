"""The PyTorch defaults: a TorchScript file, tensors in, tensors out. Without torch, numpy arrays take their place."""
import os

from model_host import content
from model_host.errors import HostError
from model_host.frameworks.base import DefaultFunctions, model_files

_ENDINGS = (".pt", ".pth")


def _torch():
    try:
        import torch
    except ImportError:
        return None
    return torch


def _device(torch):
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class PytorchDefault(DefaultFunctions):
    """Loads `model.pt` or the only *.pt or *.pth file."""

    @classmethod
    def alone(cls, model_dir):
        # Several candidates are a mistake that the user should hear of, so they count as a model.
        return cls() if model_files(model_dir, _ENDINGS) else None

    def model_fn(self, model_dir):
        candidates = model_files(model_dir, _ENDINGS)
        if "model.pt" in candidates:
            candidates = ["model.pt"]
        if not candidates:
            return super().model_fn(model_dir)
        if len(candidates) != 1:
            raise HostError("Exactly one .pth or .pt file is required for PyTorch models; found {}.".format(candidates))
        torch = _torch()
        if torch is None:
            raise HostError("{} needs torch, which is not installed in this environment.".format(candidates[0]))
        return _load(torch, os.path.join(model_dir, candidates[0]))

    def why_no_model(self, model_dir):
        return "there is no .pt or .pth file in {} (found: {})".format(model_dir, model_files(model_dir))

    def input_fn(self, body, content_type):
        array = content.decode(body, content_type)
        torch = _torch()
        if torch is None:
            return array
        text = content.media_type(content_type) in content.UTF8_TYPES
        tensor = torch.FloatTensor(array) if text else torch.from_numpy(array)
        return tensor.to(_device(torch))

    def predict_fn(self, data, model):
        torch = _torch()
        if torch is None:
            return model(data)
        device = _device(torch)
        with torch.no_grad():
            if hasattr(model, "to"):
                model = model.to(device)
            if hasattr(model, "eval"):
                model.eval()
            return model(data.to(device) if hasattr(data, "to") else data)

    def output_fn(self, prediction, accept):
        torch = _torch()
        if torch is not None and isinstance(prediction, torch.Tensor):
            prediction = prediction.detach().cpu().numpy().tolist()
        return super().output_fn(prediction, accept)


def _load(torch, path):
    device = _device(torch)
    try:
        return torch.jit.load(path, map_location=device).to(device)
    except RuntimeError as error:
        script_error = error
    # Not TorchScript: a whole module that torch.save wrote can be used too, a state_dict alone cannot.
    model = torch.load(path, map_location=device, weights_only=False)
    if not callable(model):
        raise HostError(
            "{} is neither TorchScript nor a whole module (it holds a {}); save the model with torch.jit.save, or add "
            "an inference script with a model_fn.".format(os.path.basename(path), type(model).__name__)
        ) from script_error
    return model
