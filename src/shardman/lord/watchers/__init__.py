"""Those who watch the cluster for one leadership: each looks, lets its policy (`lord/policies`) decide, and
acts. They know nothing of each other; `lord/daemon.py` wires them.

| | looks at | does |
| --- | --- | --- |
| `nodes` | whether workers answer | submits `failover` |
| `channels` | whether channels are what they must be, deliver, and confirm | submits `suspend_replicas` |
| `two_phases` | which channels have one phase | gives them two, for `channels` |
| `scrub` | whether replicas are equal to their primaries | submits `suspend_replicas` |
| `shared_scrub` | whether copies of shared tables are equal | puts rows right where most copies agree |
| `retention` | how much WAL slots keep | submits `suspend_replicas` |
| `standby_names` | for which channels commits on workers wait | puts the setting right |
| `lord_standby_names` | who streams the metadata | puts the lord's setting right |
| `followers` | whether workers follow this lord | subscribes them anew |
| `rebuild` | which tables lack replicas | submits `create_replica`, `set_replevel` |
| `reconciler` | whether nodes match the metadata | calls `shardman.reconcile()` on them |
| `client_transactions` | what clients have left prepared | ends it as its first node says |
| `deadlocks` | who waits for whom, over nodes | cancels the youngest transaction of a circle |
| `leftovers` | what commands could not finish | has the janitor try it |
"""
