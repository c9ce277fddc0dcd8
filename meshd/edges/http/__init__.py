"""REST and event streams: one meshd over HTTP (`protocols/openapi.json`)."""
