"""What a run is: pydantic models, YAML with `key=value` overrides, checks. No torch is loaded here."""
