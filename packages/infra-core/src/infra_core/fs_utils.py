"""The file helpers of 0.7; they live in `infra_core.fs`."""

from infra_core.fs import CHUNK_SIZE, compute_checksum, ensure_parent, hashed_asset_path

__all__ = ["CHUNK_SIZE", "compute_checksum", "ensure_parent", "hashed_asset_path"]
