"""The demo: three clusters on this machine, a shop, real requests, and a story."""
