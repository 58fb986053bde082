"""The examples in deploy/ against what reads them: botocore's models of AWS, and systemd.

    deploy.py     runs at the root of the repository, with the Python of a venv that has boto3

The DAGs have a check of their own, .ci/airflow.py. The Containerfile is not built: no registry of images is in reach.
"""

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import botocore.session
from botocore.validate import ParamValidator

DEPLOY = Path("deploy")
REQUESTS = {
    "aws/batch-job-definition.json": ("batch", "RegisterJobDefinition"),
    "aws/ecs-task-definition.json": ("ecs", "RegisterTaskDefinition"),
}
# docs/exit-codes.md: another attempt helps, or a person must look.
TRIED_AGAIN, FINAL = {5, 6, 130, 143}, {1, 2, 3, 4, 7}


def aws():
    session = botocore.session.get_session()
    for name, (service, operation) in REQUESTS.items():
        request = json.loads((DEPLOY / name).read_text(encoding="utf-8"))
        shape = session.get_service_model(service).operation_model(operation).input_shape
        report = ParamValidator().validate(request, shape)
        if report.has_errors():
            raise SystemExit(f"FAILED {name}\n{report.generate_report()}")
        print(f"  ok  {name} is a request of {operation}")
    job = json.loads((DEPLOY / "aws/batch-job-definition.json").read_text(encoding="utf-8"))
    evaluated = job["retryStrategy"]["evaluateOnExit"]
    again = {int(rule["onExitCode"]) for rule in evaluated if rule["action"] == "RETRY"}
    if again != TRIED_AGAIN or evaluated[-1]["action"] != "EXIT":
        raise SystemExit(f"FAILED exit codes that AWS Batch tries again: {again}, expected {TRIED_AGAIN}")
    print("  ok  AWS Batch tries the right exit codes again")


def systemd():
    service = (DEPLOY / "systemd/rawmart.service").read_text(encoding="utf-8")
    final = {int(code) for code in re.search(r"^RestartPreventExitStatus=(.*)$", service, re.MULTILINE)[1].split()}
    if final != FINAL:
        raise SystemExit(f"FAILED exit codes that systemd does not try again: {final}, expected {FINAL}")
    print("  ok  systemd tries the right exit codes again")
    if not shutil.which("systemd-analyze"):
        print("  --  systemd-analyze is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("rawmart.service", "rawmart.timer"):
            text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
            Path(folder, name).write_text(text.replace("/usr/local/bin/rawmart", "/bin/true"), encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", *map(str, Path(folder).iterdir())], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0 or done.stderr.strip():
            raise SystemExit(f"FAILED systemd-analyze verify\n{done.stdout}{done.stderr}")
    print("  ok  systemd accepts the service and the timer")


aws()
systemd()
