"""Who calls: certificates, tokens, the policy that maps callers to tenants and roles, and the log of what they did."""
