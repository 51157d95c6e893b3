"""What every server source shares: the HTTP client, the checks of answers, the streamed drafts."""
