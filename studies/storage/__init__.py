"""Where studies are kept, and how they survive kills, outages and full disks."""
