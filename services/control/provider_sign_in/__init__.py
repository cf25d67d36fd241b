"""Signing in with an identity provider: any that speaks OpenID Connect, or WorkOS."""
