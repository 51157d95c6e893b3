"""The evaluation: does a policy stop copying, backdoors and leaks; at what cost; which setting is best."""
