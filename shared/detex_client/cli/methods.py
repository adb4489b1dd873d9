"""`detex methods`: training methods and their defaults."""

from typing import Annotated

from rich.table import Table
from typer import Option

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.terminal import Terminal


@reported
def methods(
    base_model: Annotated[
        str, Option("--base-model", metavar="NAME", help="Base model.", show_default="the trainer's default")
    ] = "",
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Show the methods and their default hyperparameters, which depend on the base model."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        found = client.methods(base_model)
    terminal.document(found)
    terminal.say(f"Defaults on {found.base_model.name} (family {found.base_model.family or 'unknown'}):")
    table = Table("hyperparameter", *(each.method for each in found.methods), box=None, pad_edge=False)
    for name in dict.fromkeys(key for each in found.methods for key in each.defaults):
        table.add_row(name, *(_shown(dict(each.defaults).get(name)) for each in found.methods))
    terminal.result(table)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
