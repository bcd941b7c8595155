"""The consent journey: client authentication, PAR, Headless Heimdall, token, metadata."""
