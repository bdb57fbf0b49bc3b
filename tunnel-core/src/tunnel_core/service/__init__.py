"""The process around a service: settings, logs, metrics, the admin port, signals and exit codes."""
