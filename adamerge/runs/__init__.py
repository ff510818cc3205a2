"""The life of a run: its identity and folder, loading, adapting, mirroring, sweeps."""
