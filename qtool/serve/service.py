"""What one HTTP server shares among its requests: the name it serves, its limits, its doors, who answers."""

from concurrent.futures import ThreadPoolExecutor

from qtool.serve.admission.connections import Connections
from qtool.serve.admission.keys import Keys
from qtool.serve.api.body import Reading
from qtool.serve.deployment import Deployment


class Service:
    """A model name and the variant that answers for it."""

    def __init__(self, deployment: Deployment, keys: Keys | None = None, admin_port: int | None = None) -> None:
        self.keys = keys or Keys()
        self.admin_port = admin_port
        self.deployment = deployment
        self.model = deployment.model
        self.limits = deployment.limits
        self.connections = Connections(deployment.limits)
        self.reading = Reading()
        self.decoding = ThreadPoolExecutor(1, thread_name_prefix="qtool-bodies")

    def close(self) -> None:
        """Frees what is shared; the deployments are closed too."""
        self.deployment.close()
        self.decoding.shutdown(wait=False, cancel_futures=True)
