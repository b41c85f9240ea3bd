"""Storages of studies, which survive kills, outages and full disks."""

PROXY_PORT = 13000  # of `studies.storage.proxy`; Optuna's
