"""The REST interface: parse, one verb of `Studio`, show. No route holds an ``if`` about the domain."""
