"""What `sitecustomize` changes in the SageMaker SDK and boto3: calls of hard-coded STS hosts go to AWS_ENDPOINT_URL, and
the SDK asks for the state of a job each second, not each half minute."""

import os
import sys

_STS_HOST = r"https://sts(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?/?"


def redirect_sts(client_module):
    import re

    create_client = client_module.ClientCreator.create_client

    def create_client_here(self, service_name, *arguments, **options):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_STS") or os.environ.get("AWS_ENDPOINT_URL")
        url = options.get("endpoint_url")
        if service_name == "sts" and endpoint and url and re.fullmatch(_STS_HOST, url):
            options["endpoint_url"] = endpoint
        return create_client(self, service_name, *arguments, **options)

    client_module.ClientCreator.create_client = create_client_here


class _ShortPauses:
    """The module `time` as the waits of the SDK see it: a pause between two questions is short, and the rest of it
    counts as passed, for the SDK asks for a job's state only when half a minute of its clock has gone by."""

    def __init__(self, time, longest_pause_seconds):
        self._time = time
        self._longest_pause_seconds = longest_pause_seconds
        self._skipped_seconds = 0.0
        self._waits_with_timeout = 0

    def sleep(self, seconds):
        pause = min(seconds, self._longest_pause_seconds)
        self._time.sleep(pause)
        if not self._waits_with_timeout:
            self._skipped_seconds += seconds - pause

    def time(self):
        return self._time.time() + self._skipped_seconds

    def true_time_for_timeouts(self, logs_for_job):
        """A wait that has an end of its own must not reach it early."""

        def wait(*arguments, **options):
            # The SDK calls it in either way; the timeout is the sixth argument.
            has_timeout = bool(options.get("timeout") or arguments[5:6] not in ((), (None,)))
            self._waits_with_timeout += has_timeout
            try:
                return logs_for_job(*arguments, **options)
            finally:
                self._waits_with_timeout -= has_timeout

        return wait

    def __getattr__(self, name):
        return getattr(self._time, name)


def ask_often(session_module):
    wanted = os.environ.get("MODELYARD_SDK_POLL_SECONDS", "1")
    if wanted != "sdk" and hasattr(session_module, "_logs_for_job"):
        clock = _ShortPauses(session_module.time, float(wanted))
        session_module.time = clock
        session_module._logs_for_job = clock.true_time_for_timeouts(session_module._logs_for_job)


def note_imports(path):
    """Leaves the names of the modules that did not come with the job, for the next start to import ahead."""
    from modelyard_ahead import imported_names

    own = ("sagemaker", "smdebug", "smdistributed", "warm_start", "sitecustomize", "usercustomize", "modelyard_patches", "modelyard_ahead")
    names = imported_names(("/opt/ml/",), own)
    try:
        with open(path, "w") as file:
            file.write("\n".join(names))
    except OSError:
        pass  # The next start is slower, no more.
