"""Signing in with an identity provider: WorkOS, or any provider that speaks OpenID Connect."""
