"""The admin API: routes, request and response schemas, roles and tokens."""
