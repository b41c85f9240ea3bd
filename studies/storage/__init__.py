"""Where studies are kept, and how they survive kills, outages and full disks."""

PROXY_PORT = 13000  # of `studies.storage.proxy`; Optuna's
