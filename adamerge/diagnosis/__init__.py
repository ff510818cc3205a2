"""What `doctor` looks at: environment, data, checkpoints, memory. Nothing here changes anything."""
