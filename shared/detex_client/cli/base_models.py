"""`detex base-models`: the base models that concepts can be trained on."""

from rich.table import Table

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.terminal import Terminal


@reported
def base_models(
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """List the base models available for training."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        found = client.base_models()
    terminal.document({"base_models": found})
    table = Table("name", "family", "size", "prediction", "fingerprint", "", box=None, pad_edge=False)
    for each in found:
        size = f"{each.width} x {each.height}"
        default = "default" if each.is_default else ""
        table.add_row(each.name, each.family, size, each.prediction_type, each.fingerprint[:12], default)
    terminal.result(table)
