"""Every policy of Ringway, none of which ever acts: for measurements of what they cost at rest."""

LIMIT = "{requests: 4000000000, per: 100s, headers: none}"


def values(mirror):
    """The placeholders of a configuration: a rate limit of a listener, and the policies of a rule and of a service.
    `mirror` is the service that gets no copies."""
    return {
        "idle_limit": LIMIT,
        "idle_rule": "timeout: 30s, fault: {delay: {duration: 1s, percent: 0}, abort: {status: 503, percent: 0}}, "
                     f"mirror: {{to: {mirror}, percent: 0}}, rate_limit: {LIMIT}",
        "idle_service": f"retries: {{attempts: 2, per_try_timeout: 10s}}, rate_limit: {LIMIT}, "
                        "circuit_breaker: {max_requests: 1000, max_connections: 1000, max_pending_requests: 1000, "
                        "max_retries: 3}, outlier_detection: {consecutive_5xx: 5}",
    }
