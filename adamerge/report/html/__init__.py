"""One self-contained HTML page of a comparison: no network, readable without JavaScript."""
