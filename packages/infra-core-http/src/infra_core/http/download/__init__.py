"""Downloads: the protocol (`_plan`), the wire to the disk (`_transfer`), the calls (`_client`).

Private; the public names are in `infra_core.http.assets`.
"""

__all__: list[str] = []
