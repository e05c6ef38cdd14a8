"""Progressive rollout: a canary gets more of the traffic as its evidence comes in, or goes.

`position` reads from Git where a rollout stands, a platform says how the canary fares (`platforms`,
`local`), `decide` says what follows, and `watch` commits it.
"""
